"""Measures whether each answer uses its picture: its score with a blank one, with another patient's, and with none."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from cxr_faith.cases import Case
from cxr_faith.data.items import SampleItem
from cxr_faith.metrics.image_use import Stand, image_use
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.grounding import regions_of
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.perturb.whole_passes import score_pictures
from cxr_faith.records.rows import Row
from cxr_faith.run.predict import Reading
from cxr_faith.vlm.base import PictureScores
from cxr_faith.vlm.micro_batch import out_of_memory
from cxr_faith.vlm.text_only import score_text_only


def measure_use(engine: Engine, readings: Sequence[Reading], seed: int) -> None:
    """Fill in the image use of every case that can be scored and does not have it yet, and its regions.

    Args:
        engine: runs the model.
        readings: answered questions, each reading about one picture as it is.
        seed: the run's seed.
    """
    for reading in readings:
        asked = [(item, case) for item, case in zip(reading.items, reading.cases, strict=True) if _scorable(case)]
        for _, case in asked:
            masks = case.finding_cells, case.organ_cells
            case.regions = regions_of(*masks, reading.pixels, case.pictures, case.image_id, seed)
        missing = [(item, case) for item, case in asked if not case.image_use]
        if not missing:
            continue
        try:
            _measure(engine.showing(missing[0][1].pictures), reading.pixels, missing, seed)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise  # without memory for a single picture, the curves say so


def _scorable(case: Case) -> bool:
    return case.target is not None and not case.off_format


def _measure(engine: Engine, pixels: Tensor, asked: Sequence[tuple[SampleItem, Case]], seed: int) -> None:
    """The columns of each question about one picture."""
    vlm, first = engine.vlm, asked[0][1]
    # A mean adds in the order of the memory, in which a picture from a cache lies otherwise than a decoded one.
    blank = Substrate("mean").apply(pixels[None].contiguous(), [first.image_id], seed, first.pictures)[0]
    targets = [target for _, case in asked if (target := case.target) is not None]
    # The margin of a yes/no answer on the intact picture is known.
    pictures = [blank] if all(target.kind == "margin" for target in targets) else [blank, pixels]
    places, wanted = dict[str, int](), list[list[int]]()
    for (item, _), target in zip(asked, targets, strict=True):
        wanted.append([0] if target.kind == "margin" else [1, 0])
        if item.swap is not None:
            if item.swap.image_id not in places:
                places[item.swap.image_id] = len(pictures)
                pictures.append(vlm.normalize(item.swap.image[None].to(vlm.device))[0])
            wanted[-1].append(places[item.swap.image_id])
    scores = score_pictures(engine, pictures, [case.prompt for _, case in asked], targets, wanted)
    for (item, case), target, of_case in zip(asked, targets, scores, strict=True):
        stands = _stands(of_case)
        if target.kind == "margin":
            margin = target.sign * case.reply.margin
            stands.insert(0, Stand(margin, margin))
        alone = score_text_only(vlm, case.prompt, target, engine.batches.rows(1))
        case.image_use |= _columns(item, target.sign, stands, None if alone is None else _stands(alone)[0])


def _stands(scores: PictureScores) -> list[Stand]:
    pairs = zip(scores.s.tolist(), scores.standing.tolist(), strict=True)
    return [Stand(s, standing) for s, standing in pairs]


def _columns(item: SampleItem, sign: int, stands: Sequence[Stand], alone: Stand | None) -> Row:
    """The columns of one answer; the margin of a yes/no question is positive for yes.

    Args:
        item: its sample, with the picture that stood in.
        sign: -1 for a yes/no question that was answered with no, else 1.
        stands: on the intact picture, the blank one, and another patient's where there is one.
        alone: without a picture; None: it cannot be asked so.
    """
    intact, blank, *others = stands
    swapped = others[0] if others else None
    row: Row = {"image_use": image_use(intact, blank, swapped), "margin_blank": sign * blank.s}
    row["margin_no_picture"] = None if alone is None else sign * alone.s
    row["margin_swapped"] = None if swapped is None else sign * swapped.s
    if swapped is not None and item.swap is not None:
        row |= {"swapped_with": item.swap.image_id, "swap_opposite": item.swap.opposite}
    return row if np.isfinite(blank.s) else {}
