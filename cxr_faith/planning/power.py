"""How many patients a difference between two methods needs, from the spread between the patients of a pilot."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtri

from cxr_faith.metrics.statistics import FEWEST_CLUSTERS, cluster_sums
from cxr_faith.perturb.condition import NONE
from cxr_faith.records.controls import first_setting
from cxr_faith.summary.columns import numbers
from cxr_faith.summary.method_rows import common_samples

POWER = 0.8
LEVEL = 0.05

COLUMNS = ("patient_id", "image_id", "status", "srg", "effect")
"""Columns of the records that this takes beside the key."""


@dataclass(frozen=True)
class Need:
    """Patients that one pair of methods needs.

    Attributes:
        pair: names of the methods.
        patients: patients with a sample that counts.
    """

    pair: tuple[str, str]
    patients: int


def patients_needed(values: npt.ArrayLike, patients: npt.ArrayLike, weights: npt.ArrayLike, difference: float) -> int:
    """Patients with which a mean difference is found with 80 % power, two-sided at .05.

    The mean is Σ weight · value / Σ weight, with whole patients as units. Its standard error is that of a ratio of
    sums: n = (z.975 + z.8)² · var(u) / difference², where u = (sum - mean · weight) / mean weight of each patient.

    Args:
        values: paired differences [samples].
        patients: number of each sample's patient [samples].
        weights: positive [samples].
        difference: the true difference that is to be found.
    """
    column = np.asarray(values, np.float64)[:, None]
    codes = np.unique(np.asarray(patients), return_inverse=True)[1]
    sums, totals = cluster_sums(column, codes, np.asarray(weights, np.float64)[:, None])
    rest = (sums - sums.sum() / totals.sum() * totals) / totals.mean()
    z = float(ndtri(1 - LEVEL / 2) + ndtri(POWER))
    return max(2, math.ceil(z**2 * float(rest.var(ddof=1)) / difference**2))


def needs(records: pd.DataFrame, methods: Sequence[str], difference: float) -> list[Need]:
    """What each pair of methods needs, fewest patients first; empty with fewer than ten patients in the pilot.

    Args:
        records: the pilot's records, the key and `COLUMNS`.
        methods: the methods to compare; controls are left out.
        difference: in srg.
    """
    rows = first_setting(records[records["condition"].eq(NONE)])
    samples = pd.DataFrame(index=pd.Index(sorted(set(rows["sample_id"])), name="sample_id"))
    counted = rows[rows["sample_id"].isin(samples.index[common_samples(rows, samples)])]
    srgs: Mapping[str, pd.DataFrame] = {
        str(name): own.set_index("sample_id") for name, own in counted.groupby("method") if name in methods
    }
    listed = []
    for a, b in combinations([name for name in methods if name in srgs], 2):
        both = srgs[a].index.intersection(srgs[b].index)
        first, second = srgs[a].loc[both], srgs[b].loc[both]
        patient = first["patient_id"].fillna(first["image_id"])
        if patient.nunique() >= FEWEST_CLUSTERS:
            difference_of = numbers(first["srg"]) - numbers(second["srg"])
            count = patients_needed(difference_of, patient.to_numpy(str), numbers(first["effect"]), difference)
            listed.append(Need((a, b), count))
    return sorted(listed, key=lambda need: need.patients)
