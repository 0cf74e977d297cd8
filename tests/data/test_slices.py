"""Slices of a series: which files they are, in which order, and which of them are shown."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from cxr_faith.data.images import ImageError, load_image
from cxr_faith.data.slices import middles, slice_files

SERIES = generate_uid(entropy_srcs=["a series"])


def write_slice(path: Path, level: int, position: list[float] | None, number: int | None, series: str = SERIES) -> None:
    """A CT slice of 8x8 px with one bright pixel at `level`."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.SeriesInstanceUID, dataset.PhotometricInterpretation = series, "MONOCHROME2"
    dataset.Rows = dataset.Columns = 8
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
    if position is not None:
        dataset.ImagePositionPatient = position
    if number is not None:
        dataset.InstanceNumber = number
    pixels = np.zeros((8, 8), np.uint16)
    pixels[level % 8, level // 8] = 1000
    dataset.PixelData = pixels.tobytes()
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


@pytest.mark.parametrize(("positions", "numbers"), [(True, True), (True, False), (False, True), (False, False)])
def test_slices_come_in_the_order_of_the_patient(positions: bool, numbers: bool, tmp_path: Path) -> None:
    """By position, else by instance number (which runs the other way here), else by name (in a third order)."""
    shuffled = [3, 0, 4, 1, 2]
    for name, level in enumerate(shuffled):
        position = [-20.0, 0.1 * level, 2.5 * level - 100] if positions else None
        write_slice(tmp_path / f"slice{name}", level, position, 10 - level if numbers else None)
    (tmp_path / "notes.txt").write_text("not a slice")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "older").mkdir()
    expected = [0, 1, 2, 3, 4] if positions else [4, 3, 2, 1, 0] if numbers else shuffled
    files = slice_files(tmp_path, 9)
    assert [shuffled[int(file.name[-1])] for file in files] == expected
    assert slice_files(tmp_path, 2) == [files[1], files[3]]
    assert load_image(files[0])[expected[0], 0].tolist() == [255] * 3


def test_slices_are_the_middles_of_equal_slabs() -> None:
    for slices in range(1, 30):
        for count in range(1, 12):
            places = middles(slices, count)
            assert len(places) == min(slices, count) and len({*places}) == len(places)
            if count < slices:
                middle = [(slab + 0.5) * slices / count for slab in range(count)]
                assert all(place <= center < place + 1 for place, center in zip(places, middle, strict=True))


def test_pictures_of_a_series_come_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", "c.jpg"):
        Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / name)
    assert [file.name for file in slice_files(tmp_path, 3)] == ["a.PNG", "b.png", "c.jpg"]


def test_folders_that_hold_no_series_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no slice: it holds no DICOM, PNG or JPEG file"):
        slice_files(tmp_path, 3)
    write_slice(tmp_path / "a.dcm", 1, [0, 0, 1], 1)
    write_slice(tmp_path / "b.dcm", 2, [0, 0, 2], 2, generate_uid())
    with pytest.raises(ImageError, match="slices of 2 series: give a folder with one of them"):
        slice_files(tmp_path, 3)
    with pytest.raises(ValueError, match="number of slices must be at least 1, got 0"):
        slice_files(tmp_path, 0)
