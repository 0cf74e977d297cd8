"""Reads the size of a compressed picture from the stream's own header, which is what a decoder allocates."""

from __future__ import annotations

import struct

_J2K, _JP2_BOX = b"\xff\x4f\xff\x51", b"jP  "
# Start-of-frame markers of JPEG (T.81 table B.1) and of JPEG-LS (T.87); C4, C8 and CC are other markers.
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})


def codestream_size(data: bytes) -> tuple[int, int] | None:
    """Height and width in the header of a JPEG, JPEG-LS or JPEG 2000 stream.

    Args:
        data: the stream or its beginning.

    Returns:
        (height, width) in pixels; None for another kind of stream, or one that ends before its size.
    """
    try:
        if data[4:8] == _JP2_BOX:
            start = data.find(_J2K)
            return _jpeg2000(data[start:]) if start >= 0 else None
        if data.startswith(_J2K):
            return _jpeg2000(data)
        return _jpeg(data) if data.startswith(b"\xff\xd8") else None
    except (struct.error, IndexError):
        return None


def _jpeg2000(data: bytes) -> tuple[int, int]:
    """SIZ segment: extent of the reference grid minus its offset (T.800 A.5.1)."""
    width, height, left, top = struct.unpack_from(">4I", data, 8)
    return height - top, width - left


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Follow the segments to the first frame header."""
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _FRAMES:
            height, width = struct.unpack_from(">2H", data, at + 5)
            return height, width
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None
