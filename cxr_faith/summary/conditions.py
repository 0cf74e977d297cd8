"""Do answers and maps survive a small change of the image, or another seed?"""

from dataclasses import dataclass

import pandas as pd

from cxr_faith.perturb.condition import NONE
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

COLUMNS = (*ANSWER_COLUMNS, *MAP_COLUMNS)
"""The columns of the records that this panel reads, beside `map`."""


@dataclass(frozen=True)
class ConditionAnswers(AnswerChange):
    """How answers change from no condition to a condition."""

    condition: str
    """A small change of the image, or another seed, e.g. "shift:2"."""


@dataclass(frozen=True)
class ConditionMaps(MapChange):
    """How one method's maps change from no condition to a condition."""

    condition: str
    """A small change of the image, or another seed, e.g. "shift:2"."""


@dataclass(frozen=True)
class Conditions(Result):
    """Each sample under each condition against the same sample under none."""

    answers: tuple[ConditionAnswers, ...]
    """By condition; conditions without a pair are left out."""
    maps: tuple[ConditionMaps, ...]
    """By condition and method; methods without a pair of maps are left out."""


def condition_panel(records: pd.DataFrame) -> Conditions | None:
    """Each sample under each condition against the same sample under none; None without conditions.

    Args:
        records: rows of one setting, sorted by key, of all conditions, with a column `map`.
    """
    answers, maps = [], []
    plain = records[records["condition"].eq(NONE)]
    for name, changed in records[records["condition"].ne(NONE)].groupby("condition", sort=True):
        condition = str(name)
        first, then = (rows.groupby("sample_id", sort=True)[list(ANSWER_COLUMNS)].first() for rows in (plain, changed))
        shared = first.index.intersection(then.index)
        change = answer_change(first.loc[shared], then.loc[shared])
        answers.append(ConditionAnswers(condition=condition, **vars(change)))
        for method, rows in changed.groupby("method", sort=True):
            before, after = (
                some[some["method"].eq(method) & one_picture(some)].set_index("sample_id") for some in (plain, rows)
            )
            shared = before.index.intersection(after.index)
            moved = map_change(str(method), before.loc[shared], after.loc[shared])
            if moved is not None:
                maps.append(ConditionMaps(condition=condition, **vars(moved)))
    if not answers:
        return None
    return Conditions(answers=tuple(entry for entry in answers if entry.n), maps=tuple(maps))
