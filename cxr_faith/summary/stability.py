"""Do answers and maps survive another wording of the question, or another turn of a conversation?"""

from dataclasses import dataclass

import pandas as pd

from cxr_faith.summary.changes import (
    ANSWER_COLUMNS,
    MAP_COLUMNS,
    AnswerChange,
    MapChange,
    answer_change,
    map_change,
    one_picture,
)
from cxr_faith.summary.result import Result

GROUP = ("image_id", "question_group", "turn", "variant", "strategy")
"""The columns of the records that name the wordings and turns of a question."""

COLUMNS = (*GROUP, *ANSWER_COLUMNS, *MAP_COLUMNS)
"""The columns of the records that this panel reads, beside `map`."""


@dataclass(frozen=True)
class VariantAnswers(AnswerChange):
    """How answers change from the first wording of a question to its variants, or from turn to turn."""

    strategy: str
    """How the question was reworded, or the later turn ("turn 1"); "all" for every pair."""


@dataclass(frozen=True)
class VariantMaps(MapChange):
    """How one method's maps change from the first wording of a question to its variants, or from turn to turn."""

    strategy: str
    """How the question was reworded, or the later turn ("turn 1"); "all" for every pair."""


@dataclass(frozen=True)
class Stability(Result):
    """Each variant of a question against the first wording of its group, or each turn against the one before."""

    answers: tuple[VariantAnswers, ...]
    """By strategy, "all" first; strategies without a pair are left out."""
    maps: tuple[VariantMaps, ...]
    """By strategy and method; methods without a pair of maps are left out."""


def stability_panel(records: pd.DataFrame) -> Stability | None:
    """Each variant of a question against the first wording of its group; None without variants.

    Args:
        records: rows of one setting, sorted by key, condition "none", with a column `map`.
    """
    return _panel(records, variant_pairs(records))


def turn_panel(records: pd.DataFrame) -> Stability | None:
    """Each turn of a conversation against the one before; None without conversations. See `stability_panel`."""
    return _panel(records, turn_pairs(records))


def _panel(records: pd.DataFrame, pairs: pd.DataFrame) -> Stability | None:
    """The changes of the second sample of each pair against the first."""
    if pairs.empty:
        return None
    samples = records.groupby("sample_id", sort=True)[list(ANSWER_COLUMNS)].first()
    before, after = (samples.loc[pairs[side]].reset_index(drop=True) for side in ("base", "variant"))
    strategies = pairs["strategy"].fillna("unnamed").to_numpy(str)
    drawn = {
        str(method): rows[one_picture(rows)].set_index("sample_id")
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
    by `sample_id`. Turns of a conversation are groups of their own.
    """
    samples = _grouped(records)
    base = samples.groupby(["image_id", "question_group", "turn"])["sample_id"].transform("first")
    pairs = pd.DataFrame({"base": base, "variant": samples["sample_id"], "strategy": samples["strategy"]})
    return pairs[pairs["base"].ne(pairs["variant"])].reset_index(drop=True)


def turn_pairs(records: pd.DataFrame) -> pd.DataFrame:
    """Columns `base`, `variant` (sample ids) and `strategy`: one row for each turn that follows another.

    Questions of one group with different numbers of earlier turns are turns of a conversation; of the wordings of a
    turn the base counts.
    """
    turns = _grouped(records).drop_duplicates(["image_id", "question_group", "turn"])
    before = turns.groupby(["image_id", "question_group"])["sample_id"].shift()
    names = "turn " + turns["turn"].astype(str)
    pairs = pd.DataFrame({"base": before, "variant": turns["sample_id"], "strategy": names})
    return pairs[pairs["base"].notna()].reset_index(drop=True)


def _grouped(records: pd.DataFrame) -> pd.DataFrame:
    """The samples of question groups, turn by turn, the base of each turn first."""
    samples = records[["sample_id", *GROUP]].drop_duplicates("sample_id")
    samples = samples[samples["question_group"].notna()].assign(paraphrase=lambda rows: rows["strategy"].notna())
    samples = samples.assign(turn=samples["turn"].fillna(0).astype(int))
    order = ["image_id", "question_group", "turn", "paraphrase", "variant", "sample_id"]
    return samples.sort_values(order, kind="stable")
