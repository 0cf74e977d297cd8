import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cxr_faith.data.sample import Box
from cxr_faith.report.bars import layer_attention_bars, region_bars, text_relevancy_bars, visible
from cxr_faith.report.film import Frame, film_strip
from cxr_faith.report.grids import (
    answer_words,
    compare_methods,
    compose,
    deletion_film,
    draw_frames,
    token_strip,
)

PICTURE = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)


def rendered(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 11, 12])
def test_any_number_of_methods_without_overlap(count: int) -> None:
    maps = {f"a rather long name of method {i}": np.eye(6) * i for i in range(count)}
    figure = compare_methods(PICTURE, maps, "Is there <b>$x$</b>?", [Box("", 5, 5, 20, 20)], notes={"no such": "x"})
    figure.canvas.draw()
    assert len(figure.axes) == count + 1
    boxes = [axes.get_window_extent() for axes in figure.axes] + [text.get_window_extent() for text in figure.texts]
    for number, one in enumerate(boxes):
        assert one.x0 >= -1 and one.y0 >= -1 and one.x1 <= figure.bbox.width + 1 and one.y1 <= figure.bbox.height + 1
        for other in boxes[:number]:
            across = one.x0 < other.x1 - 1 and other.x0 < one.x1 - 1
            down = one.y0 < other.y1 - 1 and other.y0 < one.y1 - 1
            assert not (across and down), (one, other)
    for axes in figure.axes:
        place = axes.get_window_extent()
        assert place.width / place.height == pytest.approx(1.5, rel=0.01)
        assert len(axes.patches) == 1
    assert len(figure.axes[0].images) == 1 and all(len(axes.images) == 2 for axes in figure.axes[1:])


def test_comparing_no_map_is_an_error() -> None:
    with pytest.raises(ValueError, match="no map"):
        compare_methods(PICTURE, {})


def test_every_word_has_its_own_map() -> None:
    falling, rising = np.eye(3), np.eye(3)[::-1]
    maps = [falling, rising, np.full((3, 3), 9.0), rising]
    figure = token_strip(PICTURE, [" pneumo", "thorax,", "\n", "right"], maps)
    assert [text.get_text() for text in figure.texts] == ["pneumothorax,", "right"]
    np.testing.assert_array_equal(figure.axes[0].images[1].get_array() > 0, falling + rising > 0)
    np.testing.assert_array_equal(figure.axes[1].images[1].get_array(), rising)
    assert answer_words(["no", " ", "left ", "lung"]) == [[0], [2], [3]] and answer_words([" ", "\n"]) == [[0], [1]]
    with pytest.raises(ValueError, match="got 4 for 1"):
        token_strip(PICTURE, ["yes"], maps)


def test_a_strip_of_one_word_has_room_for_its_title_and_long_words_break_evenly() -> None:
    title = "Is there a pleural effusion on the left side of the chest? (integrated_gradients)"
    figure = token_strip(PICTURE, ["no"], [np.eye(3)], title=title, footnote="a scale")
    assert title in [" ".join(text.get_text().split()) for text in figure.texts]
    long = token_strip(PICTURE, ["otorhinolaryngotracheobronchoscopically", " a", " b"], [np.eye(3)] * 3, title="x")
    assert "otorhinolaryngotrach\neobronchoscopically" in [text.get_text() for text in long.texts]


def test_sides_are_marked_at_one_edge_in_all_frames_of_a_film() -> None:
    """A marker of the film that is removed must not move R and L from frame to frame."""
    film = np.full((100, 80, 3), 60, np.uint8)
    film[4:12, 3:8] = 250
    removed = np.full_like(film, 60)
    frames = [Frame(film, "0%", "yes"), Frame(removed, "20%", "yes"), Frame(removed, "100%", "no")]
    for figure in (film_strip(frames, sides=("L", "R")), draw_frames([removed], [["20%"]], None, 1, film=film)):
        marks = [text for axes in figure.axes for text in axes.texts]
        assert len(marks) == 2 * len(figure.axes) and {text.get_va() for text in marks} == {"bottom"}
    assert [text.get_text() for text in film_strip(frames, sides=("L", "R")).axes[1].texts] == ["L", "R"]


def test_film_removes_the_most_salient_cells_first() -> None:
    order = np.random.default_rng(1).permutation(24)
    white = np.full_like(PICTURE, 255)
    for share in (0, 0.1, 0.5, 1):
        frame = compose(PICTURE, white, order, (4, 6), share)
        for place, cell in enumerate(order):
            row, column = divmod(int(cell), 6)
            part = np.s_[row * 15 : row * 15 + 15, column * 15 : column * 15 + 15]
            np.testing.assert_array_equal(frame[part], (white if place < round(share * 24) else PICTURE)[part])
    figure = deletion_film(PICTURE, white, order, (4, 6), scores={0.0: 3.25, 1.0: -1.0})
    texts = [text.get_text() for text in figure.texts]
    assert texts[0] == "0% removed\nscore +3.25" and texts[1] == "10% removed" and texts[-1].endswith("score -1.00")
    with pytest.raises(ValueError, match="24 cells of"):
        deletion_film(PICTURE, white, order, (4, 5))


def test_global_layers_are_solid_and_local_ones_hatched() -> None:
    figure = layer_attention_bars([0.1, 0.3], ["sliding_attention", "full_attention"])
    local, whole = figure.axes[0].patches
    assert (local.get_hatch(), whole.get_hatch()) == ("////", "")
    assert (local.get_height(), whole.get_height()) == (0.1, 0.3)
    with pytest.raises(ValueError, match="1 shares for 2 layers"):
        layer_attention_bars([0.1], ["full_attention"] * 2)


def test_regions_are_listed_from_the_top_with_their_areas() -> None:
    axes = region_bars({"right lung": 0.6, "heart": None}, {"right lung": 0.25}).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.6, 0]
    assert axes.yaxis_inverted() and list(axes.get_lines()[0].get_xdata()) == [0.25]


def test_the_strongest_words_are_kept_in_their_order() -> None:
    words = [(f" w{i}", (-1) ** i * float(i)) for i in range(50)]
    axes = text_relevancy_bars(words, most=3).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["␣w47", "␣w48", "␣w49"]
    assert [bar.get_width() for bar in axes.patches] == [-47, 48, -49]
    assert visible("▁$a$") == "␣$a$" and visible("") == "∅"
    rendered(text_relevancy_bars([(" $\\frac$", 1.0)]))  # a token is no formula
    with pytest.raises(ValueError, match="no text relevancy"):
        text_relevancy_bars([])
