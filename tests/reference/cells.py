"""Mean of a map over each cell of another grid, by cutting every value into parts that lie in one cell each."""

import numpy as np


def cell_means(values, grid):
    height, width = values.shape
    parts = np.kron(values, np.ones(grid))  # each value as grid_h × grid_w parts
    means = np.empty(grid)
    for row in range(grid[0]):
        for column in range(grid[1]):
            block = parts[row * height : (row + 1) * height, column * width : (column + 1) * width]
            means[row, column] = block.sum() / block.size
    return means
