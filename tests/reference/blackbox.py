"""Black-box maps with one full forward for each picture and plain loops."""

import numpy as np
import torch

from tests.reference import gemma


def score_removed(vlm, model, picture, removed, cells, question, target):
    """s with some cells taken from the substrate picture."""
    kept = [cell not in cells for cell in range(vlm.n_cells)]
    composed = gemma.compose(picture.numpy(), removed.numpy(), kept, vlm.grid)
    return gemma.score(vlm, model, torch.from_numpy(composed), question, target)[0]


def windows(grid, window):
    """The cells of every window that holds at least one."""
    cell_lists = []
    for top in range(1 - window, grid[0]):
        for left in range(1 - window, grid[1]):
            cells = []
            for row in range(top, top + window):
                for column in range(left, left + window):
                    if 0 <= row < grid[0] and 0 <= column < grid[1]:
                        cells.append(row * grid[1] + column)
            cell_lists.append(cells)
    return cell_lists


def occlusion(grid, window, score):
    """`score(cells)` is s with those cells removed."""
    intact = score([])
    drops = [[] for _ in range(grid[0] * grid[1])]
    for cells in windows(grid, window):
        drop = intact - score(cells)
        for cell in cells:
            drops[cell].append(drop)
    return np.array([np.mean(values) for values in drops]).reshape(grid)


def rise(grid, masks, score):
    """Mean s over the masks that keep a cell minus the mean over those that remove it."""
    values = [score([cell for cell in range(len(mask)) if not mask[cell]]) for mask in masks]
    result = []
    for cell in range(grid[0] * grid[1]):
        kept = [s for s, mask in zip(values, masks, strict=True) if mask[cell]]
        removed = [s for s, mask in zip(values, masks, strict=True) if not mask[cell]]
        result.append(np.mean(kept) - np.mean(removed))
    return np.array(result).reshape(grid)


def smoothed_noise(grid, coarse, noise, shifts):
    """Bilinear interpolation of coarse noise at every cell, from the four corners."""
    result = np.zeros(grid)
    for row in range(grid[0]):
        for column in range(grid[1]):
            y = row * min(coarse, grid[0]) / grid[0] + shifts[0]
            x = column * min(coarse, grid[1]) / grid[1] + shifts[1]
            top, left = int(y), int(x)
            for i in (0, 1):
                for j in (0, 1):
                    weight = (1 - abs(y - top - i)) * (1 - abs(x - left - j))
                    result[row, column] += weight * noise[top + i, left + j]
    return result
