"""The rows of the records: what was asked, what the model answered, and what a map is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxr_faith.data.sample import OPTION, YES_NO, Sample
from cxr_faith.metrics.regions import enrichment, mass_shares, picture_shares
from cxr_faith.records.schema import RECORD_SCHEMA, sample_columns
from cxr_faith.vlm.answers import is_mismatch, predicted_answer
from cxr_faith.vlm.base import Reply
from cxr_faith.vlm.matching import CORRECT, NOT_PARSED, WRONG, judge

Row = dict[str, Any]
"""Columns of a record by name, as in `RECORD_SCHEMA`; columns left out are null."""


def question_columns(sample: Sample, space: str, target: str | int) -> Row:
    """Columns that all records of a sample share, whatever the model answers."""
    more = {"present": is_present(sample), "turn": len(sample.turns), "space": space, "target": str(target)}
    return sample_columns(sample) | more


def answer_columns(sample: Sample, kind: str, reply: Reply) -> Row:
    """Columns of the model's answer.

    Args:
        sample: for its reference.
        kind: `yes_no`, `choice`, `open` or `option`, as stated or as decided from the answer.
        reply: the answer on the intact picture.
    """
    predicted = predicted_answer(reply, kind)
    verdict = judge(predicted, sample.answer, sample.question)
    if kind == OPTION and verdict is not None:  # a letter needs no reading
        verdict = CORRECT if sample.answer == (predicted,) else WRONG
    row: Row = {
        "kind": kind,
        "predicted": predicted,
        "generated": reply.text,
        "answer_tokens": reply.token_ids,
        "answer_mismatch": is_mismatch(reply, kind),
        "correct": None if verdict in (None, NOT_PARSED) else verdict == CORRECT,
        "not_parsed": None if verdict is None else verdict == NOT_PARSED,
    }
    if kind == YES_NO:
        p_yes = float(torch.tensor(reply.margin, dtype=torch.float64).sigmoid())
        row |= {"yes_no_mass": reply.yes_no_mass, "margin": reply.margin, "p_yes": p_yes}
    if kind == OPTION:
        row |= {"option_probs": reply.option_probs, "option_mass": reply.option_mass}
    return row


def map_columns(
    saliency: np.ndarray,
    organs: Mapping[str, Tensor],
    extras: Mapping[str, Any],
    costs: Mapping[str, float | None],
    pictures: int = 1,
) -> Row:
    """Columns of one method's map.

    Args:
        saliency: [grid_h, grid_w].
        organs: label → share of each cell that the organ covers [grid_h, grid_w].
        extras: what the method gave beside the map; only what the records have a column for is kept.
        costs: forwards, backwards, seconds and peak memory.
        pictures: number of pictures on the map, one below the other.
    """
    row: Row = {"map": saliency.ravel()} | grid_columns((saliency.shape[0] // pictures, saliency.shape[1]), pictures)
    if pictures > 1:
        row["picture_shares"] = picture_shares(saliency, pictures)
    row["anatomy"] = organ_shares(saliency, organs)
    kept = {name: value for name, value in extras.items() if name in RECORD_SCHEMA.names}
    return row | dict(costs) | kept


def grid_columns(grid: tuple[int, int], pictures: int) -> Row:
    """Columns of a map's size: `grids` of all pictures, and `grid_h` and `grid_w` where there is one alone."""
    row: Row = {"grids": [{"h": grid[0], "w": grid[1]}] * pictures}
    return row | ({"grid_h": grid[0], "grid_w": grid[1]} if pictures == 1 else {})


def failed_rows(common: Row, names: Mapping[str, Sequence[str]], status: str, reason: str) -> list[Row]:
    """Rows of a sample that cannot be scored: one for each map and substrate, all with the reason.

    Args:
        common: the columns of the sample.
        names: substrate → names of the maps.
        status: `invalid` or `off_format`.
        reason: one line for people.
    """
    common = common | {"status": status, "reason": reason, "own_substrate": False}
    return [common | {"method": name, "substrate": spec} for spec, listed in names.items() for name in listed]


def organ_shares(saliency: np.ndarray, organs: Mapping[str, Tensor]) -> list[Row]:
    """The `anatomy` column of one map: share of its positive mass on each organ, and its enrichment there.

    Args:
        saliency: [grid_h, grid_w].
        organs: label → share of each cell that the organ covers [grid_h, grid_w].

    Returns:
        `label`, `share` and `enrichment` for each organ; empty for a map that is not finite, and without the organs
        on which enrichment is undefined.
    """
    if not organs or not np.isfinite(saliency).all():
        return []
    weights = np.stack([share.double().cpu().numpy() for share in organs.values()])
    shares = mass_shares(saliency, weights)
    ratios = enrichment(shares, weights)
    return [
        {"label": label, "share": float(share), "enrichment": float(ratio)}
        for label, share, ratio in zip(organs, shares, ratios, strict=True)
        if np.isfinite(ratio)
    ]


def is_present(sample: Sample) -> bool | None:
    """Whether the reference says that the finding is present; None where it does not say."""
    if not sample.finding:
        return None
    if sample.kind == YES_NO and sample.answer:
        return sample.answer[0].casefold() == "yes"
    return True if sample.finding_mask_path or sample.boxes else None
