"""A pool of rendered training pictures: pixels at the model's size, and lesions as shares of grid cells.

Chest pictures are rendered at the size of a data set's files and resized as the processor does, so training sees what
evaluation sees. Lesion masks are stored per cell of the model's grid: cells are removed as a whole, so the labels need
only the lesion's area in each cell.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from architecture import GRID, IMAGE_SIZE
from numpy.typing import NDArray
from PIL import Image

from cxr_faith.data.sources import phantom, phantom_shapes

SEED = 7_000_000
FILE_SIZE = (256, 288)
CHUNK = 64


@dataclass
class Chunk:
    """Some rendered pictures.

    Attributes:
        images: uint8 [n, side, side] for chests, [n, side, side, 3] for color pictures.
        areas: for each picture, name of the lesion (`nodule/left`) or region to its cell shares, float16 [grid, grid].
        specs: the phantoms or color pictures themselves.
    """

    images: NDArray[np.uint8]
    areas: list[dict[str, NDArray[np.float16]]]
    specs: list[phantom.Phantom] | list[phantom_shapes.ShapePicture]


def cell_shares(mask: NDArray[np.bool_], grid: int = GRID) -> NDArray[np.float16]:
    """Share of each grid cell [grid, grid] that a mask [H, W] covers."""
    whole = Image.fromarray(mask.astype(np.uint8) * 255).resize((grid * 6, grid * 6), Image.Resampling.BOX)
    return (np.asarray(whole, np.float32).reshape(grid, 6, grid, 6).mean((1, 3)) / 255.0).astype(np.float16)


def chest_chunk(index: int) -> Chunk:
    """Chest pictures number `index * CHUNK` and up."""
    specs = [phantom.sample_phantom(f"train-{index * CHUNK + i}", SEED) for i in range(CHUNK)]
    pictures, masks = phantom.render(specs, FILE_SIZE)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    images = np.stack([np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BILINEAR)) for p in pictures])
    areas = []
    for i, spec in enumerate(specs):
        names = {f"{p.finding}/{p.side}" if p.side else p.finding for p in spec.lesions} | {"heart"}
        areas.append({name: cell_shares(masks[name][i]) for name in sorted(names)})
    return Chunk(images, areas, specs)


def shape_chunk(index: int) -> Chunk:
    """Color and shape pictures number `index * CHUNK` and up."""
    specs = [phantom_shapes.sample_shape(f"train-{index * CHUNK + i}", SEED) for i in range(CHUNK)]
    images, masks = phantom_shapes.render_shapes(specs, (IMAGE_SIZE, IMAGE_SIZE))
    return Chunk(images, [{name: cell_shares(m) for name, m in regions.items()} for regions in masks], specs)


def build_pool(folder: Path, chests: int, shapes: int, workers: int) -> tuple[list[Chunk], list[Chunk]]:
    """Load the pool from `folder`; chunks that are missing are rendered first, in parallel.

    Args:
        folder: folder that keeps rendered chunks between runs.
        chests: number of chest pictures.
        shapes: number of color and shape pictures.
        workers: number of processes.

    Returns:
        chunks of chest pictures and chunks of color pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts = {"chest": chests // CHUNK, "shape": shapes // CHUNK}
    paths = {kind: [folder / f"{kind}-{i}.npy" for i in range(count)] for kind, count in counts.items()}
    missing = [(path, kind, i) for kind in paths for i, path in enumerate(paths[kind]) if not path.exists()]
    if missing:
        with multiprocessing.get_context("spawn").Pool(workers) as processes:
            processes.starmap(_render, missing, chunksize=2)
    loaded = {kind: [np.load(path, allow_pickle=True)[0] for path in paths[kind]] for kind in paths}
    return loaded["chest"], loaded["shape"]


def _render(path: Path, kind: str, index: int) -> None:
    """Render one chunk to disk."""
    chunk = chest_chunk(index) if kind == "chest" else shape_chunk(index)
    fresh = path.with_suffix(".part.npy")
    np.save(fresh, np.array([chunk], dtype=object), allow_pickle=True)
    fresh.replace(path)
