"""Measures how sure maps are: each is made again for copies of the picture."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from cxr_faith.attribution import Method
from cxr_faith.attribution.baselines import CONTROLS
from cxr_faith.attribution.map_file import MapFile
from cxr_faith.cases import Case, compute_maps
from cxr_faith.metrics.uncertainty import spread, stable_share
from cxr_faith.perturb.copies import Copies
from cxr_faith.vlm.base import VLM
from cxr_faith.vlm.micro_batch import MicroBatch

SPREAD = "map_std"
"""Standard deviation of each cell over the copies, float32 [grid_h, grid_w]; among the extras of a map."""
STABLE = "stable_share"
"""Share of the cells whose rank is stable; beside it."""


def measure_spread(
    vlm: VLM,
    methods: Mapping[str, Method],
    pixels: Tensor,
    case: Case,
    image_ids: Sequence[str],
    seed: int,
    copies: Copies | None,
    known: Collection[str] = (),
    micro_batch: MicroBatch | None = None,
) -> None:
    """Put `SPREAD` and `STABLE` beside each map of a case; the score that is explained stays that of the picture.

    Controls and maps from files have none: they do not see the model. Nor has a map that compares the picture with its
    pair, to which every noisy cell would be a difference, nor one that fails on one of the copies.

    Args:
        vlm: the model.
        methods: name → method.
        pixels: the picture [3, H, W].
        case: a question with its maps.
        image_ids: ids of its pictures.
        seed: the run's seed.
        copies: what the copies are; None: nothing is measured.
        known: names of maps that are left as they are.
        micro_batch: as for `compute_maps`.
    """
    if copies is None:
        return
    chosen = {
        name: method
        for name, method in methods.items()
        if name in case.maps and name not in known and _varies(method, case)
    }
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in chosen}
    for picture, own_seed in copies.of(pixels, image_ids, seed) if chosen else ():
        copy = replace(case, maps={}, extras={}, sequences={}, costs={}, failed={})
        compute_maps(vlm, chosen, [picture], [copy], own_seed, False, forgive=True, micro_batch=micro_batch)
        for name, values in copy.maps.items():
            drawn[name].append(values.ravel())
    for name, maps in drawn.items():
        if len(maps) == copies.copies and np.isfinite(maps).all():
            deviation = spread(maps).reshape(case.maps[name].shape).astype(np.float32)
            case.extras[name] = {**case.extras.get(name, {}), SPREAD: deviation, STABLE: stable_share(maps)}


def _varies(method: Method, case: Case) -> bool:
    """Whether copies of the picture tell how sure a method's map is."""
    return not isinstance(method, (*CONTROLS, MapFile)) and not (method.uses_pair and case.pair is not None)
