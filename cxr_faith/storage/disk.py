"""What a person can do about a disk that does not take a file, as one line."""

import errno
import os
import shutil
from pathlib import Path

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors that mean: the disk did not take the results."""
FAILING = (errno.EIO, errno.ESTALE)
"""Errors of a disk, or of a file server, that is failing or away."""

_SPARE = " (cache/ and tensorboard/ in a run directory are made again when they are missing)"
_ELSEWHERE = "or choose a folder on another disk"


def disk_line(error: OSError) -> str:
    """Name the file and the disk, and say what to delete or to set."""
    message = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    if error.errno not in (*UNWRITABLE, *FAILING):
        return message
    file = Path(os.fsdecode(error.filename)).absolute() if error.filename else None
    disk = _mount_point(file) if file else None
    in_run = file is not None and any((folder / "provenance.json").is_file() for folder in file.parents)
    advice = f"{_advice(error.errno, disk, _SPARE if in_run else '')}, then run the same command again"
    return f"{message}; nothing that was written is lost: {advice}"


def _advice(number: int | None, disk: Path | None, spare: str) -> str:
    where = f"the disk at {disk}" if disk else "the disk"
    if number == errno.ENOSPC:
        return f"{where}{_free(disk)}; free space there{spare}, {_ELSEWHERE}"
    if number == errno.EDQUOT:
        return f"your quota of {where} is used up; delete files there{spare}, {_ELSEWHERE}"
    if number == errno.EROFS:
        return f"{where} is read-only; mount it writable, {_ELSEWHERE}"
    if number in (errno.EACCES, errno.EPERM):
        return f"fix the permissions, {_ELSEWHERE}"
    return f"{where} fails; check it, {_ELSEWHERE}"


def _free(disk: Path | None) -> str:
    """Free space of a disk; a full one may have space and no free file numbers."""
    if disk is None:
        return " is full"
    state = os.statvfs(disk)
    files = ", no file numbers (inodes)" if state.f_files and not state.f_favail else ""
    return f" has {shutil.disk_usage(disk).free / 1e6:.1f} MB left{files}"


def _mount_point(path: Path) -> Path | None:
    """Where the disk of a file is mounted; None if that cannot be said."""
    try:
        path = path.parent.resolve()
        while not path.is_mount():
            path = path.parent
        return path
    except OSError:
        return None
