"""Localization, regions and agreement, pixel by pixel and cell by cell."""

import numpy as np


def upsampled(saliency, shape):
    """Nearest neighbor, one pixel at a time."""
    rows, columns = saliency.shape
    result = np.zeros(shape)
    for y in range(shape[0]):
        for x in range(shape[1]):
            result[y, x] = saliency[y * rows // shape[0], x * columns // shape[1]]
    return result


def iou(chosen, mask):
    return (chosen & mask).sum() / (chosen | mask).sum()


def otsu_threshold(image, bins=256):
    """The bin center that leaves the largest variance between the two sides."""
    counts, edges = np.histogram(image, bins)
    centers = (edges[1:] + edges[:-1]) / 2
    best, where = -1.0, None
    for cut in range(bins - 1):
        low, high = counts[: cut + 1], counts[cut + 1 :]
        if low.sum() and high.sum():
            means = (low * centers[: cut + 1]).sum() / low.sum(), (high * centers[cut + 1 :]).sum() / high.sum()
            between = low.sum() * high.sum() * (means[0] - means[1]) ** 2
            if between > best * (1 + 1e-12):
                best, where = between, centers[cut]
    return where


def region(row, column, grid):
    """Share of the cell that lies on the patient's right, and its third of the height."""
    x, y = (column + 0.5) / grid[1], (row + 0.5) / grid[0]
    return 0.5 if abs(x - 0.5) < 1e-9 else float(x < 0.5), 0 if y < 1 / 3 else 1 if y < 2 / 3 else 2


def ssim(a, b, window=5):
    """Wang et al. 2004 with a uniform window and reflected borders, on maps scaled to [0, 1]."""
    a, b = ((m - m.min()) / (m.max() - m.min()) for m in (a, b))
    half = window // 2
    pa, pb = (np.pad(m, half, mode="reflect") for m in (a, b))
    values = []
    for y in range(a.shape[0]):
        for x in range(a.shape[1]):
            u, v = pa[y : y + window, x : x + window], pb[y : y + window, x : x + window]
            cov = (u * v).mean() - u.mean() * v.mean()
            top = (2 * u.mean() * v.mean() + 0.01**2) * (2 * cov + 0.03**2)
            values.append(top / ((u.mean() ** 2 + v.mean() ** 2 + 0.01**2) * (u.var() + v.var() + 0.03**2)))
    return np.mean(values)


def components(chosen):
    """Sets of cells that touch, by flood fill, in the order of their first cell, row by row."""
    left, groups = {(int(y), int(x)) for y, x in np.argwhere(chosen)}, []
    while left:
        start = min(left)
        group, edge = {start}, [start]
        while edge:
            y, x = edge.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left - group
            group |= near
            edge += near
        groups.append(group)
        left -= group
    return groups


def box_of(cells):
    rows, columns = zip(*cells, strict=True)
    return min(rows), min(columns), max(rows) + 1, max(columns) + 1


def box_protocol(saliency, truth, n_boxes):
    """IoU, precision, recall and F1 of `box_iou_q90`, every pixel looked at; one picture."""
    positive = np.where(saliency > 0, saliency, 0.0)
    values = sorted(positive.ravel())
    place = 0.9 * (len(values) - 1)  # between two values: a straight line
    low, high = values[int(np.floor(place))], values[int(np.ceil(place))]
    threshold = low + (high - low) * (place - np.floor(place))
    groups = components((positive > 0) & (positive >= threshold))
    groups = sorted(groups, key=len, reverse=True)[:n_boxes]  # sorting keeps the order of equal ones
    drawn = np.zeros(saliency.shape)
    for top, left, bottom, right in map(box_of, groups):
        drawn[top:bottom, left:right] = 1
    pixels = upsampled(drawn, truth.shape) > 0
    precision, recall = (pixels & truth).sum() / pixels.sum(), (pixels & truth).sum() / truth.sum()
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return iou(pixels, truth), precision, recall, f1
