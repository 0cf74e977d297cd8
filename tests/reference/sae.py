"""The sparse autoencoder and its map, one patch and one feature at a time."""

import numpy as np


def activations(vector, weights, k):
    """Features of one vector [width]; `weights` are NumPy arrays by their names in the file."""
    centered = (vector - weights["mean"]) / weights["scale"]
    values = [
        max(0.0, sum(centered * weights["encoder"][:, f]) + weights["encoder_bias"][f])
        for f in range(weights["encoder"].shape[1])
    ]
    kept = sorted(range(len(values)), key=lambda f: -values[f])[:k]
    return np.array([value if f in kept else 0.0 for f, value in enumerate(values)])


def reconstruction(active, weights):
    total = np.zeros(weights["decoder"].shape[1])
    for feature, value in enumerate(active):
        total += value * weights["decoder"][feature]
    return total * weights["scale"] + weights["mean"]


def effects(stream, removed, gradient, weights, k, grid):
    """What each feature has more than in the substrate × the slope along it, summed over a cell's patches.

    Streams and gradient are [patches, width], the result [grid_h, grid_w, features].
    """
    side = int(len(stream) ** 0.5)
    result = np.zeros((*grid, weights["decoder"].shape[0]))
    for patch, (vector, slope) in enumerate(zip(stream, gradient, strict=True)):
        row, column = patch // side * grid[0] // side, patch % side * grid[1] // side
        active = activations(vector, weights, k) - activations(removed[patch], weights, k)
        for feature in np.flatnonzero(active):
            result[row, column, feature] += active[feature] * weights["scale"] * (weights["decoder"][feature] @ slope)
    return result
