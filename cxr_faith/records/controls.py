"""Names that records and tables share: baselines, controls, and which setting comes first."""

import pandas as pd

from cxr_faith.metrics.functional import BASELINES

RANDOM, CENTER = BASELINES
"""Baselines that are always scored: R random orders, which have no map, and the order by the distance to the middle."""

RANDOM_MAP, EDGES, ORACLE, ORACLE_NEAR = "random_map", "edges", "oracle", "oracle_near"
"""Controls that are scored as methods are: a map of noise, the picture's edges, the finding's own mask, and the mask
with the nearer cells first around it."""

READER = "reader"
"""Row of the localization panel: one reader's boxes, scored as a map against the other readers'."""

CONTROLS = (*BASELINES, RANDOM_MAP, EDGES, ORACLE, ORACLE_NEAR)
"""Rows of a table that explain no model: every method is compared with them."""

BLURRED = "/blurred"
"""Ends the name of a method's blurred copy: its map smoothed by a Gaussian of σ = 1 cell."""

ABLATED = "/ablated"
"""Ends the name of a method's ablation: the same method with noise in place of its idea (option `ablated`)."""

SETTING = ("substrate", "target", "space")
"""The columns that name a setting: methods are compared within one."""


def is_control(method: str) -> bool:
    """Whether a name is a baseline, a control, or a control made from a method (`name/blurred`, `name/ablated`)."""
    return method in CONTROLS or "/" in method


def first_setting(records: pd.DataFrame) -> pd.DataFrame:
    """The rows of the setting that a run shows first.

    It is the setting with the most rows, since others may lack methods; the first in the alphabet where two have
    as many.

    Args:
        records: rows with the columns `substrate`, `target` and `space`.
    """
    columns = list(SETTING)
    most = records[columns].value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable").head(1)
    return records[(records[columns] == list(most.index[0])).all(axis=1)] if len(most) else records
