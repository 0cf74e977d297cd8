"""Writes files so that a reader sees the whole old file or the whole new one, also after a kill or on a full disk.

Every file of the package that has a name is written here. The content goes into a temporary file beside it,
`.<name>.<random>.tmp`, which gets the name once it is complete and on the disk. A temporary file is always a new one: a
symbolic link that somebody planted under its name, or under the final name, is never written through. Modes are what
the umask leaves.
"""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EINVAL, ELOOP, ENOTSUP, ENXIO
from pathlib import Path
from typing import IO

MODE = 0o666  # less the umask; the modules `tempfile` and `safetensors` ignore the umask
NO_FILE = "is not a regular file; delete it"
LINK = "is a link that somebody may have planted; delete it: nothing is written through links in a results folder"
HARD_LINK = "has a second name, a hard link or a copy made with `cp -al`; delete it: what is written would be in both"


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8; its folder is made if it is missing.

    A file name that is not UTF-8 stands in the text as an escape, which JSON reads back.

    Raises:
        OSError: the file could not be saved; the error names it.
    """
    with replacing(path) as file:
        file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """A new binary file, which becomes `path` when the block ends without an error, else is deleted.

    Args:
        path: the file; an existing one is replaced, and a link is replaced, not followed.
        durable: wait until the file is on the disk, so that it survives a power cut; for all but short-lived files.

    Raises:
        OSError: the file could not be saved; the error names `path`.
    """
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:  # x: a new file, whatever lies under the name
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
        except BaseException:
            _remove(temporary)  # a full disk needs the room
            raise
        _publish(temporary, path, durable)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _publish(temporary: Path, path: Path, durable: bool) -> None:
    try:
        os.replace(temporary, path)
    except OSError:
        _remove(temporary)
        raise
    if durable:
        sync_folder(path.parent)


def _remove(temporary: Path) -> None:
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


def open_shared(path: Path, flags: int) -> int:
    """Open or make a file that stays and that several processes write into, such as a lock; never through a link.

    Args:
        path: the file.
        flags: `os.O_RDWR`, `os.O_WRONLY | os.O_APPEND`, or `os.O_RDONLY` for a file that must be there.

    Returns:
        its descriptor.

    Raises:
        OSError: it cannot be opened, is a link or no regular file; the error names it.
    """
    create = 0 if flags == os.O_RDONLY else os.O_CREAT
    try:
        # Without O_NONBLOCK a planted FIFO would block for ever.
        descriptor = os.open(path, flags | create | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, MODE)
    except OSError as error:
        said = {ELOOP: LINK, ENXIO: NO_FILE}.get(error.errno or 0)  # ENXIO: a FIFO that nobody reads, or a socket
        if said is None:
            raise
        raise OSError(error.errno, said, str(path)) from error
    state = os.fstat(descriptor)
    if stat.S_ISREG(state.st_mode) and state.st_nlink <= 1:  # 0: a lock that its holder has just deleted
        return descriptor
    os.close(descriptor)
    raise OSError(ELOOP, HARD_LINK if stat.S_ISREG(state.st_mode) else NO_FILE, str(path))


def append(path: Path, text: str) -> None:
    """Append text to a file, which is made if it is missing; never through a link."""
    with open(open_shared(path, os.O_WRONLY | os.O_APPEND), "ab") as file:
        file.write(text.encode())


def own_folder(base: Path, *names: str) -> Path:
    """A folder that the program keeps below another one, such as `records` in a run directory; made if missing.

    `base` may be a link, for example to a larger disk. The folders in it may not: whoever else can write into `base`
    could lead files, and the deletion of old files, to another place.

    Raises:
        OSError: it cannot be made, or is a link.
    """
    base.mkdir(parents=True, exist_ok=True)
    for name in names:
        base = base / name
        with suppress(FileExistsError):
            base.mkdir()
        if base.is_symlink():
            raise OSError(ELOOP, LINK, str(base))
    return base


def read_file(path: Path) -> bytes:
    """Read a file whole; a FIFO in its place does not block.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    check_regular(path)
    return path.read_bytes()


def check_regular(path: Path) -> None:
    """Refuse what is not a regular file, before a library opens it: opening a FIFO would block for ever.

    Raises:
        OSError: there is no such file, or it is something else.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(EINVAL, NO_FILE, str(path))


def temporary_name(path: Path) -> Path:
    """A new name beside a file, which nobody can guess and `remove_leftovers` recognizes."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of one file that killed processes left; call it only under the file's lock."""
    prefix = f".{path.name}."
    for name in os.listdir(path.parent):
        middle = name.removeprefix(prefix).removesuffix(".tmp")
        if name == f"{prefix}{middle}.tmp" and len(middle) == 16 and "." not in middle:
            path.with_name(name).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder survive a power cut, on file systems that can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (EINVAL, ENOTSUP):  # CIFS and some FUSE file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)
