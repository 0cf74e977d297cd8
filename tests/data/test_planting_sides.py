"""Planted objects on the patient's sides: mirrored films, films whose sides are not known, questions about a side."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest

from cxr_faith.__main__ import main
from cxr_faith.data.images import load_image, load_mask
from cxr_faith.data.manifest import open_manifest
from cxr_faith.data.planting.film import Film
from cxr_faith.data.planting.lungs import lungs_of, side_of
from cxr_faith.data.planting.objects import KINDS, draw, generator, side_in
from tests.data.layouts import write_dicom
from tests.data.test_planting import SIZE, film_pixels


def write_film(file: Path, orientation: str | None, pixels: np.ndarray, view: str = "PA") -> None:
    """A radiograph of 8 bits whose header says which way its columns and rows run."""
    write_dicom(file, 0, *pixels.shape)
    with pydicom.dcmread(file) as dataset:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData, dataset.ViewPosition = pixels.tobytes() + b"\0" * (pixels.size % 2), view
        dataset["PixelData"].VR = "OB"
        if orientation:
            dataset.PatientOrientation = orientation
        dataset.save_as(file)


def planted(root: Path, *options: str) -> list[dict]:
    """Rows of the pairs that are planted in a folder of films."""
    asked = ["--question", "Is it normal?", "--out", str(root / "rows")]
    assert main(["prepare", "folder", "--root", str(root / "films"), *asked]) == 0
    words = ["--out", str(root / "pairs"), "--contrast", "2", "--spacing", "1.5", *options]
    assert main(["prepare", "planted", str(root / "rows"), *words]) == 0
    return list(open_manifest(root / "pairs"))


def test_a_mirrored_film_gets_the_mirrored_objects(tmp_path: Path) -> None:
    """A film and its mirrored copy show the same patient, so that each object is on the same side of the patient."""
    for name, orientation, across in (("usual", "L\\F", 1), ("mirrored", "R\\F", -1)):
        write_film(tmp_path / name / "films" / "a.dcm", orientation, np.ascontiguousarray(film_pixels()[:, ::across]))
    rows = {name: planted(tmp_path / name, "--per_image", "8") for name in ("usual", "mirrored")}
    assert {row["finding"] for row in rows["usual"]} == set(KINDS)
    for usual, other in zip(rows["usual"], rows["mirrored"], strict=True):
        assert (usual["sample_id"], usual["orientation"], other["orientation"]) == (
            other["sample_id"],
            "usual",
            "mirrored",
        )
        shown, turned = (
            load_image(row["image_path"], tmp_path / row["orientation"] / "pairs") for row in (usual, other)
        )
        np.testing.assert_array_equal(turned[:, ::-1], shown)
        if usual["planted"]:
            where, there = (
                load_mask(row["finding_mask_path"], tmp_path / row["orientation"] / "pairs") for row in (usual, other)
            )
            np.testing.assert_array_equal(there[:, ::-1], where)
            if usual["finding"] == "device":  # below the patient's left clavicle
                assert np.nonzero(where)[1].mean() > SIZE[1] / 2 > np.nonzero(there)[1].mean()


@pytest.mark.parametrize("orientation", ["L\\F", "R\\F", None])
def test_an_object_lies_on_the_side_that_its_question_names(orientation: str | None, tmp_path: Path) -> None:
    for name in "abcd":
        write_film(tmp_path / "films" / f"{name}.dcm", orientation, film_pixels())
    rows = planted(tmp_path, "--findings", "nodule,line", "--question", "Is there {a} in the left lung?")
    middles = [
        np.nonzero(load_mask(row["finding_mask_path"], tmp_path / "pairs"))[1].mean() for row in rows if row["planted"]
    ]
    assert len(middles) == 4 and {(row["finding"], row["side"]) for row in rows} == {("nodule", "left")}
    assert all((middle < SIZE[1] / 2) == (orientation == "R\\F") for middle in middles)
    card = json.loads((tmp_path / "pairs" / "card.json").read_text())
    assert card["drops"] == {"object: it never lies on the side that the question names": 4}, "a line lies on the right"
    said = "films without stated orientation: the patient's right is taken to be on the left"
    assert card["notes"].get(said, 0) == (0 if orientation else 4)


def test_films_without_known_sides_are_left_out_and_counted(tmp_path: Path) -> None:
    write_film(tmp_path / "films" / "frontal.dcm", "L\\F", film_pixels())
    write_film(tmp_path / "films" / "lateral.dcm", None, film_pixels(), view="LL")
    write_film(tmp_path / "films" / "turned.dcm", "F\\L", film_pixels())
    rows = planted(tmp_path, "--findings", "nodule")
    assert {row["image_id"].split("/")[0] for row in rows} == {"frontal.dcm"}
    drops = json.loads((tmp_path / "pairs" / "card.json").read_text())["drops"]
    assert drops == {"image: the film is from the side or turned": 2}


def test_a_side_that_is_asked_about_changes_no_other_object() -> None:
    """The first object counts if it lies there; a question about no side, or about both, takes it in any case."""
    film = Film.from_pixels(film_pixels(), None, lungs_of({}, SIZE))
    assert [side_in(f"Is it in the {one} lung?") for one in ("left", "RIGHT", "left or right", "leftmost")] == [
        "left",
        "right",
        None,
        None,
    ]
    for name in ("a", "b", "c", "d"):

        def stream(purpose: str, name: str = name) -> np.random.Generator:
            return generator(0, name, "nodule", purpose)

        first = draw(KINDS["nodule"], film, None, stream)
        side = side_of(film, first.density)
        other = {"left": "right", "right": "left"}[side]
        np.testing.assert_array_equal(draw(KINDS["nodule"], film, side, stream).density, first.density)
        assert side_of(film, draw(KINDS["nodule"], film, other, stream).density) == other
