"""Maps that were made elsewhere, one file for each sample."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method
from cxr_faith.data.geometry import cell_shares
from cxr_faith.vlm.base import VLM, Target


class MapFile(Method):
    """Maps of your own: files `<sample_id>.npy` in a folder.

    Args:
        path: the folder. A file holds float [grid_h, grid_w], or [H, W] over the whole picture, whose means over each
            cell are taken; larger = more important for the answer that this model gives.

    Raises:
        ValueError: there is no such folder, or it holds no such file.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise ValueError(f"{path}: no such folder of maps")
        self.weights = _hash_of(self.path)

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """The maps of the samples, which no target changes; see `Method.attribute`.

        Raises:
            ValueError: a sample without a file, or a file that holds no map for this model.
        """
        if not batch.sample_ids:
            raise ValueError("maps from files belong to the samples of a manifest: for one picture, use evaluate_map")
        maps = np.stack([self._map(name, vlm.grid) for name in batch.sample_ids])
        return Attribution(torch.from_numpy(maps).to(vlm.device))

    def _map(self, sample_id: str, grid: tuple[int, int]) -> NDArray[np.float32]:
        file = self.path / f"{sample_id}.npy"
        if file.resolve().parent != self.path.resolve() or not file.is_file():
            raise ValueError(f"{file}: file not found")
        try:
            values = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{file}: cannot be read as an array: {error}") from error
        return cell_map(values, grid, str(file))


def cell_map(values: ArrayLike, grid: tuple[int, int], name: str) -> NDArray[np.float32]:
    """A map on the cells of the model's grid, float32 [grid_h, grid_w].

    Args:
        values: [grid_h, grid_w], or [H, W] with one value or more for each cell, whose means over the area of each cell
            are taken; axes of length 1 before these two are dropped.
        grid: (grid_h, grid_w).
        name: what the message calls the map.

    Raises:
        ValueError: another shape, or values that are not finite numbers.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: a map holds numbers: {error}") from error
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.shape[0] < grid[0] or array.shape[1] < grid[1]:
        raise ValueError(
            f"{name}: a map has one value for each of the {grid[0]} × {grid[1]} cells or more (sum it over channels "
            f"first), got shape {list(np.shape(values))}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: the map has values that are not finite")
    if array.shape == grid:
        return array.astype(np.float32)
    rows, columns = (cell_shares(cells, size).numpy() for cells, size in zip(grid, array.shape, strict=True))
    means: NDArray[np.float32] = (rows @ array @ columns.T).astype(np.float32)
    return means


def _hash_of(folder: Path) -> str:
    """Hash of the names and contents of a folder's arrays, so that a run is not continued with other maps.

    Raises:
        ValueError: it holds none.
    """
    digest, files = hashlib.blake2b(digest_size=16), sorted(folder.glob("*.npy"))
    if not files:
        raise ValueError(f"{folder}: holds no map (<sample_id>.npy)")
    for file in files:
        digest.update(f"{len(file.name)} {file.name}".encode())
        digest.update(hashlib.blake2b(file.read_bytes()).digest())
    return digest.hexdigest()
