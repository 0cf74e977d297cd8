"""Names a rank that hangs, long before the other ranks give up on it.

Ranks meet only after their last batch, so a hung rank would stay unnoticed until the strategy's timeout, hours later. A
hung process cannot report itself. So each rank writes what it does into a small file beside its records, and a thread
of another rank checks whether that file changes: rank r checks r + 1, the last rank checks 0. No clock is compared with
the clock of another host. The result is a line in the log only, since a long batch is not an error.
"""

import logging
import os
import socket
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from cxr_faith.run.callbacks import RecordsWriter
from cxr_faith.storage.atomic import read_file, replacing

logger = logging.getLogger(__name__)

LEAST_SECONDS = 120.0
"""A rank is named after this long without progress, or after ten times its longest batch, whichever is longer."""
FIRST_SECONDS = 900.0
"""The same before the first batch is done, when nobody knows how long a batch takes."""


class LifeSign:
    """A file in which a rank says what it is doing.

    Args:
        folder: the folder of the records.
        start: number of this start of the run.
        rank: the global rank.
    """

    def __init__(self, folder: Path, start: int, rank: int) -> None:
        """Name the file with a leading dot: readers ignore dot-files."""
        self._path = folder / f".doing-{start:03d}-r{rank:05d}"

    def write(self, doing: str, longest: float) -> None:
        """Write what the rank does now, and how many seconds its longest batch has taken so far."""
        text = f"{longest:.3f}\n{socket.gethostname()}, process {os.getpid()}, {doing}"
        with suppress(OSError), replacing(self._path, durable=False) as file:
            file.write(text.encode())  # an error, as of a full disk, comes again from the next write of records

    def remove(self) -> None:
        """Remove the file: this rank has finished."""
        self._path.unlink(missing_ok=True)

    def read(self) -> tuple[float, str] | None:
        """(seconds of the longest batch, who does what); None before the first write and after the end."""
        try:
            longest, _, who = read_file(self._path).decode().partition("\n")
            return float(longest), who
        except (OSError, ValueError):  # the file system is away for a moment, or the file is not a rank's
            return None


class Lookout:
    """Checks whether the ranks after this one still move.

    Args:
        folder: the folder of the records.
        start: number of this start of the run.
        rank: the rank that looks.
        world: number of ranks.
        timeout: how long ranks wait for each other; a stall is named when a quarter of it is over at the latest.
    """

    def __init__(self, folder: Path, start: int, rank: int, world: int, timeout: timedelta) -> None:
        self._signs = {
            (rank + step) % world: LifeSign(folder, start, (rank + step) % world) for step in range(1, world)
        }
        self._latest = timeout.total_seconds() / 4
        self._seen: dict[int, tuple[tuple[float, str] | None, float]] = {}
        self._named: set[int] = set()

    def look(self, seconds: float, longest: float = 0.0) -> None:
        """Look at the next rank; if it has stalled, also at the one behind it, and so on.

        Args:
            seconds: time between two looks. Looks are counted, not clock time, so that a job that was suspended as a
                whole raises no alarm.
            longest: seconds of the longest batch of the rank that looks.
        """
        for rank, sign in self._signs.items():
            report = sign.read()
            before, silent = self._seen.get(rank, (None, 0.0))
            silent += seconds
            if report is None or report != before:
                if rank in self._named:
                    logger.warning("rank %d goes on after %.0f s", rank, silent)
                    self._named.discard(rank)
                self._seen[rank] = (report, 0.0)
                return
            self._seen[rank] = (report, silent)
            slowest = max(longest, report[0])
            patience = max(LEAST_SECONDS, 10 * slowest) if slowest else FIRST_SECONDS
            if silent < min(patience, self._latest):
                return
            if rank not in self._named:
                logger.warning("rank %d has not moved for %.0f s: %s", rank, silent, report[1])
                self._named.add(rank)


class StallWatch(Callback):
    """Reports what this rank does around each batch, and watches the next rank; does nothing for a single rank."""

    def __init__(self, writer: RecordsWriter, timeout: timedelta) -> None:
        """Use the folder and start number of the callback that writes the records; it must come before this one."""
        self._writer, self._timeout = writer, timeout
        self._sign: LifeSign | None = None
        self._closing = threading.Event()
        self._begin, self._longest = 0.0, 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begin to watch; Lightning loads the model after this."""
        if trainer.world_size == 1:
            return
        rank, records = trainer.global_rank, self._writer.writer
        self._sign = LifeSign(records.folder, records.start, rank)
        self._sign.write("loads the model", 0.0)
        lookout = Lookout(records.folder, records.start, rank, trainer.world_size, self._timeout)
        seconds = min(LEAST_SECONDS, self._timeout.total_seconds()) / 16
        threading.Thread(target=self._watch, args=(lookout, seconds), name="stall-watch", daemon=True).start()

    def _watch(self, lookout: Lookout, seconds: float) -> None:
        while not self._closing.wait(seconds):
            lookout.look(seconds, self._longest)

    def on_predict_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Name the batch by its first sample."""
        self._begin = time.monotonic()
        number = f"batch {batch_idx + 1} of {trainer.num_predict_batches[dataloader_idx]}"
        self._say(f"in {number}, which begins with sample {batch[0].sample.sample_id!r}")

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Report that the rank waits for pictures, which can take long too."""
        self._longest = max(self._longest, time.monotonic() - self._begin)
        self._say(f"waits for pictures after batch {batch_idx + 1}")

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report that the rank merges its records next."""
        self._say("merges its records")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Report that this rank waits for the others, however long they need."""
        if self._sign is not None:
            self._sign.remove()
            self._sign = None

    def _say(self, doing: str) -> None:
        if self._sign is not None:
            self._sign.write(doing, self._longest)

    def close(self) -> None:
        """Stop watching: all ranks have arrived."""
        self._closing.set()
