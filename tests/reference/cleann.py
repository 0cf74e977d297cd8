"""Independence tests one pair and one conditioning token at a time, and sets by brute force."""

import itertools
import math

import numpy as np
from scipy.stats import norm


def fisher_p_value(correlation, samples, given):
    """Two-sided p-value of Fisher's z."""
    if abs(correlation) >= 1:
        return 0.0
    z = math.sqrt(max(samples - given - 3, 1)) * abs(math.atanh(correlation))
    return 2 * norm.sf(z)


def graph(attention, samples, alpha):
    """Adjacency [S, S] of one head."""
    size = len(attention)
    r = np.eye(size)
    for i in range(size):
        for j in range(size):
            norms = math.sqrt(np.dot(attention[i], attention[i]) * np.dot(attention[j], attention[j]))
            r[i, j] = np.dot(attention[i], attention[j]) / norms
    first = np.zeros((size, size), bool)
    for i, j in itertools.permutations(range(size), 2):
        first[i, j] = fisher_p_value(r[i, j], samples, 0) < alpha
    edges = first.copy()
    for i, j in itertools.permutations(range(size), 2):
        for k in range(size):
            if k in (i, j) or not (first[i, k] or first[j, k]):
                continue
            partial = (r[i, j] - r[i, k] * r[j, k]) / math.sqrt((1 - r[i, k] ** 2) * (1 - r[j, k] ** 2))
            if fisher_p_value(partial, samples, 1) >= alpha:
                edges[i, j] = False
    return edges


def depths(edges, root, radius):
    """Breadth-first distances from a token, radius + 1 where farther."""
    depth_of, frontier = {root: 0}, [root]
    while frontier:
        node = frontier.pop(0)
        for other in range(len(edges)):
            if edges[node, other] and other not in depth_of:
                depth_of[other] = depth_of[node] + 1
                frontier.append(other)
    return [min(depth_of.get(node, radius + 1), radius + 1) for node in range(len(edges))]


def smallest_sets(n_cells, changes, largest=3):
    """Every set of the smallest size whose removal changes the answer."""
    for size in range(1, largest + 1):
        sets = [set(cells) for cells in itertools.combinations(range(n_cells), size) if changes(cells)]
        if sets:
            return sets
    return []


def soft_weights(attention, roots, columns, samples, alpha, radius):
    """Attention over depth of each image cell, summed over heads and the answer's positions, the largest 1."""
    total = np.zeros(len(columns))
    for head in attention:
        seen = head[: max(roots) + 1, : max(roots) + 1]
        edges = graph(seen, samples, alpha)
        for root in roots:
            depth = depths(edges, root, radius)
            for cell, column in enumerate(columns):
                if depth[column] <= radius:
                    total[cell] += head[root, column] / depth[column]
    return total / total.max() if total.max() > 0 else total
