"""DICOM to 8-bit gray: real files built with pydicom, and one real radiograph."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from cxr_faith.data.images import ImageError, load_image

# A ramp whose rows and columns can be told apart: brightness grows to the right, faster in lower rows.
RAMP = np.outer(np.arange(1, 7), np.arange(10)).astype(np.uint16) * 60  # [6, 10], 0 … 3240


def write_dicom(path: Path, pixels: np.ndarray, *, bits: int = 12, implicit: bool = False, **elements: object) -> Path:
    """Write a computed radiography file; `elements` are set last, None removes one."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = "CR"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    for keyword, value in elements.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def lut(entries: np.ndarray, first: int, bits: int) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = entries.astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    return item


def gray(path: Path) -> np.ndarray:
    """Load and check that gray became three equal channels."""
    image = load_image(path)
    assert image.dtype == np.uint8 and image.shape[2] == 3
    assert (image == image[..., :1]).all()
    return image[..., 0].astype(int)


def linear_window(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """The formula of PS3.3 C.11.2.1.2.1, with 0 … 255 as the output range."""
    shown = ((values - (center - 0.5)) / (width - 1) + 0.5) * 255
    shown = np.where(values <= center - 0.5 - (width - 1) / 2, 0, shown)
    return np.rint(np.where(values > center - 0.5 + (width - 1) / 2, 255, shown)).astype(int)


def by_own_range(values: np.ndarray) -> np.ndarray:
    return np.rint((values - values.min()) / (values.max() - values.min()) * 255).astype(int)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("dtype, bits", [(np.uint8, 8), (np.uint16, 12), (np.uint16, 16), (np.int16, 12)])
def test_without_window_the_own_range_is_shown(tmp_path: Path, dtype: type, bits: int, implicit: bool) -> None:
    pixels = (RAMP // 60).astype(dtype) if dtype is np.uint8 else RAMP.astype(dtype)
    if dtype is np.int16:
        pixels = pixels - np.int16(1500)
    path = write_dicom(tmp_path / "a.dcm", pixels, bits=bits, implicit=implicit)
    assert (gray(path) == by_own_range(pixels.astype(float))).all()


def test_monochrome1_is_inverted_and_monochrome2_not(tmp_path: Path) -> None:
    bright = gray(write_dicom(tmp_path / "two.dcm", RAMP))
    dark = gray(write_dicom(tmp_path / "one.dcm", RAMP, PhotometricInterpretation="MONOCHROME1"))
    assert bright[-1, -1] == 255 and dark[-1, -1] == 0
    assert (dark == 255 - bright).all()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_window_acts_before_the_inversion(tmp_path: Path, photometric: str) -> None:
    path = write_dicom(
        tmp_path / "a.dcm", RAMP, WindowCenter=600, WindowWidth=900, PhotometricInterpretation=photometric
    )
    expected = linear_window(RAMP.astype(float), 600, 900)
    assert len(np.unique(expected)) > 10
    assert (gray(path) == (255 - expected if photometric == "MONOCHROME1" else expected)).all()


def test_a_window_wider_than_the_values_does_not_stretch_them(tmp_path: Path) -> None:
    shown = gray(write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=4000, WindowWidth=8001))
    assert 95 < shown.max() < 110  # 3240 of 0 … 8000


def test_of_several_windows_the_first_counts(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=[600, 2000], WindowWidth=[900, 10])
    assert (gray(path) == linear_window(RAMP.astype(float), 600, 900)).all()


@pytest.mark.parametrize("slope, intercept", [(2.0, -1000.0), (0.5, 100.0), (-1.0, 3000.0)])
def test_window_is_in_rescaled_units(tmp_path: Path, slope: float, intercept: float) -> None:
    """A negative slope turns dark into bright, once; pydicom's windowing alone would turn it back."""
    path = write_dicom(
        tmp_path / "a.dcm", RAMP, RescaleSlope=slope, RescaleIntercept=intercept, WindowCenter=800, WindowWidth=2000
    )
    expected = linear_window(RAMP * slope + intercept, 800, 2000)
    assert np.abs(gray(path) - expected).max() <= 1  # half-even at exact ties
    assert len(np.unique(expected)) > 10


def test_sigmoid_window(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=1500, WindowWidth=1000, VOILUTFunction="SIGMOID")
    expected = np.rint(255 / (1 + np.exp(-4 * (RAMP - 1500.0) / 1000)))
    assert (gray(path) == expected).all()


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("falling", [False, True])
def test_voi_lut_wins_over_the_window(tmp_path: Path, bits: int, falling: bool) -> None:
    """Entries as the table says, also 8-bit entries for thousands of values, and values outside it take its ends."""
    entries = np.rint(np.linspace(0, 2**bits - 1, 2000) ** 2 / (2**bits - 1))
    entries = entries[::-1] if falling else entries
    path = write_dicom(
        tmp_path / "a.dcm", RAMP, VOILUTSequence=[lut(entries, 500, bits)], WindowCenter=100, WindowWidth=2
    )
    expected = entries[np.clip(RAMP.astype(int) - 500, 0, 1999)]
    assert (gray(path) == np.rint(expected / (2**bits - 1) * 255)).all()


def test_voi_lut_after_a_rescale_to_fractions(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "a.dcm", RAMP, RescaleSlope=0.5, RescaleIntercept=0, VOILUTSequence=[lut(np.arange(1001), 0, 16)]
    )
    assert (gray(path) == np.rint(np.clip(RAMP / 2, 0, 1000) / 1000 * 255)).all()


def test_modality_lut_comes_before_the_window(tmp_path: Path) -> None:
    table = lut(np.arange(4096)[::-1], 0, 16)
    table.ModalityLUTType = "US"
    path = write_dicom(tmp_path / "a.dcm", RAMP, ModalityLUTSequence=[table], WindowCenter=3000, WindowWidth=1500)
    assert (gray(path) == linear_window(4095.0 - RAMP, 3000, 1500)).all()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_outside_the_range(tmp_path: Path, photometric: str) -> None:
    pixels = RAMP + 100
    pixels[:, :2] = 4095
    path = write_dicom(tmp_path / "a.dcm", pixels, PixelPaddingValue=4095, PhotometricInterpretation=photometric)
    shown = gray(path)
    inner = by_own_range(pixels[:, 2:].astype(float))
    assert (shown[:, :2] == 0).all()
    assert (shown[:, 2:] == (255 - inner if photometric == "MONOCHROME1" else inner)).all()


def test_constant_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="a.dcm: the picture is constant: every pixel is 0"):
        load_image(write_dicom(tmp_path / "a.dcm", np.full((4, 5), 77, np.uint16)))


def test_color_capture_stays_as_it_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    path = write_dicom(
        tmp_path / "a.dcm", pixels, bits=8, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0
    )
    assert (load_image(path) == pixels).all()


def test_content_decides_without_the_ending(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "no_ending", RAMP)
    assert (gray(path) == by_own_range(RAMP.astype(float))).all()


@pytest.mark.parametrize(
    "elements, fault",
    [
        ({"PixelData": None}, "without pixels"),
        ({"NumberOfFrames": 3}, "3 frames"),
        ({"PixelData": b"\0\0"}, "cannot be read"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"Rows": 60000, "Columns": 60000}, "allowed"),
    ],
)
def test_unusable_dicom_is_one_line_with_the_file(tmp_path: Path, elements: dict[str, object], fault: str) -> None:
    path = write_dicom(tmp_path / "broken.dcm", RAMP, **elements)
    with pytest.raises(ImageError, match=fault) as caught:
        load_image(path)
    assert "broken.dcm" in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_transfer_syntax_names_it(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0\0\0\1"])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    with pytest.raises(ImageError, match="MPEG2"):
        load_image(path)


def test_text_named_dcm_is_not_dicom(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_text("hello")
    with pytest.raises(ImageError, match="not a DICOM file"):
        load_image(tmp_path / "a.dcm")


def test_real_radiograph_is_upright_and_not_inverted() -> None:
    """RG1_UNCR: CR, PA, MONOCHROME1. Boxes (y, x) were read off the picture."""
    data_store = pytest.importorskip("data_store", reason="pydicom-data is a development dependency")
    image = load_image(Path(data_store.__file__).parent / "data" / "RG1_UNCR.dcm")
    assert image.shape == (1955, 1841, 3)
    grid = image[..., 0][:1950, :1840].reshape(10, 195, 10, 184).mean(axis=(1, 3))  # tenths of height and width
    air = min(grid[0, 0], grid[0, 9])
    right_lung, left_lung, spine, abdomen = grid[3, 2], grid[2, 6], grid[5, 4], grid[8, 2]
    assert air < right_lung and air < left_lung
    assert right_lung < spine - 20 and left_lung < spine - 20  # inverted: lungs brighter than the spine
    assert abdomen > max(right_lung, left_lung) + 20  # upside down: the abdomen would be dark
    assert grid[6, 6] > grid[6, 2] - 5  # heart on the image's right: not mirrored


@pytest.mark.filterwarnings("ignore")  # pydicom comments on what it repairs
def test_random_damage_never_raises_anything_else(tmp_path: Path) -> None:
    """Bytes changed anywhere, some files cut short: a picture or one line, nothing else."""
    rng = np.random.default_rng(0)
    table = [lut(np.arange(50), 0, 16)]
    whole = write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=9, WindowWidth=20, VOILUTSequence=table).read_bytes()
    refused = 0
    for _ in range(400):
        content = np.frombuffer(whole, dtype=np.uint8).copy()
        content[rng.integers(132, len(content), 4)] = rng.integers(0, 256, 4)
        (tmp_path / "b.dcm").write_bytes(content[: rng.integers(0, 2 * len(content))].tobytes())
        try:
            assert load_image(tmp_path / "b.dcm").shape[2] == 3
        except ImageError as error:
            assert "b.dcm" in str(error) and "\n" not in str(error)
            refused += 1
    assert 100 < refused < 400
