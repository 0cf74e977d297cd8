"""Readers as a ceiling: one reader's boxes scored as a map against the other readers'."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cxr_faith.cases import read_answers
from cxr_faith.data.boxes import fuse
from cxr_faith.data.finding_boxes import left_out, n_finding_boxes
from cxr_faith.data.geometry import Geometry
from cxr_faith.data.items import SampleItem
from cxr_faith.data.manifest import bundled_manifest, open_manifest, write_manifest
from cxr_faith.data.sample import Box, Sample, SampleError
from cxr_faith.metrics.box_protocol import PLACE_COLUMNS, box_scores
from cxr_faith.metrics.localization import localization_scores
from cxr_faith.protocol import Protocol
from cxr_faith.records import read_records
from cxr_faith.report.trust import trust_tables
from cxr_faith.run.method_set import MethodSet
from cxr_faith.scoring import localize, localize_readers
from cxr_faith.summary.load import load_run
from tests.analytic import LinearVLM
from tests.reference.localization import box_protocol, upsampled
from tests.runs import run_here

GRID, SIDE = (6, 6), 24
GEOMETRY = Geometry((48, 48), (0, 0, 48, 48), (SIDE, SIDE))
READERS = {
    "R1": (Box("nodule", 8, 8, 24, 24), Box("mass", 0, 0, 48, 48)),
    "R2": (Box("Nodule", 12, 8, 28, 24),),
    "R3": (),
    "R4": (Box("nodule", 10, 8, 26, 22), Box("nodule", 36, 36, 46, 46)),
}


def item(readers: dict[str, tuple[Box, ...]], **columns: object) -> SampleItem:
    sample = replace(Sample("s", image_id="a", image_path="a.png", question="q", finding="nodule"), **columns)
    return SampleItem(replace(sample, readers=tuple(readers.items())), geometry=GEOMETRY)


def drawn(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """A mask in model pixels, half the size of the picture's; x1, y1, x2, y2."""
    mask = np.zeros((SIDE, SIDE), bool)
    for x1, y1, x2, y2 in boxes:
        mask[y1 // 2 : y2 // 2, x1 // 2 : x2 // 2] = True
    return mask


def test_each_reader_stands_against_the_others() -> None:
    views = left_out(item(READERS))
    own = [drawn((8, 8, 24, 24)), drawn((12, 8, 28, 24)), drawn((10, 8, 26, 22), (36, 36, 46, 46))]
    assert len(views) == 3, "a reader without a box of the finding is left out"
    for number, view in enumerate(views):
        np.testing.assert_array_equal(view.own.numpy(), own[number])
        np.testing.assert_array_equal(view.others.numpy(), np.any(own[:number] + own[number + 1 :], axis=0))
    assert [view.n_others for view in views] == [2, 2, 1], "boxes of two readers that mark the same thing count once"
    assert len(fuse(READERS["R4"])) == 2


@pytest.mark.parametrize(
    "readers",
    [
        {},
        {"R1": READERS["R1"]},
        {"R1": READERS["R1"], "R3": ()},
        {"R1": READERS["R1"], "R2": (Box("mass", 1, 1, 9, 9),)},
    ],
)
def test_a_ceiling_needs_two_readers_who_marked_the_finding(readers: dict[str, tuple[Box, ...]]) -> None:
    assert left_out(item(readers)) == []


def test_boxes_outside_the_picture_or_on_another_one_do_not_count() -> None:
    cropped = Geometry((48, 48), (8, 8, 32, 32), (SIDE, SIDE))
    one = replace(item({"R1": READERS["R1"], "R2": (Box("nodule", 0, 0, 7, 7),)}), geometry=cropped)
    assert left_out(one) == []
    assert left_out(item({"R1": READERS["R1"], "R2": (Box("nodule", 1, 1, 9, 9, image_id="prior"),)})) == []
    sheet = replace(item({"R1": READERS["R1"], "R2": READERS["R2"]}), pictures=2, place=1)
    assert left_out(sheet)[0].own.shape == (2 * SIDE, SIDE) and not left_out(sheet)[0].own[:SIDE].any()


def test_readers_without_a_name_or_listed_twice_cost_the_sample() -> None:
    for names in (("",), ("R1", "R1")):
        sample = replace(item({}).sample, readers=tuple((name, ()) for name in names))
        with pytest.raises(SampleError, match="readers has an entry without reader, or one reader twice"):
            sample.validate()


def test_the_row_of_the_readers_is_the_mean_of_pixel_by_pixel_scores() -> None:
    vlm = LinearVLM({"q": np.random.default_rng(2).standard_normal(GRID)}, cell=(4, 4))
    [case] = read_answers(vlm, torch.rand(3, SIDE, SIDE), "a", ["q"], ["yes_no"], Protocol())
    assert localize_readers(case, left_out(item(READERS)), 0) == {}, "the finding has no box that the readers agree on"
    case.finding_cells = torch.ones(GRID)
    views = left_out(item(READERS))
    row = localize_readers(case, views, 0)
    energy, boxes = [], []
    for view in views:
        own, others = view.own.numpy(), view.others.numpy()
        values = own.reshape(6, 4, 6, 4).mean((1, 3))  # share of each cell
        pixels = upsampled(values, (SIDE, SIDE))
        energy.append(pixels[others].sum() / pixels.sum())
        boxes.append(box_protocol(values, others, view.n_others))
    assert row["reader_count"] == 3 and len(row) == 1 + len(PLACE_COLUMNS)
    assert row["reader_energy_inside"] == pytest.approx(np.mean(energy))
    names = [f"reader_box_{name}_q90" for name in ("iou", "precision", "recall", "f1")]
    assert [row[name] for name in names] == pytest.approx(np.mean(boxes, axis=0).tolist())
    alike = left_out(item({"R1": READERS["R1"], "R2": READERS["R1"]}))  # on cell borders: nothing is lost
    assert {value for name, value in localize_readers(case, alike, 0).items() if name in names} == {1.0}


def test_boxes_are_counted_and_a_mask_has_boxes_of_its_own() -> None:
    two = (Box("nodule", 8, 8, 16, 16), Box("nodule", 32, 8, 40, 16), Box("mass", 0, 0, 4, 4))
    assert n_finding_boxes(replace(item({}).sample, boxes=two)) == 2
    assert n_finding_boxes(replace(item({}).sample, boxes=two, finding_mask_path="mask.png")) is None
    vlm = LinearVLM({"q": np.ones(GRID)}, cell=(4, 4))
    [case] = read_answers(vlm, torch.rand(3, SIDE, SIDE), "a", ["q"], ["yes_no"], Protocol())
    case.maps = {"m": np.random.default_rng(0).random(GRID).astype(np.float32)}
    corner = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    corner[0:8, 0] = corner[7, 0:8] = True  # an L: its box is the whole square
    scores = localize(case, corner, 0)["m"]
    assert scores.items() >= box_scores(case.maps["m"], drawn((0, 0, 16, 16)), 1).items()
    assert scores["energy_inside"] == localization_scores(case.maps["m"], corner.numpy())["energy_inside"]
    assert localize(case, corner, 0, n_boxes=1)["m"].items() >= box_scores(case.maps["m"], corner.numpy(), 1).items()


def test_the_name_of_the_row_is_reserved() -> None:
    with pytest.raises(ValueError, match=r"methods\.reader: this name is the readers'"):
        MethodSet({"reader": {"class": "random_map"}}, Protocol())


@pytest.mark.slow
def test_a_run_shows_the_readers_beside_the_methods(tmp_path: Path) -> None:
    manifest = bundled_manifest()
    rows = [Sample.from_row(row) for row in open_manifest(manifest) if row["boxes"] and row["kind"] == "yes_no"][:4]
    samples = []
    for number, sample in enumerate(rows):
        first = sample.boxes[0]
        boxes = (replace(first, label=str(sample.finding)),)
        shifted = (replace(boxes[0], x1=first.x1 + 4, x2=first.x2 + 4),)
        readers = (("R1", boxes), ("R2", shifted)) if number < 2 else (("R1", boxes),)
        samples.append(replace(sample, boxes=boxes, finding_mask_path=None, readers=readers))
    write_manifest(samples, tmp_path / "manifest")
    (tmp_path / "config.yaml").write_text(
        "trainer: {accelerator: cpu, devices: 1}\n"
        "model:\n  methods: {attention: {}}\n"
        "  protocol: {steps: 2, random_orders: 2, max_new_tokens: 4, image_use: false}\n"
        f"data: {{manifest: {tmp_path / 'manifest'}, data_root: {manifest.parent}}}\n"
    )
    assert run_here(tmp_path / "config.yaml", tmp_path / "run") == 0
    records = read_records(tmp_path / "run")
    marked = records[records["reader_count"].notna()]
    assert set(marked["method"]) == {"random"} and marked["sample_id"].nunique() == 2
    located = {one.method: one for one in load_run(tmp_path / "run").summary.localization}
    reader = located.pop("reader")
    assert reader.n == 2 and all(one.n == 4 for one in located.values())
    assert reader.energy_inside == pytest.approx(marked["reader_energy_inside"].mean())
    assert reader.box_iou_q90 is not None and reader.box_iou_q90 > located["random_map"].box_iou_q90
    [table] = [one for one in trust_tables(load_run(tmp_path / "run").summary) if "lie on the finding" in one.title]
    assert table.rows[-1][:2] == ["reader", "2"] and "One radiologist's boxes" in table.note
    assert table.header[-4:] == ["box iou q90", "box precision q90", "box recall q90", "box f1 q90"]
