import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cxr_faith.data.sample import Box
from cxr_faith.report.figures import overlay, scaled


def pixels(figure: Figure) -> np.ndarray:
    """The axes' part of a rendered figure, uint8 [h, w, 3]."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    picture = np.asarray(Image.open(buffer).convert("RGB"))
    place = figure.axes[0].get_position()
    height, width = picture.shape[:2]
    top, bottom = round(height * (1 - place.y1)), round(height * (1 - place.y0))
    return picture[top:bottom, round(width * place.x0) : round(width * place.x1)]


def colorful(picture: np.ndarray) -> np.ndarray:
    return np.ptp(picture.astype(int), axis=-1) > 30


@pytest.mark.parametrize("shape", [(240, 180), (150, 300, 3)])
@pytest.mark.parametrize("cell", [(0, 0), (1, 4), (5, 7)])
def test_a_cell_is_drawn_on_its_own_part_of_the_picture(shape: tuple[int, ...], cell: tuple[int, int]) -> None:
    values = np.zeros((6, 8))
    values[cell] = 1
    drawn = colorful(pixels(overlay(np.full(shape, 100, np.uint8), values, title="a title")))
    height, width = drawn.shape
    assert width / height == pytest.approx(shape[1] / shape[0], rel=0.01)  # the picture's proportions, not the map's
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    expected = [cell[0] / 6 * height, (cell[0] + 1) / 6 * height, cell[1] / 8 * width, (cell[1] + 1) / 8 * width]
    got = [rows[0], rows[-1] + 1, columns[0], columns[-1] + 1]
    np.testing.assert_allclose(got, expected, atol=3)


def test_region_places_the_map_on_the_part_that_the_model_saw() -> None:
    figure = overlay(np.full((200, 100), 90, np.uint8), np.array([[1.0, 0], [0, 0]]), region=(20, 10, 160, 80))
    drawn = colorful(pixels(figure))
    height, width = drawn.shape
    assert np.flatnonzero(drawn.any(1))[0] == pytest.approx(0.1 * height, abs=3)
    assert np.flatnonzero(drawn.any(1))[-1] == pytest.approx(0.5 * height, abs=3)
    assert np.flatnonzero(drawn.any(0))[-1] == pytest.approx(0.5 * width, abs=3)


def test_the_picture_is_upright_and_its_left_is_marked_as_the_patients_right() -> None:
    picture = np.zeros((100, 100), np.uint8)
    picture[70:90, 10:30] = 255
    figure = overlay(picture, np.zeros((4, 4)))
    drawn = pixels(figure)
    height, width = drawn.shape[:2]
    assert drawn[int(0.8 * height), int(0.2 * width)].min() > 250
    assert drawn[int(0.2 * height), int(0.5 * width)].max() < 5
    places = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
    assert places["R"] < 0.1 and places["L"] > 0.9


def test_boxes_are_in_place_and_titles_are_plain_text() -> None:
    figure = overlay(
        np.zeros((50, 80), np.uint8), np.zeros((4, 4)), "is $x^2 here? <b> 5 $", boxes=[Box("nodule", 10, 20, 30, 45)]
    )
    (patch,) = figure.axes[0].patches
    assert patch.get_bbox().extents.tolist() == [10, 20, 30, 45]
    white = pixels(figure).min(-1) > 200
    sides = np.flatnonzero(white[white.shape[0] // 2])
    assert sides[0] == pytest.approx(10 / 80 * white.shape[1], abs=3)
    assert sides[-1] == pytest.approx(30 / 80 * white.shape[1], abs=3)


def test_negative_values_are_not_drawn_and_flat_maps_hide_nothing() -> None:
    gray = np.full((60, 60), 120, np.uint8)
    values = np.array([[-5.0, 0], [0, 1]])
    drawn = colorful(pixels(overlay(gray, values)))
    assert drawn[-40:-5, -40:-5].all() and not drawn[: drawn.shape[0] // 2 - 3].any()
    assert not colorful(pixels(overlay(gray, np.full((2, 2), 3.0)))).any()


@pytest.mark.parametrize(
    ("picture", "values", "message"),
    [
        (np.zeros((5, 5), np.uint8), np.array([[np.nan, 1.0]]), "finite"),
        (np.zeros((5, 5), np.uint8), np.zeros(4), "grid_h"),
        (np.zeros((3, 5, 5), np.uint8), np.zeros((2, 2)), "picture is"),
    ],
)
def test_wrong_shapes_are_refused(picture: np.ndarray, values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overlay(picture, values)


def test_the_scale_runs_from_the_2nd_to_the_98th_percentile() -> None:
    values = np.random.default_rng(0).random((16, 16)) - 0.1
    values[3, 3] = 1e6  # one outlier must not hide the others
    strength, (low, high) = scaled(values)
    positive = np.sort(np.maximum(values, 0), axis=None)
    assert (low, high) == pytest.approx(tuple(np.percentile(positive, (2, 98)))) and high < 1
    assert strength.min() == 0 and strength.max() == 1 and 0.3 < np.median(strength) < 0.7
    lone = np.zeros((16, 16))
    lone[2, 5] = 0.25  # both percentiles are 0 here
    np.testing.assert_array_equal(scaled(lone)[0], lone * 4)
    assert not scaled(np.full((4, 4), -1.0))[0].any()


def test_each_format_is_written(tmp_path: Path) -> None:
    figure = overlay(np.zeros((20, 30), np.uint8), np.eye(3), "a title")
    for ending, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        figure.savefig(tmp_path / f"figure.{ending}")
        assert (tmp_path / f"figure.{ending}").read_bytes().startswith(start)


@pytest.mark.parametrize(("corner", "edge"), [(None, "top"), ("top", "bottom"), ("bottom", "top"), ("middle", "top")])
def test_side_marks_leave_a_marker_of_the_film_alone(corner: str | None, edge: str) -> None:
    picture = np.linspace(10, 120, 100, dtype=np.uint8)[:, None].repeat(80, 1)
    rows = {"top": slice(4, 12), "bottom": slice(-12, -4), "middle": slice(45, 53)}
    if corner is not None:
        picture[rows[corner], 3:8] = 250
    marks = [text for text in overlay(picture, np.eye(4)).axes[0].texts if text.get_text() in "RL"]
    assert [text.get_text() for text in marks] == ["R", "L"] and {text.get_va() for text in marks} == {edge}


@pytest.mark.parametrize("sides", [("R", "L"), ("L", "R"), ("", "")])
def test_marks_are_the_patients_sides_where_they_are_known(sides: tuple[str, str]) -> None:
    figure = overlay(np.zeros((50, 40), np.uint8), np.eye(4), sides=sides)
    placed = sorted(figure.axes[0].texts, key=lambda text: text.get_position()[0])
    assert [text.get_text() for text in placed] == [side for side in sides if side]
