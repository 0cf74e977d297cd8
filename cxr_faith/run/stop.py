"""A request to stop, made by a signal: SIGUSR2 (a time limit is near) or SIGTERM.

The signals are blocked in every thread and waited for by one: nothing runs inside a handler, a request is noticed while
the others compute or wait in a collective, and one that comes before this module is ready stays pending. Lightning's
own handler of SIGTERM, which calls a collective, is never reached. The standard library alone is imported, so that a
command can listen before it loads anything.
"""

import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

SIGNALS = frozenset({signal.SIGUSR2, signal.SIGTERM})
EX_TEMPFAIL = 75
"""Exit status of a run that stopped on request with work left; the same command resumes it."""

_SECONDS_BETWEEN_LOOKS = 0.5


class StoppedError(Exception):
    """The run stopped on request with work left; the message is one line that says how to go on."""


class StopRequest:
    """Whether someone asked this process to stop, and by which signal."""

    def __init__(self) -> None:
        """Nobody has."""
        self.signal: signal.Signals | None = None
        self._children: Sequence[subprocess.Popen[bytes]] = ()
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """True once a signal has come."""
        return self.signal is not None

    def set(self, signum: int) -> None:
        """Note a signal and pass it on to the processes that this one started as further ranks."""
        with self._lock:
            self.signal = signal.Signals(signum)
            self._pass_on()

    def share_with(self, children: Sequence[subprocess.Popen[bytes]]) -> None:
        """Pass requests on to these processes from now on, and one that has already come at once."""
        with self._lock:
            self._children = children
            self._pass_on()

    def _pass_on(self) -> None:
        if self.signal is not None:
            for child in self._children:
                child.send_signal(self.signal)  # does nothing to one that has ended


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Take SIGUSR2 and SIGTERM as requests to stop, until the end of the block.

    Begin before other threads start: they inherit the blocked signals. Processes that this one starts inherit them too:
    a further rank listens for itself, and the workers that decode pictures must not die of a signal that a scheduler
    sends to all processes of a job, since the batch that they work for is to be finished.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    request, closing = StopRequest(), threading.Event()

    def watch() -> None:
        while not closing.is_set():
            found = signal.sigtimedwait(SIGNALS, _SECONDS_BETWEEN_LOOKS)
            # A process that was suspended until its look was over gets a struct that nobody has filled.
            if found is not None and found.si_signo in SIGNALS:
                request.set(found.si_signo)

    watcher = threading.Thread(target=watch, name="stop-request", daemon=True)
    watcher.start()
    try:
        yield request
    finally:
        closing.set()
        watcher.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
