"""TensorBoard after a run: mean curves with bands, histograms and tables as text; pictures if asked for."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from cxr_faith.metrics.functional import MEASURED
from cxr_faith.perturb.condition import NONE
from cxr_faith.printable import markdown_text, printable
from cxr_faith.records.view import RecordView, text
from cxr_faith.report.alerts import read_alerts
from cxr_faith.report.choice import MOST_ROWS
from cxr_faith.report.markdown import head_markdown, section, tables_markdown
from cxr_faith.report.run_files import read_gallery
from cxr_faith.report.tables import slice_table
from cxr_faith.run.event_file import FOLDER, event_file
from cxr_faith.run.live import SETTLING, remove_live, run_name
from cxr_faith.run.measured import HPARAMS
from cxr_faith.storage.atomic import own_folder
from cxr_faith.summary import bands
from cxr_faith.summary.curves import Curves
from cxr_faith.summary.load import shown_in
from cxr_faith.summary.summary import Summary

UNSMOOTHED = "?smoothing=0#custom_scalars&_smoothingWeight=0"
"""End of the address under which TensorBoard draws lines as they are; by default it smooths them."""
_HISTOGRAMS = ("deletion_auc", "insertion_auc", "srg")
_COLUMNS = tuple(dict.fromkeys(("substrate", "finding", "status", "effect", *_HISTOGRAMS, *SETTLING)))


def write_tensorboard(run_dir: Path, summary: Summary, show_images: bool) -> None:
    """Write `tensorboard/` anew from a summary and the records.

    Each method is one TensorBoard run, so that TensorBoard draws the methods into one chart in different colors and
    lets the reader tick them. Curves are scalars whose step is the percentage of cells; a custom layout shows them with
    their bands, which runs of more than `MOST_ROWS` records do not have. `settling_*` is the running mean of a gap over
    samples, by `sample_id`. Histograms hold the scores of samples that are ok, by finding. Leaderboard, slices, alerts
    and pictures belong to the run `.`. A single number, such as a mean srg, is a cell of these tables; as a scalar it
    would be a chart with one dot.

    Args:
        run_dir: the run directory.
        summary: the run's summary.
        show_images: also the pictures of `report/pictures`.
    """
    folder = own_folder(run_dir, FOLDER)  # refuses a link: what is deleted next must be the run's own
    remove_live(run_dir)
    for old in folder.rglob("events.out.tfevents.*"):
        if not old.name.endswith(HPARAMS):
            old.unlink()
    shown = shown_in(summary)
    view = RecordView(run_dir, _COLUMNS, shown)  # one method at a time is in memory
    if len(view) <= MOST_ROWS:
        summary = bands.with_bands_of(run_dir, summary, shown)
    measured = f"condition = {text(NONE)} AND status IN ({', '.join(map(text, MEASURED))})"
    for method in dict.fromkeys(row.method for board in summary.boards for row in board.rows):
        with event_file(run_dir, run_name(method)) as writer:
            for board in summary.boards:
                for curves in (row.curves for row in board.rows if row.method == method):
                    if curves is not None:
                        _add_curves(writer, _place(board.slice, board.substrate), curves)
            _add_samples(writer, view.frame(_COLUMNS, f"{measured} AND method = {text(method)}"))
    with event_file(run_dir) as writer:
        writer.add_custom_scalars(_layout(summary))
        _add_text(writer, summary)
        for alert in read_alerts(run_dir):
            writer.add_text(f"alerts/{alert.kind}", markdown_text(alert.message), alert.samples)
        if show_images:
            for sample, question, path in read_gallery(run_dir):
                picture = np.asarray(Image.open(path).convert("RGB"))
                writer.add_image(printable(f"gallery/{sample} · {question}"), picture, dataformats="HWC")


def _place(slice: str, substrate: str) -> str:
    """Slice and substrate as a part of a tag; TensorBoard allows no colons."""
    return printable(f"{slice}/{substrate}").replace(":", "_")


def _add_curves(writer: SummaryWriter, place: str, curves: Curves) -> None:
    """Mean curves, and the edges of their bands if they have any."""
    for side in ("deletion", "insertion"):
        lines = {"": getattr(curves, side)}
        if curves.bands is not None:
            lines |= {f"/{end}": getattr(curves.bands, f"{side}_{end}") for end in ("low", "high")}
        for end, line in lines.items():
            # A finer schedule has several points at one percentage: the last one counts.
            points = {round(100 * x): y for x, y in zip(curves.x, line, strict=True)}
            for step, y in points.items():
                writer.add_scalar(f"{side}_curve/{place}{end}", y, step)


def _layout(summary: Summary) -> dict[str, dict[str, list[Any]]]:
    """For each board, one chart with the curves of all ticked runs and one with their bands."""
    charts: dict[str, dict[str, list[Any]]] = {"curves": {}, "bands": {}}
    for board in summary.boards:
        place = _place(board.slice, board.substrate)
        shown = [row.curves for row in board.rows if row.curves is not None]
        for side in ("deletion", "insertion") if shown else ():
            tag, title = f"{side}_curve/{place}", f"{side} · {place}"
            charts["curves"][title] = ["Multiline", [f"{re.escape(tag)}$"]]
            if any(curves.bands is not None for curves in shown):
                charts["bands"][title] = ["Margin", [tag, f"{tag}/low", f"{tag}/high"]]
    # TensorBoard smooths lines by default, and a layout cannot change that; `UNSMOOTHED` can.
    return {f"{name} (set smoothing to 0)": layout for name, layout in charts.items() if layout}


def _add_samples(writer: SummaryWriter, records: pd.DataFrame) -> None:
    """Histograms by finding, and running means of the gaps, over the samples of a method that are ok."""
    for substrate, rows in records.groupby("substrate", sort=True):
        for name in SETTLING:
            for step, mean in _settling(rows[[name, "effect"]].dropna().to_numpy(np.float64)):
                writer.add_scalar(f"settling_{name}/{_place('all', str(substrate))}", mean, step)
        slices = {"all": rows, **{f"finding:{finding}": part for finding, part in rows.groupby("finding", sort=True)}}
        for slice_name, part in slices.items():
            for name in _HISTOGRAMS:
                values = part[name].dropna().to_numpy(np.float64)
                if len(values):
                    writer.add_histogram(f"{name}_distribution/{_place(slice_name, str(substrate))}", values, 0)


def _settling(values: npt.NDArray[np.float64], most: int = 300) -> Iterator[tuple[int, float]]:
    """(number of samples, their weighted mean) at no more than `most` points: more would only fill the event file.

    Args:
        values: value and weight of each sample [samples, 2].
        most: number of points.
    """
    if len(values) > 1:  # one mean would be a dot
        means = np.cumsum(values.prod(1)) / np.cumsum(values[:, 1])
        for last in np.unique(np.linspace(0, len(means) - 1, min(len(means), most)).astype(int)):
            yield int(last) + 1, float(means[last])


def _add_text(writer: SummaryWriter, summary: Summary) -> None:
    """The verdict, the tables and the warnings as text, whose lines TensorBoard wraps between words.

    A wide table widens all of its text, whose paragraphs then run beyond the page: the verdict has a text of its own,
    and sentences beside tables are lines of code.
    """
    writer.add_text("verdict", head_markdown(summary), 0)
    writer.add_text("leaderboard", tables_markdown(summary, fenced=True), 0)
    slices = slice_table(summary)
    writer.add_text("slices", section(slices.title, slices, slices.note, fenced=True), 0)
    alerts = "".join(f"- {markdown_text(warning)}\n" for warning in summary.warnings) or "None.\n"
    writer.add_text("alerts", alerts, 0)
