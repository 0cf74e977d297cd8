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


def loss(vlm, picture, removed, masks, prompt, target, scale, area, smoothness, alphas=(1.0,)):
    """Mean over alphas of the score terms, and the regularizer."""
    x, y = masks
    total = 0.0
    for alpha in alphas:
        for sign, keep in ((1, x), (-1, 1 - y), (1, x * y), (-1, 1 - x * y)):
            total += sign * score(vlm, picture, removed, alpha * keep, prompt, target) / len(alphas)
    smooth = bilateral_tv(x * y, cell_means(picture, vlm.grid))
    return total / scale + area * np.abs(1 - x * y).mean() + smoothness * smooth


def direction(vlm, picture, removed, masks, prompt, target, scale, area, smoothness, steps, entries, h):
    """Central differences of the path loss for some mask entries (which, row, column)."""
    alphas = [(point + 1) / steps for point in range(steps)]
    slopes = []
    for entry in entries:
        values = []
        for sign in (1, -1):
            moved = masks.copy()
            moved[entry] += sign * h
            values.append(loss(vlm, picture, removed, moved, prompt, target, scale, area, smoothness, alphas))
        slopes.append((values[0] - values[1]) / (2 * h))
    return np.array(slopes)


def optimize(vlm, picture, removed, prompt, target, scale, area, smoothness, iterations, steps, h=1e-3):
    """Masks and losses from full masks on: steps down the path's slope, each halved until the loss falls."""
    settings = vlm, picture, removed
    masks = np.ones((2, *vlm.grid))
    history = [loss(*settings, masks, prompt, target, scale, area, smoothness)]
    entries = list(np.ndindex(masks.shape))
    for _ in range(iterations):
        slopes = direction(*settings, masks, prompt, target, scale, area, smoothness, steps, entries, h)
        largest = np.abs(slopes).max()
        if largest == 0:
            break
        for size in (0.5, 0.25, 0.125, 0.0625, 0.03125):
            moved = masks.copy()
            for entry, slope in zip(entries, slopes, strict=True):
                moved[entry] = min(max(masks[entry] - size * slope / largest, 0.0), 1.0)
            reached = loss(*settings, moved, prompt, target, scale, area, smoothness)
            if reached < history[-1]:
                break
        else:
            break
        masks = moved
        history.append(reached)
    return masks, history
