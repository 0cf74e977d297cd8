"""TensorBoard: a run's mean curves with bands, scalars, histograms and leaderboard; no picture unless asked for."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from cxr_faith.records import read_records
from cxr_faith.report.alerts import read_alerts
from cxr_faith.report.markdown import markdown
from cxr_faith.run.live import SETTLING, remove_live, run_name
from cxr_faith.run.measured import HPARAMS
from cxr_faith.summary import bands

_SCALARS = (
    *("deletion_auc", "insertion_auc", "srg", "drop_50", "coverage"),
    *("gap_deletion_random", "gap_insertion_random", "gap_srg_random"),
    *("gap_deletion_center", "gap_insertion_center", "gap_srg_center"),
)
_HISTOGRAMS = ("deletion_auc", "insertion_auc", "srg")


def write_tensorboard(run_dir: Path, summary: Mapping[str, Any], show_images: bool) -> None:
    """Write `tensorboard/` anew from a summary and the records.

    Each method is a run of its own, so that TensorBoard draws all of them into one chart in colors of their own, and
    shows those that are ticked. Curves are scalars whose step is the percentage of cells; a custom layout has them with
    their bands. Gaps settle: their running mean over samples, by `sample_id`. Histograms hold the scores of samples
    that are ok, by finding. Leaderboard, alerts and pictures belong to the run `.`, which is all of them.

    Args:
        run_dir: the run directory.
        summary: as `write_summary` returns it.
        show_images: also the pictures of `report/pictures`.
    """
    folder = run_dir / "tensorboard"
    remove_live(run_dir)
    for old in folder.rglob("events.out.tfevents.*"):
        if not old.name.endswith(HPARAMS):
            old.unlink()
    columns = tuple(dict.fromkeys((*bands.COLUMNS, *_HISTOGRAMS, *SETTLING)))
    records = read_records(run_dir, columns)
    records = records[records["condition"].eq("none")]
    bands.add_bands(summary, records)
    samples = records[records["status"].eq("ok")].sort_values("sample_id", kind="stable")
    for method in dict.fromkeys(row["method"] for board in summary["boards"] for row in board["rows"]):
        with SummaryWriter(str(folder / run_name(method))) as writer:
            for board, row in _rows(summary, method):
                place = _place(board["slice"], board["substrate"])
                for name in _SCALARS:
                    if row.get(name) is not None:
                        writer.add_scalar(f"{name}/{place}", row[name], 0)
                if "curves" in row:
                    _add_curves(writer, place, row["curves"])
            _add_samples(writer, samples[samples["method"].eq(method)])
    with SummaryWriter(str(folder)) as writer:
        writer.add_custom_scalars(_layout(summary))
        _add_text(writer, summary)
        for alert in read_alerts(run_dir):
            writer.add_text(f"alerts/{alert['kind']}", alert["message"], alert["samples"])
        if show_images:
            for path in sorted((run_dir / "report" / "pictures").glob("*-methods.png")):
                picture = np.asarray(Image.open(path).convert("RGB"))
                writer.add_image(f"gallery/{path.stem}", picture, dataformats="HWC")


def _rows(summary: Mapping[str, Any], method: str) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """A method's row of each board that has one, with the board."""
    return ((board, row) for board in summary["boards"] for row in board["rows"] if row["method"] == method)


def _place(slice: str, substrate: str) -> str:
    """A part of a tag: TensorBoard takes no colons."""
    return f"{slice}/{substrate}".replace(":", "_")


def _add_curves(writer: SummaryWriter, place: str, curves: Mapping[str, Any]) -> None:
    """Mean curves, and the edges of their bands where there are enough patients for them."""
    for side in ("deletion", "insertion"):
        for name, end in ((side, ""), (f"{side}_low", "/low"), (f"{side}_high", "/high")):
            drawn = zip(curves["x"], curves[name], strict=True) if name in curves else ()
            points = {round(100 * x): y for x, y in drawn}  # of a finer schedule the last one of each percentage
            for step, y in points.items():
                writer.add_scalar(f"{side}_curve/{place}{end}", y, step)


def _layout(summary: Mapping[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """For each board a chart of the curves of all runs that are ticked, and one with their bands."""
    charts: dict[str, dict[str, list[Any]]] = {"curves": {}, "bands": {}}
    for board in summary["boards"]:
        place = _place(board["slice"], board["substrate"])
        shown = [row["curves"] for row in board["rows"] if "curves" in row]
        for side in ("deletion", "insertion") if shown else ():
            tag, title = f"{side}_curve/{place}", f"{side} · {place}"
            charts["curves"][title] = ["Multiline", [f"{re.escape(tag)}$"]]
            if any(f"{side}_low" in curves for curves in shown):
                charts["bands"][title] = ["Margin", [tag, f"{tag}/low", f"{tag}/high"]]
    # The page smooths lines until it is told not to, and a layout cannot tell it.
    return {f"{name} (set smoothing to 0)": layout for name, layout in charts.items() if layout}


def _add_samples(writer: SummaryWriter, records: pd.DataFrame) -> None:
    """Histograms by finding, and how the running means of the gaps settle, of a method's samples that are ok."""
    for substrate, rows in records.groupby("substrate", sort=True):
        for name in SETTLING:
            for step, mean in _settling(rows[name].dropna().to_numpy(np.float64)):
                writer.add_scalar(f"settling_{name}/{_place('all', str(substrate))}", mean, step)
        slices = {"all": rows, **{f"finding:{finding}": part for finding, part in rows.groupby("finding", sort=True)}}
        for slice_name, part in slices.items():
            for name in _HISTOGRAMS:
                values = part[name].dropna().to_numpy(np.float64)
                if len(values):
                    writer.add_histogram(f"{name}_distribution/{_place(slice_name, str(substrate))}", values, 0)


def _settling(values: npt.NDArray[np.float64], most: int = 300) -> Iterator[tuple[int, float]]:
    """(samples so far, their mean), at so many points at most: more are not seen, and would fill the event file."""
    if len(values):
        means = np.cumsum(values) / np.arange(1, len(values) + 1)
        for last in np.unique(np.linspace(0, len(means) - 1, min(len(means), most)).astype(int)):
            yield int(last) + 1, float(means[last])


def _add_text(writer: SummaryWriter, summary: Mapping[str, Any]) -> None:
    """The leaderboard as a page of text, and what a reader should know first as alerts."""
    writer.add_text("leaderboard", markdown(summary), 0)
    alerts = "".join(f"- {warning}\n" for warning in summary["warnings"]) or "None.\n"
    writer.add_text("alerts", alerts.replace("<", "&lt;"), 0)
