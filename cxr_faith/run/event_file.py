"""TensorBoard's event files, written by this thread.

A plain `SummaryWriter` writes in a thread of its own, which prints a traceback when the disk is full, and into a file
whose name can be guessed. Here an error reaches the caller, and a file is never written through a planted link.
"""

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.writer import FileWriter

from cxr_faith.storage.atomic import own_folder, replacing

FOLDER = "tensorboard"


class EventWriter(SummaryWriter):
    """A `SummaryWriter` into an open binary file, which the caller closes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        super().__init__("unused")

    def _get_file_writer(self) -> Any:
        if self.file_writer is None:
            records: Any = _Records(self._file)
            self.file_writer, self.all_writers = records, cast(Any, {"": records})
        return self.file_writer


class _Records(FileWriter):
    """What `SummaryWriter` writes into; as its own `event_writer`, so that no thread stands in between."""

    def __init__(self, file: IO[bytes]) -> None:
        self.event_writer = self
        self._stream = RecordWriter(file)
        self.add_event(Event(file_version="brain.Event:2"))

    def add_event(self, event: Event, step: int | None = None, walltime: float | None = None) -> None:
        event.wall_time = time.time() if walltime is None else walltime
        if step is not None:
            event.step = int(step)
        self._stream.write(event.SerializeToString())

    def get_logdir(self) -> str:
        return ""

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self.flush()


@contextmanager
def event_file(run_dir: Path, *names: str, suffix: str = "") -> Iterator[SummaryWriter]:
    """Write an event file, which appears once it is complete.

    Args:
        run_dir: the run directory.
        names: folders below its `tensorboard`.
        suffix: end of the file's name.

    Raises:
        OSError: it could not be saved.
    """
    with replacing(own_folder(run_dir, FOLDER, *names) / _new_name(suffix)) as file:
        yield EventWriter(file)


def open_event_file(run_dir: Path, *names: str) -> IO[bytes]:
    """A new event file that is read while it grows."""
    return (own_folder(run_dir, FOLDER, *names) / _new_name()).open("xb")


def _new_name(suffix: str = "") -> str:
    return f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(8)}{suffix}"
