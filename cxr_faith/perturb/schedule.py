"""Which cells are removed at which step: counts, orders, seeded random streams and keep masks."""

import hashlib
import json
from typing import Literal

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def schedule(n_cells: int, steps: int) -> IntArray:
    """Number of cells changed at every step, `k_s = round_half_even(s * n_cells / steps)`, in exact integers.

    The schedule is symmetric, `k[T - s] = n_cells - k[s]`, so that an insertion curve is the mirror of the deletion
    curve of the reversed order.

    Args:
        n_cells: number N of cells of the grid.
        steps: number T of perturbation steps.

    Returns:
        int64 `[T + 1]`, from 0 to `n_cells`, strictly increasing. The abscissa is `k / n_cells`, not `s / T`.

    Raises:
        ValueError: if `steps` is not between 1 and `n_cells`, or is even while `n_cells` is odd (the middle step would
            have to take half a cell).

    Examples:
        >>> schedule(9, 5).tolist()
        [0, 2, 4, 5, 7, 9]
    """
    if n_cells < 1:
        raise ValueError(f"a grid needs at least one cell, got n_cells={n_cells}")
    if steps < 1:
        raise ValueError(f"a schedule needs at least one step, got steps={steps}")
    if steps > n_cells:
        raise ValueError(f"steps={steps} is more than the {n_cells} cells of the grid: use at most {n_cells} steps")
    if n_cells % 2 == 1 and steps % 2 == 0:
        raise ValueError(
            f"steps={steps} cannot split an odd number of cells ({n_cells}) symmetrically: "
            f"use {steps - 1} or {steps + 1} steps"
        )
    quotient, remainder = np.divmod(np.arange(steps + 1, dtype=np.int64) * n_cells, steps)
    tie_to_even = (2 * remainder == steps) & (quotient % 2 == 1)
    return np.asarray(quotient + ((2 * remainder > steps) | tie_to_even), dtype=np.int64)


def stream(seed: int, image_id: str, purpose: str, method: str | None = None) -> np.random.Generator:
    """Random generator of one image and purpose, the same on every rank and in every batch.

    The key is the image, not the sample, so all questions about an image get the same perturbed pictures.

    Args:
        seed: the run's seed.
        image_id: the manifest's image id.
        purpose: what is drawn, for example `orders`, `ties`, `noise`, `center`, `random_map`.
        method: the method's name, where every method needs a stream of its own.

    Returns:
        a PCG64 generator seeded by the BLAKE2 hash of the arguments.
    """
    return np.random.Generator(np.random.PCG64(stream_key(seed, image_id, purpose, method, bits=128)))


def stream_key(seed: int, image_id: str, purpose: str, method: str | None = None, bits: int = 64) -> int:
    """The number that seeds a stream, see `stream`; each number of bits gives keys of its own."""
    # JSON keeps the parts apart: ("ab", "c") and ("a", "bc") must not share a stream.
    key = json.dumps([int(seed), image_id, purpose, method]).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=bits // 8).digest(), "little")


def require_permutation(order: npt.ArrayLike, n_cells: int, name: str = "order") -> IntArray:
    """`order` as int64 `[n_cells]`, after a check that it holds every cell exactly once.

    Args:
        order: cell indices.
        n_cells: number of cells of the grid.
        name: what the error message calls the argument.

    Raises:
        ValueError: if the shape is not `[n_cells]`, the values are not integers, or a cell is missing or repeated.
    """
    array = np.asarray(order)
    if array.shape != (n_cells,):
        raise ValueError(f"{name} is not a permutation of {n_cells} cells: its shape is {list(array.shape)}")
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} is not a permutation of {n_cells} cells: its type is {array.dtype}, not an integer")
    missing = np.setdiff1d(np.arange(n_cells), array)
    if missing.size:
        raise ValueError(f"{name} is not a permutation of {n_cells} cells: cell {missing[0]} is missing")
    return array.astype(np.int64)


def saliency_order(values: npt.ArrayLike, tie_break: npt.ArrayLike) -> IntArray:
    """Cells from most to least salient; ties are in the order of `tie_break`.

    Args:
        values: saliency of every cell `[N]`, larger = more important.
        tie_break: a seeded permutation `[N]`; of two equal cells the one with the smaller entry comes first.

    Returns:
        a permutation of the cells, int64 `[N]`.

    Raises:
        ValueError: if `values` is not one finite number per cell or `tie_break` is not a permutation.

    Examples:
        >>> saliency_order([0.1, 0.9, 0.1], tie_break=[2, 1, 0]).tolist()
        [1, 2, 0]
    """
    saliency = np.asarray(values, dtype=np.float64)
    if saliency.ndim != 1:
        raise ValueError(f"saliency values must be one number per cell [N], got shape {list(saliency.shape)}")
    if not np.isfinite(saliency).all():
        raise ValueError(f"saliency values are not finite in {int((~np.isfinite(saliency)).sum())} cells")
    ties = require_permutation(tie_break, saliency.size, "tie_break")
    return np.lexsort((ties, -saliency)).astype(np.int64)


def random_orders(n_cells: int, count: int, rng: np.random.Generator) -> IntArray:
    """Random orders in antithetic pairs: row 2i + 1 is the reverse of row 2i.

    By the mirror identity, the pictures of a permutation's curves are those of its reverse, too, and the mean srg of a
    pair is exactly zero. The first rows do not depend on `count`.

    Args:
        n_cells: number N of cells.
        count: number R of orders, even.
        rng: the image's stream for the purpose `orders`.

    Returns:
        int64 `[R, N]`.

    Raises:
        ValueError: if `count` is not a positive even number.
    """
    if count < 2 or count % 2:
        raise ValueError(f"random orders come in reversed pairs: their number must be even and at least 2, got {count}")
    forward = np.stack([rng.permutation(n_cells) for _ in range(count // 2)])
    return np.stack([forward, forward[:, ::-1]], axis=1).reshape(count, n_cells).astype(np.int64)


def keep_masks(order: npt.ArrayLike, k: npt.ArrayLike, mode: Literal["deletion", "insertion"]) -> BoolArray:
    """Which cells show the original picture at every step of a curve.

    Args:
        order: permutation of the cells `[N]`, most salient first.
        k: number of cells changed at every step `[T + 1]`, from `schedule`.
        mode: `deletion` removes the first `k_s` cells of the order from the original, `insertion` puts them back into
            the substrate.

    Returns:
        bool `[T + 1, N]`, True where the original pixels stay.

    Raises:
        ValueError: if `order` is not a permutation, a count is outside `[0, N]`, or `mode` is unknown.
    """
    counts = np.asarray(k)
    cells = require_permutation(order, np.asarray(order).size)
    if counts.ndim != 1 or counts.size == 0 or counts.min() < 0 or counts.max() > cells.size:
        raise ValueError(f"k must hold counts between 0 and the {cells.size} cells of the order")
    if mode not in ("deletion", "insertion"):
        raise ValueError(f"mode must be 'deletion' or 'insertion', got {mode!r}")
    rank = np.empty_like(cells)
    rank[cells] = np.arange(cells.size)
    salient = rank < counts[:, None]
    return salient if mode == "insertion" else ~salient
