"""Merging readers' boxes the slow way: overlaps are counted in pixels, clusters are lists that are averaged anew."""

import numpy as np

SIDE = 64


def drawn(box: tuple[int, ...]) -> np.ndarray:
    """A box of whole pixels as a picture [SIDE, SIDE], every pixel divided into 4 × 4 to hold means of few boxes."""
    picture = np.zeros((SIDE * 4, SIDE * 4), dtype=bool)
    x1, y1, x2, y2 = (round(corner * 4) for corner in box)
    picture[y1:y2, x1:x2] = True
    return picture


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union, counted."""
    one, other = drawn(a), drawn(b)
    return (one & other).sum() / (one | other).sum()


def merge(boxes: list[tuple[float, ...]], iou: float) -> list[tuple[float, ...]]:
    """Largest first; join the cluster whose mean overlaps most, or start a new one."""
    clusters: list[list[tuple[float, ...]]] = []
    for box in sorted(boxes, key=lambda b: -drawn(b).sum()):
        means = [tuple(np.mean(cluster, axis=0)) for cluster in clusters]
        overlaps = [overlap(mean, box) for mean in means]
        if overlaps and max(overlaps) >= iou:
            clusters[int(np.argmax(overlaps))].append(box)
        else:
            clusters.append([box])
    return [tuple(float(c) for c in np.mean(cluster, axis=0)) for cluster in clusters]
