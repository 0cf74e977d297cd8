"""Decodes each file in a process that can be stopped, so that no file takes more time or memory than it is given.

A timer signal ends a loop in Python but not one in a C library, and only the limits of a process bound what a C library
allocates. So each thread that reads pictures has a decoder: a process of its own, started with the first picture and
kept. The kernel stops it when a file takes more than its share of CPU time or of memory, and when the thread that uses
it ends, killed or not. CPU time counts, not the clock: a busy machine or a slow file system costs no sample. A decoder
that waits (for a network disk, say) gets ten times as long, by a count that stands still while the run is suspended.

A request is a line of JSON; an answer is JSON after its length, then the raw pixels. Nothing is pickled, so a decoder
that a file has taken over can send wrong pixels but no code.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

DECODE_SECONDS = 60.0
"""CPU seconds that decoding one file may take, unless the caller says otherwise."""

IGNORED_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})
"""Signals that a terminal or Slurm sends to all processes of a job: the run answers them, a decoder ignores them."""

READY = b"ready"
"""What a decoder sends once it has started."""
HEADER_BYTES = 4
"""Bytes of the length that comes before an answer, most significant first."""

_WAITING = 10  # times the limit that a decoder may take by the clock
_DTYPES = {"|u1", "|b1", "<i8"}

Task = Literal["picture", "mask", "picture size", "mask size", "header"]
_local = threading.local()


class DecodeError(ValueError):
    """A file that cannot be decoded within its limits; the message is one line that says why."""


class DecoderStartError(RuntimeError):
    """This machine cannot start a decoder, so no file can be read."""


def decode(
    task: Task,
    file: Path,
    max_pixels: int,
    seconds: float = DECODE_SECONDS,
    window: tuple[float, float] | None = None,
) -> npt.NDArray[Any]:
    """Decode a file in this thread's decoder, which is started if there is none.

    Args:
        task: what to read.
        file: an existing file.
        max_pixels: largest height × width that is decoded.
        seconds: CPU time that the file may take.
        window: center and width that show a DICOM picture; default: those of its header.

    Returns:
        a picture uint8 [H, W] or [H, W, 3], a mask bool [H, W], or a size int64 [2], (height, width).

    Raises:
        DecodeError: the file cannot be decoded within its limits.
        DecoderStartError: no decoder can be started.
    """
    request = {"task": task, "file": str(file), "max_pixels": max_pixels, "seconds": seconds, "window": window}
    status = 0
    for _ in range(2):  # somebody else may have stopped the decoder, or an earlier file damaged it
        decoder = _this_threads_decoder()
        try:
            return decoder.ask(request)
        except (EOFError, BrokenPipeError):
            status = decoder.close()
        if status == -signal.SIGPROF:
            raise DecodeError(f"decoding takes longer than {seconds:g} s")
    raise DecodeError(f"the decoder ends without an answer (status {status})")


def _this_threads_decoder() -> Decoder:
    decoder: Decoder | None = getattr(_local, "decoder", None)
    if decoder is None or not decoder.usable:
        decoder = _local.decoder = Decoder()
    return decoder


class Decoder:
    """One decoder process, for one thread of one process.

    Raises:
        DecoderStartError: it does not start.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._closed = True
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from cxr_faith.data.decoder_process import serve; serve({self._owner})"
        )
        # One thread of each library: threads reserve address space, which is limited.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED_SIGNALS)  # until the new process ignores them
        try:
            command = [sys.executable, "-c", code]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment
            )
            self._closed = False
        except OSError as error:
            raise DecoderStartError(f"no process for decoding pictures can be started: {error}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            self._read(len(READY), DECODE_SECONDS)
        except EOFError:
            status = self.close()
            raise DecoderStartError(f"the process for decoding pictures ends as it starts (status {status})") from None

    @property
    def usable(self) -> bool:
        """Whether this process may still ask: not after `close`, nor in a process forked from the owner."""
        return not self._closed and self._owner == os.getpid()

    def ask(self, request: dict[str, Any]) -> npt.NDArray[Any]:
        """Send a request and wait for its answer.

        Raises:
            DecodeError: the answer is a fault, or none came in time.
            EOFError, BrokenPipeError: the decoder has ended.
        """
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            length = int.from_bytes(self._read(HEADER_BYTES, request["seconds"]), "big")
            answer = json.loads(self._read(length, request["seconds"]))
            if "fault" in answer:
                if answer["spent"]:
                    self.close()
                raise DecodeError(answer["fault"])
            pixels = _empty(answer["shape"], answer["dtype"], request["max_pixels"])
            self._read_into(pixels.data.cast("B"), request["seconds"])
            return pixels
        except (EOFError, BrokenPipeError, DecodeError):
            raise
        except BaseException:
            # Also where a signal interrupts: the rest of the answer must not be taken for the next one.
            self.close()
            raise

    def close(self) -> int:
        """Stop the decoder; returns its exit status."""
        if self._closed:
            return 0
        self._closed = True
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        if self._owner != os.getpid():  # inherited by fork: the owner still uses it
            return 0
        self._process.kill()  # changes nothing where it has ended by itself
        return self._process.wait()

    def __del__(self) -> None:
        """Stop the decoder with the thread that used it."""
        self.close()

    def _read(self, count: int, seconds: float) -> bytes:
        content = bytearray(count)
        self._read_into(memoryview(content), seconds)
        return bytes(content)

    def _read_into(self, view: memoryview, seconds: float) -> None:
        """Fill a buffer from the answer; raises an EOFError if the decoder has ended."""
        assert self._process.stdout
        descriptor = self._process.stdout.fileno()
        while view:
            self._wait(descriptor, seconds)
            count = os.readv(descriptor, [view])
            if count == 0:
                raise EOFError
            view = view[count:]

    def _wait(self, descriptor: int, seconds: float) -> None:
        """Wait for a byte of the answer; waits of a second are counted, so that a suspended run has not waited."""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        for _ in range(int(seconds * _WAITING) + 1):
            if poll.poll(1000):
                return
        self.close()
        raise DecodeError(f"decoding gives no answer within {seconds * _WAITING:g} s")


def _empty(shape: list[int], dtype: str, max_pixels: int) -> npt.NDArray[Any]:
    """A buffer for an answer, whose stated shape is not trusted."""
    if (
        dtype not in _DTYPES
        or not 1 <= len(shape) <= 3
        or min(shape) < 1
        or np.prod(shape, dtype=float) > 3 * max_pixels
    ):
        raise ValueError(f"the decoder answers with an array of shape {shape} and type {dtype}")
    return np.empty(shape, dtype)
