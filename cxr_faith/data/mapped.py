"""Arrow files that are read where they lie, and whose pages can be given back.

Pages that were read stay with the process until the system is short of memory: over a run that would be the whole file,
in every rank.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import pyarrow as pa


class MappedArrow:
    """Rows of an Arrow file in stream format, memory-mapped.

    Attributes:
        rows: The table; nothing of it is read before it is asked for.
    """

    def __init__(self, path: str | Path) -> None:
        """Map a file, which may be deleted or replaced then."""
        with open(path, "rb") as file:
            self._pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.rows: pa.Table = pa.ipc.open_stream(pa.py_buffer(self._pages)).read_all()

    def release(self) -> None:
        """Give the pages back; they come from the system's cache when they are asked for again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED)
