"""What runs in the process that decodes files: its limits, and the loop that answers `cxr_faith.data.decoder`.

The process needs NumPy, Pillow and pydicom, and starts in a quarter of a second.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from cxr_faith.data.decoder import HEADER_BYTES, IGNORED_SIGNALS, READY, Task
from cxr_faith.data.dicom import is_dicom, read_dicom, read_dicom_size, read_dicom_texts
from cxr_faith.data.parent import end_with_parent
from cxr_faith.data.raster import read_mask, read_raster, read_raster_size
from cxr_faith.printable import printable

MEMORY = 1_400_000_000
"""Most bytes of address space: a picture of `images.MAX_PIXELS` fits in."""

MAX_SIDE = 32_768
"""Most pixels on a side of a picture: the weights for resizing a strip of millions by one take a gigabyte."""

HEADER_KEYWORDS = [
    *("PatientID", "PatientSex", "PatientAge", "ViewPosition", "PixelSpacing", "ImagerPixelSpacing"),
    "PatientOrientation",
    *("SeriesInstanceUID", "SOPInstanceUID", "StudyDate", "ImagePositionPatient", "InstanceNumber"),
]

_KEPT = MEMORY // 5  # a library that failed may hold memory: beyond this the process is not used again


def serve(parent: int) -> None:
    """Answer requests until the parent closes the pipe or ends.

    Args:
        parent: process id of the parent.
    """
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED_SIGNALS)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, also in the middle of C code
    end_with_parent(parent)
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    memory = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
    with suppress(ValueError, OSError):  # macOS refuses
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(os.dup(1), "wb") as answers:
        # What a library prints about a file must neither mix with answers nor reach a terminal.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        answers.write(READY)
        answers.flush()
        for line in sys.stdin.buffer:
            _answer(json.loads(line), answers)


def _answer(request: Mapping[str, Any], answers: BinaryIO) -> None:
    """Answer one request."""
    signal.setitimer(signal.ITIMER_PROF, request["seconds"])
    pixels: npt.NDArray[Any] = np.empty(0)
    try:
        file, max_pixels, window = Path(request["file"]), request["max_pixels"], request["window"]
        task = _TASKS[request["task"]]
        pixels = np.ascontiguousarray(
            task(file, max_pixels) if window is None else decode_picture(file, max_pixels, window)
        )
        header: dict[str, Any] = {"shape": pixels.shape, "dtype": pixels.dtype.str}
    except Exception as error:  # whatever a file makes a library raise costs that file only
        header = {"fault": reason(error), "spent": isinstance(error, MemoryError) or _address_space() > _KEPT}
    signal.setitimer(signal.ITIMER_PROF, 0)
    text = json.dumps(header).encode()
    answers.write(len(text).to_bytes(HEADER_BYTES, "big") + text)
    answers.write(pixels.data.cast("B") if pixels.size else b"")
    answers.flush()


def reason(error: Exception) -> str:
    """Why a file cannot be decoded, as one line without control characters."""
    if isinstance(error, MemoryError):
        return f"decoding needs more than {MEMORY / 1e9:g} GB of memory"
    words = " ".join(str(error).split())
    return printable(words if isinstance(error, ValueError) and words else f"{type(error).__name__}: {words}")


def decode_picture(file: Path, max_pixels: int, window: tuple[float, float] | None = None) -> npt.NDArray[np.uint8]:
    """A picture as uint8 [H, W] or [H, W, 3].

    Args:
        file: JPEG, PNG or DICOM.
        max_pixels: largest height × width that is decoded.
        window: center and width that show a DICOM picture; default: those of its header.

    Raises:
        ValueError: the file holds no usable picture, one of a single color, or a strip, or is not DICOM and has a
            window.
    """
    if is_dicom(file):
        pixels = read_dicom(file, max_pixels, window)
    elif window is None:
        pixels = read_raster(file, max_pixels)
    else:
        raise ValueError("a window is for DICOM pictures")
    if max(pixels.shape) > MAX_SIDE:
        raise ValueError(f"a side of {max(pixels.shape)} pixels is more than the {MAX_SIDE} allowed")
    # Looking at a few pixels first settles it for all but constant pictures.
    if (pixels[::16, ::16] == pixels[0, 0]).all() and (pixels == pixels[0, 0]).all():
        shown = " ".join(map(str, np.atleast_1d(pixels[0, 0])))
        raise ValueError(f"the picture is constant: every pixel is {shown} as it would be displayed")
    return pixels


def _picture_size(file: Path, _: int) -> npt.NDArray[np.int64]:
    return np.array(read_dicom_size(file) if is_dicom(file) else read_raster_size(file), dtype=np.int64)


def _mask_size(file: Path, _: int) -> npt.NDArray[np.int64]:
    return np.array(read_raster_size(file, mask=True), dtype=np.int64)


def _header(file: Path, _: int) -> npt.NDArray[np.uint8]:
    """What a DICOM file says about its patient and its place in a series, as JSON in bytes."""
    texts = read_dicom_texts(file, HEADER_KEYWORDS) if is_dicom(file) else {}
    return np.frombuffer(json.dumps(texts).encode(), np.uint8)


_TASKS: Mapping[Task, Callable[[Path, int], npt.NDArray[Any]]] = {
    "picture": decode_picture,
    "mask": read_mask,
    "picture size": _picture_size,
    "mask size": _mask_size,
    "header": _header,
}


def _address_space() -> int:
    """Bytes of address space that this process uses; Linux only, elsewhere 0."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0
