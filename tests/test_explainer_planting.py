"""What `smallest_needed` plants in mirrored films, in lateral ones, and for questions about a side."""

from pathlib import Path

import numpy as np
import pytest

import cxr_faith
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.explainer import absence
from cxr_faith.explainer.absence import smallest_needed
from tests.data.test_planting_sides import write_film


@pytest.fixture(scope="module")
def explainer() -> cxr_faith.Explainer:
    return cxr_faith.Explainer.from_pretrained("bundled", device="cpu", max_new_tokens=4)


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    return cxr_faith.read_picture(bundled_manifest().parent / "images" / "p003-s0-i0.jpg")[..., 0]


@pytest.mark.parametrize(
    ("orientation", "question"),
    [("L\\F", "a pacemaker"), ("R\\F", "a pacemaker"), ("R\\F", "a nodule in the left lung")],
)
def test_objects_are_planted_on_the_patients_side(
    explainer: cxr_faith.Explainer, film: np.ndarray, orientation: str, question: str, tmp_path: Path, monkeypatch
) -> None:
    """A pacemaker lies on the patient's left, and a nodule where the question asks for it, wherever left is."""
    tried: list[np.ndarray] = []

    def never(explanation: object, copies: list[np.ndarray]) -> list[float]:
        tried.extend(copies)
        return [-1.0] * len(copies)

    monkeypatch.setattr(absence, "_margins", never)
    write_film(tmp_path / "film.dcm", orientation, film)
    one = explainer.explain(tmp_path / "film.dcm", f"Is there {question}?", "edges", kind="yes_no")
    assert one.answer == "no"
    smallest_needed(one, "device" if "pacemaker" in question else "nodule")
    middles = [np.nonzero(copy != one.picture[..., 0])[1].mean() for copy in tried]
    assert middles and all((middle < film.shape[1] / 2) == (orientation == "R\\F") for middle in middles)


def test_nothing_is_planted_where_no_side_is_known(
    explainer: cxr_faith.Explainer, film: np.ndarray, tmp_path: Path
) -> None:
    write_film(tmp_path / "film.dcm", None, film, view="LL")
    one = explainer.explain(tmp_path / "film.dcm", "Is there a nodule?", "edges")
    with pytest.raises(ValueError, match="nothing is planted: the picture is from the side or turned"):
        smallest_needed(one, "nodule")
