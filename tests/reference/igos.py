"""The pieces of iGOS++ in plain loops: total variation, the loss, and its path direction by finite differences."""

import numpy as np
import torch


def upsample(cells, size):
    """Every pixel takes its cell's value: NumPy [grid_h, grid_w] to [H, W]."""
    result = np.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            result[row, column] = cells[row * cells.shape[0] // size[0], column * cells.shape[1] // size[1]]
    return result


def bilateral_tv(mask, cells):
    total = 0.0
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            for other in ((row + 1, column), (row, column + 1)):
                if other[0] < mask.shape[0] and other[1] < mask.shape[1]:
                    edge = (cells[row, column] - cells[other]) ** 2 / cells.var()
                    total += np.exp(-edge) * (mask[row, column] - mask[other]) ** 2
    return total / mask.size


def cell_means(picture, grid):
    """Mean over channels and pixels of each cell, [grid_h, grid_w]."""
    height, width = picture.shape[1] // grid[0], picture.shape[2] // grid[1]
    return np.array(
        [
            [picture[:, r * height : (r + 1) * height, c * width : (c + 1) * width].mean() for c in range(grid[1])]
            for r in range(grid[0])
        ]
    )


def score(vlm, picture, removed, keep, prompt, target):
    """s of one composed picture, through encode, prefill and score."""
    keep = upsample(keep, picture.shape[1:])
    pixels = torch.from_numpy(keep * picture + (1 - keep) * removed).float()
    with torch.no_grad():
        return float(vlm.score(vlm.prefill(vlm.encode(pixels[None])), prompt, target).s)


def loss(vlm, picture, removed, masks, prompt, target, weights, steps):
    """Mean of the score terms over the path, and the regularizer; weights: scale, area, shrinkage, smoothness."""
    scale, area, shrinkage, smoothness = weights
    x, y = masks
    total = 0.0
    for point in range(steps):
        alpha = (point + 1) / steps
        for sign, keep in ((1, alpha * x), (-1, 1 - alpha * y), (1, alpha * x * y), (-1, 1 - alpha * x * y)):
            total += sign * score(vlm, picture, removed, keep, prompt, target) / steps
    smooth = bilateral_tv(x * y, cell_means(picture, vlm.grid))
    gone = 1 - x * y
    return total / scale + area * np.abs(gone).mean() + shrinkage * (gone**2).mean() + smoothness * smooth


def slopes(vlm, picture, removed, masks, prompt, target, weights, steps, entries, h):
    """Central differences of the loss for some mask entries (which, row, column)."""
    result = []
    for entry in entries:
        values = []
        for sign in (1, -1):
            moved = masks.copy()
            moved[entry] += sign * h
            values.append(loss(vlm, picture, removed, moved, prompt, target, weights, steps))
        result.append((values[0] - values[1]) / (2 * h))
    return np.array(result)


def momentum(vlm, picture, removed, prompt, target, weights, iterations, steps, step, decay, h=1e-3):
    """Nesterov's method from full masks on: masks, and the loss before each step."""
    scale, area, shrinkage, smoothness = weights
    masks = before = np.ones((2, *vlm.grid))
    entries, history = list(np.ndindex(masks.shape)), []
    for iteration in range(iterations):
        now = scale, area, shrinkage * decay**iteration, smoothness
        settings = vlm, picture, removed, masks, prompt, target, now, steps
        history.append(loss(*settings))
        reached = np.clip(masks - step * slopes(*settings, entries, h).reshape(masks.shape), 0, 1)
        masks = np.clip(reached + iteration / (iteration + 3) * (reached - before), 0, 1)
        before = reached
    return masks, history


def line_search(vlm, picture, removed, prompt, target, weights, iterations, steps, h=1e-3):
    """Steepest descent from full masks on; each step shrinks until the loss falls enough, and is taken in any case."""
    masks = np.ones((2, *vlm.grid))
    entries, history = list(np.ndindex(masks.shape)), []
    for _ in range(iterations):
        history.append(loss(vlm, picture, removed, masks, prompt, target, weights, steps))
        slope = slopes(vlm, picture, removed, masks, prompt, target, weights, steps, entries, h).reshape(masks.shape)
        size, largest = 1.0, np.abs(slope).max()
        while True:
            moved = np.clip(masks - size / largest * slope, 0, 1)
            enough = history[-1] - 1e-4 * size / largest * (slope**2).sum()
            if loss(vlm, picture, removed, moved, prompt, target, weights, steps) <= enough or size <= 1e-5:
                break
            size *= 0.2
        masks = moved
    return masks, history
