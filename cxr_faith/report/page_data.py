"""What the page's script draws from: boards, intervals, curves and samples as one JSON-able dict."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from cxr_faith.metrics.functional import STATUSES
from cxr_faith.records.controls import is_control
from cxr_faith.report.charts import method_styles
from cxr_faith.report.columns import board_title, by_scored, columns_of, method_label, samples_in, slice_title
from cxr_faith.report.comparisons import few_patients
from cxr_faith.report.figures import COLORMAP
from cxr_faith.report.legend import SCORED
from cxr_faith.report.samples import MAP_LEVELS, VALUES, gallery, sample_entries, short

FOREST = (
    ("gap_srg_center", "Δ srg to center"),
    ("srg", "srg (= Δ srg to random)"),
    ("gap_deletion_random", "Δ deletion to random"),
    ("gap_insertion_random", "Δ insertion to random"),
    ("gap_deletion_center", "Δ deletion to center"),
    ("gap_insertion_center", "Δ insertion to center"),
    ("srg_logit", "srg logit"),
)
GALLERY_TITLES = {
    "best": "Best explained (highest mean srg of the methods)",
    "worst": "Worst explained (lowest mean srg)",
    "degenerate": "Degenerate (hardly any effect to explain, or an inverted one)",
    "disagreeing": "Disagreeing (lowest rank correlation between the methods' maps)",
}
_DASHES = {"-": None, "--": "6 4", "-.": "8 3 2 3", ":": "2 3"}
_Z = 1.96


def page_data(
    summary: Mapping[str, Any], records: pd.DataFrame, thumbs: Mapping[str, Any], budget: int
) -> dict[str, Any]:
    """Everything that the page's script reads.

    Args:
        summary: as `summarize` gives it.
        records: rows of the samples that are listed.
        thumbs: sample → `uri` and `region`.
        budget: bytes for the samples' scores, maps and curves.
    """
    settings = list(dict.fromkeys((b["substrate"], b["target"], b["space"]) for b in summary["boards"]))
    methods = list(summary["methods"])
    chosen: dict[str, list[str]] = {}
    entries: list[dict[str, Any]] = []
    if settings:
        inside = records[["substrate", "target", "space"]].eq(list(settings[0])).all(axis=1)
        entries = sample_entries(records, settings, methods, budget)
        chosen = gallery(records[inside]) if "map" in records.columns else {}
    return {
        "settings": [_setting(setting, records) for setting in settings],
        "several": len({setting[1:] for setting in settings}) > 1,
        "boards": [_board(summary, board, settings) for board in summary["boards"]],
        "methods": methods,
        "controls": [name for name in methods if is_control(name)],
        "styles": _styles(methods),
        "statuses": list(STATUSES),
        "values": list(VALUES),
        "forest": [list(pair) for pair in FOREST],
        "samples": entries,
        "gallery": chosen,
        "gallery_titles": GALLERY_TITLES,
        "thumbs": {sample: thumbs[sample] for sample in sorted(thumbs)},
        "viridis": (mpl.colormaps[COLORMAP](np.linspace(0, 1, MAP_LEVELS))[:, :3] * 255).round().astype(int).tolist(),
    }


def _setting(setting: Sequence[str], records: pd.DataFrame) -> dict[str, Any]:
    """A setting's names, and the abscissa of its samples' curves."""
    named = dict(zip(("substrate", "target", "space"), setting, strict=True))
    x: list[float] = []
    if "k" in records.columns:
        mine = records[(records[list(named)] == pd.Series(named)).all(axis=1) & records["k"].notna()]
        if not mine.empty:
            k = np.asarray(mine["k"].iloc[0], np.float64)
            x = [round(float(share), 5) for share in k / k[-1]]
    return named | {"x": x}


def _board(summary: Mapping[str, Any], board: Mapping[str, Any], settings: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    columns = columns_of(board)
    shown = sorted({*(column.key for column in columns), *(key for key, _ in FOREST)})
    return {
        "setting": settings.index((board["substrate"], board["target"], board["space"])),
        "slice": board["slice"],
        "slice_title": slice_title(board["slice"]),
        "title": board_title(summary, board),
        "note": " ".join([*([SCORED] if by_scored(board) else []), *few_patients(board)]),
        "headline": board["headline"],
        "columns": [
            {
                "key": column.key,
                "label": f"{column.top} {column.bottom}".strip(),
                "arrow": column.arrow,
                "signed": column.signed,
            }
            for column in columns
        ],
        "rows": [_row(board, row, shown) for row in board["rows"]],
        "differences": [
            {"a": pair["a"], "b": pair["b"], "p_holm": pair["p_holm"]} for pair in board.get("differences", ())
        ],
    }


def _row(board: Mapping[str, Any], row: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    curves = row.get("curves")
    return {
        "method": row["method"],
        "label": method_label(row),
        "n_used": samples_in(board, row),
        "coverage": short(row["coverage"]),
        "status": row["status"],
        "values": {key: row.get(key) for key in keys},  # in full: rounding twice may change a digit
        "ci": {key: ends for key in keys if (ends := interval(row, key)) is not None},
        "curves": None
        if curves is None
        else {name: [round(v, 4) for v in values] for name, values in curves.items() if name != "n"},
    }


def interval(row: Mapping[str, Any], key: str) -> list[float] | None:
    """The 95 % interval of a summary row's mean.

    BCa where the summary has it, else the percentile interval; a summary without intervals has standard errors over
    patients, of which 1.96 to each side are taken. None where there is neither.
    """
    found = row.get("intervals", {}).get(key)
    if found is not None:
        kind = "bca_" if found.get("bca_low") is not None else ""
        low, high = found.get(f"{kind}low"), found.get(f"{kind}high")
    elif row.get(f"{key}_se") is not None and row.get(key) is not None:
        low, high = row[key] - _Z * row[f"{key}_se"], row[key] + _Z * row[f"{key}_se"]
    else:
        return None
    ends = [short(low), short(high)]
    return None if None in ends else [end for end in ends if end is not None]


def _styles(methods: Sequence[str]) -> dict[str, dict[str, str | None]]:
    return {
        name: {"color": to_hex(style["color"]), "dash": _DASHES[style["ls"]]}
        for name, style in method_styles(methods).items()
    }
