"""What the page's script draws: boards, intervals, curves and samples as one JSON object."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from cxr_faith.metrics.functional import STATUSES
from cxr_faith.records.controls import is_control
from cxr_faith.report.charts import method_styles
from cxr_faith.report.columns import board_title, columns_of, method_label, samples_in, slice_title
from cxr_faith.report.comparisons import few_patients
from cxr_faith.report.figures import COLORMAP
from cxr_faith.report.gallery import TITLES, gallery
from cxr_faith.report.glossary import WORDS, anchor
from cxr_faith.report.legend import NOTHING, SCORED
from cxr_faith.report.packing import MAP_LEVELS
from cxr_faith.report.run_files import Thumb
from cxr_faith.report.samples import BANNERS, VALUES, sample_entries, short
from cxr_faith.report.trust import MEASURES
from cxr_faith.summary.board import Board, Setting
from cxr_faith.summary.board_row import BoardRow
from cxr_faith.summary.curves import Curves
from cxr_faith.summary.summary import Summary
from cxr_faith.summary.verdict import FAILED, NOISE, VERDICTS, WORSE, verdict_of

FOREST = (
    ("gap_srg_center", "Δ srg to center"),
    ("srg", "srg (= Δ srg to random)"),
    ("gap_deletion_random", "Δ deletion to random"),
    ("gap_insertion_random", "Δ insertion to random"),
    ("gap_deletion_center", "Δ deletion to center"),
    ("gap_insertion_center", "Δ insertion to center"),
    ("srg_logit", "srg logit"),
)
_DASHES = {"-": None, "--": "6 4", "-.": "8 3 2 3", ":": "2 3"}


def page_data(summary: Summary, records: pd.DataFrame, thumbs: Mapping[str, Thumb], budget: int) -> dict[str, Any]:
    """Everything that the page's script reads.

    Args:
        summary: the run's summary, with bands if they are to be drawn.
        records: rows of the samples that are listed.
        thumbs: sample → its small picture.
        budget: bytes for the samples' scores, maps and curves.
    """
    settings, methods = summary.settings, list(summary.methods)
    examples: dict[str, list[str]] = {}
    entries: list[dict[str, Any]] = []
    if settings:
        first = records[list(Setting._fields)].eq(list(settings[0])).all(axis=1)
        entries = [entry.to_dict() for entry in sample_entries(records, settings, methods, budget)]
        examples = gallery(records[first]) if "map" in records.columns else {}
    return {
        "settings": [_setting(setting, records) for setting in settings],
        "several": len({setting[1:] for setting in settings}) > 1,
        "boards": [_board(summary, board) for board in summary.boards],
        "methods": methods,
        "controls": [name for name in methods if is_control(name)],
        "styles": _styles(methods),
        "statuses": list(STATUSES),
        "banners": BANNERS,
        "verdicts": list(VERDICTS),
        "against": [NOISE, WORSE, FAILED],
        "values": list(VALUES),
        "forest": [list(pair) for pair in FOREST],
        "words": {column: anchor(word) for column, word in WORDS.items()},
        "agreement": _agreement(summary),
        "samples": entries,
        "gallery": examples,
        "gallery_titles": TITLES,
        "thumbs": {sample: asdict(thumbs[sample]) for sample in sorted(thumbs)},
        "viridis": (mpl.colormaps[COLORMAP](np.linspace(0, 1, MAP_LEVELS))[:, :3] * 255).round().astype(int).tolist(),
    }


def _setting(setting: Setting, records: pd.DataFrame) -> dict[str, Any]:
    """A setting's names, the x of its samples' curves, and the number of random orders."""
    names = setting._asdict()
    x: list[float] = []
    if "k" in records.columns:
        mine = records[(records[list(names)] == pd.Series(names)).all(axis=1) & records["k"].notna()]
        if not mine.empty:
            k = np.asarray(mine["k"].iloc[0], np.float64)
            x = [round(float(share), 5) for share in k / k[-1]]
    orders = records["random_srgs"].dropna().tolist() if "random_srgs" in records.columns else []
    return names | {"x": x, "orders": len(orders[0]) if orders else None}


def _agreement(summary: Summary) -> dict[str, Any]:
    """Methods with maps, and for each pair of them the number of samples and each measure of likeness."""
    methods = [name for name in summary.methods if any(name in (pair.a, pair.b) for pair in summary.agreement)]
    place = {name: number for number, name in enumerate(methods)}
    pairs = [
        [place[pair.a], place[pair.b], pair.n, *(getattr(pair, measure) for measure in MEASURES)]
        for pair in summary.agreement
    ]
    return {"methods": methods, "pairs": pairs, "measures": [list(names) for names in MEASURES.items()]}


def _board(summary: Summary, board: Board) -> dict[str, Any]:
    columns, verdict = columns_of(board), verdict_of(board)
    shown = sorted({*(column.key for column in columns), *(key for key, _ in FOREST)})
    return {
        "setting": summary.settings.index(board.setting),
        "slice": board.slice,
        "slice_title": slice_title(board.slice),
        "title": board_title(summary, board),
        "note": _note(board),
        "headline": board.headline,
        "columns": [
            {
                "key": column.key,
                "label": f"{column.top} {column.bottom}".strip(),
                "arrow": column.arrow,
                "signed": column.signed,
            }
            for column in columns
        ],
        "verdict": list(verdict.sentences),
        "rows": [_row(board, row, shown) | {"verdict": verdict.of(row.method)} for row in board.rows],
        "differences": [
            {"a": pair.a, "b": pair.b, "mean": pair.mean, "p_holm": pair.p_holm} for pair in board.differences
        ],
    }


def _note(board: Board) -> str:
    """What a reader must know of a board's ranking; may be empty."""
    if all(row.value(board.headline) is None for row in board.rows):
        return NOTHING
    return " ".join([*([SCORED] if board.by_scored else []), *few_patients(board)])


def _row(board: Board, row: BoardRow, columns: Sequence[str]) -> dict[str, Any]:
    return {
        "method": row.method,
        "label": method_label(row),
        "n_used": samples_in(board, row),
        "coverage": short(row.coverage),
        "flat": None if row.flat_share is None else short(row.flat_share),
        "status": dict(row.status),
        "values": {column: row.value(column) for column in columns},  # in full: rounding twice may change a digit
        "ci": {column: ends for column in columns if (ends := _ends(row, column)) is not None},
        "curves": None if row.curves is None else _curves(row.curves),
    }


def _ends(row: BoardRow, column: str) -> list[float | None] | None:
    """The 95 % interval to show; None if there is none."""
    interval = row.intervals.get(column)
    return None if interval is None or interval.ends is None else [short(end) for end in interval.ends]


def _curves(curves: Curves) -> dict[str, list[float]]:
    """Mean curves and the ends of their bands, if there are any."""
    lines = {"x": curves.x, "deletion": curves.deletion, "insertion": curves.insertion}
    if curves.bands is not None:
        lines |= asdict(curves.bands)
    return {name: [round(value, 4) for value in values] for name, values in lines.items()}


def _styles(methods: Sequence[str]) -> dict[str, dict[str, str | None]]:
    return {
        name: {"color": to_hex(style["color"]), "dash": _DASHES[style["ls"]]}
        for name, style in method_styles(methods).items()
    }
