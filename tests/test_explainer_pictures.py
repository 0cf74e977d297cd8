"""Pictures of every kind that a program may hold, and maps that were made elsewhere."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

import cxr_faith
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.explainer import Picture, read_picture
from tests.reference.cells import cell_means

QUESTION = "Is there a nodule?"
RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


@pytest.fixture(scope="module")
def explainer() -> cxr_faith.Explainer:
    return cxr_faith.Explainer.from_pretrained("bundled", device="cpu", max_new_tokens=4)


@pytest.fixture(scope="module")
def picture() -> Path:
    return sorted((bundled_manifest().parent / "images").iterdir())[0]


def dicom(window: tuple[int, int] | None = (1000, 2000)) -> pydicom.Dataset:
    """A small radiograph in memory, without file meta information."""
    dataset = pydicom.Dataset()
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 6, 8, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    if window is not None:
        dataset.WindowCenter, dataset.WindowWidth = window
    dataset.PixelData = (RAMP.astype("<u2") * 16).tobytes()
    return dataset


def test_a_picture_is_the_same_in_every_form(picture: Path) -> None:
    expected = load_image(picture)
    with Image.open(picture) as image, picture.open("rb") as file:
        gray = expected[..., 0]
        content = picture.read_bytes()
        forms: list[Picture] = [picture, str(picture), content, file, io.BytesIO(content), image]
        forms += [expected, gray, gray[..., None], gray[None], np.moveaxis(expected, -1, 0), torch.from_numpy(expected)]
        for form in forms:
            np.testing.assert_array_equal(read_picture(form), expected)


def test_deep_and_float_pictures_are_scaled() -> None:
    deep = RAMP.astype(np.uint16) * 200 + 7
    expected = np.rint((RAMP - RAMP.min()) / np.ptp(RAMP) * 255).astype(np.uint8)
    np.testing.assert_array_equal(read_picture(deep)[..., 0], expected)
    np.testing.assert_array_equal(read_picture(Image.fromarray(deep))[..., 0], expected)
    shares = torch.from_numpy(RAMP / 255.0)
    np.testing.assert_array_equal(read_picture(shares, value_range=(0, 1))[..., 0], RAMP)
    np.testing.assert_array_equal(read_picture(RAMP - 300.0, value_range=(-300, -45))[..., 0], RAMP)


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        (RAMP / 255, {}, r"float64 \[6, 8\].*value_range"),
        (np.full((4, 4), np.nan), {"value_range": (0, 1)}, "not finite"),
        (RAMP, {"value_range": (1, 1)}, "an empty range"),
        (np.zeros((4, 4), np.uint16), {}, "constant"),
        (np.zeros((2, 4, 4), np.uint8), {}, r"got uint8 \[2, 4, 4\]"),
        (RAMP, {"window": (1, 2)}, "a window is for DICOM pictures"),
        (b"no picture", {}, "the picture's bytes: "),
        (pydicom.Dataset(), {}, "without pixels"),
        (7, {}, "int is no picture"),
    ],
)
def test_what_is_no_picture_says_why(form: Picture, options: dict[str, tuple[float, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_picture(form, **options)


def test_a_dataset_is_shown_as_its_file_is_and_with_another_window(tmp_path: Path) -> None:
    dataset, file = dicom(), tmp_path / "film.dcm"
    shown = read_picture(dataset)
    whole = dataset.copy()
    whole.file_meta = pydicom.FileMetaDataset()
    whole.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pydicom.dcmwrite(file, whole, implicit_vr=False, little_endian=True)
    np.testing.assert_array_equal(read_picture(file), shown)
    np.testing.assert_array_equal(read_picture(file, window=(1000, 2000)), shown)
    narrow = read_picture(file, window=(800, 400))
    np.testing.assert_array_equal(narrow, read_picture(dicom((800, 400))))
    assert not np.array_equal(narrow, shown) and "SOPClassUID" not in dataset
    with pytest.raises(ValueError, match="a center and a width of 1 or more, got 800,0"):
        read_picture(file, window=(800, 0))


def test_a_map_from_elsewhere_has_the_scores_of_the_method_that_made_it(
    explainer: cxr_faith.Explainer, picture: Path
) -> None:
    chefer, edges = explainer.compare(picture, QUESTION, ["chefer", "edges"]).values()
    expected = explainer.evaluate(chefer, "mean", 4)
    scores = explainer.evaluate_map(picture, QUESTION, chefer.map, "mean", 4)
    assert (scores.method, scores.srg, scores.order) == ("my_map", expected.srg, expected.order)
    assert scores.random_p == expected.random_p
    large = np.kron(chefer.map, np.ones((16, 16)))  # as Quantus gives it, on pixels
    both = explainer.evaluate_maps(picture, QUESTION, {"mine": large[None], "edges": edges.map}, "mean", 4, 2)
    assert list(both) == ["mine", "edges"] and both["mine"].srg == pytest.approx(expected.srg, abs=1e-6)
    for wrong, message in (
        (np.ones((3, 12, 12)), r"sum it over channels first\), got shape \[3, 12, 12\]"),
        (np.ones((6, 12)), r"my_map: a map has one value for each of the 12 × 12 cells"),
        (np.full((12, 12), np.inf), "my_map: the map has values that are not finite"),
        ("chefer", "my_map: a map holds numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            explainer.evaluate_map(picture, QUESTION, wrong)
    with pytest.raises(ValueError, match="there is no map"):
        explainer.evaluate_maps(picture, QUESTION, {})


def test_cells_get_the_mean_over_their_area() -> None:
    from cxr_faith.attribution.map_file import cell_map

    values = np.random.default_rng(0).normal(size=(17, 23))
    np.testing.assert_allclose(cell_map(values, (4, 6), "mine"), cell_means(values, (4, 6)), atol=1e-6)
