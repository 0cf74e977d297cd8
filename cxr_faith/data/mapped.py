"""Memory-mapped Arrow files whose memory can be released.

Pages that were read count as the process's memory until the system runs short: after a whole run that is the whole
file, in every rank.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import pyarrow as pa


class MappedArrow:
    """Rows of an Arrow file in stream format, memory-mapped.

    The file may be deleted or replaced once it is mapped.

    Args:
        path: the file.

    Attributes:
        rows: the table; its pages are read when they are used.
    """

    def __init__(self, path: str | Path) -> None:
        with open(path, "rb") as file:
            self._pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.rows: pa.Table = pa.ipc.open_stream(pa.py_buffer(self._pages)).read_all()

    def release(self) -> None:
        """Release the memory of the pages read so far; they are read again when needed."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED)
