"""Phantoms: the same name gives the same picture at any size, masks match it, and the manifest lists both."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation

from cxr_faith.data.sample import MANIFEST_SCHEMA, Sample
from cxr_faith.data.sources import phantom_shapes
from cxr_faith.data.sources.phantom import ANATOMY, FINDINGS, Phantom, questions, render, sample_phantom, write
from cxr_faith.data.sources.phantom_pairs import without_finding
from cxr_faith.data.sources.phantom_questions import SIDED, answer, every_question

SIZE = (128, 144)


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [sample_phantom(f"test-{i}", 5) for i in range(48)]


def test_same_name_same_phantom_whatever_is_drawn_with_it(phantoms: list[Phantom]) -> None:
    assert phantoms[7] == sample_phantom("test-7", 5)
    assert sample_phantom("test-7", 6) != phantoms[7]
    together, _ = render(phantoms[:11], SIZE)
    alone, _ = render([phantoms[9]], SIZE)
    np.testing.assert_array_equal(together[9], alone[0])


def test_global_random_state_is_left_alone() -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    render([sample_phantom("a", 0)], SIZE)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # type: ignore[index]


def test_any_size_shows_the_same_picture(phantoms: list[Phantom]) -> None:
    large, large_masks = render(phantoms[:6], (384, 432))
    small, small_masks = render(phantoms[:6], (128, 144))
    for a, b in zip(large, small, strict=True):
        reduced = np.asarray(Image.fromarray(a).resize((144, 128), Image.Resampling.BOX), float)
        assert np.abs(reduced - b).mean() < 3.0
    for name, mask in large_masks.items():
        share = mask.mean((1, 2))
        np.testing.assert_allclose(share, small_masks[name].mean((1, 2)), atol=0.006)


def test_every_finding_has_its_mask_on_its_side(phantoms: list[Phantom]) -> None:
    _, masks = render(phantoms, SIZE)
    for i, phantom in enumerate(phantoms):
        shown = {lesion.finding for lesion in phantom.lesions}
        for finding in FINDINGS:
            assert masks[finding][i].any() == (finding in shown)
        for lesion in phantom.lesions:
            if lesion.side is None:
                continue
            mask = masks[f"{lesion.finding}/{lesion.side}"][i]
            other_side = "left" if lesion.side == "right" else "right"
            own, other = masks[f"{lesion.side} lung"][i], masks[f"{other_side} lung"][i]
            assert mask.any() and (mask & own).sum() > 0.9 * mask.sum()
            assert not (mask & other).any()


def test_left_of_the_picture_is_the_patients_right(phantoms: list[Phantom]) -> None:
    _, masks = render(phantoms, SIZE)
    column = np.arange(SIZE[1])
    for i in range(len(phantoms)):
        right, left, heart = (np.average(column, weights=masks[name][i].sum(0)) for name in ANATOMY)
        assert right < left
        assert abs(heart - left) < abs(heart - right)


def test_pictures_are_plausible(phantoms: list[Phantom]) -> None:
    images, masks = render(phantoms, SIZE)
    assert images.dtype == np.uint8
    for i, image in enumerate(images):
        lungs = masks["right lung"][i] | masks["left lung"][i]
        for name in FINDINGS:
            lungs &= ~masks[name][i]
        assert image[masks["heart"][i]].mean() > image[lungs].mean() + 25
        assert image.std() > 20
        rows = np.arange(SIZE[0])
        assert np.average(rows, weights=masks["heart"][i].sum(1)) > np.average(rows, weights=lungs.sum(1))


def test_lesions_are_spread_over_sides_and_zones() -> None:
    many = [sample_phantom(f"spread-{i}", 3) for i in range(600)]
    for finding in ("nodule", "consolidation"):
        places = [(p.side, p.zone) for phantom in many for p in phantom.lesions if p.finding == finding]
        for side in ("right", "left"):
            for zone in ("upper", "middle", "lower"):
                assert places.count((side, zone)) > 0.08 * len(places)


def test_wanted_findings_and_unknown_names() -> None:
    for finding in FINDINGS:
        assert {p.finding for p in sample_phantom("x", 0, findings=[finding]).lesions} == {finding}
    assert sample_phantom("x", 0, findings=[]).lesions == ()
    with pytest.raises(ValueError, match="gallstone"):
        sample_phantom("x", 0, findings=["gallstone"])


def test_a_patients_studies_share_the_anatomy() -> None:
    first, second = (sample_phantom(f"p-s{k}", 0, "p", f"s{k}", findings=[]) for k in range(2))
    assert (first.lung_width, first.heart_size) == (second.lung_width, second.heart_size)
    assert first.dx != second.dx


def test_questions_follow_what_is_there() -> None:
    phantom = sample_phantom("x", 0, findings=["nodule", "cardiomegaly"])
    asked = questions(phantom)
    presence = {q.finding: q.answer for q in asked if q.topic == "presence"}
    assert presence == {f: "yes" if f in ("nodule", "cardiomegaly") else "no" for f in FINDINGS}
    assert {q.answer for q in asked if q.topic == "list"} == {"nodule, cardiomegaly"}
    for group in ("presence/nodule", "presence/pneumothorax", "side_presence/nodule/left", "list"):
        assert len({q.text for q in asked if q.group == group}) >= 3
    assert {q.kind for q in asked} == {"yes_no", "choice", "open"} or len(phantom.lesions) > 2


def test_a_vanished_lesion_is_answered_as_absent() -> None:
    for question in every_question():
        if question.finding not in SIDED:
            continue
        key = (question.finding, "left")
        gone = answer(question, {key: False}, {key: "upper"})
        partly = answer(question, {key: None}, {key: "upper"})
        assert gone == {"side": None, "where": f"no {question.finding}"}.get(question.topic, "no")
        if question.side != "right":
            assert partly is None
    for question in every_question():
        if question.topic == "list":
            assert answer(question, {("nodule", "left"): False}, {}) == "no finding"


def test_written_data_set(tmp_path: Path) -> None:
    manifest = write(tmp_path, 6, seed=4, size=(96, 112))
    table = pq.read_table(manifest)
    assert table.schema.equals(MANIFEST_SCHEMA)
    rows = table.to_pylist()
    assert len({row["sample_id"] for row in rows}) == len(rows)
    studies = {row["patient_id"]: set() for row in rows}
    for row in rows:
        studies[row["patient_id"]].add(row["study_id"])
        Sample.from_row(row).validate()
        with Image.open(tmp_path / row["image_path"]) as image:
            assert image.size == (row["width"], row["height"]) == (112, 96)
            assert image.mode == "L"
        assert [m["label"] for m in row["anatomy_masks"]] == list(ANATOMY)
        assert all((tmp_path / m["path"]).is_file() for m in row["anatomy_masks"])
        shown = row["finding"] is not None and row["answer"] != ["no"]
        assert (row["finding_mask_path"] is not None) == bool(row["boxes"]) == shown
        if shown:
            mask = np.asarray(Image.open(tmp_path / row["finding_mask_path"]))
            inside = np.zeros_like(mask)
            for box in row["boxes"]:
                x1, y1, x2, y2 = (int(box[k]) for k in ("x1", "y1", "x2", "y2"))
                part = mask[y1:y2, x1:x2]
                assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
                inside[y1:y2, x1:x2] = True
            assert not (mask & ~inside).any()
    assert len(studies) == 6 and max(map(len, studies.values())) > 1


def test_color_and_shape_pictures() -> None:
    pictures = [phantom_shapes.sample_shape(f"s{i}", 0) for i in range(40)]
    assert pictures[3] == phantom_shapes.sample_shape("s3", 0)
    images, masks = phantom_shapes.render_shapes(pictures, (60, 80))
    assert images.shape == (40, 60, 80, 3)
    for picture, image, regions in zip(pictures, images, masks, strict=True):
        for (name, mask), color in zip(regions.items(), picture.colors, strict=False):
            assert mask.any(), name
            np.testing.assert_allclose(image[mask].mean(0), phantom_shapes.COLORS[color], atol=8)
        asked = phantom_shapes.shape_questions(picture)
        assert len({q.text for q in asked}) == len(asked)
        assert all(q.region is None or q.region in regions for q in asked)


def test_a_pair_differs_where_the_finding_is_and_nowhere_else() -> None:
    for number, finding in enumerate(FINDINGS):
        phantom = sample_phantom(f"pair-{number}", 9, findings={finding, "consolidation"})
        asked = next(q for q in every_question() if q.topic == "presence" and q.finding == finding)
        healthy = without_finding(phantom, asked)
        assert healthy is not None and finding not in {lesion.finding for lesion in healthy.lesions}
        images, masks = render([phantom, healthy], SIZE)
        region = masks[finding][0]
        if finding == "pneumothorax":  # the line of the pleura follows the lung's border beyond the gap
            region = region | masks[f"{phantom.lesions[-1].side} lung"][0]
        near = binary_dilation(region, iterations=14)  # a lesion's soft edge reaches a few pixels beyond its mask
        difference = np.abs(images[0].astype(int) - images[1])
        assert difference[masks[finding][0]].mean() > 4 and difference[~near].max() <= 1
    small = sample_phantom("pair-4", 9, findings=())
    assert without_finding(sample_phantom("pair-4", 9, findings={"cardiomegaly"}), asked).heart_size == small.heart_size


def test_a_phantom_has_no_pair_for_what_it_does_not_show() -> None:
    phantom = sample_phantom("pair", 9, findings={"nodule"})
    other = "left" if phantom.lesions[0].side == "right" else "right"
    for question in every_question():
        asked_elsewhere = question.finding != "nodule" or question.side == other
        if len(phantom.lesions) == 1 and asked_elsewhere:
            assert without_finding(phantom, question) is None


def test_prepare_draws_pairs_and_takes_only_usable_ones(tmp_path: Path, prepared) -> None:
    rows, card = prepared("phantom", tmp_path / "drawn", patients=4, seed=3, pairs=True)
    for row in rows.values():
        paired = row["finding"] is not None and row["finding_mask_path"] is not None
        assert (row["pair_path"] is not None) == paired, row["question"]
        if paired:
            with Image.open(tmp_path / "drawn" / row["pair_path"]) as image:
                assert image.size == (row["width"], row["height"])
    assert not any(reason.startswith("pair") for reason in card["drops"])
    rows, _ = prepared("phantom", tmp_path / "plain", patients=2, seed=3)
    assert {row["pair_path"] for row in rows.values()} == {None}

    picture = Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12))
    for name in ("a", "good"):
        picture.save(tmp_path / f"{name}.png")
    picture.resize((5, 5)).save(tmp_path / "small.png")
    given = ["good.png", "gone.png", "small.png", "../a.png", None]
    asked = [
        {"image_path": "a.png", "image_id": "a", "question": f"Is it {i}?", "pair_path": p} for i, p in enumerate(given)
    ]
    (tmp_path / "table.json").write_text(json.dumps(asked))
    rows, card = prepared("table", tmp_path, file=str(tmp_path / "table.json"))
    assert [row["pair_path"] for row in rows.values()] == ["good.png", None, None, None, None]
    assert {reason: n for reason, n in card["drops"].items() if reason.startswith("pair")} == {
        "pair: file not found": 1,
        "pair: has another size than its image": 1,
        "pair: outside the data root": 1,
    }
