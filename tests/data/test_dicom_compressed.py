"""Compressed transfer syntaxes through pydicom's decoders, and streams larger than the DICOM header states."""

import io
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from cxr_faith.data.codestream import codestream_size
from cxr_faith.data.dicom import DicomError, read_dicom
from cxr_faith.data.images import MAX_PIXELS, ImageError, load_image, read_size
from tests.data.test_data_dicom import write_dicom

data_store = pytest.importorskip("data_store", reason="pydicom-data is a development dependency")
STORE = Path(data_store.__file__).parent / "data"
SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.mark.slow
def test_jpeg2000_radiograph_is_the_uncompressed_one() -> None:
    """RG1_J2KR is RG1_UNCR, compressed without loss: the same picture, to the bit."""
    pytest.importorskip("openjpeg", reason="extra dicom")
    plain = load_image(STORE / "RG1_UNCR.dcm")
    packed = load_image(STORE / "RG1_J2KR.dcm")
    assert (plain == packed).all()
    assert read_size(STORE / "RG1_J2KR.dcm") == plain.shape[:2]


@pytest.mark.slow
def test_lossy_jpeg2000_is_close_to_it() -> None:
    pytest.importorskip("openjpeg", reason="extra dicom")
    plain, packed = (load_image(STORE / f"RG1_{name}.dcm").astype(float) for name in ("UNCR", "J2KI"))
    assert 0 < np.abs(plain - packed).mean() < 4
    assert np.corrcoef(plain[::9, ::9, 0].ravel(), packed[::9, ::9, 0].ravel())[0, 1] > 0.99


def test_lossless_jpeg() -> None:
    pytest.importorskip("libjpeg", reason="extra dicom")
    image = load_image(STORE / "JPEG-LL.dcm")
    assert image.shape == (1024, 256, 3) and image.std() > 5


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressing_changes_nothing(tmp_path: Path, syntax: str) -> None:
    if syntax == JPEG2000Lossless:
        pytest.importorskip("openjpeg", reason="extra dicom")
    dataset = pydicom.dcmread(STORE / "RG1_UNCR.dcm")
    dataset.Rows = 60
    dataset.PixelData = dataset.PixelData[: 60 * dataset.Columns * 2]
    dataset.save_as(tmp_path / "plain.dcm")
    dataset.compress(syntax)
    dataset.save_as(tmp_path / "packed.dcm")
    assert (load_image(tmp_path / "plain.dcm") == load_image(tmp_path / "packed.dcm")).all()


@pytest.mark.parametrize(
    "file",
    [
        STORE / "RG1_J2KR.dcm",
        STORE / "JPEG-LL.dcm",
        SHIPPED / "JPEG-lossy.dcm",
        SHIPPED / "MR_small_jpeg_ls_lossless.dcm",
        SHIPPED / "MR_small_jp2klossless.dcm",
    ],
    ids=lambda path: path.stem,
)
def test_size_by_the_stream_itself(file: Path) -> None:
    dataset = pydicom.dcmread(file)
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    assert codestream_size(stream) == (dataset.Rows, dataset.Columns)
    for length in range(0, 60, 7):  # a stream that is cut has no size, and is no error
        assert codestream_size(stream[:length]) in (None, (dataset.Rows, dataset.Columns))


def test_other_streams_have_no_size() -> None:
    assert codestream_size(b"") is None
    assert codestream_size(b"\x00" * 64) is None


def test_stream_larger_than_the_header_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = pydicom.dcmread(SHIPPED / "MR_small_jp2klossless.dcm")
    stream = bytearray(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    struct.pack_into(">2I", stream, 8, 60_000, 60_000)
    dataset.PixelData = encapsulate([bytes(stream)])
    dataset.save_as(tmp_path / "bomb.dcm")
    monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(lambda _: pytest.fail("decoded")))
    with pytest.raises(DicomError, match="compressed picture is 60000×60000 px, the DICOM header says 64×64"):
        read_dicom(tmp_path / "bomb.dcm", MAX_PIXELS)
    with pytest.raises(ImageError, match="bomb.dcm: compressed picture is 60000×60000 px, the DICOM header says 64×64"):
        load_image(tmp_path / "bomb.dcm")


def test_missing_decoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: pydicom.Dataset) -> None:
        raise RuntimeError("unable to decompress, plugins are missing dependencies")

    monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(refuse))
    with pytest.raises(DicomError, match=r"transfer syntax JPEG 2000.*pip install 'cxr-faith\[dicom\]'"):
        read_dicom(SHIPPED / "MR_small_jp2klossless.dcm", MAX_PIXELS)


def jpeg_of_noise(tmp_path: Path) -> tuple[pydicom.Dataset, bytes]:
    """A DICOM file of one gray JPEG, and the JPEG."""
    noise = np.random.default_rng(0).integers(0, 255, (128, 128), dtype=np.uint8)
    dataset, stream = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", noise, bits=8)), io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG")
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return dataset, stream.getvalue()


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_jpeg_without_its_end_is_refused(tmp_path: Path, share: float) -> None:
    """Decoders fill what is missing with gray."""
    dataset, stream = jpeg_of_noise(tmp_path)
    dataset.PixelData = encapsulate([stream])
    dataset.save_as(tmp_path / "whole.dcm")
    assert load_image(tmp_path / "whole.dcm").shape == (128, 128, 3)
    kept = int(len(stream) * share)
    for tail in (b"", bytes(len(stream) - kept)):
        dataset.PixelData = encapsulate([stream[:kept] + tail])
        dataset.save_as(tmp_path / "cut.dcm")
        with pytest.raises(ImageError, match="cut.dcm: compressed picture is truncated or damaged: its end is missing"):
            load_image(tmp_path / "cut.dcm")


def test_jpeg2000_without_all_of_its_tiles_is_refused(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(SHIPPED / "MR_small_jp2klossless.dcm")
    stream = bytearray(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    for width, tiles in ((1, 4096), (32, 4), (0, None)):
        struct.pack_into(">2I", stream, 24, width, width)
        dataset.PixelData = encapsulate([bytes(stream)])
        dataset.save_as(tmp_path / "tiles.dcm")
        fault = f"1 of its {tiles} tiles are there" if tiles else "its header is cut off"
        with pytest.raises(ImageError, match=f"tiles.dcm: compressed picture is truncated or damaged: {fault}"):
            load_image(tmp_path / "tiles.dcm")
