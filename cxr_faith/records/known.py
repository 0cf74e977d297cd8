"""What the records already hold about a sample, so that a run that grew computes only the rest."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxr_faith.metrics.functional import BASELINES, CURVE_COLUMNS, ENDPOINT_COLUMNS, GAPS
from cxr_faith.records.controls import CENTER, RANDOM
from cxr_faith.records.files import row_groups
from cxr_faith.records.reader import sound_parts
from cxr_faith.records.schema import IMAGE_USE, KEY, RECORD_SCHEMA

EXTRAS = ("completeness_residual", "caution", "verified", "set_size", "score_drop", "edit", "map_std", "stable_share")
"""Columns that stand beside a map."""

COSTS = ("forwards", "backwards", "seconds", "peak_memory")
_ANSWER = ("answer_tokens", "thought", "generated", "yes_no_mass", "margin", "option_probs", "option_mass")
_OF_MAPS = (*KEY, "status", "reason", *_ANSWER, *IMAGE_USE, "map", "grids", *EXTRAS, *COSTS)
_CURVES = ("deletion_scores", "insertion_scores", "deletion_probs", "insertion_probs")
_SCORED = ("k", *_CURVES, "deletion_log_p", "insertion_log_p", *ENDPOINT_COLUMNS, *CURVE_COLUMNS, *GAPS, "auc_error")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Baselines:
    """The random orders and the center of one question under one substrate, as an earlier start measured them.

    Attributes:
        random: columns of the scores of the random row.
        center: the same of the center row.
        random_srgs: srg of every random order [R].
        ends: score, probability, standing and log p of the intact picture and of the one without any cell [4, 2].
    """

    random: Row
    center: Row
    random_srgs: npt.NDArray[np.float64]
    ends: npt.NDArray[np.float64]


@dataclass(frozen=True)
class KnownSample:
    """The rows of one sample under one condition.

    Attributes:
        rows: the records, with the columns of maps and answers; those of the baselines have all columns.
    """

    rows: Sequence[Row] = field(default=())

    @cached_property
    def keys(self) -> frozenset[tuple[str, str]]:
        """(substrate, method) of the rows that exist."""
        return frozenset((row["substrate"], row["method"]) for row in self.rows)

    @cached_property
    def answer(self) -> Row | None:
        """Columns of the model's answer; None if it is not known, or came after a thought: its tokens are not kept."""
        known = (row for row in self.rows if row["answer_tokens"] is not None and not row["thought"])
        return next(known, None)

    @cached_property
    def image_use(self) -> Row:
        """Columns of the answer's image use; empty if it was not measured."""
        measured = (row for row in self.rows if row["margin_blank"] is not None)
        return next(({name: row[name] for name in IMAGE_USE} for row in measured), {})

    @cached_property
    def maps(self) -> dict[str, Row]:
        """Method → a row with its map."""
        return {row["method"]: row for row in reversed(self.rows) if row["map"] is not None}

    def map_of(self, method: str) -> npt.NDArray[np.float32]:
        """A map [grid_h, grid_w], of several pictures one below the other; values that are not finite are NaN."""
        row = self.maps[method]
        return np.array(row["map"], np.float32).reshape(-1, row["grids"][0]["w"])

    @cached_property
    def failed(self) -> dict[str, str]:
        """Method → why it could not make a map, for samples on which others could."""
        lost = [row for row in self.rows if row["map"] is None and row["status"] == "invalid" and row["reason"]]
        return {row["method"]: row["reason"] for row in lost if row["method"] != RANDOM} if self.maps else {}

    def baselines(self, substrate: str) -> Baselines | None:
        """The baselines under a substrate; None if they are not known, as in records of older versions."""
        rows = {row["method"]: row for row in self.rows if row["substrate"] == substrate and row["method"] in BASELINES}
        if len(rows) < len(BASELINES) or rows[RANDOM].get("end_scores") is None or rows[RANDOM]["random_srgs"] is None:
            return None
        random, center = rows[RANDOM], rows[CENTER]
        return Baselines(
            {"status": random["status"], "reason": random["reason"]} | {name: random[name] for name in _SCORED},
            {name: center[name] for name in _SCORED},
            _numbers(random["random_srgs"]),
            _numbers(random["end_scores"]).reshape(-1, 2),
        )


NOTHING = KnownSample()


class KnownRecords:
    """The records of some samples that a run has not finished.

    Args:
        run_dir: the run directory.
        samples: ids of the samples; those of one rank.
    """

    def __init__(self, run_dir: Path, samples: Collection[str]) -> None:
        wanted = pa.array(sorted(samples), pa.string())
        self._tables: tuple[list[pa.Table], list[pa.Table]] = ([], [])
        schemas = [pa.schema([RECORD_SCHEMA.field(name) for name in _OF_MAPS]), RECORD_SCHEMA]
        for path, _ in sound_parts(run_dir, RECORD_SCHEMA, len):
            for group in row_groups([path], RECORD_SCHEMA):
                group = group.filter(pc.is_in(group["sample_id"], value_set=wanted))
                of_baseline = pc.is_in(group["method"], value_set=pa.array(BASELINES))
                for tables, schema, mask in zip(
                    self._tables, schemas, (pc.invert(of_baseline), of_baseline), strict=True
                ):
                    tables.append(group.filter(mask).select(schema.names))
        self._places: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
        for kind, tables in enumerate(self._tables):
            for number, table in enumerate(tables):
                names = zip(table["sample_id"].to_pylist(), table["condition"].to_pylist(), strict=True)
                for place, key in enumerate(names):
                    self._places.setdefault(key, []).append((kind, number, place))

    def of(self, sample_id: str, condition: str) -> KnownSample:
        """What is known about a sample under a condition."""
        return KnownSample(tuple(self._rows(sample_id, condition)))

    def _rows(self, sample_id: str, condition: str) -> Iterator[Row]:
        """Its rows; of duplicates the one of the earliest start."""
        keys = set[tuple[str, str]]()
        for kind, number, place in sorted(self._places.get((sample_id, condition), ()), key=lambda one: one[1:]):
            (row,) = self._tables[kind][number].slice(place, 1).to_pylist()
            key = (row["substrate"], row["method"])
            if key not in keys:
                keys.add(key)
                yield row


def _numbers(values: Sequence[float | None]) -> npt.NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], np.float64)
