"""The samples of a run as one table, and the slices of them that have boards of their own."""

import pandas as pd

from cxr_faith.records.controls import ORACLE
from cxr_faith.records.schema import IMAGE_USE
from cxr_faith.summary import image_use, pairs, subgroups
from cxr_faith.summary.columns import Flags

COLUMNS = (
    "patient_id",
    "image_id",
    "finding",
    "kind",
    "present",
    "predicted",
    "p_yes",
    "correct",
    "not_parsed",
    "yes_no_mass",
    "answer_mismatch",
    *subgroups.COLUMNS,
    *pairs.COLUMNS,
    *IMAGE_USE,
)
"""The columns of the records that are the same in all rows of a sample."""

ANSWERED_NO = "answered_no"
"""The slice of the samples whose answer is no."""


def sample_table(records: pd.DataFrame) -> pd.DataFrame:
    """One row per sample, sorted by `sample_id`: `COLUMNS`, `patient` and `masked`.

    A value is the first that is not null among the sample's rows. `patient` is the image where there is no
    `patient_id`. `masked` says whether the sample has a row of `oracle`, so a mask of the finding.
    """
    samples = records.groupby("sample_id", sort=True)[list(COLUMNS)].first()
    return with_patients(
        samples.assign(masked=samples.index.isin(records.loc[records["method"].eq(ORACLE), "sample_id"]))
    )


def with_patients(samples: pd.DataFrame) -> pd.DataFrame:
    """The table of samples with the column `patient`: the image where there is no `patient_id`."""
    return samples.assign(patient=samples["patient_id"].fillna(samples["image_id"]))


def slices_of(samples: pd.DataFrame) -> dict[str, Flags]:
    """Name of each slice → which samples are in it, [samples]; empty slices are left out.

    Args:
        samples: what `sample_table` gave.
    """
    yes_no = samples["p_yes"].notna()
    slices = {
        "all": pd.Series(True, index=samples.index),
        "present": samples["present"].eq(True),
        "absent": samples["present"].eq(False),
        "answered_yes": yes_no & samples["predicted"].eq("yes"),
        ANSWERED_NO: yes_no & samples["predicted"].eq("no"),
        "correct": samples["correct"].eq(True),
        "wrong": samples["correct"].eq(False),
        image_use.USING: pd.Series(image_use.using(samples), index=samples.index),
        pairs.VERIFIED: pd.Series(pairs.verified(samples), index=samples.index),
    }
    kinds = sorted(set(samples["kind"].dropna()))
    if len(kinds) > 1:
        slices |= {f"kind:{kind}": samples["kind"].eq(kind) for kind in kinds}
    if not samples["masked"].eq(slices["present"]).all():
        slices["with_oracle"] = samples["masked"]  # where `oracle` and the other methods have the same samples
    for finding in sorted(set(samples["finding"].dropna())):
        slices[f"finding:{finding}"] = samples["finding"].eq(finding)
    groups = subgroups.subgroup_slices(samples)
    slices |= {name: inside for name, inside in groups.items() if subgroups.is_large(samples, inside)}
    return {name: inside.to_numpy(bool) for name, inside in slices.items() if inside.any()}
