"""Holds a process at one of its own steps, so that a test can kill it, or look at what it left, exactly there.

Python loads this module when it starts, where this folder is on PYTHONPATH. `tests.held` says at which step.
"""

import json
import os
import re
import sys
import time

_BORN = os.getpid()


def _hold(event: str, name: str, nth: int, rank: int, times: int, mark: str) -> None:
    pattern, count = re.compile(name), 0

    def hook(what: str, details: tuple[object, ...]) -> None:
        nonlocal count
        if what != event or count == nth - 1 + times:
            return
        subject = details[1 if event == "os.rename" else 0]
        if not isinstance(subject, str | bytes | os.PathLike) or not pattern.search(os.fsdecode(subject)):
            return
        if os.getpid() != _BORN or os.environ.get("LOCAL_RANK", "0") != str(rank) or os.path.exists(f"{mark}.over"):
            return
        count += 1
        if count >= nth:
            descriptor = os.open(f"{mark}.new", os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, str(os.getpid()).encode())
            os.close(descriptor)
            os.rename(f"{mark}.new", mark)
            while os.path.exists(mark):  # until the test lets go, or kills this process
                time.sleep(0.01)

    sys.addaudithook(hook)


if "HOLD" in os.environ:
    _hold(**json.loads(os.environ["HOLD"]))
