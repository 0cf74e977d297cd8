"""Hashes of files. A large file is hashed once on a computer: its hash is kept in the user's cache folder.

A kept hash holds for a file of the same path, size, inode and times of change. The time of an inode's change (ctime)
cannot be set back, so other content under the same name, size and mtime has a hash of its own.
"""

import hashlib
import os
import platform
import time
from contextlib import suppress
from pathlib import Path

from cxr_faith.storage.atomic import own_folder, read_file, write_atomic
from cxr_faith.storage.locks import exclusive

LARGE = 64 * 2**20
"""Bytes from which on a hash is kept."""
_SETTLED_SECONDS = 2.0
"""A file that changed less than this ago may change again without another time of change."""


def file_hash(path: Path) -> str:
    """BLAKE2b of a file's content, 128 hexadecimal digits; processes that want a large file's wait for the first.

    Raises:
        OSError: the file cannot be read.
    """
    if path.stat().st_size < LARGE:
        return _read(path)
    try:
        folder = own_folder(_cache_folder(), "hashes")
        kept = folder / _key(path)
        with exclusive(kept.with_suffix(".lock")):
            return _kept(kept) or _read_and_keep(path, kept)
    except (OSError, RuntimeError):  # no home folder, or one that is full or read-only
        return _read(path)


def _cache_folder() -> Path:
    """Where this user's caches are."""
    stated = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(stated) if os.path.isabs(stated) else Path.home() / ".cache") / "cxr-faith"


def _key(path: Path) -> str:
    """Names a state of a file on this computer."""
    state = path.stat()
    times = (state.st_mtime_ns, state.st_ctime_ns)
    named = repr((platform.node(), str(path.resolve()), state.st_dev, state.st_ino, state.st_size, times))
    return hashlib.blake2b(named.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _kept(file: Path) -> str | None:
    with suppress(OSError, UnicodeDecodeError):
        content = read_file(file).decode()
        if len(content) == 128 and set(content) <= set("0123456789abcdef"):
            return content
    return None


def _read_and_keep(path: Path, kept: Path) -> str:
    begin = time.time()
    digest, state = _read(path), path.stat()
    settled = max(state.st_mtime, state.st_ctime) < begin - _SETTLED_SECONDS
    if settled and _key(path) == kept.name:
        with suppress(OSError):
            write_atomic(kept, digest)
    return digest


def _read(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()
