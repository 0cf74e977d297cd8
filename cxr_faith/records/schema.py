"""The schema of the records, and rows as a table with that schema."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cxr_faith.data.sample import MANIFEST_SCHEMA, Sample
from cxr_faith.metrics.box_protocol import PLACE_COLUMNS
from cxr_faith.metrics.functional import CURVE_COLUMNS, ENDPOINT_COLUMNS, GAPS, MC_ERROR_COLUMNS

KEY = ("sample_id", "method", "substrate", "target", "space", "condition")
"""Columns that identify a record; `space` is pixels or tokens, `condition` is "none" for the picture as it is."""

IMAGE_USE = ("image_use", "margin_blank", "margin_swapped", "margin_no_picture", "swapped_with", "swap_opposite")
"""Columns that say whether an answer uses its picture; the same in all rows of a sample."""

GROUNDING = ("mask_removal_flips", "away_removal_keeps")
"""Columns that say whether an answer depends on the finding's cells and on no others; in rows of `random`."""

READER_COLUMNS = tuple(f"reader_{name}" for name in PLACE_COLUMNS)
"""One reader's boxes scored as a map against the others', mean over readers; in rows of `random`."""

_ORGAN = pa.struct([("label", pa.string()), ("share", pa.float64()), ("enrichment", pa.float64())])
_NOT_RECORDED = ("height", "width", "source")


def _schema() -> pa.Schema:
    """The columns of the manifest, with `answer` as `reference`, and all measurements."""
    text, flag, real, whole = pa.string(), pa.bool_(), pa.float64(), pa.int64()
    reals, wholes = pa.list_(real), pa.list_(pa.int32())
    manifest = {
        ("reference" if field.name == "answer" else field.name): field.type
        for field in MANIFEST_SCHEMA
        if field.name not in ("sample_id", *_NOT_RECORDED)
    }
    columns: dict[str, pa.DataType] = {
        **dict.fromkeys(KEY, text),
        **manifest,
        "turn": pa.int32(),  # earlier turns of the conversation
        **{"present": flag, "predicted": text, "thought": text, "generated": text},
        **{"answer_tokens": wholes, "answer_mismatch": flag},
        **{
            "yes_no_mass": real,
            "option_probs": reals,
            "option_mass": real,
            "correct": flag,
            "not_parsed": flag,
            "own_substrate": flag,
            **dict(zip(IMAGE_USE, (text, real, real, real, text, flag), strict=True)),
            **{"status": text, "reason": text, "flat": flag},
        },
        **{"order": wholes, "k": wholes},
        **dict.fromkeys(("deletion_scores", "insertion_scores", "deletion_probs", "insertion_probs"), reals),
        **dict.fromkeys(("deletion_log_p", "insertion_log_p"), reals),
        **dict.fromkeys(("margin", "p_yes", *ENDPOINT_COLUMNS), real),
        **dict.fromkeys((*CURVE_COLUMNS, "tie_share", "auc_error"), real),
        **dict.fromkeys((f"{name}_std" for name in CURVE_COLUMNS), real),  # for `random`: over its orders
        **dict.fromkeys((f"{name}_mc_error" for name in MC_ERROR_COLUMNS), real),
        **dict.fromkeys(("random_srgs", "end_scores"), reals),  # for `random`: what methods that are added later need
        **dict.fromkeys(GAPS, real),
        **dict.fromkeys(("random_z", "random_p", "completeness_residual", *PLACE_COLUMNS, *READER_COLUMNS), real),
        "reader_count": whole,  # readers who drew a box of the finding, where there are two or more
        "caution": text,
        **{"pointing_ceiling": real, "mask_cells": whole},
        **{"verified": flag, "set_size": whole, "score_drop": real},  # for methods that give a set of cells
        "edit": text,  # for `counterfactual`: what stands in the cells of its set
        **dict.fromkeys(("set_removal_flips", "set_keeps", *GROUNDING), flag),
        "anatomy": pa.list_(_ORGAN),
        **dict.fromkeys(("map", "map_std"), pa.list_(pa.float32())),
        "stable_share": real,  # with `map_std`: where the uncertainty of maps is measured
        **dict.fromkeys(("grid_h", "grid_w"), pa.int32()),
        **{"picture_shares": reals, "picture_effects": reals},  # where a question shows several pictures
        "grids": pa.list_(pa.struct([("h", pa.int32()), ("w", pa.int32())])),
        **{"forwards": whole, "backwards": whole, "seconds": real, "peak_memory": whole},
        "picture_hash": text,
    }
    return pa.schema([pa.field(name, kind, nullable=name not in KEY) for name, kind in columns.items()])


RECORD_SCHEMA = _schema()
"""Every column of a record. `seconds` in s, `peak_memory` in bytes, `k` in cells, scores in logits."""


def sample_columns(sample: Sample) -> dict[str, Any]:
    """The columns of a record that come from the manifest."""
    row = {name: value for name, value in sample.to_row().items() if name not in _NOT_RECORDED}
    row["reference"] = row.pop("answer")
    return row


def to_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows, column name → value, as a table.

    Raises:
        ValueError: unknown column, or a key column that is missing.
    """
    known = frozenset(RECORD_SCHEMA.names)
    for row in rows:
        unknown = sorted(row.keys() - known)
        if unknown:
            raise ValueError(f"sample {row.get('sample_id')!r}: records have no column {unknown[0]!r}")
        missing = [name for name in KEY if row.get(name) is None]
        if missing:
            raise ValueError(f"sample {row.get('sample_id')!r}: a record needs its {missing[0]!r}")
    columns = [pa.array([_finite(row.get(field.name)) for row in rows], type=field.type) for field in RECORD_SCHEMA]
    return pa.Table.from_arrays(columns, schema=RECORD_SCHEMA)


def _finite(value: Any) -> Any:
    """NaN and infinity become null, alone or in a list, so that a reader meets one kind of missing value only."""
    if isinstance(value, float | np.floating):
        return value if math.isfinite(value) else None
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        flat = value.reshape(-1)
        return flat if flat.dtype.kind != "f" or np.isfinite(flat).all() else [_finite(item) for item in flat.tolist()]
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
