"""No file makes a process larger than 1.5 GB; the largest pictures that are allowed fit in."""

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from tests.data.layouts import write_dicom
from tests.test_security import png

REPOSITORY = Path(__file__).parents[2]
SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"

# Reads every file of a folder in each way, and tells what came of it and the largest process.
READER = """
import json, resource, sys
from pathlib import Path
from cxr_faith.data import decoder
from cxr_faith.data.images import ImageError, load_image, load_mask, read_size

results = {}
for file in sorted(Path(sys.argv[1]).iterdir()):
    for read in (read_size, load_image, load_mask):
        try:
            read(file)
            results[f"{read.__name__} {file.name}"] = "read"
        except ImageError as error:
            results[f"{read.__name__} {file.name}"] = str(error)
decoder._this_threads_decoder().close()
[own] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
decoders = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of processes that have ended
print(json.dumps([results, int(own) * 1024, decoders * 1024]))
"""


def read_all(folder: Path) -> tuple[dict[str, str], int, int]:
    """What came of each file, and the peak of the reading process and of its decoders, in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", READER, str(folder)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    results, own, decoders = json.loads(done.stdout)
    print(f"{own / 1e6:.0f} MB, decoders {decoders / 1e6:.0f} MB", json.dumps(results, indent=1))
    return results, own, decoders


def deflated(start: bytes, zeros: int) -> bytes:
    """A raw deflate stream of some bytes and then many zeros, made without holding them."""
    part = bytes(2**24)
    packer = zlib.compressobj(wbits=-15)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + again * (zeros // len(part)) + packer.flush(zlib.Z_FINISH)


def deflated_dicom(file: Path, element: bytes) -> None:
    """A deflated file with an element of 3 GiB zeros, whose tag and type are given; a picture of 80 × 120 otherwise."""
    plain = file.with_name("plain")
    write_dicom(plain, 0)
    dataset = pydicom.dcmread(plain)
    del dataset.PixelData
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(plain)
    content = plain.read_bytes()
    start = 144 + struct.unpack_from("<I", content, 140)[0]  # after the preamble and group 2
    elements = zlib.decompress(content[start:], -15)
    at = len(elements) if element[:2] == b"\xe0\x7f" else 0  # in the order of tags
    huge = elements[:at] + element + b"\0\0" + struct.pack("<I", 3 * 2**30)
    file.write_bytes(content[:start] + deflated(huge, 3 * 2**30))
    plain.unlink()


def with_chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG with a chunk before its pixels."""
    whole = png(8, 8, zlib.compress(bytes(range(9)) * 8))
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return whole[:33] + chunk * 3 + whole[33:]


def bombs(folder: Path) -> Iterator[Path]:
    """Write files that grow."""
    deflated_dicom(folder / "pixels.dcm", b"\xe0\x7f\x10\0OW")
    deflated_dicom(folder / "private.dcm", b"\x01\0\x10\x10OB")
    zeros = deflated(b"", 2**30)
    zlib_stream = b"\x78\x9c" + zeros + b"\0\0\0\1"
    (folder / "text.png").write_bytes(with_chunk(b"zTXt", b"a\0\0" + zlib_stream))
    (folder / "international.png").write_bytes(with_chunk(b"iTXt", b"a\0\1\0\0\0" + zlib_stream))
    (folder / "profile.png").write_bytes(with_chunk(b"iCCP", b"a\0\0" + zlib_stream))
    (folder / "excess.png").write_bytes(png(8, 8, zlib_stream))
    # A strip of 60 million by one, black and white.
    rows = zlib.compressobj(1)
    data = b"".join([*(rows.compress(b"\0\0\0\xff" * 1_000_000) for _ in range(30)), rows.flush()])
    (folder / "strip.png").write_bytes(png(1, 60_000_000, data))
    # A compressed picture of 500 components, of the size that the header states.
    write_dicom(folder / "components.dcm", 0)
    dataset = pydicom.dcmread(folder / "components.dcm")
    small = pydicom.dcmread(SHIPPED / "MR_small_jp2klossless.dcm")
    stream = bytearray(next(generate_frames(small.PixelData, number_of_frames=1)))
    length = struct.unpack_from(">H", stream, 4)[0]
    struct.pack_into(">2I", stream, 8, 8000, 8000)
    struct.pack_into(">2I", stream, 24, 8000, 8000)
    struct.pack_into(">2H", stream, 4, 38 + 3 * 500, 0)
    struct.pack_into(">H", stream, 40, 500)
    stream[42 : 4 + length] = b"\x0f\1\1" * 500
    dataset.Rows = dataset.Columns = 8000
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([bytes(stream)])
    dataset.save_as(folder / "components.dcm")
    # Pixels that say that they are 4 GB long: those in the file are taken.
    write_dicom(folder / "length.dcm", 0)
    content = (folder / "length.dcm").read_bytes()
    at = content.index(b"\xe0\x7f\x10\0OW") + 8
    (folder / "length.dcm").write_bytes(content[:at] + struct.pack("<I", 2**32 - 2) + content[at + 4 :])
    yield from folder.iterdir()


def test_no_bomb_makes_a_process_large(tmp_path: Path) -> None:
    assert sum(file.stat().st_size for file in bombs(tmp_path)) < 20e6
    results, own, decoders = read_all(tmp_path)
    assert own < 0.5e9 and decoders < 1.5e9
    taken = {name for name, result in results.items() if result == "read"}
    assert {name for name in taken if "load" in name} == {
        "load_image length.dcm",
        "load_mask excess.png",
        "load_mask strip.png",
    }
    assert "a side of 60000000 pixels is more than the 32768 allowed" in results["load_image strip.png"]
    assert "needs more than 1.4 GB" in results["load_image pixels.dcm"]
    assert "needs more than 1.4 GB" in results["load_image private.dcm"]


@pytest.mark.slow
def test_the_largest_pictures_fit_in(tmp_path: Path) -> None:
    """64 million pixels in each format: 16-bit PNG, 16-bit DICOM with a window, color JPEG, progressive too."""
    deep = np.add.outer(np.arange(8000, dtype=np.uint16), np.arange(8000, dtype=np.uint16))
    Image.fromarray(deep).save(tmp_path / "deep.png", compress_level=1)
    color = Image.merge("RGB", [Image.fromarray((deep >> shift).astype(np.uint8)) for shift in (3, 4, 5)])
    color.save(tmp_path / "color.jpg")
    color.save(tmp_path / "color.png", compress_level=1)
    color.save(tmp_path / "progressive.jpg", progressive=True)
    write_dicom(tmp_path / "deep.dcm", 0, 8, 8)
    dataset = pydicom.dcmread(tmp_path / "deep.dcm")
    dataset.Rows, dataset.Columns, dataset.BitsStored, dataset.HighBit = 8000, 8000, 16, 15
    dataset.WindowCenter, dataset.WindowWidth, dataset.PixelData = 8000, 9000, deep.tobytes()
    dataset.save_as(tmp_path / "deep.dcm")
    results, own, decoders = read_all(tmp_path)
    assert {name for name, result in results.items() if "load_image" in name and result != "read"} == set()
    assert own < 1e9 and decoders < 1.5e9
