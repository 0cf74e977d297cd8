"""TensorBoard: mean curves and scalars of a run, from its summary; no picture unless asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams as hparams_summary

from cxr_faith.pipeline.module import FaithfulnessModule
from cxr_faith.pipeline.monitor import read_alerts

_SCALARS = (
    *("deletion_auc", "insertion_auc", "srg", "drop_50", "coverage"),
    *("gap_deletion_random", "gap_insertion_random", "gap_srg_random"),
    *("gap_deletion_center", "gap_insertion_center", "gap_srg_center"),
)


def write_tensorboard(run_dir: Path, summary: Mapping[str, Any], module: FaithfulnessModule, show_images: bool) -> None:
    """Write `tensorboard/` anew from a summary.

    Curves are scalars whose step is the percentage of cells, with a custom layout that puts all methods into one
    chart; the plain scalars show the same where the custom tab stays empty. Other scalars are one point each, by slice.

    Args:
        run_dir: the run directory.
        summary: as `write_summary` returns it.
        module: for the hyperparameters.
        show_images: also the overlays of `report/pictures`.
    """
    folder = run_dir / "tensorboard"
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(folder)) as writer:
        charts: dict[str, list[str]] = {}
        for board in summary["boards"]:
            place = f"{board['slice'].replace(':', '_')}/{board['substrate'].replace(':', '_')}"
            for row in board["rows"]:
                for name in _SCALARS:
                    if row.get(name) is not None:
                        writer.add_scalar(f"{name}/{place}/{row['method']}", row[name], 0)
                if "curves" in row:
                    _add_curves(writer, place, row, charts)
        writer.add_custom_scalars({"curves": {title: ["Multiline", tags] for title, tags in charts.items()}})
        _add_hparams(writer, summary, module)
        for alert in read_alerts(run_dir):
            writer.add_text(f"alerts/{alert['kind']}", alert["message"], alert["samples"])
        if show_images:
            for path in sorted((run_dir / "report" / "pictures").glob("*.png")):
                picture = np.asarray(Image.open(path).convert("RGB"))
                writer.add_image(f"overlays/{path.stem}", picture, dataformats="HWC")


def _add_curves(writer: SummaryWriter, place: str, row: Mapping[str, Any], charts: dict[str, list[str]]) -> None:
    for side in ("deletion", "insertion"):
        tag = f"{side}_curve/{place}/{row['method']}"
        charts.setdefault(f"{side} · {place}", []).append(tag)
        for x, y in zip(row["curves"]["x"], row["curves"][side], strict=True):
            writer.add_scalar(tag, y, round(100 * x))


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
    metrics = {f"hparam/srg/{row['method']}": row["srg"] for row in rows if row.get("srg") is not None}
    file_writer: Any = writer._get_file_writer()
    for part in hparams_summary(settings, metrics):
        file_writer.add_summary(part)
    for tag, value in metrics.items():
        writer.add_scalar(tag, torch.tensor(value), 0)
