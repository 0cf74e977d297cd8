"""TensorBoard: a run's mean curves with bands, scalars, histograms and leaderboard; no picture unless asked for."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams as hparams_summary

from cxr_faith.pipeline.live import SETTLING, remove_live
from cxr_faith.pipeline.module import FaithfulnessModule
from cxr_faith.pipeline.monitor import read_alerts
from cxr_faith.records import read_records
from cxr_faith.report import bands
from cxr_faith.report.leaderboard import markdown

_SCALARS = (
    *("deletion_auc", "insertion_auc", "srg", "drop_50", "coverage"),
    *("gap_deletion_random", "gap_insertion_random", "gap_srg_random"),
    *("gap_deletion_center", "gap_insertion_center", "gap_srg_center"),
)
_HISTOGRAMS = ("deletion_auc", "insertion_auc", "srg")


def write_tensorboard(run_dir: Path, summary: Mapping[str, Any], module: FaithfulnessModule, show_images: bool) -> None:
    """Write `tensorboard/` anew from a summary and the records.

    Curves are scalars whose step is the percentage of cells. A custom layout puts all methods into one chart, and each
    method with its band into one more; the plain scalars show the same where the custom tab stays empty. Gaps settle:
    their running mean over samples, by `sample_id`. Histograms hold the scores of samples that are ok, by finding.

    Args:
        run_dir: the run directory.
        summary: as `write_summary` returns it.
        module: for the hyperparameters.
        show_images: also the pictures of `report/pictures`.
    """
    folder = run_dir / "tensorboard"
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    remove_live(run_dir)
    columns = tuple(dict.fromkeys((*bands.COLUMNS, *_HISTOGRAMS, *SETTLING)))
    records = read_records(run_dir, columns)
    records = records[records["condition"].eq("none")]
    bands.add_bands(summary, records)
    with SummaryWriter(str(folder)) as writer:
        charts: dict[str, dict[str, list[Any]]] = {"curves": {}, "bands": {}}
        for board in summary["boards"]:
            place = _place(board["slice"], board["substrate"])
            for row in board["rows"]:
                for name in _SCALARS:
                    if row.get(name) is not None:
                        writer.add_scalar(f"{name}/{place}/{row['method']}", row[name], 0)
                if "curves" in row:
                    _add_curves(writer, place, row, charts)
        writer.add_custom_scalars({name: layout for name, layout in charts.items() if layout})
        _add_samples(writer, records)
        _add_text(writer, summary)
        _add_hparams(writer, summary, module)
        for alert in read_alerts(run_dir):
            writer.add_text(f"alerts/{alert['kind']}", alert["message"], alert["samples"])
        if show_images:
            for path in sorted((run_dir / "report" / "pictures").glob("*-methods.png")):
                picture = np.asarray(Image.open(path).convert("RGB"))
                writer.add_image(f"gallery/{path.stem}", picture, dataformats="HWC")


def _place(slice: str, substrate: str) -> str:
    """A part of a tag: TensorBoard takes no colons."""
    return f"{slice}/{substrate}".replace(":", "_")


def _add_curves(
    writer: SummaryWriter, place: str, row: Mapping[str, Any], charts: dict[str, dict[str, list[Any]]]
) -> None:
    for side in ("deletion", "insertion"):
        tag = f"{side}_curve/{place}/{row['method']}"
        charts["curves"].setdefault(f"{side} · {place}", ["Multiline", []])[1].append(f"{re.escape(tag)}$")
        ends = [f"{side}{end}" for end in ("_low", "_high") if f"{side}{end}" in row["curves"]]
        for name, own in ((side, tag), *((end, f"{tag}/{end.removeprefix(f'{side}_')}") for end in ends)):
            for x, y in zip(row["curves"]["x"], row["curves"][name], strict=True):
                writer.add_scalar(own, y, round(100 * x))
        if ends:
            margin = [tag, f"{tag}/low", f"{tag}/high"]
            charts["bands"][f"{side} · {place} · {row['method']}"] = ["Margin", margin]


def _add_samples(writer: SummaryWriter, records: pd.DataFrame) -> None:
    """Histograms by finding, and how the running means of the gaps settle."""
    ok = records[records["status"].eq("ok")].sort_values("sample_id", kind="stable")
    for (substrate, method), rows in ok.groupby(["substrate", "method"], sort=True):
        for name in SETTLING:
            tag = f"settling_{name}/{_place('all', str(substrate))}/{method}"
            for step, mean in _settling(rows[name].dropna().to_numpy(np.float64)):
                writer.add_scalar(tag, mean, step)
        slices = {"all": rows, **{f"finding:{finding}": part for finding, part in rows.groupby("finding", sort=True)}}
        for slice_name, part in slices.items():
            for name in _HISTOGRAMS:
                values = part[name].dropna().to_numpy(np.float64)
                if len(values):
                    tag = f"{name}_distribution/{_place(slice_name, str(substrate))}/{method}"
                    writer.add_histogram(tag, values, 0)


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


def _add_hparams(writer: SummaryWriter, summary: Mapping[str, Any], module: FaithfulnessModule) -> None:
    protocol = module.protocol
    settings = {
        "model": module.model_config.path,
        "steps": protocol.steps,
        "random_orders": protocol.random_orders,
        "substrates": " ".join(protocol.substrates),
        "softness": protocol.softness,
        "target": str(protocol.target),
        "seed": protocol.seed,
    }
    whole = next((board for board in summary["boards"] if board["slice"] == "all"), None)
    rows = whole["rows"] if whole else []
    metrics = {
        f"hparam/{name}/{row['method']}": row[name]
        for row in rows
        for name in ("srg", "gap_srg_center")
        if row.get(name) is not None
    }
    file_writer: Any = writer._get_file_writer()
    for part in hparams_summary(settings, metrics):
        file_writer.add_summary(part)
    for tag, value in metrics.items():
        writer.add_scalar(tag, torch.tensor(value), 0)
