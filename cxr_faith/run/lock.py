"""One run per run directory; the shards of one split share it.

The content of the lock file only names the holder for the error message.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from cxr_faith.data.module import Shard
from cxr_faith.records import merge_starts, remove_leftovers
from cxr_faith.storage.locks import acquire, exclusive, open_lock, without_locks_go_on

FILE = ".lock"
REQUEUE_PATIENCE = 120.0
"""Seconds that a requeued job waits for the lock: its first process may still be ending on a lost node."""

SHARD_PATIENCE = 5.0
"""Seconds that a shard waits while another run opens the directory."""

MERGE_PATIENCE = 1800.0
"""Seconds that a shard waits while another shard of the same split merges what earlier starts left."""


class RunDirectoryInUseError(ValueError):
    """Another run is writing into the run directory."""


@contextmanager
def run_lock(run_dir: Path, shard: Shard) -> Iterator[None]:
    """Keep other runs out of a run directory until the end of the block.

    The first run in a directory also removes the temporary files that killed processes left, and merges their records.

    Args:
        run_dir: the run directory; made if it is missing.
        shard: which part of the samples this run takes; shards of the same count may run side by side.

    Raises:
        RunDirectoryInUseError: another run, or the same shard, writes there; the message names host and process.
        OSError: the directory cannot be made or written.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        everyone = stack.enter_context(open_lock(run_dir / FILE))
        with without_locks_go_on(run_dir):
            patience = REQUEUE_PATIENCE if "SLURM_RESTART_COUNT" in os.environ else 0.0
            if acquire(everyone, fcntl.LOCK_EX, patience if shard.count == 1 else 0.0):
                _write_holder(everyone, shard)
                remove_leftovers(run_dir)
                merge_starts(run_dir)
                if shard.count > 1 and not acquire(everyone, fcntl.LOCK_SH, SHARD_PATIENCE):
                    raise _in_use(run_dir, everyone)
            elif shard.count == 1 or not acquire(everyone, fcntl.LOCK_SH, _shard_patience(everyone, shard)):
                raise _in_use(run_dir, everyone)
            elif _holder(everyone).get("shards") != shard.count:
                raise _in_use(run_dir, everyone)
            if shard.count > 1:
                own = stack.enter_context(open_lock(run_dir / f"{FILE}-{shard.index}"))
                if not acquire(own, fcntl.LOCK_EX, patience):
                    raise _in_use(run_dir, own)
                _write_holder(own, shard)
        yield


def _shard_patience(file: IO[str], shard: Shard) -> float:
    return MERGE_PATIENCE if _holder(file).get("shards") == shard.count else SHARD_PATIENCE


@contextmanager
def merge_lock(run_dir: Path) -> Iterator[None]:
    """Wait until no other shard checks whether it is the last one."""
    with exclusive(run_dir / f"{FILE}-merge"):
        yield


def _write_holder(file: IO[str], shard: Shard) -> None:
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "shards": shard.count}
    if "SLURM_JOB_ID" in os.environ:
        holder["job"] = os.environ["SLURM_JOB_ID"]
    file.seek(0)
    file.truncate()
    file.write(json.dumps(holder) + "\n")
    file.flush()


def _holder(file: IO[str]) -> dict[str, str | int]:
    file.seek(0)
    try:
        holder = json.loads(file.read())
    except ValueError:  # the holder is writing it right now, or the disk is full
        return {}
    return holder if isinstance(holder, dict) else {}


def _in_use(run_dir: Path, file: IO[str]) -> RunDirectoryInUseError:
    holder = _holder(file)
    job = f" (Slurm job {holder['job']})" if "job" in holder else ""
    who = f"process {holder.get('pid', '?')} on {holder.get('host', 'an unknown host')}{job}"
    return RunDirectoryInUseError(f"{run_dir} is in use by {who}: wait until it ends, or choose another --run_dir")
