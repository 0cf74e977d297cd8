"""Methods made of others, or of many measured effects, from their definitions: recursion and plain loops."""

import numpy as np
import torch

from tests.reference import attribution, gemma


def mean_ranks(maps):
    """Ensemble of maps [grid_h, grid_w]: the share of other cells that are lower, ties as one half."""
    cells = [(row, column) for row in range(maps[0].shape[0]) for column in range(maps[0].shape[1])]
    result = np.zeros(maps[0].shape)
    for one in maps:
        for cell in cells:
            others = [one[other] for other in cells if other != cell]
            below = sum(value < one[cell] for value in others) + sum(value == one[cell] for value in others) / 2
            result[cell] += below / len(others) / len(maps)
    return result


def attention_without_sinks(vlm, model, picture, question, target, factor):
    """Mean over heads, layers and tokens of the attention on the image, 0 on the sinks of a layer; and the sinks."""
    blank = torch.stack([torch.full_like(channel, float(channel.mean())) for channel in picture])
    shown = []
    for one in (picture, blank):
        tokens = attribution.image_tokens(model, one)
        _, attentions, rows, where = attribution.run(vlm, model, tokens, question, target)
        heads = [attention[0].detach().double().numpy().mean(0) for attention in attentions]
        shown.append([[np.mean([mean[row, token] for row in rows]) for token in where] for mean in heads])
    total, sinks = np.zeros(vlm.n_cells), []
    for intact, without in zip(*shown, strict=True):
        median = sorted(without)[(len(without) - 1) // 2]
        sinks.append([value > factor * median for value in without])
        for token in range(vlm.n_cells):
            if not sinks[-1][token]:
                total[token] += intact[token] / len(shown[0])
    return total.reshape(vlm.grid), np.array(sinks)


def blocks(top, left, bottom, right, side, grid, effect, whole, tolerance, own):
    """Blocks that stay whole, as (cells, effect), of the rectangle of cells; `side` blocks lie along each axis."""
    cells = [(row, column) for row in range(top, bottom) for column in range(left, right)]
    if len(cells) == 1:
        return [(cells, own)]
    parts = []
    for y in range(2 * side):
        for x in range(2 * side):
            corner = [y * grid[0] // (2 * side), x * grid[1] // (2 * side)]
            corner += [(y + 1) * grid[0] // (2 * side), (x + 1) * grid[1] // (2 * side)]
            inside = top <= corner[0] < corner[2] <= bottom and left <= corner[1] < corner[3] <= right
            if inside:
                parts.append(corner)
    if len(parts) == 1:
        return blocks(*parts[0], 2 * side, grid, effect, whole, tolerance, own)
    effects = [effect([(row, column) for row in range(t, b) for column in range(le, r)]) for t, le, b, r in parts]
    if max(effects) - min(effects) <= tolerance * abs(whole):
        return [(cells, own)]
    finer = []
    for part, value in zip(parts, effects, strict=True):
        finer += blocks(*part, 2 * side, grid, effect, whole, tolerance, value)
    return finer


def multi_scale(inner, effect, tolerance):
    """Map from the inner map [grid_h, grid_w]; `effect(cells)` is s(intact) - s(cells removed)."""
    grid = inner.shape
    whole = effect([(row, column) for row in range(grid[0]) for column in range(grid[1])])
    result = np.zeros(grid)
    for cells, value in blocks(0, 0, *grid, 1, grid, effect, whole, tolerance, whole):
        ranks = []
        for cell in cells:
            ranks.append(
                1 + sum(inner[o] < inner[cell] for o in cells) + sum(inner[o] == inner[cell] for o in cells) / 2
            )
        ranks = [rank - 0.5 for rank in ranks]
        if value < 0:
            ranks = [len(cells) + 1 - rank for rank in ranks]
        for cell, rank in zip(cells, ranks, strict=True):
            result[cell] = value * rank / sum(ranks)
    return result


def eagle(labels, order, score, budget):
    """Value of each region; `score(kept cells)` is s; `order` settles ties."""
    cells = range(len(labels))
    left, taken, values = list(order), [], {}
    while len(left) > 1 and 2 * len(left) <= budget:
        gains = []
        for region in left:
            shown = [cell for cell in cells if labels[cell] in (*taken, region)]
            gains.append(score(shown) - score([cell for cell in cells if cell not in shown]))
        if len(set(gains)) == 1:
            return values | dict.fromkeys(left, len(left))
        budget -= 2 * len(left)
        ranked = sorted(range(len(left)), key=lambda place: -gains[place])
        for place, best in enumerate(ranked):
            values[left[best]] = len(left) - place
        taken.append(left[ranked[0]])
        left.remove(taken[-1])
    return values


def superpixels(levels, rows, columns, compactness, rounds):
    """k-means on position and gray level, from a grid of seeds, one cell after another."""
    height, width = levels.shape
    spacing = (height * width / (rows * columns)) ** 0.5
    spread = levels.std() or 1.0
    points, labels = {}, {}
    for y in range(height):
        for x in range(width):
            gray = (levels[y, x] - levels.mean()) / spread
            points[y, x] = np.array([compactness * y / spacing, compactness * x / spacing, gray])
            labels[y, x] = (y * rows // height) * columns + x * columns // width
    for _ in range(rounds):
        centers = {}
        for number in sorted(set(labels.values())):
            centers[number] = np.mean([points[cell] for cell in points if labels[cell] == number], axis=0)
        for cell in points:
            labels[cell] = min(centers, key=lambda number: ((points[cell] - centers[number]) ** 2).sum())
    return np.array([[labels[y, x] for x in range(width)] for y in range(height)])


def answer_map(vlm, model, picture, question, bands, sign):
    """Product over bands of the outer product of p(yes), or p(no) for sign -1."""
    result = np.ones(vlm.grid)
    for count in bands:
        for axis, direction in enumerate(("horizontal", "vertical")):
            edge = ("top", "left")[axis]
            for number in range(count):
                text = f"{question} in band {number + 1} of {count} equal {direction} bands of the image, "
                margin = gemma.margin(vlm, gemma.all_logits(vlm, model, picture, f"{text}counted from the {edge}?")[-1])
                share = 1 / (1 + np.exp(-sign * margin))
                for cell in np.ndindex(vlm.grid):
                    if number <= (cell[axis] + 0.5) * count / vlm.grid[axis] < number + 1:
                        result[cell] *= share
    return result
