"""`evaluate`: predict, then everything that is made from the merged records."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from transformers.utils import logging as transformers_logging

from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.pipeline.callbacks import RecordsWriter, RunProgress
from cxr_faith.pipeline.module import FaithfulnessModule
from cxr_faith.pipeline.monitor import Monitor, Thresholds
from cxr_faith.pipeline.pictures import write_pictures
from cxr_faith.pipeline.provenance import check_run_dir, identity, write_provenance
from cxr_faith.pipeline.tensorboard import write_tensorboard
from cxr_faith.records import done_samples, write_atomic
from cxr_faith.report.html import write_report
from cxr_faith.report.leaderboard import render_leaderboard
from cxr_faith.report.summary import write_summary


@dataclass(frozen=True)
class RunOptions:
    """Where a run goes and how much of the data it takes; no part of its fingerprint.

    Attributes:
        run_dir: the run directory.
        limit: only the first so many samples of the manifest; the summary is then marked partial.
        show_images: put pictures into the report and TensorBoard; leave off for patients' pictures.
        monitor: when the monitor speaks up.
    """

    run_dir: Path
    limit: int | None = None
    show_images: bool = False
    monitor: Thresholds = Thresholds()


class _SkipDone(Callback):
    """Tells the data module which samples are done; every rank reads it before any rank may write."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        data.skip = done_samples(self.run_dir)


def trainer_defaults(options: RunOptions) -> dict[str, Any]:
    """What a run needs of its Trainer whatever the config says.

    Ranks are served by the data module; attributions need gradients; progress and TensorBoard are ours; a requeued job
    resumes from its records, so Lightning's own requeue with a checkpoint stays off.
    """
    plugins = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
    return {
        "inference_mode": False,
        "use_distributed_sampler": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "logger": False,
        "default_root_dir": str(options.run_dir),
        "plugins": plugins,
    }


def check(module: FaithfulnessModule, data: CXRVQADataModule, options: RunOptions) -> dict[str, Any]:
    """Everything that can be known to be wrong before a model is loaded.

    Returns:
        What identifies the run.

    Raises:
        ValueError: the schedule does not fit the model, the manifest cannot be used, or the run directory is another
            run's.
    """
    module.check_model()
    data.limit, data.cache_dir = options.limit, options.run_dir / "cache"
    expected = identity(module, data)
    check_run_dir(options.run_dir, expected)
    if not data.samples_total:
        raise ValueError(f"{data.manifest} has no sample")
    return expected


def evaluate(
    module: FaithfulnessModule,
    data: CXRVQADataModule,
    trainer: L.Trainer,
    options: RunOptions,
    config: str,
    expected: dict[str, Any],
) -> Mapping[tuple[str, str], Mapping[str, torch.Tensor]]:
    """Run the evaluation and write the run directory; the same call resumes an interrupted one.

    Args:
        module: the checked configuration; its model is loaded here.
        data: the samples.
        trainer: made with `trainer_defaults`.
        options: where to and how much.
        config: the resolved configuration as YAML, kept as `config.yaml`.
        expected: what `check` returned.

    Returns:
        The torchmetrics values of this start, `(substrate, method) -> name -> tensor`, reduced over all ranks.
    """
    transformers_logging.disable_progress_bar()
    run_dir, console = options.run_dir, wide_console()
    callbacks = cast(list[Callback], trainer.callbacks)  # type: ignore[attr-defined]
    if trainer.strategy.root_device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // trainer.num_devices))
    callbacks += [_SkipDone(run_dir), RecordsWriter(run_dir), Monitor(run_dir, options.monitor)]
    if trainer.is_global_zero:
        callbacks.append(RunProgress(console))
        write_provenance(run_dir, module, data, expected, trainer.world_size)
        write_atomic(run_dir / "config.yaml", config)
    trainer.predict(module, datamodule=data, return_predictions=False)
    values = metric_values(module, trainer)
    trainer.strategy.barrier("records are written")
    if trainer.is_global_zero:
        finish(run_dir, module, data, options, console)
    trainer.strategy.barrier("the report is written")
    if torch.distributed.is_initialized():
        # A process that exits with its group alive may abort on the way out.
        torch.distributed.destroy_process_group()
    return values


def wide_console() -> Console:
    """The terminal; in a file or a pipe, which have no width, wide enough for the leaderboard."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def metric_values(module: FaithfulnessModule, trainer: L.Trainer) -> dict[tuple[str, str], dict[str, torch.Tensor]]:
    """Values of the torchmetrics over all ranks of this start; a call for every rank, also an empty one."""
    # Lightning has moved the module to the CPU by now, where NCCL cannot reduce.
    device = trainer.strategy.root_device
    return {key: collection.to(device).compute() for key, collection in module.metrics.items()}


def finish(
    run_dir: Path, module: FaithfulnessModule, data: CXRVQADataModule, options: RunOptions, console: Console
) -> None:
    """All that is made from the merged records: summary, pictures, report, TensorBoard, leaderboard."""
    summary = write_summary(run_dir)
    if options.show_images:
        write_pictures(run_dir, data)
    report = write_report(run_dir)
    write_tensorboard(run_dir, summary, module, options.show_images)
    console.print(render_leaderboard(summary))
    console.print(f"report       {report}", soft_wrap=True, highlight=False)
    console.print(f"tensorboard  tensorboard --logdir {run_dir / 'tensorboard'}", soft_wrap=True, highlight=False)
    console.print(f"records      {run_dir / 'records'}", soft_wrap=True, highlight=False)
