"""Measures how sure maps are: each is made again for copies of the picture, or for other wordings of the question."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
from torch import Tensor

from cxr_faith.attribution import Method
from cxr_faith.attribution.baselines import CONTROLS
from cxr_faith.attribution.map_file import MapFile
from cxr_faith.cases import Case, compute_maps
from cxr_faith.metrics.uncertainty import spread, stable_share
from cxr_faith.perturb.copies import PARAPHRASE, Copies
from cxr_faith.vlm.base import VLM, Prompt
from cxr_faith.vlm.errors import PromptError
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
    paraphrases: Sequence[str] = (),
) -> None:
    """Put `SPREAD` and `STABLE` beside each map of a case; the score that is explained stays that of the picture.

    Controls and maps from files have none: they do not see the model. Nor has a map that compares the picture with its
    pair, to which every noisy cell would be a difference, nor one that fails on one of the copies. Without a paraphrase
    that can be asked there is no spread over paraphrases.

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
        paraphrases: of the question, in the manifest.
    """
    if copies is None:
        return
    chosen = {
        name: method
        for name, method in methods.items()
        if name in case.maps and name not in known and _varies(method, case)
    }
    # The question itself is one of its wordings; of its noisy copies the picture is none.
    worded = copies.source == PARAPHRASE
    drawn = {name: [case.maps[name].ravel()] if worded else [] for name in chosen}
    made = _copied(vlm, case, copies, pixels, image_ids, seed, paraphrases) if chosen else ()
    n_maps = int(worded)
    for prompt, picture, own_seed in made:
        n_maps += 1
        copy = replace(case, prompt=prompt, maps={}, extras={}, sequences={}, costs={}, failed={})
        compute_maps(vlm, chosen, [picture], [copy], own_seed, False, forgive=True, micro_batch=micro_batch)
        for name, values in copy.maps.items():
            drawn[name].append(values.ravel())
    for name, maps in drawn.items():
        if len(maps) == n_maps > 1 and np.isfinite(maps).all():
            deviation = spread(maps).reshape(case.maps[name].shape).astype(np.float32)
            case.extras[name] = {**case.extras.get(name, {}), SPREAD: deviation, STABLE: stable_share(maps)}


def _copied(
    vlm: VLM,
    case: Case,
    copies: Copies,
    pixels: Tensor,
    image_ids: Sequence[str],
    seed: int,
    paraphrases: Sequence[str],
) -> Iterator[tuple[Prompt, Tensor, int]]:
    """Prompt, picture and seed of each copy; a wording that cannot be asked is left out."""
    shown = vlm.showing(case.pictures)
    for picture, own_seed in copies.of(pixels, image_ids, seed, shown.picture_grid):
        yield case.prompt, picture, own_seed
    # A thought belongs to the words that it was given.
    for text in copies.worded(case.prompt.question, paraphrases) if case.prompt.thought is None else ():
        with suppress(PromptError):
            yield shown.prompt(text, len(case.prompt.letters), case.prompt.turns), pixels, seed


def _varies(method: Method, case: Case) -> bool:
    """Whether copies of the picture tell how sure a method's map is."""
    return not isinstance(method, (*CONTROLS, MapFile)) and not (method.uses_pair and case.pair is not None)
