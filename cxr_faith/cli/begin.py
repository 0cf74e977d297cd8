"""Ctrl-C in a command that has only begun: one line and exit status 130.

`cxr_faith.cli.interrupt` takes over once it is loaded. This module imports only what Python has loaded before any
program, `_signal` being the part of `signal` that is written in C: an import could be interrupted itself.
"""

import _signal
import os
import sys

from cxr_faith.run.first_rank import is_first_rank

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_")
"""Characters that a shell takes as they are."""


def handle_ctrl_c() -> None:
    """End this process at Ctrl-C, unless it ignores Ctrl-C or a program handles it in its own way."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        try:
            _signal.signal(_signal.SIGINT, _end)
        except ValueError:  # not the main thread, which alone may do so
            return


def is_default(handler: object) -> bool:
    """Whether a handler of Ctrl-C is Python's or that of this module."""
    return handler in (_signal.default_int_handler, _end)


def interrupted(arguments: list[str]) -> str:
    """What Ctrl-C prints: the command that goes on."""
    verb = "resume" if arguments[:1] == ["evaluate"] else "start again"
    return f"interrupted; to {verb}: {' '.join(map(_quoted, ['cxr-faith', *arguments]))}"


def _end(signum: int, frame: object) -> None:
    try:
        if is_first_rank():
            line = f"{os.linesep if os.isatty(2) else ''}cxr-faith: {interrupted(sys.argv[1:])}\n"
            os.write(2, os.fsencode(line))
    finally:
        os._exit(128 + signum)


def _quoted(word: str) -> str:
    """A word for a shell, as `shlex.quote` writes it."""
    return word if word and _PLAIN.issuperset(word) else "'" + word.replace("'", "'\"'\"'") + "'"
