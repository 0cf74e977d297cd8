"""Locks between processes, with one rule for file systems that have none: a warning, and the work goes on.

The kernel holds a lock (flock) and frees it when the process ends, even after kill −9, so no lock is ever stale.
"""

import errno
import fcntl
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from cxr_faith.storage.atomic import open_shared, remove_leftovers, replacing

logger = logging.getLogger(__name__)

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EIO})
"""What `flock` says where there are no locks: NFS without a lock daemon (ENOLCK, EIO), some FUSE and Lustre mounts
(ENOSYS, EOPNOTSUPP, EINVAL)."""

_TRIES = 5
"""Times that a lock file is opened which another computer, or another user, deletes meanwhile."""
_SECONDS_BETWEEN_TRIES = 0.2
_SECONDS_UNTIL_WAITING_IS_SAID = 10.0


class NoLocksError(OSError):
    """The file system has no locks."""


class HeldError(TimeoutError):
    """Another process holds the lock."""


def open_lock(path: Path) -> IO[str]:
    """Open a lock file, which is made if it is missing; its text names the holder."""
    return open(path, "r+", encoding="utf-8", errors="replace", opener=lambda *_: open_shared(path, os.O_RDWR))


def acquire(file: IO[str], how: int = fcntl.LOCK_EX, patience: float = 0.0) -> bool:
    """Take a lock, or give up after `patience` seconds.

    Raises:
        NoLocksError: the file system has no locks.
        OSError: another error; it names the file.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in NO_LOCKS:
                raise NoLocksError(error.errno, error.strerror) from error
            if error.errno not in (errno.EAGAIN, errno.EACCES):  # CIFS says EACCES where another process holds it
                raise OSError(error.errno, error.strerror, file.name) from error
        if time.monotonic() >= deadline:
            return False
        time.sleep(_SECONDS_BETWEEN_TRIES)


@contextmanager
def without_locks_go_on(folder: Path) -> Iterator[None]:
    """End the block with a warning, instead of an error, if the file system has no locks."""
    try:
        yield
    except NoLocksError as error:
        _warn(folder, error.strerror)


@functools.cache  # once a folder
def _warn(folder: Path, reason: str) -> None:
    logger.warning("%s: no file locks on this file system (%s); start one run at a time here", folder, reason)


@contextmanager
def exclusive(path: Path, patience: float = float("inf")) -> Iterator[bool]:
    """Hold a lock file during the block; it is deleted at the end.

    Args:
        path: the lock file.
        patience: seconds to wait for another holder.

    Yields:
        whether the lock is held; False: the file system has no locks, and other processes may do the same now.

    Raises:
        HeldError: another process held the lock all the time.
        OSError: the lock file cannot be opened; the error names it.
    """
    held, deadline = None, time.monotonic() + patience
    with without_locks_go_on(path.parent):
        held = _hold(path, deadline)
    try:
        yield held is not None
    finally:
        if held is not None:
            # Before it is let go: who waits for it sees that, and makes a new one. In a folder such as /tmp the lock of
            # another user cannot be deleted; it may stay.
            with suppress(FileNotFoundError, PermissionError):
                path.unlink()
            held.close()


def _hold(path: Path, deadline: float) -> IO[str]:
    """Wait for a lock file and return it, locked."""
    say, stale = time.monotonic() + _SECONDS_UNTIL_WAITING_IS_SAID, 0
    while True:
        file = _open_any(path)
        try:
            while not acquire(file, patience=min(say, deadline) - time.monotonic()):
                if time.monotonic() >= deadline:
                    raise HeldError(errno.ETIMEDOUT, "is locked by another process", str(path))
                logger.warning("waiting for another process, which holds %s", path)
                say = float("inf")
            if _is_at(file, path):
                return file
        except BaseException as error:
            file.close()
            stale += 1
            if not isinstance(error, OSError) or error.errno != errno.ESTALE or stale == _TRIES:
                raise
            time.sleep(_SECONDS_BETWEEN_TRIES)  # on NFS: its last holder, on another computer, has deleted it
        file.close()  # its last holder has deleted it


def _open_any(path: Path) -> IO[str]:
    """Open a lock file, also one that a killed process of another user left: who may read it may lock it."""
    for _ in range(_TRIES):
        try:
            return open_lock(path)
        except PermissionError as error:
            refused = error
        with suppress(FileNotFoundError):  # it is the folder that refuses, or the holder has deleted it meanwhile
            return open(path, encoding="utf-8", opener=lambda *_: open_shared(path, os.O_RDONLY))
    raise refused


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except FileNotFoundError:
        return False


def made_once(path: Path, is_whole: Callable[[], bool], make: Callable[[IO[bytes]], None]) -> None:
    """Make a file that several processes may ask for at the same time: one makes it while the others wait.

    A process that is killed on the way leaves nothing that another one takes for the file, and its temporary file is
    deleted by the next one.

    Args:
        path: the file.
        is_whole: whether the file is there and can be used; a damaged one is replaced.
        make: writes the content.

    Raises:
        OSError: the file could not be saved; the error names it or its lock.
    """
    if is_whole():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.with_name(f".{path.name}.lock")) as alone:
        if is_whole():  # another process has made it meanwhile
            return
        if alone:
            remove_leftovers(path)
        with replacing(path) as file:
            make(file)
