"""Names a rank that stalls, long before the others give up on it.

Ranks meet only after their last batch, so one that hangs would be noticed at the strategy's timeout, hours later. Every
rank therefore says in a small file beside its records what it is doing, and a thread of another rank looks whether that
changes: rank r looks at r + 1, the last one at 0. A stopped process cannot tell on itself; no clock is compared with
another host's. It is a line in the log and nothing else: a long batch is no error.
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

logger = logging.getLogger(__name__)

LEAST_SECONDS = 120.0
"""Silence that is worth a line, unless batches take long: then ten times the longest one so far."""
FIRST_SECONDS = 900.0
"""Likewise before any batch is done, when nobody knows how long one takes."""


class LifeSign:
    """What a rank is doing, in a file that the others can read.

    Args:
        folder: the folder of the records.
        start: number of this start of the run.
        rank: the global rank.
    """

    def __init__(self, folder: Path, start: int, rank: int) -> None:
        """No file yet; a name with a dot is none of a reader's of the folder."""
        self._path = folder / f".doing-{start:03d}-r{rank:05d}"

    def write(self, doing: str, longest: float) -> None:
        """Say what is being done now, and how many seconds the longest batch has taken so far."""
        text = f"{longest:.3f}\n{socket.gethostname()}, process {os.getpid()}, {doing}"
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        with suppress(OSError):  # a full disk is an error of the records, which are written next and say so
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self._path)

    def remove(self) -> None:
        """There is nothing more to do."""
        self._path.unlink(missing_ok=True)

    def read(self) -> tuple[float, str] | None:
        """(longest, who and what); None before the beginning and after the end."""
        try:
            longest, _, who = self._path.read_text(encoding="utf-8").partition("\n")
        except OSError:  # also a file system that is away for a moment: not this thread's business
            return None
        return float(longest), who


class Lookout:
    """Whether the ranks after one's own still move.

    Args:
        folder: the folder of the records.
        start: number of this start of the run.
        rank: the rank that looks.
        world: number of ranks.
        timeout: how long ranks wait for each other; a stall is named when a quarter of it is over at the latest.
    """

    def __init__(self, folder: Path, start: int, rank: int, world: int, timeout: timedelta) -> None:
        """Nobody has been looked at."""
        self._signs = {
            (rank + step) % world: LifeSign(folder, start, (rank + step) % world) for step in range(1, world)
        }
        self._latest = timeout.total_seconds() / 4
        self._seen: dict[int, tuple[tuple[float, str] | None, float]] = {}
        self._named: set[int] = set()

    def look(self, seconds: float, longest: float = 0.0) -> None:
        """Look at the next rank, and past those that stall at the ones behind them.

        Args:
            seconds: time between two looks. Looks are counted, so a job that was suspended as a whole is not told on.
            longest: seconds of the longest batch of the rank that looks.
        """
        for rank, sign in self._signs.items():
            found = sign.read()
            before, silent = self._seen.get(rank, (None, 0.0))
            silent += seconds
            if found is None or found != before:
                if rank in self._named:
                    logger.warning("rank %d goes on after %.0f s", rank, silent)
                    self._named.discard(rank)
                self._seen[rank] = (found, 0.0)
                return
            self._seen[rank] = (found, silent)
            slowest = max(longest, found[0])
            patience = max(LEAST_SECONDS, 10 * slowest) if slowest else FIRST_SECONDS
            if silent < min(patience, self._latest):
                return
            if rank not in self._named:
                logger.warning("rank %d has not moved for %.0f s: %s", rank, silent, found[1])
                self._named.add(rank)


class StallWatch(Callback):
    """Writes this rank's sign of life around each batch, and looks at the next rank's; nothing for a single rank."""

    def __init__(self, writer: RecordsWriter, timeout: timedelta) -> None:
        """Choose whose start of the run it is; comes after that callback, whose folder and number it uses."""
        self._writer, self._timeout = writer, timeout
        self._sign: LifeSign | None = None
        self._closing = threading.Event()
        self._begin, self._longest = 0.0, 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begin to watch; the model is loaded after this."""
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
        """The next thing is to get pictures, which may take long as well."""
        self._longest = max(self._longest, time.monotonic() - self._begin)
        self._say(f"waits for pictures after batch {batch_idx + 1}")

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The records are merged after this."""
        self._say("merges its records")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """From now on this rank waits for others, as long as they need."""
        if self._sign is not None:
            self._sign.remove()
            self._sign = None

    def _say(self, doing: str) -> None:
        if self._sign is not None:
            self._sign.write(doing, self._longest)

    def close(self) -> None:
        """Look no more: all ranks have come."""
        self._closing.set()
