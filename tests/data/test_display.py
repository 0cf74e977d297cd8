"""DICOM headers with the faults that viewers mend, and that good headers show what pydicom shows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.pixels.processing import apply_modality_lut, apply_windowing

from cxr_faith.data.images import ImageError, load_image
from tests.data.test_data_dicom import RAMP, by_own_range, gray, linear_window, lut, write_dicom

WINDOWED = linear_window(RAMP.astype(float), 600, 900)
OWN_RANGE = by_own_range(RAMP.astype(float))


def with_texts(path: Path, pixels: np.ndarray = RAMP, **texts: str) -> Path:
    """A file whose decimal numbers are these texts, as they stand.

    In implicit VR a value's type is not written, so that any text can stand in for a decimal number.
    """
    write_dicom(path, pixels, implicit=True)
    dataset = pydicom.dcmread(path)
    for keyword, text in texts.items():
        dataset[keyword] = DataElement(keyword, "LO", text.split("\\"))
    dataset.save_as(path)
    return path


@pytest.mark.parametrize(
    "center, width, expected",
    [
        ("0\\600", "0\\900", WINDOWED),  # the next window
        ("nan\\600", "900\\900", WINDOWED),
        ("600\\600", "inf\\900", WINDOWED),
        ("600\\600", "-5\\900", WINDOWED),
        ("x\\600", "1e400\\900", WINDOWED),
        ("600,0", "900,0", WINDOWED),  # decimal commas
        ("600\\40\\50", "900", WINDOWED),
        ("600", "0", OWN_RANGE),
        ("600", "", OWN_RANGE),
        ("", "900", OWN_RANGE),
        ("nan", "nan", OWN_RANGE),
        ("1e400", "1e400", OWN_RANGE),
    ],
)
def test_the_first_usable_window_counts(tmp_path: Path, center: str, width: str, expected: np.ndarray) -> None:
    path = with_texts(tmp_path / "a.dcm", WindowCenter=center, WindowWidth=width)
    assert (gray(path) == expected).all()


@pytest.mark.parametrize(
    "slope, intercept",
    [("", ""), ("", "0"), ("1", ""), ("nan", "0"), ("1", "inf"), ("0", "5"), ("1e400", "0"), ("x", "")],
)
def test_an_unusable_rescale_counts_as_absent(tmp_path: Path, slope: str, intercept: str) -> None:
    window = {"WindowCenter": "600", "WindowWidth": "900"}
    path = with_texts(tmp_path / "a.dcm", RescaleSlope=slope, RescaleIntercept=intercept, **window)
    assert (gray(path) == WINDOWED).all()
    path = with_texts(tmp_path / "b.dcm", RescaleSlope=slope, RescaleIntercept=intercept)
    assert (gray(path) == OWN_RANGE).all()


@pytest.mark.parametrize("function", ["", "LINEAR", "linear ", "CUBIC"])
def test_an_unknown_window_function_is_linear(tmp_path: Path, function: str) -> None:
    path = with_texts(tmp_path / "a.dcm", WindowCenter="600", WindowWidth="900", VOILUTFunction=function)
    assert (gray(path) == WINDOWED).all()


def no_data() -> pydicom.Dataset:
    item = lut(np.arange(4), 0, 16)
    item.LUTData = b""
    return item


def no_descriptor() -> pydicom.Dataset:
    item = lut(np.arange(4), 0, 16)
    del item.LUTDescriptor
    return item


@pytest.mark.parametrize(
    "unusable",
    [no_data, no_descriptor, pydicom.Dataset, lambda: lut(np.zeros(4000), 0, 16), lambda: lut(np.ones(1), 0, 8)],
)
def test_an_unusable_look_up_table_counts_as_absent(tmp_path: Path, unusable: Callable[[], pydicom.Dataset]) -> None:
    window = {"WindowCenter": 600, "WindowWidth": 900}
    assert (gray(write_dicom(tmp_path / "a.dcm", RAMP, VOILUTSequence=[unusable()], **window)) == WINDOWED).all()
    assert (gray(write_dicom(tmp_path / "b.dcm", RAMP, VOILUTSequence=[unusable()])) == OWN_RANGE).all()
    assert (gray(write_dicom(tmp_path / "c.dcm", RAMP, VOILUTSequence=[])) == OWN_RANGE).all()
    assert (gray(write_dicom(tmp_path / "d.dcm", RAMP, ModalityLUTSequence=[unusable()], **window)) == WINDOWED).all()
    good = lut(np.arange(4096)[::-1], 0, 16)  # the next table of the sequence
    path = write_dicom(tmp_path / "e.dcm", RAMP, VOILUTSequence=[unusable(), good])
    assert (gray(path) == np.rint((4095 - RAMP) / 4095 * 255)).all()


def test_a_table_shorter_than_it_says_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    item = lut(np.arange(3001), 0, 16)
    item.LUTDescriptor = [4096, 0, 16]
    for keyword in ("VOILUTSequence", "ModalityLUTSequence"):
        path = write_dicom(tmp_path / "a.dcm", RAMP, **{keyword: [item]})
        assert (gray(path) == by_own_range(np.minimum(RAMP, 3000).astype(float))).all()


@pytest.mark.parametrize("bits", [10, 12])
def test_modality_table_of_any_depth(tmp_path: Path, bits: int) -> None:
    table = lut(np.minimum(np.arange(4096)[::-1], 2**bits - 1), 0, bits)
    shown = gray(write_dicom(tmp_path / "a.dcm", RAMP, ModalityLUTSequence=[table]))
    assert (shown == by_own_range(np.minimum(4095.0 - RAMP, 2**bits - 1))).all()


@pytest.mark.parametrize("signed", [False, True])
def test_a_tables_start_with_the_wrong_sign_is_reread(tmp_path: Path, signed: bool) -> None:
    """Signed pixels from -1,000 with a start of 64,536; unsigned ones from 40,000 with a start of -25,536."""
    start = -1000 if signed else 40_000
    pixels = (RAMP.astype(int) + start).astype(np.int16 if signed else np.uint16)
    item = lut(np.arange(3241), 0, 16)
    item["LUTDescriptor"] = DataElement(
        "LUTDescriptor", "US" if signed else "SS", [3241, start % 2**16 if signed else start - 2**16, 16]
    )
    path = write_dicom(tmp_path / "a.dcm", pixels, bits=16, VOILUTSequence=[item])
    assert (gray(path) == OWN_RANGE).all()


def test_a_tables_start_is_left_alone_where_it_fits(tmp_path: Path) -> None:
    """After a rescale to negative numbers the standard writes the start as a signed number."""
    item = lut(np.arange(4001), 0, 16)
    item["LUTDescriptor"] = DataElement("LUTDescriptor", "SS", [4001, -1500, 16])
    path = write_dicom(tmp_path / "a.dcm", RAMP, RescaleSlope=1, RescaleIntercept=-1000, VOILUTSequence=[item])
    assert (gray(path) == np.rint((RAMP + 500) / 4000 * 255)).all()


@pytest.mark.parametrize("signed", [False, True])
def test_padding_with_the_wrong_sign_is_reread(tmp_path: Path, signed: bool) -> None:
    pixels = RAMP.astype(np.int16 if signed else np.uint16)
    padding = -2000 if signed else 63_536
    pixels[:, :3] = padding
    wrong = padding % 2**16 if signed else padding - 2**16
    path = write_dicom(tmp_path / "a.dcm", pixels, bits=16)
    dataset = pydicom.dcmread(path)
    dataset["PixelPaddingValue"] = DataElement("PixelPaddingValue", "US" if signed else "SS", wrong)
    dataset.save_as(path)
    shown = gray(path)
    assert (shown[:, :3] == 0).all() and (shown[:, 3:] == by_own_range(RAMP[:, 3:].astype(float))).all()


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": 30_000, "WindowWidth": 100},  # far from the values
        {"RescaleSlope": "1e-300", "RescaleIntercept": "1", "WindowCenter": 500, "WindowWidth": 100},
        {"PixelData": bytes(RAMP.nbytes)},
    ],
)
def test_a_picture_that_comes_out_constant_is_refused(tmp_path: Path, elements: dict[str, object]) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP, **elements)
    with pytest.raises(ImageError, match="the picture is constant: every pixel is"):
        load_image(path)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP, RescaleSlope="1.7e308", RescaleIntercept="0")
    with pytest.raises(ImageError, match="not finite"):
        load_image(path)


@pytest.mark.parametrize("excess", [b"\7" * 30, b"\7\7", b"\7" * 60, b"\7" * 121])
@pytest.mark.parametrize("frames", [None, "", 0, 1])
def test_only_the_first_frame_is_shown(tmp_path: Path, excess: bytes, frames: object) -> None:
    """Room for half a frame, for one frame and for two, whatever the number of frames says."""
    pixels = (RAMP // 60).astype(np.uint8)
    path = write_dicom(
        tmp_path / "a.dcm", pixels, bits=8, PixelData=pixels.tobytes() + excess, NumberOfFrames=frames or 1
    )
    dataset = pydicom.dcmread(path)
    if frames is None:
        del dataset.NumberOfFrames
    else:
        dataset["NumberOfFrames"] = DataElement("NumberOfFrames", "IS", frames)
    dataset.save_as(path)
    assert (gray(path) == by_own_range(pixels.astype(float))).all()


@pytest.mark.parametrize("seed", range(12))
def test_good_headers_show_what_pydicom_shows(tmp_path: Path, seed: int) -> None:
    """Modality LUT or rescale, then a window, against pydicom's own functions on all pixels: equal to the bit."""
    rng = np.random.default_rng(seed)
    signed, bits = bool(seed % 2), int(rng.integers(9, 17))
    low = -(2 ** (bits - 1)) if signed else 0
    pixels = rng.integers(low, low + 2**bits, (40, 50)).astype(np.int16 if signed else np.uint16)
    elements: dict[str, object] = {
        "WindowCenter": float(rng.integers(low, low + 2**bits)),
        "WindowWidth": float(rng.integers(2, 2**bits)),
        "VOILUTFunction": ("LINEAR", "LINEAR_EXACT", "SIGMOID")[seed % 3],
    }
    if seed % 4 == 1:
        elements |= {"RescaleSlope": round(rng.uniform(-2, 2), 3), "RescaleIntercept": round(rng.uniform(-900, 900), 2)}
    if seed % 4 == 2:
        elements["ModalityLUTSequence"] = [lut(rng.integers(0, 2**16, 2**bits), 0, 16)]
    path = write_dicom(tmp_path / "a.dcm", pixels, bits=bits, **elements)
    dataset = pydicom.dcmread(path)
    with np.errstate(over="ignore"):
        dark, bright = apply_windowing(np.array([-1e30, 1e30]), dataset)
    shown = (apply_windowing(apply_modality_lut(dataset.pixel_array, dataset), dataset) - dark) / (bright - dark)
    assert (gray(path) == np.rint(np.clip(shown, 0, 1) * 255)).all()


@pytest.mark.parametrize("absent", ["", "nan", None])
def test_one_number_of_a_rescale_is_enough(tmp_path: Path, absent: str | None) -> None:
    """As in viewers: slope 1 where only the intercept is stated, intercept 0 where only the slope is."""
    window = {"WindowCenter": "100", "WindowWidth": "900"}
    texts = window | ({} if absent is None else {"RescaleSlope": absent})
    path = with_texts(tmp_path / "a.dcm", RescaleIntercept="-500", **texts)
    assert (gray(path) == WINDOWED).all()
    texts = {"WindowCenter": "1199.5", "WindowWidth": "1799"} | ({} if absent is None else {"RescaleIntercept": absent})
    path = with_texts(tmp_path / "b.dcm", RescaleSlope="2", **texts)
    assert (gray(path) == linear_window(RAMP * 2.0, 1199.5, 1799)).all()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_makes_no_picture_of_a_flat_field(tmp_path: Path, photometric: str) -> None:
    padded = RAMP.copy()
    padded[: len(RAMP) // 2] = 0
    header = {"PhotometricInterpretation": photometric, "PixelPaddingValue": 0}
    flat = np.where(padded, 777, 0).astype(padded.dtype)
    field = np.where(padded, np.maximum(padded, 1), 0).astype(padded.dtype)
    for name, values, view in (
        ("constant", flat, {}),
        ("below", field, {"WindowCenter": -500, "WindowWidth": 10}),
        ("above", field, {"WindowCenter": 90000, "WindowWidth": 10}),
    ):
        path = write_dicom(tmp_path / f"{name}.dcm", values, **header, **view)
        with pytest.raises(ImageError, match="the picture is constant: every pixel outside the padding is"):
            load_image(path)


def test_values_larger_than_the_stated_bits_do_not_wrap(tmp_path: Path) -> None:
    assert (gray(write_dicom(tmp_path / "a.dcm", RAMP, bits=8)) == OWN_RANGE).all()
    signed = (RAMP.astype(int) - 1500).astype(np.int16)
    assert (gray(write_dicom(tmp_path / "b.dcm", signed, bits=8)) == OWN_RANGE).all()


def test_values_at_the_high_end_of_their_words(tmp_path: Path) -> None:
    window = {"WindowCenter": 600, "WindowWidth": 900}
    assert (gray(write_dicom(tmp_path / "a.dcm", RAMP << 4, HighBit=15, **window)) == WINDOWED).all()


def test_an_overlay_in_unused_bits_is_not_shown(tmp_path: Path) -> None:
    drawn = RAMP.copy()
    drawn[::2] |= 0x8000
    path = write_dicom(tmp_path / "a.dcm", drawn)
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x60000102, "US", 15)
    dataset.save_as(path)
    assert (gray(path) == OWN_RANGE).all()
    unextended = (RAMP.astype(int) - 1600).astype(np.int16) & 0x0FFF  # signed 12-bit values with a cleared upper end
    assert (gray(write_dicom(tmp_path / "b.dcm", unextended)) == OWN_RANGE).all()
