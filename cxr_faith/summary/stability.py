"""Do answers and maps survive another wording, a small change of the picture, another seed? From the records alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cxr_faith.metrics.agreement import spearman
from cxr_faith.perturb.condition import NONE
from cxr_faith.summary.mean_scores import Floats, numbers
from cxr_faith.summary.panels import maps_of
from cxr_faith.summary.significance import DIGITS

_ANSWER = ["predicted", "margin"]


@dataclass(frozen=True)
class AnswerChange:
    """How answers change from a question to its variant, or from no condition to a condition."""

    n: int
    """Pairs in which both have an answer."""
    flip_rate: float | None
    """Share of the pairs whose answers differ."""
    n_margin: int
    """Pairs in which both have a margin."""
    margin_shift: float | None
    """Mean absolute change of the margin, in logits."""


@dataclass(frozen=True)
class MapChange:
    """How one method's maps change from a question to its variant, or from no condition to a condition."""

    method: str
    """Name of the method."""
    n: int
    """Pairs in which both have a map."""
    spearman: float | None
    """Mean rank correlation of the two maps."""
    n_gap: int
    """Pairs in which both have `gap_srg_random`."""
    gap_change: float | None
    """Mean absolute change of `gap_srg_random`."""


@dataclass(frozen=True)
class VariantAnswers(AnswerChange):
    """How answers change with the wording."""

    strategy: str
    """How the question was reworded; "all" for every variant."""


@dataclass(frozen=True)
class VariantMaps(MapChange):
    """How one method's maps change with the wording."""

    strategy: str
    """How the question was reworded; "all" for every variant."""


@dataclass(frozen=True)
class ConditionAnswers(AnswerChange):
    """How answers change under a condition."""

    condition: str
    """A small change of the image, or another seed, e.g. "shift:2"."""


@dataclass(frozen=True)
class ConditionMaps(MapChange):
    """How one method's maps change under a condition."""

    condition: str
    """A small change of the image, or another seed, e.g. "shift:2"."""


@dataclass(frozen=True)
class Stability:
    """Do answers and maps survive another wording?"""

    answers: tuple[VariantAnswers, ...]
    """By strategy, "all" first; strategies without a pair are left out."""
    maps: tuple[VariantMaps, ...]
    """By strategy and method; methods without a pair of maps are left out."""


@dataclass(frozen=True)
class Conditions:
    """Do answers and maps survive a small change of the image or another seed?"""

    answers: tuple[ConditionAnswers, ...]
    """By condition."""
    maps: tuple[ConditionMaps, ...]
    """By condition and method; methods without a pair of maps are left out."""


def stability_panel(records: pd.DataFrame) -> dict[str, Any] | None:
    """Each variant of a question against the first one of its group, on the same image.

    The first one is that without a strategy, then by `variant`, then by `sample_id`.

    Args:
        records: rows of one substrate, target and space, sorted by key, condition "none".

    Returns:
        None without variants, else `answers` (a list over strategies and "all": `n`, `flip_rate`, `n_margin`,
        `margin_shift`, the mean absolute one in logits) and `maps` (a list over the same and methods: `n`, `spearman`
        of the maps, `n_gap`, `gap_change`, the mean absolute one in gap_srg_random).
    """
    pairs = variant_pairs(records)
    if pairs.empty:
        return None
    samples = records.groupby("sample_id", sort=True)[_ANSWER].first()
    before, after = (samples.loc[pairs[side]].reset_index(drop=True) for side in ("base", "variant"))
    strategies = pairs["strategy"].fillna("unnamed").to_numpy(str)
    drawn = {
        method: rows[rows["map"].notna()].set_index("sample_id")
        for method, rows in records.groupby("method", sort=True)
    }
    answers, maps = [], []
    for name in ("all", *sorted(set(strategies))):
        inside = (strategies == name) | (name == "all")
        answers.append({"strategy": name} | _answers(before[inside], after[inside]))
        for method, rows in drawn.items():
            both = pairs[inside & pairs["base"].isin(rows.index) & pairs["variant"].isin(rows.index)]
            compared = _maps(rows.loc[both["base"]], rows.loc[both["variant"]])
            maps.append({"strategy": name, "method": method} | compared)
    return {
        "answers": [entry for entry in answers if entry["n"]],
        "maps": [entry for entry in maps if entry["n"]],
    }


def condition_panel(records: pd.DataFrame) -> dict[str, Any] | None:
    """Each sample under each condition against the same sample under none.

    Args:
        records: rows of one substrate, target and space, sorted by key, of all conditions.

    Returns:
        None without conditions, else `answers` (a list over conditions, as in `stability_panel`) and `maps` (a list
        over conditions and methods).
    """
    answers, maps = [], []
    plain = records[records["condition"].eq(NONE)]
    for condition, changed in records[records["condition"].ne(NONE)].groupby("condition", sort=True):
        first, then = (rows.groupby("sample_id", sort=True)[_ANSWER].first() for rows in (plain, changed))
        shared = first.index.intersection(then.index)
        answers.append({"condition": condition} | _answers(first.loc[shared], then.loc[shared]))
        for method, rows in changed.groupby("method", sort=True):
            before, after = (
                some[some["method"].eq(method) & some["map"].notna()].set_index("sample_id") for some in (plain, rows)
            )
            shared = before.index.intersection(after.index)
            maps.append({"condition": condition, "method": method} | _maps(before.loc[shared], after.loc[shared]))
    if not answers:
        return None
    return {
        "answers": [entry for entry in answers if entry["n"]],
        "maps": [entry for entry in maps if entry["n"]],
    }


def variant_pairs(records: pd.DataFrame) -> pd.DataFrame:
    """Columns `base`, `variant` (sample ids) and `strategy`, one row for each variant but the first of its group."""
    columns = ["sample_id", "image_id", "question_group", "variant", "strategy"]
    samples = records[columns].drop_duplicates("sample_id")
    samples = samples[samples["question_group"].notna()].assign(paraphrase=lambda rows: rows["strategy"].notna())
    samples = samples.sort_values(["image_id", "question_group", "paraphrase", "variant", "sample_id"], kind="stable")
    base = samples.groupby(["image_id", "question_group"])["sample_id"].transform("first")
    pairs = pd.DataFrame({"base": base, "variant": samples["sample_id"], "strategy": samples["strategy"]})
    return pairs[pairs["base"].ne(pairs["variant"])].reset_index(drop=True)


def _answers(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any]:
    """`n`, `flip_rate` and `margin_shift` of rows that belong together; samples without an answer are left out."""
    there = [rows["predicted"].notna().to_numpy(bool) for rows in (before, after)]
    answered = there[0] & there[1]
    flipped = before["predicted"].to_numpy(object) != after["predicted"].to_numpy(object)
    shift = np.abs(numbers(after["margin"]) - numbers(before["margin"]))
    return {
        "n": int(answered.sum()),
        "flip_rate": _mean(flipped[answered].astype(np.float64)),
        "n_margin": int(np.isfinite(shift[answered]).sum()),
        "margin_shift": _mean(shift[answered]),
    }


def _maps(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any]:
    """`n`, `spearman` and `gap_change` of one method's rows that belong together."""
    if before.empty:
        return {"n": 0}
    change = np.abs(numbers(after["gap_srg_random"]) - numbers(before["gap_srg_random"]))
    return {
        "n": len(before),
        "spearman": _mean(spearman(maps_of(before), maps_of(after))),
        "n_gap": int(np.isfinite(change).sum()),
        "gap_change": _mean(change),
    }


def _mean(values: Floats) -> float | None:
    values = values[np.isfinite(values)]
    return float(f"{values.mean():.{DIGITS}g}") if len(values) else None
