"""A request to stop, made by a signal: SIGUSR2 (a time limit is near) or SIGTERM.

The signals are blocked in every thread, and one thread waits for them. So no code runs inside a signal handler, a
request is noticed while other threads compute or wait in a collective, and a request that comes early stays pending.
Lightning's own SIGTERM handler, which calls a collective, never runs. This module loads no other library, so
that a command can listen before it loads anything else.
"""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cxr_faith.run.first_rank import is_first_rank

SIGNALS = frozenset({signal.SIGUSR2, signal.SIGTERM})
EX_TEMPFAIL = 75
"""Exit status of a run that stopped on request with work left; the same command resumes it."""

_SECONDS_BETWEEN_LOOKS = 0.5


class StoppedError(Exception):
    """The run stopped on request with work left; the message is one line that says how to resume."""


class StopRequest:
    """Whether this process was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._children: Sequence[subprocess.Popen[bytes]] = ()
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """True once a signal has come."""
        return self.signal is not None

    def set(self, signum: int) -> None:
        """Note a signal, tell people, and pass it on to the ranks that this process started."""
        if not self and is_first_rank():
            name = signal.Signals(signum).name
            print(f"cxr-faith: {name}: the run stops after the batch that it computes", file=sys.stderr, flush=True)
        with self._lock:
            self.signal = signal.Signals(signum)
            self._pass_on()

    def share_with(self, children: Sequence[subprocess.Popen[bytes]]) -> None:
        """From now on pass requests on to these processes; a request that has already come is passed on at once."""
        with self._lock:
            self._children = children
            self._pass_on()

    def _pass_on(self) -> None:
        if self.signal is not None:
            for child in self._children:
                child.send_signal(self.signal)  # does nothing if the process has ended


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Take SIGUSR2 and SIGTERM as requests to stop, until the end of the block.

    Enter the block before other threads start: they inherit the blocked signals. Child processes inherit them too: each
    rank listens for itself, and a worker that decodes pictures must survive the signal that a scheduler sends to all
    processes of a job, because its batch is still to be finished.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    request, closing = StopRequest(), threading.Event()

    def watch() -> None:
        while not closing.is_set():
            if (received := _next_signal()) is not None:
                request.set(received)

    watcher = threading.Thread(target=watch, name="stop-request", daemon=True)
    watcher.start()
    try:
        yield request
    finally:
        closing.set()
        watcher.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _next_signal() -> int | None:
    """Wait half a second for a signal."""
    if hasattr(signal, "sigtimedwait"):
        received = signal.sigtimedwait(SIGNALS, _SECONDS_BETWEEN_LOOKS)
        # After a process was suspended, sigtimedwait may return a struct that was never filled.
        return received.si_signo if received is not None and received.si_signo in SIGNALS else None
    time.sleep(_SECONDS_BETWEEN_LOOKS)  # macOS has no sigtimedwait
    pending = signal.sigpending() & SIGNALS
    return signal.sigwait(pending) if pending else None
