"""Replaces a whole folder so that the old one or the new one is there under its name, complete, also after a kill."""

import ctypes
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EINVAL, ENOSYS, ENOTSUP
from pathlib import Path

from cxr_faith.storage.atomic import sync_folder, temporary_name
from cxr_faith.storage.locks import exclusive

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_OLD = ".old"


@contextmanager
def replacing_folder(path: Path, check: Callable[[], None]) -> Iterator[Path]:
    """A new folder, which becomes `path` when the block ends without an error, else is deleted.

    One process at a time does that. It first deletes what killed ones left.

    Args:
        path: the folder; an existing one is deleted in the end.
        check: raises an error if `path` must not be replaced; called before and after the block.

    Raises:
        HeldError: another process is replacing this folder.
        OSError: the folder could not be saved.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.with_name(f".{path.name}.lock"), patience=0.0) as alone:
        if alone:
            _clear_up(path)
        check()
        new = temporary_name(path)
        new.mkdir()
        try:
            yield new
            check()
            _sync_tree(new)
            _swap(new, path)
        finally:
            shutil.rmtree(new, ignore_errors=True)  # after a swap this is the old folder


def _swap(new: Path, path: Path) -> None:
    """Put the new folder in place of the old one, which is then at `new`, or deleted."""
    if not path.exists() or not any(path.iterdir()):
        os.rename(new, path)  # over an empty folder too
    elif not _exchange(new, path):
        old = new.with_suffix(_OLD)
        os.rename(path, old)
        try:
            os.rename(new, path)  # a kill between the two: `_clear_up` of the next process brings the old one back
        except BaseException:
            os.rename(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    sync_folder(path.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system, such as NFS, cannot do that."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (ENOSYS, EINVAL, ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(second))


def _clear_up(path: Path) -> None:
    """Bring back what a killed process had moved away, and delete what it had begun or not yet deleted."""
    for left in _left_behind(path):
        if left.suffix == _OLD and not path.exists():
            os.rename(left, path)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _left_behind(path: Path) -> list[Path]:
    """What killed processes that replaced a folder left beside it."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}(\.tmp|{re.escape(_OLD)})")
    return [left for left in path.parent.iterdir() if name.fullmatch(left.name)]


def moved_away(path: Path) -> str:
    """End of a message that a folder is missing: where a process that was killed while replacing it left it, if so."""
    try:
        old = next((left for left in _left_behind(path.absolute()) if left.suffix == _OLD), None)
    except OSError:
        return ""
    return f"; a killed process left it as {old}: run `prepare` again, or rename that" if old else ""


def _sync_tree(folder: Path) -> None:
    """Wait until all files of a folder are on the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(place, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))
