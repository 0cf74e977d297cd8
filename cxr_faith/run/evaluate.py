"""`evaluate`: predict, then make summary, report and TensorBoard from the merged records."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from transformers.utils import logging as transformers_logging

from cxr_faith.data.module import CXRVQADataModule, Shard
from cxr_faith.records import Shown, read_progress, scan_records
from cxr_faith.report.results import Results, write_results
from cxr_faith.report.terminal import print_line, show_notes, show_summary, wide_console
from cxr_faith.run.batch_sizes import BatchSizes, check_size
from cxr_faith.run.callbacks import RecordsWriter, RunProgress
from cxr_faith.run.cautions import run_cautions
from cxr_faith.run.history import Start
from cxr_faith.run.identity import Identity, check_run_dir
from cxr_faith.run.live import LiveScalars, remove_live
from cxr_faith.run.lock import merge_lock, run_lock
from cxr_faith.run.measured import print_metrics, read_back, write_hparams, write_metrics
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.run.monitor import Monitor, Thresholds
from cxr_faith.run.pace import PaceWatch
from cxr_faith.run.pictures import write_pictures
from cxr_faith.run.provenance import write_provenance
from cxr_faith.run.ranks import MeetRanks, StopOnRequest, end_children, resume_command, timeout_of
from cxr_faith.run.resume import TakeOver
from cxr_faith.run.retry import retry_unread
from cxr_faith.run.stall import StallWatch
from cxr_faith.run.stop import StoppedError, StopRequest
from cxr_faith.run.tensorboard import UNSMOOTHED, write_tensorboard
from cxr_faith.storage.atomic import write_atomic
from cxr_faith.summary.metric_rows import RECORDED, MetricRow, disagreements, metric_rows, recorded_rows
from cxr_faith.vlm.devices import check_device
from cxr_faith.vlm.loading import check_files

T = TypeVar("T")


@dataclass(frozen=True)
class RunOptions:
    """Where a run goes and how much of the data it takes; not part of the fingerprint.

    Attributes:
        run_dir: the run directory.
        limit: use only this many samples from the start of the manifest; the summary is then marked partial.
        show_images: put pictures into the report and TensorBoard; leave it off for pictures of patients.
        shard: the part of the samples that this job takes; the other jobs of an array take the rest.
        monitor: when the monitor raises an alert.
        command: the command line that began the run, for the first lines of its report; empty for a program.
    """

    run_dir: Path
    limit: int | None = None
    show_images: bool = False
    shard: Shard = Shard()
    monitor: Thresholds = Thresholds()
    command: str = ""


def trainer_defaults(options: RunOptions) -> dict[str, Any]:
    """Options of the Trainer that a run needs whatever the config says.

    The data module deals samples to ranks, attributions need gradients, and the run has its own progress and
    TensorBoard. A run also needs `cluster_plugins`, which are objects and cannot stand in a config.
    """
    return {
        "inference_mode": False,
        "use_distributed_sampler": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "logger": False,
        "default_root_dir": str(options.run_dir),
    }


def check(module: FaithfulnessModule, data: CXRVQADataModule, trainer: L.Trainer, options: RunOptions) -> Identity:
    """Check everything that can be checked before the model is loaded.

    Returns:
        the identity of the run.

    Raises:
        ValueError: the device or the manifest cannot be used, the model's files are damaged, the schedule does not fit
            the model, or the run directory holds another run.
    """
    check_device(trainer.strategy.root_device)
    module.check_model()
    check_files(module.model_config)
    data.limit, data.shard, data.cache_dir = options.limit, options.shard, options.run_dir / "cache"
    identity = Identity.of(module, data, trainer.strategy.root_device)
    check_run_dir(options.run_dir, identity, alone=options.shard.count == 1)
    check_size(options.run_dir, trainer.strategy.root_device, module.micro_batch)
    if not data.samples_total:
        raise ValueError(f"{data.manifest} has no sample")
    return identity


def evaluate(
    module: FaithfulnessModule,
    data: CXRVQADataModule,
    trainer: L.Trainer,
    options: RunOptions,
    config: str,
    identity: Identity,
    request: StopRequest | None = None,
) -> Mapping[tuple[str, str], Mapping[str, torch.Tensor]]:
    """Run the evaluation and write the run directory; the same call resumes an interrupted one.

    Args:
        module: the checked configuration; its model is loaded here.
        data: the samples.
        trainer: made with `trainer_defaults`.
        options: where to and how much.
        config: the resolved configuration as YAML, kept as `config.yaml`.
        identity: what `check` returned.
        request: may ask for a stop during the run; default: nothing can.

    Returns:
        the torchmetrics over all ranks, `(substrate, method) -> name -> tensor`.

    Raises:
        RunDirectoryInUseError: another run writes into the run directory.
        RunDirectoryError: another run has begun to write into it since `check`.
        StoppedError: a stop was asked for; on every rank.
        OSError: the run directory cannot be written.
    """
    transformers_logging.disable_progress_bar()
    request = StopRequest() if request is None else request
    try:
        with run_lock(options.run_dir, options.shard) if trainer.is_global_zero else nullcontext():
            if trainer.is_global_zero:  # again: a run that this one waited for has written its first record meanwhile
                identity = check_run_dir(options.run_dir, identity, alone=options.shard.count == 1)
            return _evaluate(module, data, trainer, options, config, identity, request)
    except StoppedError:
        raise
    except BaseException:  # of any kind: the other ranks on this machine would wait for this one
        end_children(trainer)
        raise
    finally:
        if torch.distributed.is_initialized():
            # A process that exits while its group is alive may abort.
            torch.distributed.destroy_process_group()


def _evaluate(
    module: FaithfulnessModule,
    data: CXRVQADataModule,
    trainer: L.Trainer,
    options: RunOptions,
    config: str,
    identity: Identity,
    request: StopRequest,
) -> Mapping[tuple[str, str], Mapping[str, torch.Tensor]]:
    run_dir, console = options.run_dir, wide_console()
    callbacks = cast(list[Callback], trainer.callbacks)  # type: ignore[attr-defined]
    if trainer.strategy.root_device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // trainer.num_devices))
    meeting, writer, stop = MeetRanks(), RecordsWriter(run_dir, request), StopOnRequest(request)
    watch = StallWatch(writer, timeout_of(trainer))
    callbacks += [TakeOver(run_dir, module.method_set.shown), meeting, BatchSizes(run_dir), writer]
    callbacks += [Monitor(run_dir, options.monitor), watch]
    if trainer.is_global_zero:
        pace = PaceWatch()
        callbacks += [RunProgress(console), LiveScalars(run_dir), pace]
        cautions = run_cautions(module, data)
        show_notes(console, cautions)
        write_provenance(run_dir, module, data, identity, trainer.world_size, cautions)
        write_atomic(run_dir / "config.yaml", config)
        start = Start(run_dir, options.command)
        if options.shard.count == 1:  # other shards may be writing
            remove_live(run_dir)
            retry_unread(run_dir, data)
    callbacks.append(stop)
    trainer.predict(module, datamodule=data, return_predictions=False)
    ranks = meeting.ranks
    assert ranks is not None
    ranks.meet()
    if trainer.is_global_zero:
        start.end(pace.pace)
    if ranks.any(stop.left_work):
        name = request.signal.name if request.signal else "a signal to another rank"
        raise StoppedError(f"stopped on {name}; {run_dir} keeps what is done; to resume: {resume_command()}")
    if trainer.is_global_zero:
        read_back(module.board, run_dir, module.method_set.shown, writer.start)
    values = module.metric_values()
    if trainer.is_global_zero:
        _finish_or_leave(run_dir, module, data, options, metric_rows(values), console)
    ranks.meet()
    watch.close()
    return values


def _left(run_dir: Path, data: CXRVQADataModule, shown: Shown) -> int:
    """Number of samples of this run that lack records."""
    data.skip = read_progress(run_dir, shown).done
    return len(data.remaining_rows())


def _finish_or_leave(
    run_dir: Path,
    module: FaithfulnessModule,
    data: CXRVQADataModule,
    options: RunOptions,
    rows: Sequence[MetricRow],
    console: Console,
) -> None:
    """Make the report; with several shards, the last one to finish makes it."""
    if options.shard.count == 1:
        finish(run_dir, module, data, options, rows, console)
        return
    with merge_lock(run_dir):
        data.shard = Shard()
        shown = module.method_set.shown
        left = _left(run_dir, data, shown)
        if not left:
            board = module.empty_board()  # the samples of the other shards are in the records only
            read_back(board, run_dir, shown)
            rows = metric_rows(board.compute(torch.device("cpu"), over_ranks=False))
            finish(run_dir, module, data, options, rows, console)
        else:
            line = (
                f"shard {options.shard.index} of {options.shard.count} is done; other shards have {left} samples left"
            )
            print_metrics(console, rows)  # the only board until the last shard makes the report
            print_line(console, f"{line}; for a report now: cxr-faith report {run_dir}")


def finish(
    run_dir: Path,
    module: FaithfulnessModule,
    data: CXRVQADataModule,
    options: RunOptions,
    rows: Sequence[MetricRow],
    console: Console,
) -> None:
    """Write what a finished run leaves beside its records, and print the leaderboard.

    Raises:
        OSError: the first file that could not be saved; the others were tried too.
    """
    faults: list[OSError] = []

    def attempt(write: Callable[..., T], *arguments: Any) -> T | None:
        try:
            return write(run_dir, *arguments)
        except OSError as error:
            faults.append(error)
            return None

    attempt(write_metrics, rows)
    if options.show_images:
        attempt(write_pictures, data)
    results = attempt(write_results)
    attempt(write_hparams, module, rows)
    if results is not None:
        attempt(write_tensorboard, results.summary, options.show_images)
        _show(console, run_dir, results, rows, module.method_set.shown)
    if faults:
        raise faults[0]


def _show(console: Console, run_dir: Path, results: Results, rows: Sequence[MetricRow], shown: Shown) -> None:
    """Print the leaderboard, what is wrong with it, and where everything is."""
    show_summary(console, results.summary, run_dir)
    recorded = recorded_rows(scan_records(run_dir, RECORDED, shown=shown))
    for line in disagreements(rows, recorded, results.summary):
        print_line(console, f"warning      {line}; do not trust this run")
    print_line(console, f"report       {results.page}")
    print_line(console, f"tensorboard  tensorboard --logdir {run_dir / 'tensorboard'}")
    print_line(console, f"             then http://localhost:6006/{UNSMOOTHED}")
    print_line(console, f"records      {run_dir / 'records'}")
