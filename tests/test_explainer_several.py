"""One question about several pictures, through the library: maps, shares, effects, figures."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cxr_faith
from cxr_faith.attribution import build_methods
from cxr_faith.attribution.base import AttributionBatch
from cxr_faith.data.geometry import fit
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.data.sample import Box
from cxr_faith.explainer import Explanation
from cxr_faith.explainer.drawing import placed_boxes
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.report.arrangement import GAP, HEIGHT, Arrangement
from cxr_faith.vlm.base import VLM, Target

QUESTION = "Is there a nodule?"


@pytest.fixture(scope="module")
def explainer() -> cxr_faith.Explainer:
    return cxr_faith.Explainer.from_pretrained("bundled", device="cpu", max_new_tokens=4)


@pytest.fixture(scope="module")
def files() -> list[Path]:
    return sorted((bundled_manifest().parent / "images").iterdir())[:3]


@pytest.fixture(scope="module")
def scored(explainer: cxr_faith.Explainer, files: list[Path]) -> Explanation:
    explanation = explainer.explain({"prior": files[1], "current": files[0]}, QUESTION, kind="yes_no")
    explainer.evaluate(explanation, steps=6, random_orders=2)
    return explanation


def model_pixels(vlm: VLM, paths: Sequence[Path]) -> list[torch.Tensor]:
    """Each picture alone, as the model gets it, [1, 3, H, W]."""
    return [vlm.normalize(fit(load_image(path), vlm.image_size)[0][None]) for path in paths]


def margin(vlm: VLM, parts: Sequence[torch.Tensor]) -> float:
    """The margin of the question about pictures that are encoded one by one."""
    shown = vlm.showing(len(parts))
    with torch.no_grad():
        tokens = torch.cat([vlm.encode(part) for part in parts], dim=1)
        return float(shown.score(shown.prefill(tokens), shown.prompt(QUESTION), Target("margin")).s[0])


def test_a_map_for_each_picture_is_that_of_the_method(
    explainer: cxr_faith.Explainer, files: list[Path], scored: Explanation
) -> None:
    vlm, shown = explainer.vlm, explainer.vlm.showing(2)
    parts = model_pixels(vlm, [files[1], files[0]])
    batch = AttributionBatch(torch.cat(parts, dim=2), [shown.prompt(QUESTION)], ["any"])
    sign = 1 if scored.answer == "yes" else -1
    expected = build_methods({"chefer": {}})["chefer"].attribute(shown, batch, [Target("margin", sign=sign)]).maps[0]
    np.testing.assert_allclose(scored.map, expected.numpy(), atol=1e-6)
    assert scored.map.shape == (24, 12) and [part.shape for part in scored.maps] == [(12, 12)] * 2
    np.testing.assert_array_equal(scored.maps[1], scored.map[12:])
    assert scored.metadata["margin"] == pytest.approx(margin(vlm, parts), abs=1e-4)
    assert scored.picture_names == ("prior", "current")
    assert scored.metadata["image_id"] == f"{files[1].name}+{files[0].name}" and scored.metadata["grid"] == (12, 12)
    assert [picture.shape for picture in scored.pictures] == [load_image(file).shape for file in (files[1], files[0])]


def test_shares_and_effects_of_whole_pictures(
    explainer: cxr_faith.Explainer, files: list[Path], scored: Explanation
) -> None:
    """An effect is the margin of the answer minus that with this picture blurred, each picture by itself."""
    mass = [np.clip(part, 0, None).sum() for part in scored.maps]
    assert scored.picture_shares == pytest.approx([one / sum(mass) for one in mass])
    parts, sign = model_pixels(explainer.vlm, [files[1], files[0]]), 1 if scored.answer == "yes" else -1
    gone = [Substrate.parse("blur:0.1").apply(part, ["any"], 0) for part in parts]
    whole = margin(explainer.vlm, parts)
    without = [margin(explainer.vlm, [gone[0], parts[1]]), margin(explainer.vlm, [parts[0], gone[1]])]
    assert scored.picture_effects == pytest.approx([sign * (whole - one) for one in without], abs=1e-4)
    assert scored.scores.picture_effects == list(scored.picture_effects)
    assert len(scored.scores.order) == 288 and scored.scores.k[-1] == 288


def test_several_pictures_in_json_and_as_a_table(scored: Explanation) -> None:
    content = json.loads(json.dumps(scored.to_dict()))
    assert [each["name"] for each in content["pictures"]] == ["prior", "current"]
    assert [each["map"] for each in content["pictures"]] == [content["map"][:12], content["map"][12:]]
    assert [each["share"] for each in content["pictures"]] == list(scored.picture_shares)
    assert [each["effect"] for each in content["pictures"]] == list(scored.picture_effects)
    place = content["strongest_cell"]
    assert scored.maps[place[0]][place[1], place[2]] == scored.map.max()
    frame = scored.to_frame()
    assert frame["picture"].tolist() == ["prior"] * 144 + ["current"] * 144
    assert frame["row"].max() == 11 and frame.sort_values("rank").index.tolist() == scored.scores.order
    np.testing.assert_array_equal(scored.overlay((12, 24), picture=1)[:, ::2], scored.maps[1])


def test_a_tuple_is_one_question_and_a_list_is_one_for_each_picture(
    explainer: cxr_faith.Explainer, files: list[Path]
) -> None:
    asked = QUESTION, "gradient"
    both, alone = explainer.explain([(files[0], files[1]), files[2]], *asked)
    assert both.picture_names == (files[0].name, files[1].name) and len(alone.pictures) == 1
    np.testing.assert_array_equal(alone.map, explainer.explain(files[2], *asked).map)
    assert "pictures" not in alone.to_dict() and alone.picture_effects is None
    swapped = explainer.explain((files[1], files[0]), *asked)
    assert not np.allclose(both.maps[0], swapped.maps[1])  # their order matters to the model
    twice = explainer.explain((load_image(files[0]),) * 2, *asked)
    assert twice.picture_names == ("picture 1", "picture 2")
    assert twice.metadata["image_id"] == "picture 1+picture 2"
    given = explainer.evaluate_map((files[0], files[1]), QUESTION, both.map, steps=2)
    assert given.picture_shares == pytest.approx(both.picture_shares) and len(given.picture_effects) == 2
    each = explainer.explain_tokens((files[0], files[1]), QUESTION, "gradient")
    assert each and each[0].map.shape == (24, 12)


def test_figures_show_pictures_side_by_side_on_one_scale(scored: Explanation) -> None:
    figure = scored.plot()
    picture, mapped, _, removed, curves = figure.axes
    assert (len(picture.images), len(mapped.images), len(removed.images)) == (1, 3, 1)
    strength = np.concatenate([np.asarray(image.get_array()) for image in mapped.images[1:]])
    assert strength.max() == 1 and strength.shape == (24, 12)
    left, right = (image.get_extent() for image in mapped.images[1:])
    (height, width), (_, second) = (one.shape[:2] for one in scored.pictures)
    assert left == [0, round(width * HEIGHT / height), HEIGHT, 0] and right[0] == left[1] + GAP
    for axes in (picture, mapped, removed):
        marks = [text.get_text() for text in axes.texts]
        assert sorted(marks) == ["L", "L", "R", "R", "current", "prior"]
        place = axes.get_window_extent()
        assert place.width / place.height == pytest.approx(right[1] / HEIGHT, rel=0.01)
    said = " ".join(" ".join(text.get_text().split()) for text in figure.texts)
    prior, current = scored.picture_shares
    assert f"prior {prior:.0%} ({scored.picture_effects[0]:+.2f}), current {current:.0%} (" in said
    assert {line.get_label() for line in curves.lines} >= {"chefer, removed", "random order, removed"}


def test_boxes_lie_on_the_picture_that_they_name(scored: Explanation) -> None:
    height, width = scored.pictures[1].shape[:2]
    [box] = placed_boxes(scored, [Box("nodule", width / 2, 0, width, height / 4, "current")])
    start, shown = (round(side * HEIGHT / height) for side in (scored.pictures[0].shape[1], width))
    assert (box.x1, box.y2) == pytest.approx((start + GAP + shown / 2, HEIGHT / 4), abs=1)
    assert box.x2 == pytest.approx(start + GAP + shown, abs=1)
    with pytest.raises(ValueError, match="its image_id must name a picture: prior, current"):
        scored.plot(boxes=[Box("nodule", 0, 0, 9, 9)])


def test_many_pictures_stand_in_a_square() -> None:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 200, (64, side, 3)).astype(np.uint8) for side in (64, 32, 64, 128, 64)]
    places = Arrangement.of(list("abcde"), [(64, picture.shape[1]) for picture in pictures])
    whole = places.draw(pictures)
    assert whole.shape == (2 * HEIGHT + GAP, 1024 + GAP + 512, 3) and whole[HEIGHT, :].min() == 255
    for picture, part in zip(pictures, places.parts, strict=True):
        top, left, height, width = map(int, part.region)
        shrunk = Image.fromarray(whole[top : top + height, left : left + width]).resize(picture.shape[1::-1], 0)
        assert np.abs(np.asarray(shrunk).astype(int) - picture).max() <= 40


def test_pictures_that_cannot_be_shown_are_named(explainer: cxr_faith.Explainer, files: list[Path]) -> None:
    flat = np.full((64, 64), 90, np.uint8)
    with pytest.raises(ValueError, match="picture prior is constant at model size"):
        explainer.explain({"prior": flat, "current": files[0]}, QUESTION)
    with pytest.raises(ValueError, match="a question shows one picture or more, got none"):
        explainer.explain((), QUESTION)
