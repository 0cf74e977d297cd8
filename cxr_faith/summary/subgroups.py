"""Are maps as faithful, and answers as right, for every sex, age and view? Slices, and differences between groups."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_faith.data.subgroups import AGE_BANDS, age_band
from cxr_faith.metrics.groups import contrast
from cxr_faith.metrics.statistics import FEWEST_CLUSTERS, estimate, holm
from cxr_faith.records.controls import is_control
from cxr_faith.summary.columns import Flags, Floats, numbers, rounded
from cxr_faith.summary.method_rows import WEIGHTED, MethodRows
from cxr_faith.summary.result import Result

COLUMNS = ("sex", "age", "view")
"""The columns of the records that name the groups."""
SUBGROUP = tuple(f"{name}:" for name in COLUMNS)
"""Beginnings of the names of these slices."""
ACCURACY = "accuracy"
MEASURE = "srg"


@dataclass(frozen=True)
class Group(Result):
    """One subgroup of the samples."""

    name: str
    """Name of the slice, such as "sex:F", "age:60-79" or "view:AP"."""
    n_samples: int
    """Its samples."""
    n_patients: int
    """Their patients; below ten there is no board of the slice, and no difference."""


@dataclass(frozen=True)
class GroupDifference(Result):
    """How far two subgroups are apart in one number."""

    a: str
    """The first group."""
    b: str
    """The second group."""
    of: str
    """Name of a method, for its `srg` in the first setting; or "accuracy", that of the model's answers."""
    mean: float
    """Mean of a minus mean of b."""
    t_low: float | None
    """Lower end of the 95 % bootstrap-t interval over patients."""
    t_high: float | None
    """Its upper end."""
    p: float | None
    """Two-sided p that the groups do not differ, from the same bootstrap."""
    p_holm: float | None
    """`p` after Holm's correction over the groups' pairs and the methods; accuracy is a family of its own."""
    patients_a: int
    """Patients of the first group with a value."""
    patients_b: int
    """Patients of the second group with a value; a patient may be in both."""


@dataclass(frozen=True)
class Subgroups(Result):
    """Subgroups by sex, age and view."""

    groups: tuple[Group, ...]
    """The groups that have samples, also those too small for numbers."""
    differences: tuple[GroupDifference, ...]
    """Each pair of groups of one column with at least ten patients each, for each method that is no control."""


def subgroup_slices(samples: pd.DataFrame) -> dict[str, "pd.Series[bool]"]:
    """Name of each subgroup → which samples are in it; a column with one group alone has none.

    Args:
        samples: what `samples.sample_table` gave.
    """
    named = {
        "sex": samples["sex"].where(samples["sex"].notna(), None),
        "age": samples["age"].map(lambda age: None if pd.isna(age) else age_band(int(age))),
        "view": samples["view"].where(samples["view"].notna(), None),
    }
    bands = [name for _, _, name in AGE_BANDS]
    slices: dict[str, pd.Series[bool]] = {}
    for column, groups in named.items():
        names = sorted(set(groups.dropna()), key=lambda name: (bands.index(name) if name in bands else 0, name))
        if len(names) > 1:
            slices |= {f"{column}:{name}": groups.eq(name) for name in names}
    return slices


def is_large(samples: pd.DataFrame, inside: "pd.Series[bool]") -> bool:
    """Whether a subgroup has enough patients for numbers."""
    return int(samples.loc[inside, "patient"].nunique()) >= FEWEST_CLUSTERS


def subgroup_panel(samples: pd.DataFrame, first: Iterable[MethodRows]) -> Subgroups:
    """The groups and their differences.

    Args:
        samples: what `samples.sample_table` gave.
        first: what `method_rows` gives for the first setting; asked only where there are groups.
    """
    slices = subgroup_slices(samples)
    if not slices:
        return Subgroups((), ())
    patients = pd.factorize(samples["patient"], sort=True)[0]
    groups = [
        Group(name, int(inside.sum()), int(samples.loc[inside, "patient"].nunique())) for name, inside in slices.items()
    ]
    correct = numbers(samples["correct"])
    values: dict[str, tuple[Floats, Floats]] = {ACCURACY: (correct, np.ones(len(samples)))}
    values |= {rows.method: _values(rows, len(samples)) for rows in first if not is_control(rows.method)}
    flags = {name: inside.to_numpy(bool) for name, inside in slices.items() if is_large(samples, inside)}
    asked = [
        (a, b, of)
        for of, (value, _) in values.items()
        for a, b in combinations(flags, 2)
        if a.partition(":")[0] == b.partition(":")[0]
        and min(_patients(patients, flags[name], value) for name in (a, b)) >= FEWEST_CLUSTERS
    ]
    table = [contrast(values[of][0], patients, values[of][1], flags[a], flags[b]) for a, b, of in asked]
    if not table:
        return Subgroups(tuple(groups), ())
    result = estimate(np.stack(table, axis=1), np.arange(len(table[0])))
    differences = [
        GroupDifference(
            a=a,
            b=b,
            of=of,
            mean=float(result.mean[column]),
            t_low=rounded(result.t_low[column]),
            t_high=rounded(result.t_high[column]),
            p=rounded(result.p[column]),
            p_holm=None,
            patients_a=_patients(patients, flags[a], values[of][0]),
            patients_b=_patients(patients, flags[b], values[of][0]),
        )
        for column, (a, b, of) in enumerate(asked)
    ]
    families = [[one for one in differences if (one.of == ACCURACY) == answers] for answers in (True, False)]
    return Subgroups(tuple(groups), tuple(one for family in families for one in _adjusted(family)))


def _patients(patients: npt.NDArray[np.intp], inside: Flags, values: Floats) -> int:
    """Number of patients of a group with a value."""
    return len(np.unique(patients[inside & np.isfinite(values)]))


def _values(rows: MethodRows, count: int) -> tuple[Floats, Floats]:
    """Values of a method's `srg` over the common samples, and their weights, each [samples]."""
    values, weights = np.full(count, np.nan), np.ones(count)
    values[rows.sample[rows.common]] = rows.values[MEASURE][rows.common]
    if MEASURE in WEIGHTED:
        weights[rows.sample] = rows.values["effect"]
    return values, weights


def _adjusted(family: Sequence[GroupDifference]) -> Iterator[GroupDifference]:
    adjusted = holm([np.nan if one.p is None else one.p for one in family])
    for one, p in zip(family, adjusted, strict=True):
        yield GroupDifference(**(vars(one) | {"p_holm": float(p) if np.isfinite(p) else None}))
