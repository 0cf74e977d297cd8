"""Do answers and maps survive another wording of the question?"""

from dataclasses import dataclass

import pandas as pd

from cxr_faith.summary.changes import (
    ANSWER_COLUMNS,
    MAP_COLUMNS,
    AnswerChange,
    MapChange,
    answer_change,
    map_change,
)
from cxr_faith.summary.result import Result

_GROUP = ("image_id", "question_group", "variant", "strategy")

COLUMNS = (*_GROUP, *ANSWER_COLUMNS, *MAP_COLUMNS)
"""The columns of the records that this panel reads, beside `map`."""


@dataclass(frozen=True)
class VariantAnswers(AnswerChange):
    """How answers change from the first wording of a question to its variants."""

    strategy: str
    """How the question was reworded; "all" for every variant."""


@dataclass(frozen=True)
class VariantMaps(MapChange):
    """How one method's maps change from the first wording of a question to its variants."""

    strategy: str
    """How the question was reworded; "all" for every variant."""


@dataclass(frozen=True)
class Stability(Result):
    """Each variant of a question against the first wording of its group, on the same image."""

    answers: tuple[VariantAnswers, ...]
    """By strategy, "all" first; strategies without a pair are left out."""
    maps: tuple[VariantMaps, ...]
    """By strategy and method; methods without a pair of maps are left out."""


def stability_panel(records: pd.DataFrame) -> Stability | None:
    """Each variant of a question against the first wording of its group; None without variants.

    Args:
        records: rows of one setting, sorted by key, condition "none", with a column `map`.
    """
    pairs = variant_pairs(records)
    if pairs.empty:
        return None
    samples = records.groupby("sample_id", sort=True)[list(ANSWER_COLUMNS)].first()
    before, after = (samples.loc[pairs[side]].reset_index(drop=True) for side in ("base", "variant"))
    strategies = pairs["strategy"].fillna("unnamed").to_numpy(str)
    drawn = {
        str(method): rows[rows["map"].notna()].set_index("sample_id")
        for method, rows in records.groupby("method", sort=True)
    }
    answers, maps = [], []
    for strategy in ("all", *sorted(set(strategies))):
        inside = (strategies == strategy) | (strategy == "all")
        answers.append(VariantAnswers(strategy=strategy, **vars(answer_change(before[inside], after[inside]))))
        for method, rows in drawn.items():
            both = pairs[inside & pairs["base"].isin(rows.index) & pairs["variant"].isin(rows.index)]
            change = map_change(method, rows.loc[both["base"]], rows.loc[both["variant"]])
            if change is not None:
                maps.append(VariantMaps(strategy=strategy, **vars(change)))
    return Stability(answers=tuple(entry for entry in answers if entry.n), maps=tuple(maps))


def variant_pairs(records: pd.DataFrame) -> pd.DataFrame:
    """Columns `base`, `variant` (sample ids) and `strategy`: one row for each variant of a question.

    The base of a group is the wording without a strategy; if there are several, or none, the first by `variant`, then
    by `sample_id`.
    """
    samples = records[["sample_id", *_GROUP]].drop_duplicates("sample_id")
    samples = samples[samples["question_group"].notna()].assign(paraphrase=lambda rows: rows["strategy"].notna())
    samples = samples.sort_values(["image_id", "question_group", "paraphrase", "variant", "sample_id"], kind="stable")
    base = samples.groupby(["image_id", "question_group"])["sample_id"].transform("first")
    pairs = pd.DataFrame({"base": base, "variant": samples["sample_id"], "strategy": samples["strategy"]})
    return pairs[pairs["base"].ne(pairs["variant"])].reset_index(drop=True)
