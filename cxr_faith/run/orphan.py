"""Ends a rank whose parent is gone.

Lightning watches the ranks that it starts, but not the other way round: without the first rank another one would wait
for it, while it loads the model or meets the others, until the strategy's timeout. Standard library only, so that a
command can call this before it loads anything else.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PARENT = "CXR_FAITH_PARENT"
_SECONDS_BETWEEN_LOOKS = 0.5


@contextmanager
def no_orphans() -> Iterator[None]:
    """Inside the block, ranks that Lightning starts from this process end when this process is gone.

    The first rank leaves its process id in the environment, which its children inherit. Ranks that something else has
    started, such as Slurm or torchrun, find none there and are left to it.
    """
    rank = os.environ.get("LOCAL_RANK", "0")
    if rank != "0":
        if _PARENT in os.environ:
            threading.Thread(target=_watch, args=(int(os.environ[_PARENT]), rank), name="orphan", daemon=True).start()
        yield
        return
    os.environ[_PARENT] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[_PARENT]


def _watch(parent: int, rank: str) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    print(f"cxr-faith: rank {rank} ends: the process that started it is gone", file=sys.stderr, flush=True)
    os._exit(1)  # as a kill would: other threads may hang in a collective
