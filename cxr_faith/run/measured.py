"""The board of the torchmetrics at the end of prediction: reads earlier records back, writes it, prints a shard's."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils.tensorboard.summary import hparams

from cxr_faith.metrics.board import COLUMNS, MetricBoard
from cxr_faith.perturb.condition import NONE
from cxr_faith.printable import plain
from cxr_faith.records import Shown, scan_records
from cxr_faith.report.metric_table import render_metrics
from cxr_faith.report.terminal import show
from cxr_faith.run.event_file import FOLDER, event_file
from cxr_faith.run.live import run_name
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.storage.atomic import own_folder, write_atomic
from cxr_faith.summary.metric_rows import MetricRow

FILE = "metrics.json"
HPARAMS = ".hparams"
"""Suffix of the event files with the table of hyperparameters; `write_tensorboard` does not delete them."""

_HPARAM_METRICS = ("srg", "deletion_auc", "insertion_auc", "drop_50", "gap_srg_center")


def read_back(board: MetricBoard, run_dir: Path, shown: Shown, start: int | None = None) -> None:
    """Add the records that other starts have written, so that the board covers the whole run.

    Call this on one rank, before the sums of the ranks are added.

    Args:
        board: the torchmetrics of this start.
        run_dir: the run directory.
        shown: the rows of the config.
        start: the number of this start, whose rows are in the board already; None: no row is.
    """
    for piece in scan_records(run_dir, COLUMNS, shown=shown, without=start):
        board.update_frame(piece[piece["condition"].eq(NONE)])


def print_metrics(console: Console, rows: Sequence[MetricRow]) -> None:
    """Print a table for each substrate."""
    for substrate in dict.fromkeys(row.substrate for row in rows):
        show(console, render_metrics(rows, substrate, console.width))


def write_metrics(run_dir: Path, rows: Sequence[MetricRow]) -> None:
    """Write the board as `metrics.json`; `pandas.DataFrame(content["rows"])` is the board as a table."""
    content = {"samples": max((row.samples for row in rows), default=0), "rows": [row.to_dict() for row in rows]}
    write_atomic(run_dir / FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_hparams(run_dir: Path, module: FaithfulnessModule, rows: Sequence[MetricRow]) -> None:
    """Write the table of hyperparameters of TensorBoard: one line for each method, with the protocol and its means.

    Args:
        run_dir: the run directory.
        module: for the protocol and the model's name.
        rows: the torchmetrics; for a method with several substrates, the first row is written.
    """
    folder = own_folder(run_dir, FOLDER)
    for old in folder.rglob(f"events.out.tfevents.*{HPARAMS}"):
        old.unlink()
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
    for row in {row.method: row for row in reversed(rows)}.values():
        reached = {name: row.means[name] for name in _HPARAM_METRICS} | {"coverage": row.coverage}
        metrics = {f"hparam/{name}": value for name, value in reached.items() if value is not None}
        with event_file(run_dir, run_name(row.method), suffix=HPARAMS) as writer:
            file_writer: Any = writer._get_file_writer()
            for part in hparams(plain({"method": row.method, **settings}), metrics):
                file_writer.add_summary(part)
            for tag, value in metrics.items():
                writer.add_scalar(tag, torch.tensor(value), 0)
