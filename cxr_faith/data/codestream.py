"""Reads from a compressed picture's own stream what a decoder allocates, and whether all of the picture is there."""

from __future__ import annotations

import struct

_J2K, _JP2, _SOT = b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ", b"\xff\x90"
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
        if is_jp2(data):
            data = data[_jp2_codestream(data) :]
        if data.startswith(_J2K):
            return _jpeg2000(data)
        return _jpeg(data) if data.startswith(b"\xff\xd8") else None
    except (struct.error, IndexError):
        return None


def fault(data: bytes) -> str | None:
    """What shows that a part of the picture is missing, which decoders fill with gray or black; None: nothing does.

    Args:
        data: the whole stream of a JPEG, JPEG-LS or JPEG 2000 picture; for another kind there is no fault.
    """
    if data.startswith(b"\xff\xd8"):
        # No data between the last scan header and the end-of-image marker can look like that marker.
        return None if data.find(b"\xff\xd9", max(data.rfind(b"\xff\xda"), 0)) > 0 else "its end is missing"
    try:
        start = _jp2_codestream(data) if is_jp2(data) else 0
        if data.startswith(_J2K, start):
            stated, there = _tiles(data, start)
            return None if stated == there else f"{there} of its {stated} tiles are there"
    except (struct.error, IndexError, ZeroDivisionError):
        return "its header is cut off"
    return None


def _tiles(data: bytes, start: int) -> tuple[int, int]:
    """Number of tiles by the SIZ segment (T.800 B.3), and of those that have a part in the stream (T.800 A.4.2)."""
    right, bottom, _, _, width, height, left, top = struct.unpack_from(">8I", data, start + 8)
    stated = -((left - right) // width) * -((top - bottom) // height)
    at = start + 2
    while data[at : at + 2] != _SOT:
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    there = set()
    while data[at : at + 2] == _SOT:
        tile, length = struct.unpack_from(">HI", data, at + 4)
        there.add(tile)
        if length < 14:  # 0: the part reaches to the end of the stream
            break
        at += length
    return stated, len(there)


def is_jp2(data: bytes) -> bool:
    """Whether a stream is JPEG 2000 in the boxes of a JP2 file, which DICOM does not allow but some files have."""
    return data.startswith(_JP2)


def _jp2_codestream(data: bytes) -> int:
    """Follow the boxes to the one of the codestream (T.800 annex I); where there is none, the stream's end.

    A length that leads nowhere, such as 0, ends the search: pydicom would follow it forever.
    """
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"jp2c":
            return at + 8
        if length < 8:
            break
        at += length
    return len(data)


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
