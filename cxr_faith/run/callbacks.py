"""Lightning callbacks of a run: records to disk, and progress on the terminal."""

import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from cxr_faith.records import RecordWriter, claim_start
from cxr_faith.report.terminal import print_line
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.run.stop import StopRequest

logger = logging.getLogger(__name__)


class RecordsWriter(BasePredictionWriter):
    """Writes the records of each batch to this rank's own files as soon as the batch is done."""

    def __init__(self, run_dir: Path, request: StopRequest) -> None:
        super().__init__(write_interval="batch")
        self.run_dir, self._request = run_dir, request
        self._writer: RecordWriter | None = None
        self.start = -1
        """Number of this start, once it is known."""

    @property
    def writer(self) -> RecordWriter:
        """Writer of this rank's files; exists after `setup`."""
        assert self._writer is not None
        return self._writer

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Agree on the number of this start; no rank writes before every rank has it."""
        super().setup(trainer, pl_module, stage)
        self.start = trainer.strategy.broadcast(claim_start(self.run_dir) if trainer.is_global_zero else -1)
        self._writer = RecordWriter(self.run_dir, trainer.global_rank, self.start)

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write one batch's records atomically."""
        self.writer.write(prediction)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Merge this rank's files; Lightning calls this on a rank without samples too.

        After a request to stop nothing is merged: writing all records again may take longer than the scheduler waits.
        """
        if self._writer is not None and not self._request:
            try:
                self._writer.compact()
            except OSError as error:  # the records are complete without it
                logger.warning("this rank's records stay in several files: %s", error)
        self._writer = None


class RunProgress(L.Callback):
    """Samples done and remaining, forwards per second and time left, as rank 0 sees its own share.

    On a terminal it is a bar; in a file, such as a job's log, a line every half minute.
    """

    SECONDS_BETWEEN_LINES = 30.0

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),  # takes what the rest leaves of 80 columns
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[speed]:.0f} forwards/s"),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("ETA"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=console,
            disable=not console.is_terminal,
        )

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the bar with the number of samples of this rank."""
        loader: Any = trainer.predict_dataloaders
        self._total, self._done = len(loader.dataset), 0
        self._begin = self._last_line = time.monotonic()
        rank = f"rank 0 of {trainer.world_size}" if trainer.world_size > 1 else ""
        self._title = f"evaluating ({rank})" if rank else "evaluating"
        self._task = self._bar.add_task(rank or self._title, total=self._total, speed=0.0)
        self._bar.start()

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Advance by the samples of a batch."""
        assert isinstance(pl_module, FaithfulnessModule)
        now, counts = time.monotonic(), pl_module.engine.vlm.counts
        self._done += len(batch)
        remaining, speed = self._total - self._done, counts.forwards / (now - self._begin)
        self._bar.update(self._task, completed=self._done, speed=speed)
        due = remaining == 0 or now - self._last_line > self.SECONDS_BETWEEN_LINES
        if due and not self._console.is_terminal:
            self._last_line = now
            left = timedelta(seconds=round((now - self._begin) / self._done * remaining))
            line = f"{self._done}/{self._total} samples · {remaining} left · {speed:.0f} forwards/s · ETA {left}"
            print_line(self._console, f"{self._title} {line}")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the bar, so that the terminal is as it was."""
        self._bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Close the bar; Lightning calls no teardown after an error."""
        self._bar.stop()
