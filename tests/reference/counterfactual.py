"""The smallest edit that changes an answer, by plain loops."""


def edited_score(vlm, pixels, edited, cells, prompt, target):
    """The standing of an answer when some cells come from another picture."""
    picture = pixels.clone()
    height, width = (side // cells_along for side, cells_along in zip(pixels.shape[1:], vlm.grid, strict=True))
    for cell in cells:
        row, column = divmod(int(cell), vlm.grid[1])
        for y in range(row * height, (row + 1) * height):
            for x in range(column * width, (column + 1) * width):
                picture[:, y, x] = edited[:, y, x]
    return float(vlm.score(vlm.prefill(vlm.encode(picture[None])), prompt, target).standing[0])


def greedy_edit(candidates, standing, steps):
    """Cells in the order of the search, up to the one that changes the answer."""
    cells = []
    while len(cells) < min(steps, len(candidates)) and standing(cells) >= 0:
        left = [cell for cell in candidates if cell not in cells]
        cells.append(min(left, key=lambda cell: standing([*cells, cell])))
    return cells


def is_minimal(cells, standing):
    """Whether the edit changes the answer, and no longer does when any one of its cells is put back."""
    return standing(cells) < 0 and all(standing([c for c in cells if c != back]) >= 0 for back in cells)
