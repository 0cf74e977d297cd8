"""The figure of one answer, and how an explanation shows itself in a notebook, a file and a table."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

import cxr_faith
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.data.sample import Box
from cxr_faith.explainer import Explanation, absence
from cxr_faith.explainer.absence import needed_frames, smallest_needed
from cxr_faith.explainer.answer_verdict import answer_verdict
from cxr_faith.explainer.drawing import answer_panel, film_frames, measured_of
from cxr_faith.explainer.edits import _pixels, edit_frames, edit_said
from cxr_faith.explainer.explain import explain
from cxr_faith.explainer.measured import Measured
from cxr_faith.explainer.options import ExplainOptions
from cxr_faith.report.film import film_strip, moving_picture
from cxr_faith.report.grids import compose

QUESTION = "Is there a nodule?"


@pytest.fixture(scope="module")
def explainer() -> cxr_faith.Explainer:
    return cxr_faith.Explainer.from_pretrained("bundled", device="cpu", max_new_tokens=4)


@pytest.fixture(scope="module")
def picture() -> Path:
    return sorted((bundled_manifest().parent / "images").iterdir())[0]


@pytest.fixture(scope="module")
def plain(explainer: cxr_faith.Explainer, picture: Path) -> Explanation:
    return explainer.explain(picture, QUESTION, "gradient")


@pytest.fixture(scope="module")
def scored(explainer: cxr_faith.Explainer, picture: Path) -> Explanation:
    explanation = explainer.explain(picture, QUESTION, "chefer")
    explainer.evaluate(explanation, steps=12)
    return explanation


def texts(figure: Figure) -> list[str]:
    return [" ".join(text.get_text().split()) for text in figure.texts]


def test_the_panel_shows_the_answer_with_and_without_the_maps_first_cells(scored: Explanation) -> None:
    figure = scored.plot(boxes=[Box("nodule", 10, 20, 60, 90)])
    said = texts(figure)
    other = {"yes": "no", "no": "yes"}[scored.answer]
    assert QUESTION in said and any(f"The model says {scored.answer}." in text for text in said)
    k = np.array(scored.scores.k) / 144
    left = np.interp(0.2, k, scored.scores.deletion_scores)
    assert (f"now it says {other}" if left < 0 else f"it still says {scored.answer}") in said
    assert scored.verdict is not None and scored.verdict.sentence in said
    picture, mapped, _, removed, curves = figure.axes
    assert (len(picture.images), len(mapped.images), len(removed.images)) == (1, 2, 1)
    assert len(picture.patches) == len(mapped.patches) == 1 and not removed.patches
    for axes in (picture, mapped, removed):
        place = axes.get_window_extent()
        assert place.width / place.height == pytest.approx(scored.picture.shape[1] / scored.picture.shape[0], rel=0.02)
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in curves.lines}
    kept = (np.array(scored.scores.deletion_scores) - scored.scores.s_substrate) / scored.scores.effect
    np.testing.assert_allclose(lines["chefer, removed"], kept)
    assert {"chefer, shown", "random order, removed", "random order, shown"} <= set(lines)
    assert lines["random order, removed"][0] == pytest.approx(1) and lines["random order, removed"][-1] == 0


def test_the_curve_of_random_orders_is_the_mean_that_the_scores_are_compared_with(scored: Explanation) -> None:
    measured = scored._measured[-1]
    k = np.array(measured.random.k) / 144
    kept = (np.array(measured.random.deletion_scores) - measured.scores.s_substrate) / measured.scores.effect
    area = np.trapezoid(kept, k)
    assert measured.scores.gap_deletion_random == pytest.approx(area - measured.scores.deletion_auc)


def test_the_picture_without_the_first_cells_is_what_the_model_got(
    explainer: cxr_faith.Explainer, scored: Explanation
) -> None:
    from cxr_faith.perturb.substrate import Substrate

    pixels, order = scored._view.pixels[None], np.array(scored.scores.order)
    gone = Substrate.parse("blur:0.1").apply(pixels, [scored.metadata["image_id"]], explainer.seed)
    seen, blurred = (explainer.vlm.denormalize(one)[0].permute(1, 2, 0).numpy() for one in (pixels, gone))
    image = scored.plot().axes[3].images[0]
    assert isinstance(image, AxesImage)
    shown = np.asarray(image.get_array(), np.uint8)
    expected = Image.fromarray(compose(seen, blurred, order, (12, 12), 0.2)).resize(shown.shape[1::-1], 2)
    np.testing.assert_allclose(shown.astype(int), np.asarray(expected).astype(int), atol=1)


def test_an_explanation_that_was_not_evaluated_is_drawn_without_verdict(
    explainer: cxr_faith.Explainer, plain: Explanation
) -> None:
    before = explainer.vlm.counts.snapshot()
    figure = plain.plot()
    assert 0 < (explainer.vlm.counts - before).score <= 90
    assert plain.scores is None and plain.verdict is None and measured_of(plain).quick
    assert not any("elieve" in text or "srg" in text for text in texts(figure))
    before = explainer.vlm.counts.snapshot()
    plain.plot()
    assert (explainer.vlm.counts - before).score == 0  # measured once


def test_several_methods_are_rows_of_one_panel(explainer: cxr_faith.Explainer, picture: Path) -> None:
    explained = explainer.compare(picture, QUESTION, ["attention", "edges", "center"])
    figure = answer_panel(list(explained.values()))
    assert len(figure.axes) == 1 + 3 * 3 + 1
    assert {"attention", "edges", "center", "random order, removed"} == {
        str(line.get_label()) for line in figure.axes[-1].lines if not str(line.get_label()).startswith("_")
    }
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts] + [axes.get_window_extent() for axes in figure.axes]
    for number, one in enumerate(boxes):
        assert one.x0 >= 0 and one.y0 >= 0 and one.x1 <= figure.bbox.width and one.y1 <= figure.bbox.height
        for other in boxes[:number]:
            across, down = (
                one.x0 < other.x1 - 1 and other.x0 < one.x1 - 1,
                one.y0 < other.y1 - 1 and other.y0 < one.y1 - 1,
            )
            assert not (across and down), (one, other)


def test_a_map_alone_into_axes_of_ones_own(plain: Explanation) -> None:
    axes = Figure().subplots()
    assert plain.plot(axes, alpha=0.9) is axes
    alpha = np.asarray(axes.images[1].get_alpha())
    assert alpha.max() == pytest.approx(0.9) and alpha.min() == 0


def test_an_answer_without_effect_has_a_gray_map_and_says_why(scored: Explanation) -> None:
    measured = scored._measured[-1]
    weak = replace(measured, scores=replace(measured.scores, status="degenerate"))
    figure = replace(scored, _measured=[weak]).plot()
    mapped, curves = figure.axes[1], figure.axes[4]
    assert mapped.images[1].get_cmap().name == "gray"
    assert "No evidence to show: removing the whole picture hardly changes this answer." in texts(figure)
    assert curves.get_ylabel() == "score of the answer (logits)"


@pytest.mark.parametrize(
    ("changed", "orders", "begin"),
    [
        ({}, 20, "Believe: "),
        ({"gap_srg_center": -0.1}, 20, "Weak: "),
        ({"random_p": 0.33}, 20, "Do not believe: no better than random orders"),
        ({"random_p": 0.05}, 20, "Do not believe: no better"),
        ({"random_p": 1.0, "srg": -0.4}, 20, "Do not believe: worse than random orders (srg -0.40, p = 1.000"),
        ({"status": "inverted"}, 4, "No evidence to show: without the picture the model is surer"),
        ({"status": "flat"}, 20, "No evidence to show: all cells of the map are equal."),
    ],
)
def test_the_verdict_on_one_map(scored: Explanation, changed: dict[str, object], orders: int, begin: str) -> None:
    known = {"status": "ok", "srg": 0.4, "random_p": 1 / 21, "gap_srg_center": 0.2}
    scores = replace(scored._measured[-1].scores, **(known | changed))
    verdict = answer_verdict(Measured(scores, scores, orders))
    assert verdict is not None and verdict.sentence.startswith(begin)
    assert (answer_verdict(Measured(scores, scores, 18)) is None) == (scores.status == "ok")


def test_an_explanation_in_one_line_in_a_notebook_and_as_a_table(scored: Explanation, plain: Explanation) -> None:
    for one in (scored, plain):
        line = repr(one)
        assert "\n" not in line and QUESTION in line and one.answer in line and one.method in line and len(line) < 200
    assert f"srg {scored.scores.srg:+.2f}" in repr(scored) and "srg" not in repr(plain)
    with Image.open(io.BytesIO(scored._repr_png_())) as image:
        assert image.format == "PNG" and image.width > 1500
    html = replace(scored, metadata={**scored.metadata, "question": "<script>"})._repr_html_()
    assert "&lt;script&gt;" in html and "<script>" not in html and "data:image/png;base64,iVBOR" in html
    frame = scored.to_frame()
    assert frame["value"].tolist() == scored.map.ravel().tolist()
    assert frame.sort_values("rank").index.tolist() == scored.scores.order


def test_an_explanation_is_saved_in_the_format_of_the_ending(scored: Explanation, tmp_path: Path) -> None:
    for ending, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml"), ("json", b"{")):
        file = scored.save(tmp_path / f"one.{ending}")
        assert file.read_bytes().startswith(start)
        assert scored.save(tmp_path / f"two.{ending}").read_bytes() == file.read_bytes()  # no date, no random ids
    content = json.loads((tmp_path / "one.json").read_text())
    assert content == json.loads(json.dumps(scored.to_dict())) and content["evaluation"]["srg"] == scored.scores.srg
    assert content["evaluation"]["verdict"] == scored.verdict.verdict
    with pytest.raises(ValueError, match="a figure is written as png, pdf, svg, not as bmp"):
        scored.save(tmp_path / "one.bmp")
    assert len(list(tmp_path.iterdir())) == 8


def test_the_film_says_what_the_model_says_of_each_frame(scored: Explanation) -> None:
    frames = film_frames(scored, (0.0, 0.5, 1.0))
    assert [frame.name for frame in frames] == ["0% removed", "50% removed", "100% removed"]
    assert frames[0].said == f"it says {scored.answer}" and len({frame.picture.tobytes() for frame in frames}) == 3
    end = scored.scores.deletion_scores[-1]
    assert frames[2].said.startswith("it still says" if end >= 0 else "now it says")
    figure = film_strip(frames, "肺 nodule?")
    assert len(figure.axes) == 3 and all(
        text.get_text().isprintable() or "\n" in text.get_text() for text in figure.texts
    )
    with Image.open(io.BytesIO(moving_picture(frames, "a title"))) as gif:
        assert (gif.format, gif.n_frames, gif.info["loop"]) == ("GIF", 3, 0)
    with pytest.raises(ValueError, match="a frame or more"):
        film_strip([])


@pytest.mark.parametrize("edit", ["mirror", "road"])
def test_an_edit_is_shown_with_what_the_model_says_of_it(explainer: cxr_faith.Explainer, edit: str) -> None:
    """The picture that is shown has the margin that its caption says."""
    picture, vlm = bundled_manifest().parent / "images" / "p000-s0-i0.jpg", explainer.vlm
    one = explainer.explain(picture, QUESTION, {"class": "counterfactual", "cells": 1, "edit": edit})
    film, edited, change = edit_frames(one)
    _, pixels = _pixels(one, int(one.extras["set_size"]))
    margin = float(vlm.score(vlm.prefill(vlm.encode(pixels[None])), vlm.prompt(QUESTION), one.target).s[0])
    assert margin == pytest.approx(one.metadata["margin"] - one.extras["score_drop"], abs=1e-3)
    assert film.said == "it says yes" and edited.said == edit_said(one)
    assert edited.said.startswith("now it says no" if margin < 0 else "it still says yes")
    assert f"{one.metadata['margin']:+.1f} → {margin:+.1f}" in edited.said and one.extras["verified"] == (margin < 0)
    differs = film.picture != edited.picture
    assert 0 < differs.mean() < 0.5 and np.array_equal(change.picture != 128, differs)


def test_the_smallest_planted_object_turns_the_answer(explainer: cxr_faith.Explainer) -> None:
    """Asked again about the planted film, the model says yes; the film differs from it inside the box alone."""
    picture = bundled_manifest().parent / "images" / "p003-s0-i0.jpg"
    one = explainer.explain(picture, QUESTION, "attention")
    needed = smallest_needed(one, "nodule")
    assert one.answer == "no" and needed.tried == 12 and 1 <= needed.turned < 12 and needed.pixels is not None
    planted = np.repeat(needed.pixels[..., None], 3, axis=2)
    again = explainer.explain(planted, QUESTION, "attention")
    assert again.answer == "yes" and again.metadata["margin"] == pytest.approx(needed.margin, abs=1e-3)
    rows, columns = np.nonzero((planted != one.picture).any(-1))
    left, top, right, bottom = needed.box
    assert left <= columns.min() and columns.max() < right and top <= rows.min() and rows.max() < bottom
    changed = len(rows) / needed.pixels.size
    assert changed == pytest.approx(needed.area, rel=0.2)  # noise can undo a change
    assert f"contrast {needed.contrast:g}" in needed.sentence and "pixels" not in needed.to_dict()
    assert [frame.said[:11] for frame in needed_frames(one, needed)] == ["it says no ", "it says yes", "light: brig"]
    nearest = replace(needed, turned=0, contrast=2.0, margin=-1.26)
    assert [frame.said for frame in needed_frames(one, nearest)][1] == "it still says no (margin -1.3)"
    assert needed_frames(one, nearest)[1].name == "nearest of 12: nodule, contrast 2"
    said = "none of 12 synthetic objects turns it to yes, at contrasts up to 2; nearest: a nodule on "
    assert nearest.sentence.startswith(said) and "contrast 2 (margin -1.3)" in nearest.sentence
    with pytest.raises(ValueError, match="only a no to a yes/no question"):
        smallest_needed(again, "nodule")


def test_a_pair_gives_its_cells_to_the_edit_and_to_the_substrate(
    explainer: cxr_faith.Explainer, picture: Path, tmp_path: Path
) -> None:
    film = cxr_faith.read_picture(picture)
    other, (rows, columns) = film.copy(), (film.shape[0] // 12, film.shape[1] // 12)
    other[2 * rows : 4 * rows, 3 * columns : 6 * columns] = 90
    Image.fromarray(other).save(tmp_path / "pair.png")
    plain = explainer.explain(film, QUESTION, "edges")
    with pytest.raises(ValueError, match="substrate pair needs the same picture"):
        explainer.evaluate(plain, "pair", steps=2)
    paired = explainer.explain(film, QUESTION, "edges", pair=tmp_path / "pair.png")
    assert np.isfinite(explainer.evaluate(paired, "pair", steps=2, random_orders=2).effect)
    assert len(paired.plot().axes) > 3 and (paired.answer, paired.map.tolist()) == (plain.answer, plain.map.tolist())
    options = ExplainOptions(QUESTION, "counterfactual", pair=str(tmp_path / "pair.png"), out=str(tmp_path / "out"))
    content = explain(str(picture), options)
    assert content["edit"] == "pair" and list((tmp_path / "out").glob("*-edit.png"))
    values = np.array(content["map"])
    assert values[:1].max() == values[5:].max() == values[:, 7:].max() == 0, "only cells that differ can be in the set"
    for wrong, message in (
        ({"pair": film[:-8]}, "the pair is .* px, its picture"),
        ({"pair": film, "image": (film, film)}, "a pair is of one picture"),
        ({"pair": film, "image": [film]}, "a pair is of one picture"),
    ):
        with pytest.raises(ValueError, match=message):
            explainer.explain(**{"image": film, "question": QUESTION, "method": "edges"} | wrong)
    for refused, message in (
        ({"substrate": "pair"}, "--substrate pair needs --pair"),
        ({"pair": "a.png", "prior": "b.png"}, "--pair is of one picture: leave out --prior"),
    ):
        with pytest.raises(ValueError, match=message):
            ExplainOptions(QUESTION, **refused).checked_target()


def test_boxes_may_be_plain_corners_and_an_explainer_says_what_it_is(
    explainer: cxr_faith.Explainer, plain: Explanation
) -> None:
    axes = plain.plot(Figure().subplots(), boxes=[(10, 20, 60, 90), Box("nodule", 1, 2, 3, 4)])
    assert [patch.get_bbox().bounds for patch in axes.patches] == [(10, 20, 50, 70), (1, 2, 2, 2)]
    with pytest.raises(ValueError, match=r"a box is \(x0, y0, x1, y1\)"):
        plain.plot(Figure().subplots(), boxes=[(1, 2, 3)])  # type: ignore[list-item]
    assert repr(explainer) == "<Explainer bundled on cpu, maps of 12 × 12 cells, seed 0>"


def test_masks_and_pixel_spacing_place_and_size_what_is_planted(
    explainer: cxr_faith.Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every copy that is tried differs from the film inside the masks alone, and is smaller where pixels are larger."""
    tried: list[np.ndarray] = []
    picture = bundled_manifest().parent / "images" / "p003-s0-i0.jpg"
    one = explainer.explain(picture, QUESTION, "attention")
    film = one.picture[..., 0]
    height, width = film.shape

    def never(explanation: object, copies: list[np.ndarray]) -> list[float]:
        tried.extend(copies)
        return [-1.0] * len(copies)

    monkeypatch.setattr(absence, "_margins", never)
    right, left = np.zeros((2, height, width), bool)
    right[height // 3 : height // 2, : width // 3] = left[height // 3 : height // 2, 2 * width // 3 :] = True
    needed = smallest_needed(one, "nodule", masks={"right lung": right, "left lung": left}, mm=3.0)
    assert needed.placed == "inside the lung masks; 3 mm per pixel" and needed.to_dict()["masked"] is True
    middles = [np.argwhere(copy != film).mean(0) for copy in tried]
    assert middles and all((right | left)[tuple(np.round(middle).astype(int))] for middle in middles)
    sizes = {}
    for mm in (1.5, 3.0):
        tried.clear()
        smallest_needed(one, "nodule", mm=mm)
        sizes[mm] = np.mean([(copy != film).sum() for copy in tried])
    assert 2 < sizes[1.5] / sizes[3.0] < 8, "half the millimeters per pixel: four times the pixels"
    assert smallest_needed(one, "nodule").placed == "where the lungs lie in most films; longer side taken as 430 mm"
    with pytest.raises(ValueError, match="a mask has another size than the picture"):
        smallest_needed(one, "nodule", masks={"heart": right[1:]})
    with pytest.raises(ValueError, match="nothing is planted: its lung masks show no lungs"):
        smallest_needed(one, "nodule", masks={"lungs": np.zeros_like(right)})
