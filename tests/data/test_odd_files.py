"""Files that are no plain picture: each is shown, or refused in one line that says why, and nothing blocks."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, JPEG2000Lossless, JPEGBaseline8Bit

from cxr_faith.data.images import ImageError, load_image, load_mask, read_size
from tests.data.layouts import pixels
from tests.data.test_data_dicom import RAMP, write_dicom

GRAY = pixels(0)
COLOR = np.stack([pixels(seed) for seed in range(3)], axis=2)


def png(depth: int, kind: int, rows: np.ndarray, extra: bytes = b"") -> bytes:
    """A PNG of any depth and color type; rows of bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], depth, kind, 0, 0, 0)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    )


def deep(*bands: np.ndarray) -> np.ndarray:
    return np.stack(bands, axis=2).astype(">u2")


RAMP16 = np.tile(np.linspace(0, 4000, 9), (2, 1))
OPAQUE = np.full((2, 9), 65535)


def test_sixteen_bit_png(tmp_path: Path) -> None:
    """Gray is scaled by its own range, also with a transparent level; what Pillow cuts to high bytes is refused."""
    file = tmp_path / "a.png"
    transparent = struct.pack(">I", 2) + b"tRNS" + b"\0\0" + struct.pack(">I", zlib.crc32(b"tRNS\0\0"))
    for extra in (b"", transparent):
        file.write_bytes(png(16, 0, deep(RAMP16), extra))
        assert load_image(file)[0, :, 0].tolist() == [0, 32, 64, 96, 128, 159, 191, 223, 255]
        assert load_mask(file)[0].tolist() == [False] + [True] * 8
    for kind, bands in ((4, (RAMP16, OPAQUE)), (2, (RAMP16,) * 3), (6, (RAMP16, RAMP16, RAMP16, OPAQUE))):
        file.write_bytes(png(16, kind, deep(*bands)))
        assert read_size(file) == (2, 9)
        for read in (load_image, load_mask):
            with pytest.raises(ImageError, match="a.png: 16-bit PNG in color or with alpha"):
                read(file)


def saved(picture: Image.Image, ending: str, **options: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        buffer = io.BytesIO()
        picture.save(buffer, ending, **options)
        file = folder / "a.png"
        file.write_bytes(buffer.getvalue())
        return file

    return write


gray, color = Image.fromarray(GRAY), Image.fromarray(COLOR)
alpha = Image.fromarray(np.dstack([COLOR, GRAY]))


@pytest.mark.parametrize(
    "write, expected",
    [
        (saved(alpha, "PNG"), COLOR),  # semi-transparent: the color that is stored
        (saved(Image.merge("LA", (gray, gray)), "PNG"), GRAY),
        (saved(gray.convert("1"), "PNG"), np.asarray(gray.convert("1").convert("L"))),
        (saved(color.convert("P"), "PNG", transparency=0), np.asarray(color.convert("P").convert("RGB"))),
        (saved(gray, "PNG", save_all=True, append_images=[gray.rotate(90)]), GRAY),  # animated: the first frame
        (saved(color, "PNG", icc_profile=b"no profile", exif=b"Exif\0\0no exif"), COLOR),
    ],
    ids=["RGBA", "LA", "1", "P", "animated", "ICC and EXIF"],
)
def test_kinds_of_png(tmp_path: Path, write: Callable[[Path], Path], expected: np.ndarray) -> None:
    shown = load_image(write(tmp_path))
    assert (shown == np.atleast_3d(expected)).all() and shown.shape == (*expected.shape[:2], 3)


@pytest.mark.parametrize(
    "write",
    [
        saved(gray, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xff broken"),
        saved(gray, "JPEG", icc_profile=b"no profile" * 9000),
        saved(gray, "JPEG", comment=b"\x1b[31m\0" * 99),
        saved(color.convert("CMYK"), "JPEG"),
        saved(color.convert("YCbCr"), "JPEG"),
        saved(gray, "MPO", save_all=True, append_images=[gray.rotate(90)]),
    ],
    ids=["EXIF", "ICC", "comment", "CMYK", "YCbCr", "MPO"],
)
def test_kinds_of_jpeg(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    file = write(tmp_path)
    shown = load_image(file).astype(float)
    assert shown.shape[:2] == read_size(file) == (80, 120)
    assert np.abs(shown.mean(axis=2) - GRAY).mean() < 45


@pytest.mark.parametrize("ending", ["TIFF", "WEBP", "GIF", "BMP", "JPEG2000", "PPM", "ICO"])
def test_other_formats_are_refused(tmp_path: Path, ending: str) -> None:
    with pytest.raises(ImageError, match=r"not an image \(JPEG or PNG expected\)"):
        load_image(saved(color, ending)(tmp_path))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "device.png", "folder.png"):
        for read in (load_image, load_mask, read_size):
            with pytest.raises(ImageError, match="is not a file"):
                read(tmp_path / name)
    for name in ("empty.png", "empty.dcm"):
        (tmp_path / name).touch()
        for read in (load_image, load_mask, read_size):
            with pytest.raises(ImageError, match=rf"{name}: not an? (image|DICOM file)"):
                read(tmp_path / name)


def without_fragments(dataset: pydicom.Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    dataset["PixelData"].is_undefined_length = True


def without_codestream(dataset: pydicom.Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([bytes.fromhex("0000000c6a5020200d0a870a") + bytes(400)])


def unknown_syntax(dataset: pydicom.Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    dataset.PixelData = encapsulate([b"\0\0\0\1"])


def float_pixels(dataset: pydicom.Dataset) -> None:
    del dataset.PixelData
    dataset.FloatPixelData = RAMP.astype(np.float32).tobytes()


def elements(**values: object) -> Callable[[pydicom.Dataset], None]:
    def change(dataset: pydicom.Dataset) -> None:
        for keyword, value in values.items():
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)

    return change


@pytest.mark.parametrize(
    "change, fault",
    [
        (without_fragments, "cannot be read"),
        (without_codestream, "its JPEG 2000 boxes lead to no picture"),
        (unknown_syntax, "MPEG2"),
        (float_pixels, "without pixels"),
        (elements(PixelData=None), "without pixels"),
        (elements(PixelData=b""), "cannot be read"),
        (elements(PixelData=RAMP.tobytes()[:-2]), "less than expected"),
        (elements(PixelData=RAMP.tobytes()[:61] + b"\0"), "less than expected"),
        (elements(NumberOfFrames=-1), "-1 frames"),
        (elements(NumberOfFrames=2), "2 frames"),
        (elements(Rows=0), "without pixels"),
        (elements(Rows=None), "without pixels"),
        (elements(Columns=11), "less than expected"),
        (elements(BitsAllocated=8, BitsStored=12), "cannot be read"),
        (elements(BitsAllocated=12), "cannot be read"),
        (elements(BitsAllocated=None), "Bits Allocated"),
        (elements(BitsStored=17), "cannot be read"),
        (elements(BitsStored=0), "cannot be read"),
        (elements(PhotometricInterpretation=None), "photometric interpretation None"),
        (elements(PhotometricInterpretation="MONOCHROME3"), "MONOCHROME3 is not"),
        (elements(PhotometricInterpretation="PALETTE COLOR"), "PALETTE COLOR is not"),
        (elements(PhotometricInterpretation="RGB"), "RGB is not"),
        (elements(SamplesPerPixel=3), "cannot be read"),
        (elements(SamplesPerPixel=2), "cannot be read"),
        (elements(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=5), "cannot be read"),
    ],
)
def test_dicom_that_holds_no_radiograph(tmp_path: Path, change: Callable[[pydicom.Dataset], None], fault: str) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    with pytest.raises(ImageError, match=fault) as caught:
        load_image(path)
    assert str(caught.value).startswith(f"{path}: ") and str(caught.value).isprintable()


def test_dicom_of_one_bit(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (8, 16), dtype=np.uint8)
    path = write_dicom(tmp_path / "a.dcm", bits)
    dataset = pydicom.dcmread(path)
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit, dataset.PixelData = 0, np.packbits(bits, bitorder="little").tobytes()
    dataset.save_as(path)
    assert (load_image(path)[..., 0] == bits * 255).all()


@pytest.mark.parametrize("value", [None, ""])
def test_what_a_header_does_not_say_is_as_usual(tmp_path: Path, value: str | None) -> None:
    pixels = (RAMP * 20).astype(np.uint16)
    path = write_dicom(tmp_path / "a.dcm", pixels, bits=16)
    expected, dataset = load_image(path), pydicom.dcmread(path)
    for keyword in ("SamplesPerPixel", "BitsStored", "PixelRepresentation", "HighBit", "NumberOfFrames"):
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, None)
    dataset.save_as(path)
    assert (load_image(path) == expected).all()


@pytest.mark.parametrize("high_bit", [None, 0, 11, 15, 99])
def test_the_high_bit_is_not_needed(tmp_path: Path, high_bit: int | None) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP, HighBit=high_bit)
    assert (load_image(path) == load_image(write_dicom(tmp_path / "b.dcm", RAMP))).all()


def test_elements_of_any_length_beside_the_pixels_are_skipped(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    expected, dataset = load_image(path), pydicom.dcmread(path)
    nested = pydicom.Dataset()
    for _ in range(60):
        outer = pydicom.Dataset()
        outer.ReferencedImageSequence = [nested]
        nested = outer
    dataset.ReferencedImageSequence = [nested]
    dataset[0x00091010] = DataElement(0x00091010, "OB", bytes(5_000_000))
    dataset[0x7FE11010] = DataElement(0x7FE11010, "UN", bytes(99_999))
    dataset.save_as(path)
    assert (load_image(path) == expected).all()


@pytest.mark.parametrize("deep_gray", [False, True])
def test_a_png_without_its_end_is_refused(tmp_path: Path, deep_gray: bool) -> None:
    """A download that stopped leaves a short file, or one with zeros at its end; Pillow shows black rows for both."""
    noise = np.random.default_rng(0).integers(0, 255, (200, 300))
    whole, file = io.BytesIO(), tmp_path / "a.png"
    Image.fromarray(noise.astype(np.uint16) * 13 if deep_gray else noise.astype(np.uint8)).save(whole, "PNG")
    content = whole.getvalue()
    file.write_bytes(content + b"more")
    assert load_image(file).shape == (200, 300, 3) and load_mask(file).any()
    for share in (0.1, 0.3, 0.5, 0.9, 0.999):
        kept = int(len(content) * share)
        for tail in (b"", bytes(len(content) - kept)):
            file.write_bytes(content[:kept] + tail)
            for read in (load_image, load_mask):
                with pytest.raises(ImageError, match="a.png: PNG file is truncated"):
                    read(file)
    file.write_bytes(content[:-12] + struct.pack(">I", 3) + b"tEXta\0c-bad" + content[-12:])
    assert load_image(file).shape == (200, 300, 3)  # a damaged note behind the picture


def test_a_rotation_tag_turns_sixteen_bit_gray_too(tmp_path: Path) -> None:
    tag, values = Image.Exif(), np.arange(12, dtype=np.uint16).reshape(3, 4)
    tag[0x112] = 6
    Image.fromarray(values).save(tmp_path / "turned.png", exif=tag)
    Image.fromarray(np.ascontiguousarray(np.rot90(values, -1))).save(tmp_path / "upright.png")
    assert (load_image(tmp_path / "turned.png") == load_image(tmp_path / "upright.png")).all()
    assert read_size(tmp_path / "turned.png") == (4, 3)


def test_the_content_decides_what_a_file_is(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "picture.dcm", "PNG")
    assert (load_image(tmp_path / "picture.dcm")[..., 0] == GRAY).all()
    for implicit in (False, True):
        path = write_dicom(tmp_path / "a.dcm", RAMP, implicit=implicit)
        expected, content = load_image(path), path.read_bytes()
        meta = 144 + struct.unpack_from("<I", content, 140)[0]
        for name in ("b.dcm", "b.png", "b"):
            for start in (0, 132, meta):  # whole, without preamble, without file meta information
                (tmp_path / name).write_bytes(content[start:])
                assert (load_image(tmp_path / name) == expected).all()
                assert read_size(tmp_path / name) == expected.shape[:2]
