"""Standard input, output and error as a command needs them: a terminal or pipe that fails never ends a run.

Characters that an encoding lacks are replaced. Once a stream cannot be written, because its reader has gone or its disk
is full, it writes nothing more. Processes that start later inherit it so. This module imports the standard library
only, so that a command can call it before it loads anything else.
"""

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

from cxr_faith.printable import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CLOSED = (errno.EPIPE, errno.ECONNRESET, errno.EBADF)
"""Errors that mean: nobody reads the stream."""
STDOUT = "stdout"
"""What an error calls the standard output."""


class Output(io.FileIO):
    """A descriptor whose failures are not errors: the first one is noted, and everything after it goes nowhere.

    Attributes:
        patient: whether to go on after a failure; if not, the failure is raised as an `OSError`.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.patient = True

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write; after a failure of a patient stream the bytes count as written."""
        try:
            while (written := super().write(data)) is None:  # a pipe that does not block, and is full
                select.select([], [self], [])
            return written
        except OSError as error:
            _to_nowhere(self.fileno())
            if not self.patient:
                raise OSError(error.errno, error.strerror, STDOUT) from None
            if error.errno not in CLOSED and self.fileno() == 1:
                print(f"cxr-faith: {STDOUT}: {error.strerror}; the command goes on without it", file=sys.stderr)
            return memoryview(data).nbytes


class PlainText(io.TextIOWrapper):
    """A text stream for messages: control characters and escape sequences become visible, except line ends and tabs."""

    def write(self, text: str, /) -> int:
        """Write the text; a carriage return at its begin, by which progress bars start anew, stays."""
        start = "\r" if text.startswith("\r") else ""
        super().write(start + printable(text.removeprefix(start), keep="\n\t"))
        return len(text)


def guard(patient: bool) -> None:
    """Open standard streams that are closed, and make those that are open forgiving.

    Streams that a program has replaced by its own, as pytest and notebooks do, stay as they are.

    Args:
        patient: go on when stdout cannot be written; False for a command that does nothing but print.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)  # of a closed stream: else a file of the run would get its number
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _guarded(sys.stdout, sys.__stdout__, 1, io.TextIOWrapper)
    sys.stderr = _guarded(sys.stderr, sys.__stderr__, 2, PlainText)
    raw = _raw(sys.stdout)
    if raw is not None:
        raw.patient = patient


def _guarded(stream: TextIO | None, original: TextIO | None, descriptor: int, kind: type[io.TextIOWrapper]) -> TextIO:
    if stream is not original or isinstance(stream, io.TextIOBase) and _raw(stream) is not None:
        assert stream is not None
        return stream
    raw, unbuffered = Output(descriptor), getattr(stream, "write_through", False)
    encoding = getattr(stream, "encoding", "utf-8")
    return kind(
        raw if unbuffered else io.BufferedWriter(raw),
        encoding=encoding,
        errors="replace",
        line_buffering=getattr(stream, "line_buffering", descriptor == 2),
        write_through=unbuffered,
    )


def _raw(stream: TextIO) -> Output | None:
    """The descriptor below a stream that `guard` has made."""
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    return raw if isinstance(raw, Output) else None


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
