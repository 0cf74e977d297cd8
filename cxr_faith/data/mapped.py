"""Memory-mapped Arrow files whose memory can be released, and whose content is checked before it is mapped.

Pages that were read count as the process's memory until the system runs short: after a whole run that is the whole
file, in every rank.
"""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path
from typing import IO

import pyarrow as pa


class MappedFile:
    """A memory-mapped file, which may be deleted or replaced meanwhile.

    Args:
        path: the file.

    Attributes:
        buffer: its bytes.
    """

    def __init__(self, path: str | Path) -> None:
        with open(path, "rb") as file:
            self._pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.buffer: pa.Buffer = pa.py_buffer(self._pages)

    def release(self) -> None:
        """Release the memory of the pages read so far; they are read again when needed."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED)


class MappedArrow(MappedFile):
    """Rows of an Arrow file in stream format, memory-mapped.

    Args:
        path: the file.

    Attributes:
        rows: the table; its pages are read when they are used.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.rows: pa.Table = pa.ipc.open_stream(self.buffer).read_all()


CHECKSUM_BYTES = 16
_CHUNK_BYTES = 1 << 20


def seal(file: IO[bytes], identity: str) -> None:
    """Append a checksum to a file that was just written, which readers of Arrow streams ignore.

    Args:
        file: the file; it has a name.
        identity: what the content was made from; part of the checksum.
    """
    file.flush()
    file.write(_checksum(Path(file.name), file.tell(), identity))


def is_sealed(path: Path, identity: str) -> bool:
    """Whether a file exists, is whole, and was made from this; reads it once."""
    if not path.is_file():
        return False
    size = path.stat().st_size - CHECKSUM_BYTES
    if size <= 0:
        return False
    with path.open("rb") as file:
        file.seek(size)
        return file.read() == _checksum(path, size, identity)


def _checksum(path: Path, size: int, identity: str) -> bytes:
    digest = hashlib.blake2b(identity.encode(), digest_size=CHECKSUM_BYTES)
    with path.open("rb") as file:
        while size > 0 and (chunk := file.read(min(size, _CHUNK_BYTES))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.digest()
