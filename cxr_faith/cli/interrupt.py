"""Ctrl-C: one line that says how to go on, exit status 130, and no process that is left behind.

Python handles a signal in the main thread, which may be inside a library for minutes. So a thread of its own, which the
signal wakes at once, prints the line and ends the ranks that this process started. It also ends this process, at a
second Ctrl-C or if the main thread takes too long. The main thread gets a `SystemExit`, not a `KeyboardInterrupt`:
Lightning would turn that into status 1 and ignore a second Ctrl-C. This module loads no other library.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from cxr_faith.cli.begin import is_default
from cxr_faith.run.first_rank import is_first_rank

STATUS = 128 + signal.SIGINT
SECONDS_TO_END = 10.0
"""How long the main thread may take to close its files and remove temporary ones."""
_CLOSE = 0  # no signal has this number


class CtrlC:
    """What Ctrl-C does to this process.

    Attributes:
        pressed: whether Ctrl-C was pressed.
        end_ranks: ends the ranks that this process started; called from another thread than the main one.
    """

    def __init__(self, line: str) -> None:
        """Print a line at the first Ctrl-C; ranks other than the first print nothing."""
        self.pressed = False
        self.end_ranks: Callable[[], None] = lambda: None
        self._line = line
        self._raised = False
        self._ranks_ended = threading.Event()

    def stop(self, signum: int, frame: FrameType | None) -> None:
        """End the main thread; the handler of the signal."""
        if not self._raised:
            self._raised = self.pressed = True
            sys.unraisablehook = lambda _: None  # where Python cannot pass the exit on, it would print a traceback
            raise SystemExit(STATUS)

    def watch(self, pipe: int) -> None:
        """Wait for the numbers of signals in a pipe, until its other end sends `_CLOSE`."""
        while signal.SIGINT not in (numbers := os.read(pipe, 64)):
            if _CLOSE in numbers:
                os.close(pipe)
                return
        self.pressed = True
        if is_first_rank():
            # Past rich, which would fold the line while it shows a progress bar: the command in it is to be copied.
            stderr = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
            print(f"{os.linesep if stderr.isatty() else ''}cxr-faith: {self._line}", file=stderr, flush=True)
        threading.Thread(target=self._end_ranks, daemon=True).start()
        killer = threading.Timer(SECONDS_TO_END, _exit_now)
        killer.daemon = True
        killer.start()
        pressed_again = numbers.count(signal.SIGINT) > 1  # on a busy machine one read may get both
        while not (pressed_again and is_first_rank()):
            pressed_again = signal.SIGINT in os.read(pipe, 64)
        _exit_now()

    def _end_ranks(self) -> None:
        self.end_ranks()
        self._ranks_ended.set()

    def wait_for_ranks(self) -> None:
        """Wait until the ranks have ended, if Ctrl-C was pressed."""
        if self.pressed:
            self._ranks_ended.wait(SECONDS_TO_END)


def _exit_now() -> None:
    if os.isatty(1):
        os.write(1, b"\x1b[?25h\n")  # a progress bar hides the cursor
    os._exit(STATUS)


current: CtrlC | None = None
"""That of the command that runs; None where a program handles Ctrl-C itself."""


@contextmanager
def handled(line: str, for_good: bool) -> Iterator[CtrlC]:
    """Handle Ctrl-C, unless this process ignores it or handles it in its own way.

    Args:
        line: what a first Ctrl-C prints.
        for_good: also after the block, until the process has ended.
    """
    global current
    ctrl_c = CtrlC(line)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not is_default(signal.getsignal(signal.SIGINT)):
        yield ctrl_c
        return
    end, begin = os.pipe()
    os.set_blocking(begin, False)
    # The thread blocks all signals: else it might be the one that gets a SIGTERM.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    threading.Thread(target=ctrl_c.watch, args=(end,), name="ctrl-c", daemon=True).start()
    old = signal.set_wakeup_fd(begin, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, ctrl_c.stop)
    current = ctrl_c
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # inside the block: its end waits for the line
        yield ctrl_c
    finally:
        ctrl_c.wait_for_ranks()
        if not (for_good or ctrl_c.pressed):
            current = None
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.set_wakeup_fd(old)
            os.write(begin, bytes([_CLOSE]))
            os.close(begin)


def _leave_to_parent() -> None:
    """A worker that decodes pictures ends with the process that started it."""
    if current is not None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)


os.register_at_fork(after_in_child=_leave_to_parent)
