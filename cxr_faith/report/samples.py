"""Single samples on the page: what was asked and answered, the scores of every method, maps and curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_faith.data.orientation import sides_of_each
from cxr_faith.records.schema import IMAGE_USE
from cxr_faith.report.packing import Columns, Packed, missing, pack
from cxr_faith.report.side_by_side import picture_names
from cxr_faith.summary.board import Setting

ROW_BYTES = 70
"""Bytes of one row's scores on the page, roughly."""

COLUMNS = (
    "image_id",
    "question",
    "reference",
    "predicted",
    "generated",
    "kind",
    "finding",
    "present",
    "correct",
    "status",
    "reason",
    "p_yes",
    "margin",
    "effect",
    "s_original",
    "s_substrate",
    "own_substrate",
    "deletion_auc",
    "insertion_auc",
    "srg",
    "srg_logit",
    "gap_srg_random",
    "gap_srg_center",
    "random_p",
    "random_srgs",
    "images",
    "view",
    "orientation",
    "picture_shares",
    *IMAGE_USE,
)
"""The columns of the records that a page of samples is made from."""
_VIEW = ("image_id", "orientation", "view")
VALUES = ("srg", "deletion_auc", "insertion_auc", "gap_srg_center", "random_p", "srg_logit")
"""Columns of a sample's rows that the page lists."""


BANNERS = {
    "degenerate": (
        "Removing the whole picture hardly changes this answer, so no map can say what it depends on. "
        "The maps are gray."
    ),
    "inverted": (
        "Without the picture the model is surer of this answer, so no map can say what it depends on. "
        "The maps are gray."
    ),
    "off_format": "The question asks for yes or no, and the model answers neither. The maps are gray.",
    "invalid": "This sample could not be scored.",
    "flat": "All cells of this map are equal: it says nothing.",
}
"""Status of a sample that has nothing to explain → what its page says above the maps."""


@dataclass(frozen=True)
class SampleEntry:
    """One sample of the page's list."""

    id: str
    """The sample's id."""
    question: str
    """The question as it was asked."""
    answer: str | None
    """What the model answered."""
    generated: str | None
    """The text that the model generated."""
    reference: str | None
    """The reference answers, with commas."""
    finding: str | None
    """The finding that the question is about."""
    correct: bool | None
    """Whether the answer is right."""
    p_yes: float | None
    """The model's probability of yes."""
    effect: float | None
    """Score of the picture minus that of the substrate alone."""
    ends: list[float | None]
    """Score of the picture, and of the substrate alone."""
    reason: str | None
    """Why the sample could not be scored."""
    rows: list[list[int | str | float | None]]
    """Setting, method, status, own substrate, has a map, has curves, then `VALUES`; one list for each record."""
    use: str | None
    """Whether the answer uses its picture, with its margins on other ones; None where that was not measured."""
    pictures: list[str]
    """Names of the pictures, where the question shows several."""
    sides: list[str]
    """The patient's sides at the left and right edges of each picture, `RL` or `LR`; empty where they are not known."""
    shares: dict[int, list[float | None]]
    """Method → share of its map's positive mass on each of `pictures`."""
    packed: Packed | None
    """Maps and curves; None if the page has no room for them."""

    def to_dict(self) -> dict[str, Any]:
        """The entry as the page's script reads it."""
        values = {name: value for name, value in vars(self).items() if name != "packed"}
        if self.packed is None:
            return values | {"detail": None}
        ends = [short(self.packed.low), short(self.packed.high)]
        grid = {} if self.packed.grid is None else {"grid": list(self.packed.grid)}
        return values | {"detail": self.packed.detail, "range": ends, **grid}


def sample_entries(
    records: pd.DataFrame, settings: Sequence[Setting], methods: Sequence[str], budget: int
) -> list[SampleEntry]:
    """One entry per sample for the page, in the order of `sample_id`.

    Args:
        records: all rows; with `packing.DETAIL_COLUMNS` entries may have maps and curves.
        settings: in the page's order.
        methods: names in the page's order.
        budget: bytes for scores, maps and curves; once they are used up, samples have scores only.
    """
    place = {name: number for number, name in enumerate(methods)}
    setting_of: dict[tuple[str, str, str], int] = {setting: number for number, setting in enumerate(settings)}
    asked = zip(records["substrate"], records["target"], records["space"], strict=True)
    keys = pd.DataFrame({"sample": records["sample_id"].to_numpy(object)})
    keys["setting"], keys["method"] = [setting_of[key] for key in asked], records["method"].map(place).to_numpy()
    order = keys.sort_values(["sample", "setting", "method"], kind="stable").index.to_numpy()
    keys = keys.loc[order]
    # Lists of columns, since indexing a frame row by row is slow for a hundred thousand rows.
    columns: Columns = {str(name): records[name].to_numpy(object)[order].tolist() for name in records.columns}
    values = [_short_all(records[name].to_numpy(np.float64, na_value=np.nan)[order]) for name in VALUES]
    places = list(zip(keys["setting"].tolist(), keys["method"].tolist(), strict=True))
    budget -= ROW_BYTES * len(keys)
    starts = np.flatnonzero(~keys["sample"].duplicated().to_numpy()).tolist()
    entries = []
    for start, stop in pairwise([*starts, len(keys)]):
        rows, packed = range(start, stop), None
        if "map" in columns and budget > 0:
            packed = pack(columns, rows)
            budget -= len(packed.detail or "")
        entries.append(_entry(columns, values, places, rows, packed))
    return entries


def _entry(
    columns: Columns,
    values: Sequence[Sequence[float | None]],
    places: Sequence[tuple[int, int]],
    rows: range,
    packed: Packed | None,
) -> SampleEntry:
    """One sample's entry from its rows; what all rows share is read from the first value that is not null."""

    def first(name: str) -> Any:
        return next((value for value in columns[name][rows.start : rows.stop] if not missing(value)), None)

    reference, correct = first("reference"), first("correct")
    images = first("images") if "images" in columns else None
    images = () if images is None else images
    return SampleEntry(
        id=str(first("sample_id")),
        question=str(first("question") or ""),
        answer=first("predicted"),
        generated=first("generated"),
        reference=None if reference is None else ", ".join(map(str, reference)),
        finding=first("finding"),
        correct=None if correct is None else bool(correct),
        p_yes=short(first("p_yes")),
        effect=short(first("effect")),
        ends=[short(first("s_original")), short(first("s_substrate"))],
        reason=first("reason"),
        rows=[
            [
                *places[row],
                columns["status"][row],
                int(columns["own_substrate"][row] is True),
                *map(int, has),
                *(value[row] for value in values),
            ]
            for row, has in zip(rows, packed.has if packed else [(False, False)] * len(rows), strict=True)
        ],
        use=_use({name: first(name) for name in IMAGE_USE}) if "image_use" in columns else None,
        pictures=picture_names(images),
        sides=_sides(
            [image["image_id"] for image in images], {name: first(name) if name in columns else None for name in _VIEW}
        ),
        shares=_picture_shares(columns, places, rows) if len(images) else {},
        packed=packed,
    )


def _sides(picture_ids: Sequence[str], row: Mapping[str, Any]) -> list[str]:
    own = str(row["image_id"])
    return ["".join(sides) for sides in sides_of_each(picture_ids or [own], own, row["orientation"], row["view"])]


def _use(row: Mapping[str, Any]) -> str | None:
    """The class of an answer and its margins without its picture, in words."""
    if row["margin_blank"] is None:
        return None
    margins = {"blank": "margin_blank", "swapped": "margin_swapped", "no picture": "margin_no_picture"}
    parts = [f"{name} {row[column]:+.2f}" for name, column in margins.items() if row[column] is not None]
    return f"{row['image_use'] or 'not known'} (margins: {', '.join(parts)})"


def _picture_shares(columns: Columns, places: Sequence[tuple[int, int]], rows: range) -> dict[int, list[float | None]]:
    """Method → share of its map on each picture, from its first row with a map."""
    known = {places[row][1]: columns["picture_shares"][row] for row in reversed(rows)}
    return {method: _short_all(shares) for method, shares in known.items() if not missing(shares)}


def short(value: float | None) -> float | None:
    """A number with five significant digits, which a page can show and sort by; None if there is none."""
    if value is None or missing(value):
        return None
    return _short_all([value])[0]


def _short_all(values: npt.ArrayLike) -> list[float | None]:
    """`short` of many numbers, NaN where there is none."""
    array = np.asarray(values, np.float64)
    known = np.isfinite(array).tolist()
    return [float(f"{v:.5g}") if ok else None for v, ok in zip(array.tolist(), known, strict=True)]
