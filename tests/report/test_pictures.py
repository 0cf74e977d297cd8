"""Figures are compared, pixel by pixel, with the checked ones in tests/report/baseline."""

from pathlib import Path

import pytest
from matplotlib.testing.compare import compare_images
from PIL import Image, ImageOps

from tests.report.pictures import BASELINE, FIGURES, draw

TOLERANCE = 1.0
"""Greatest root mean square difference, in pixel values of 0 to 255; swapping R and L exceeds it."""


@pytest.mark.parametrize("name", FIGURES)
def test_figure_looks_like_the_baseline(name: str, tmp_path: Path) -> None:
    drawn = draw(name, tmp_path)
    difference = compare_images(str(BASELINE / f"{name}.png"), str(drawn), TOLERANCE)
    assert difference is None, f"{difference}; if the change is intended: python -m tests.report.pictures {name}"


@pytest.mark.parametrize("turn", [ImageOps.mirror, ImageOps.flip])
@pytest.mark.parametrize("name", ["overlay", "compare", "film", "clinical"])
def test_a_mirrored_figure_differs_from_the_baseline(name: str, turn, tmp_path: Path) -> None:
    turned = tmp_path / f"{name}.png"
    turn(Image.open(BASELINE / f"{name}.png")).save(turned)
    assert compare_images(str(BASELINE / f"{name}.png"), str(turned), 2 * TOLERANCE) is not None


def test_the_baseline_is_complete_and_small() -> None:
    files = sorted(BASELINE.iterdir())
    assert [file.stem for file in files] == sorted(FIGURES)
    assert sum(file.stat().st_size for file in files) < 500_000
