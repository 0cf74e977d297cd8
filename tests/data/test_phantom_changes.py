"""Phantoms at two times: the pictures differ in one lesion, and masks lie on the picture that decides the answer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation

from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.data.sources.phantom_changes import (
    CHANGES,
    PHRASINGS,
    SIDED,
    Comparison,
    change_questions,
    sample_comparison,
)
from cxr_faith.data.sources.phantom_render import render

SIZE = (128, 144)


@pytest.fixture(scope="module")
def comparisons() -> list[Comparison]:
    return [sample_comparison(f"c{i}", 3) for i in range(240)]


@pytest.fixture(scope="module")
def of_each(comparisons: list[Comparison]) -> list[Comparison]:
    """One comparison of each change of each finding."""
    return [*{(one.change, one.lesion.finding): one for one in comparisons}.values()]


def test_same_name_same_comparison(comparisons: list[Comparison]) -> None:
    assert sample_comparison("c7", 3) == comparisons[7] != sample_comparison("c7", 4)
    assert change_questions(comparisons[7]) == change_questions(sample_comparison("c7", 3))


def test_changes_and_answers_come_as_often_as_stated(comparisons: list[Comparison], of_each: list[Comparison]) -> None:
    assert len(of_each) == len(CHANGES) * len(SIDED)
    for change, share in CHANGES.items():
        assert sum(one.change == change for one in comparisons) / len(comparisons) == pytest.approx(share, abs=0.07)
    for topic, share in {"new": 0.35, "resolved": 0.25 / 0.65, "larger": 0.5}.items():
        answers = [asked.answer for one in comparisons for asked in change_questions(one) if asked.topic == topic]
        assert answers.count("yes") / len(answers) == pytest.approx(share, abs=0.1), topic


def test_pictures_differ_where_the_lesion_is_and_nowhere_else(of_each: list[Comparison]) -> None:
    """Twenty pairs: every change of every finding."""
    for one in of_each:
        images, masks = render([one.prior, one.current, one.without], SIZE)
        finding, side = one.lesion.finding, one.lesion.side
        prior, current, without = masks[f"{finding}/{side}"]
        shown = {"new": (False, True), "resolved": (True, False)}.get(one.change, (True, True))
        assert (prior.any(), current.any()) == shown and not without.any(), (one.change, finding)
        if one.change in ("larger", "smaller"):
            small, large = (prior, current) if one.change == "larger" else (current, prior)
            assert 0 < small.sum() < 0.9 * large.sum() and (small & ~large).mean() < 0.002, finding
        difference = np.abs(images[0].astype(int) - images[1])
        if one.change == "same":
            assert not difference.any()
            continue
        region = prior | current
        if finding == "pneumothorax":  # the line of the pleura follows the lung's border beyond the gap
            region = region | masks[f"{side} lung"][0]
        near = binary_dilation(region, iterations=14)  # a lesion's soft edge reaches a few pixels beyond its mask
        assert difference[prior ^ current].mean() > 4 and difference[~near].max() <= 1, (one.change, finding)
        gone = 0 if one.change == "new" else 1
        if one.change in ("new", "resolved"):
            assert (images[gone] == images[2]).all()


def test_evidence_is_where_the_loss_of_the_lesion_changes_the_answer(of_each: list[Comparison]) -> None:
    """Against the obvious rule: take the lesion from one picture, and ask again what is there."""

    def right(topic: str, before: bool, after: bool) -> bool:
        return (after and not before) if topic == "new" else (before and not after)

    for one in of_each:
        before, after = one.change != "new", one.change != "resolved"
        asked = {question.topic: question for question in change_questions(one)}
        assert ("resolved" in asked) == before and ("larger" in asked) == (before and after)
        for topic, question in asked.items():
            assert question.text == PHRASINGS[topic][question.variant].format(one.lesion.finding)
            if topic == "larger":
                assert question.evidence == ("current", "prior")
                assert question.answer == ("yes" if one.change == "larger" else "no")
                continue
            answer = right(topic, before, after)
            lost = {"prior": right(topic, False, after), "current": right(topic, before, False)}
            assert question.answer == ("yes" if answer else "no")
            assert question.evidence == tuple(role for role, other in lost.items() if other != answer)


def test_prepared_changes_are_sheets_with_masks_on_the_right_picture(tmp_path: Path, prepared) -> None:
    """What the data module gives a model: both pictures on one sheet, and the exact mask at its picture.

    With this seed the four patients have a resolved, a new, a larger and an unchanged lesion.
    """
    root = tmp_path / "drawn"
    again, _ = prepared("phantom", tmp_path / "again", patients=1, seed=22, pairs=True, changes=True)
    rows, card = prepared("phantom", root, patients=4, seed=22, pairs=True, changes=True)
    assert all(rows[name] == row for name, row in again.items()) and not card["drops"]
    for file in (tmp_path / "again").rglob("*.*"):
        assert file.read_bytes() == (root / file.relative_to(tmp_path / "again")).read_bytes()

    data = CXRVQADataModule(str(tmp_path / "manifests" / "phantom"), str(root))
    data.image_size, data.pairs = (256, 288), True
    data.setup("predict")
    items = [item for batch in data.predict_dataloader() for item in batch]
    assert len(items) == len(rows) and all(item.error is None for item in items)
    seen = set[str]()
    for item in items:
        sample = item.sample
        assert [image.role for image in sample.images] == ["prior", "current"] and item.image.shape == (3, 512, 288)
        topic, change = sample.sample_id.split(".")[1], sample_comparison(sample.patient_id, 22).change
        if sample.finding_mask_path is None:
            assert (topic, change) == ("new", "resolved") and item.finding_mask is None and not sample.boxes
            continue
        seen.add(f"{topic} {sample.images[item.place].role}")
        mask = torch.from_numpy(np.array(Image.open(root / sample.finding_mask_path)))
        halves = item.finding_mask.split(256)
        assert torch.equal(halves[item.place], mask) and halves[1 - item.place].any() == (topic == "larger")
        if topic == "larger":
            assert item.pair is None and len(sample.boxes) == 2
            continue
        # The pair lacks the lesion on this picture and nowhere else, a JPEG block and a soft edge apart.
        changed = (item.image.int() - item.pair.int()).abs().amax(0).split(256)
        near = torch.from_numpy(binary_dilation(mask.numpy(), iterations=40))
        assert not changed[1 - item.place].any() and changed[item.place][mask].float().mean() > 4
        if sample.finding in ("nodule", "consolidation"):  # others also change the edge of the lung or the heart
            assert changed[item.place][~near].max() <= 1
    assert seen == {"new prior", "new current", "resolved prior", "resolved current", "larger current"}
