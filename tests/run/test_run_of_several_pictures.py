"""Questions that show one, two and five pictures, through a whole run and its report."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cxr_faith.__main__ import main
from cxr_faith.data.manifest import bundled_manifest, write_manifest
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.data.sample import Box, Sample, ShownImage
from cxr_faith.records import read_records
from cxr_faith.report.side_by_side import side_by_side
from cxr_faith.run.large_view import outline, removed_picture
from tests.runs import assert_same, records, run_here

CONFIG = """
trainer: {{accelerator: cpu, devices: 1}}
model:
  methods: {methods}
  protocol: {{steps: 2, random_orders: 2, max_new_tokens: 1, controls: none{more}}}
show_images: true
data: {{manifest: {folder}/m.parquet, data_root: {root}, batch_size: 2}}
"""
METHODS = "{chefer: {}, gradient: {}, oracle: {}}"


def config(folder: Path, name: str, methods: str = METHODS, more: str = "") -> Path:
    file, root = folder / f"{name}.yaml", bundled_manifest().parent
    file.write_text(CONFIG.format(methods=methods, more=more, folder=folder, root=root))
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest with one, two and five pictures a question, of present findings with masks; one names no file."""
    folder = tmp_path_factory.mktemp("several")
    rows = pq.read_table(bundled_manifest()).to_pylist()
    of_images = {row["image_id"]: row["image_path"] for row in rows}
    present = [Sample.from_row(row) for row in rows if row["kind"] == "yes_no" and row["finding_mask_path"]][0]
    others = [ShownImage(name, path, "prior") for name, path in of_images.items() if name != present.image_id]
    own = ShownImage(present.image_id, present.image_path, "current")
    base = vars(present)
    shown = {"one": (), "two": (others[0], own), "five": (own, *others[:4]), "lost": (own, ShownImage("x", "no.png"))}
    write_manifest(
        [Sample(**(base | {"sample_id": i, "images": images})) for i, images in shown.items()], folder / "m.parquet"
    )
    return folder


@pytest.fixture(scope="module")
def at_once(folder: Path) -> Path:
    assert run_here(config(folder, "at_once"), folder / "at_once") == 0
    return folder / "at_once"


def test_items_are_sheets_with_masks_at_their_picture(folder: Path) -> None:
    data = CXRVQADataModule(str(folder / "m.parquet"), str(bundled_manifest().parent))
    data.image_size = (96, 96)
    data.setup("predict")
    one, two, five, lost = (item for batch in data.predict_dataloader() for item in batch)
    assert one.image.shape == (3, 96, 96) and two.image.shape == (3, 192, 96) and five.image.shape == (3, 480, 96)
    assert (two.place, five.place) == (1, 0)
    assert (two.image[:, 96:] == one.image).all() and (five.image[:, :96] == one.image).all()
    assert not two.finding_mask[:96].any() and (two.finding_mask[96:] == one.finding_mask).all()
    cells = one.finding_cells((4, 4))
    assert (two.finding_cells((4, 4))[4:] == cells).all() and float(two.finding_cells((4, 4))[:4].sum()) == 0
    assert (one.sample.pictures_id, two.sample.pictures_id) == (
        one.sample.image_id,
        f"{two.sample.images[0].image_id}+{one.sample.image_id}",
    )
    assert lost.error is not None and "no.png: file not found" in lost.error


def test_boxes_lie_on_the_picture_that_they_name(folder: Path, tmp_path: Path) -> None:
    """On two pictures of other sizes than the model's; a box that names none lies on the sample's own."""
    root = bundled_manifest().parent
    one = Sample.from_row(pq.read_table(folder / "m.parquet").to_pylist()[1])
    prior, own = one.images
    Image.open(root / prior.path).resize((200, 100)).save(tmp_path / "prior.png")
    Image.open(root / own.path).resize((100, 50)).save(tmp_path / "own.png")
    boxes = (Box("nodule", 0, 0, 50, 50, prior.image_id), Box("nodule", 75, 25, 100, 50), Box("other", 0, 0, 9, 9))
    shown = (replace(prior, path="prior.png"), replace(own, path="own.png"))
    asked = replace(one, finding="nodule", boxes=boxes, image_path="own.png", images=shown, height=50, width=100)
    asked = replace(asked, finding_mask_path=None, anatomy_masks=())
    elsewhere = replace(asked, sample_id="lost", boxes=(replace(boxes[0], image_id="x"),))
    write_manifest([asked, elsewhere], tmp_path / "m.parquet")
    data = CXRVQADataModule(str(tmp_path / "m.parquet"), str(tmp_path))
    data.image_size = (96, 96)
    data.setup("predict")
    item, lost = (item for batch in data.predict_dataloader() for item in batch)
    expected = torch.zeros(192, 96, dtype=torch.bool)
    expected[:48, :24] = expected[144:, 72:] = True
    assert torch.equal(item.finding_mask, expected)
    assert lost.error == "box 'nodule' lies on a picture that the question does not show"


def test_records_of_one_two_and_five_pictures(at_once: Path) -> None:
    rows = records(at_once).set_index(["sample_id", "method"])
    assert {*rows.loc["lost"]["status"]} == {"invalid"}
    for name, count in (("one", 1), ("two", 2), ("five", 5)):
        chefer = rows.loc[(name, "chefer")]
        assert list(chefer["grids"]) == [{"h": 12, "w": 12}] * count
        assert len(chefer["map"]) == len(chefer["order"]) == 144 * count and sorted(chefer["order"]) == list(
            range(144 * count)
        )
        assert list(chefer["k"]) == [0, 72 * count, 144 * count]
        if count == 1:
            assert chefer["grid_h"] == 12 and chefer["picture_shares"] is None
            continue
        assert chefer["grid_h"] != chefer["grid_h"] or chefer["grid_h"] is None
        mass = np.clip(np.array(chefer["map"]).reshape(count, -1), 0, None).sum(1)
        assert np.allclose(chefer["picture_shares"], mass / mass.sum())
        oracle = rows.loc[(name, "oracle")]
        assert np.array(oracle["picture_shares"]).max() == 1.0
        assert oracle["pointing_game"] == rows.loc[("one", "oracle")]["pointing_game"]
        random = rows.loc[(name, "random")]
        assert np.isfinite(random[["margin_blank", "margin_no_picture"]].astype(float)).all()
        assert len(random["picture_effects"]) == count and np.isfinite(random["picture_effects"]).all()
        assert chefer["picture_effects"] is None
        place = {"two": 1, "five": 0}[name]
        assert int(np.argmax(oracle["picture_shares"])) == place


def test_figures_show_the_pictures_side_by_side(at_once: Path) -> None:
    listing = json.loads((at_once / "report/pictures/pictures.json").read_text())
    sizes = {
        name: Image.open(at_once / "report/pictures" / listing[name]["file"]).size for name in ("one", "two", "five")
    }
    shapes = {name: width / height for name, (width, height) in sizes.items()}
    assert shapes["two"] == pytest.approx(2 * shapes["one"], rel=0.02)
    assert shapes["five"] == pytest.approx(5 * shapes["one"], rel=0.03)
    assert all(listing[name]["methods"] for name in sizes)
    # What the large view shows: each picture without its cells, the mask of one alone, and the orders of the records.
    for name, (width, height) in sizes.items():
        assert Image.open(at_once / "report/pictures" / listing[name]["removed"]).size == (width, height)
    assert listing["one"]["mask"] and not listing["two"]["mask"]
    mask = np.asarray(Image.open(at_once / "report/pictures" / listing["one"]["mask"]))
    assert mask.shape == (*sizes["one"][::-1], 4) and 0 < (mask[..., 3] > 0).mean() < 0.2
    records = read_records(at_once, ["order"])
    for row in records[records["order"].notna() & records["condition"].eq("none")].to_dict("records"):
        packed = listing[row["sample_id"]]["orders"][row["method"]]
        assert np.frombuffer(base64.b64decode(packed), "<u2").tolist() == list(row["order"])
    assert (at_once / "report" / "index.html").is_file()


def test_a_picture_without_its_cells_is_small_and_each_part_has_its_own_substrate() -> None:
    two = np.zeros((20, 40, 3), np.uint8)
    two[:, :20], two[5:, 30:] = 200, 90
    parts = [np.asarray(removed_picture(Image.fromarray(part), "blur:0.1")) for part in (two[:, :20], two[:, 20:])]
    assert (np.asarray(removed_picture(Image.fromarray(two), "blur:0.1", 2)) == np.hstack(parts)).all()
    assert (parts[0] == 200).all() and len(np.unique(parts[1])) > 10
    mean = np.asarray(removed_picture(Image.fromarray(two), "mean", 2))
    assert (mean[:, :20] == 200).all() and (mean[:, 20:] == round(90 * 15 * 10 / 400)).all()
    assert [removed_picture(Image.fromarray(two), spec) for spec in ("noise", "road", "zero", "pair")] == [None] * 4


def test_the_outline_of_a_mask_is_white_inside_and_black_outside() -> None:
    inside = np.zeros((30, 40), bool)
    inside[10:20, 10:30] = True
    drawn = np.asarray(outline(inside, (80, 60)))
    large = inside.repeat(2, 0).repeat(2, 1)
    white, black = (drawn == 255).all(-1), (drawn == (0, 0, 0, 255)).all(-1)
    assert white.sum() == 2 * 2 * (40 + 20) - 16 and not (white & ~large).any()
    assert black.sum() == 2 * (40 + 20) and not (black & large).any() and (drawn[~white & ~black] == 0).all()


def test_parts_of_a_map_stand_side_by_side() -> None:
    sheet = np.arange(12).reshape(6, 2)
    assert side_by_side(sheet, 3).tolist() == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]]


def test_a_run_of_several_pictures_grows(folder: Path, at_once: Path) -> None:
    """Stopped after two questions with one method, then resumed with all; the page is that of a run at once."""
    assert run_here(config(folder, "few", "{chefer: {}}"), folder / "grown", "--limit", "2") == 0
    assert run_here(config(folder, "all", METHODS), folder / "grown") == 0
    assert_same(folder / "grown", at_once)
    assert main(["report", str(folder / "grown")]) == 0
    page = (folder / "grown/report/index.html").read_text()
    data = json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    entries = {entry["id"]: entry for entry in data["samples"]}
    assert [entries[name]["grid"] for name in ("one", "two", "five")] == [[12, 12], [12, 24], [12, 60]]
    assert entries["one"]["pictures"] == [] and entries["two"]["pictures"] == ["prior", "current"]
    assert len(entries["five"]["pictures"]) == 5 and "current" not in entries["five"]["pictures"]  # priors alike: ids
    shares = entries["two"]["shares"][str(data["methods"].index("oracle"))]
    assert shares == [0.0, 1.0]
