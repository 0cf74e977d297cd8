"""Tells whether a PNG file is whole: Pillow shows one whose end is missing as a picture with black rows."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BLOCK = 2**20


def check_whole(file: Path) -> None:
    """Follow the chunks of a PNG file to its end and check those that make up the picture.

    Args:
        file: a file that begins as PNG.

    Raises:
        ValueError: the file ends before its last chunk, or a chunk's checksum is wrong.
    """
    with file.open("rb") as content:
        content.seek(len(_SIGNATURE))
        name = b""
        while name != b"IEND":
            head = content.read(8)
            if len(head) < 8:
                raise ValueError("PNG file is truncated: its end is missing")
            left, name = struct.unpack(">I4s", head)
            checksum = zlib.crc32(name)
            while left and (data := content.read(min(left, _BLOCK))):
                checksum, left = zlib.crc32(data, checksum), left - len(data)
            # Damage in notes beside the picture, whose chunks have lower-case names, costs nothing.
            if content.read(4) != checksum.to_bytes(4, "big") and not name[:1].islower():
                raise ValueError("PNG file is truncated or damaged: a checksum is wrong")
