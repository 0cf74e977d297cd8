"""Masks and boxes joined by image id, and what an evaluation gets of them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from cxr_faith.data.module import CXRVQADataModule, SampleItem
from cxr_faith.data.tally import PrepareError
from tests.data.layouts import HEIGHT, WIDTH, pixels, save, write_csv, write_json


def organ(x1: int, x2: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[10:70, x1:x2] = True
    return mask


def save_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)


def run_lengths(mask: np.ndarray) -> dict:
    """Uncompressed COCO run lengths, the obvious way."""
    runs, value, length = [], False, 0
    for pixel in mask.T.ravel():
        if pixel != value:
            runs.append(length)
            value, length = pixel, 0
        length += 1
    return {"size": list(mask.shape), "counts": [*runs, length]}


@pytest.fixture
def pictures(tmp_path: Path) -> SimpleNamespace:
    """A table of two questions about two pictures."""
    root = tmp_path / "root"
    for name in ("a", "b"):
        save(root / f"{name}.png", ord(name))
    table = write_csv(tmp_path / "q.csv", "image_path,question,finding", "a.png,Is it?,Edema", "b.png,Is it?,Edema")
    return SimpleNamespace(root=root, table=table, manifest=tmp_path / "manifests/table")


def items(manifest: Path, **options: object) -> dict[str, SampleItem]:
    data = CXRVQADataModule(str(manifest), **options)  # the root is the one that `prepare` noted
    data.image_size = (HEIGHT, WIDTH)
    return {Path(item.sample.image_path).stem: item for batch in data.loader() for item in batch}


@pytest.mark.parametrize("below_root", [True, False])
def test_anatomy_masks_from_a_folder(
    pictures: SimpleNamespace, prepared: Callable, tmp_path: Path, below_root: bool
) -> None:
    pytest.importorskip("pycocotools")
    folder = (pictures.root if below_root else tmp_path) / "masks"
    save_mask(folder / "left lung/a.png", organ(64, 108))
    save_mask(folder / "left lung/b.png", organ(0, WIDTH)[:-1])  # a row too few
    (folder / "heart").mkdir()
    (folder / "heart/a.png").write_bytes(b"no picture")
    save_mask(folder / "heart/other.png", organ(0, 9))
    write_json(folder / "right lung.json", {"a": run_lengths(organ(10, 54)), "b": {"size": [2, 2], "counts": [9]}})
    rows, card = prepared("table", pictures.root, {"masks": str(folder)}, file=str(pictures.table))
    assert [mask["label"] for mask in rows["q/0"]["anatomy_masks"]] == ["left lung", "right lung"]
    assert rows["q/1"]["anatomy_masks"] == [] and card["masks"] == 2
    assert card["drops"] == {
        "mask: has another size than its image": 1,
        "mask: not an image": 1,
        "mask: belongs to no image that was taken": 1,
        "mask: run lengths are damaged": 1,
    }
    seen = items(pictures.manifest)
    assert torch.equal(seen["a"].anatomy["left lung"], torch.from_numpy(organ(64, 108)))
    assert torch.equal(seen["a"].anatomy["right lung"], torch.from_numpy(organ(10, 54)))
    assert seen["b"].error is None and not seen["b"].anatomy


def test_the_input_can_be_masked_to_organs(pictures: SimpleNamespace, prepared: Callable, tmp_path: Path) -> None:
    for name, (x1, x2) in {"left lung": (64, 108), "right lung": (10, 54)}.items():
        save_mask(tmp_path / "masks" / name / "a.png", organ(x1, x2))
    prepared("table", pictures.root, {"masks": str(tmp_path / "masks")}, file=str(pictures.table))
    plain = items(pictures.manifest)["a"].image
    assert plain is not None and torch.equal(plain[0], torch.from_numpy(pixels(ord("a"))))
    masked = items(pictures.manifest, keep_anatomy=["left lung", "right lung"])
    inside = torch.from_numpy(organ(64, 108) | organ(10, 54))
    image = masked["a"].image
    assert image is not None and image.dtype == torch.uint8
    assert torch.equal(image[:, inside], plain[:, inside]) and not image[:, ~inside].any()
    assert masked["b"].error == "keep_anatomy needs a mask of left lung, right lung; there are none"
    fingerprints = {CXRVQADataModule(str(pictures.manifest), keep_anatomy=k).fingerprint for k in (None, ["heart"])}
    assert len(fingerprints) == 2


def test_masks_follow_crop_and_resize(pictures: SimpleNamespace, prepared: Callable, tmp_path: Path) -> None:
    """The picture is its own mask: brought to the model together, they must still agree."""
    Image.fromarray(organ(64, 108).astype(np.uint8) * 255).save(pictures.root / "a.png")
    save_mask(tmp_path / "masks/left lung/a.png", organ(64, 108))
    prepared("table", pictures.root, {"masks": str(tmp_path / "masks")}, file=str(pictures.table))
    data = CXRVQADataModule(str(pictures.manifest), border_crop=0.05)
    data.image_size = (48, 36)
    item = next(item for batch in data.loader() for item in batch if item.sample.image_path == "a.png")
    assert item.image is not None
    assert ((item.image[0] > 127) != item.anatomy["left lung"]).float().mean() < 0.03


def test_chexlocalize_by_the_path_of_the_image(prepared: Callable, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    root = tmp_path / "root"
    save(root / "valid/patient1/study1/view1_frontal.jpg", 0)
    rows = [f"valid/patient1/study1/view1_frontal.jpg,Is it?,{finding}" for finding in ("Edema", "Cardiomegaly")]
    table = write_csv(tmp_path / "q.csv", "image_path,question,finding", *rows)
    marks = {"Edema": run_lengths(organ(10, 54)), "Cardiomegaly": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}}
    path = write_json(tmp_path / "gt.json", {"patient1_study1_view1_frontal": marks, "patient2": marks})
    taken, card = prepared("table", root, {"chexlocalize": str(path)}, file=str(table))
    assert taken["q/1"]["finding_mask_path"] is None, "an empty mask says that nothing is marked"
    assert card["masks"] == 1 and card["drops"] == {"image: belongs to no image that was taken": 1}
    data = CXRVQADataModule(str(tmp_path / "manifests/table"))
    data.image_size = (HEIGHT, WIDTH)
    masks = [item.finding_mask for batch in data.loader() for item in batch]
    assert masks[0] is not None and torch.equal(masks[0], torch.from_numpy(organ(10, 54))) and masks[1] is None


def test_padchest_gr_merges_both_readers(pictures: SimpleNamespace, prepared: Callable, tmp_path: Path) -> None:
    finding = {
        "sentence_en": "…",
        "abnormal": True,
        "labels": ["Edema"],
        "boxes": [[0.1, 0.2, 0.5, 0.8], [0.9, 0.9, 1.2, 1.0]],
        "extra_boxes": [[0.2, 0.2, 0.6, 0.8]],
    }
    study = {"StudyID": "1", "ImageID": "a.png", "findings": [finding, "text", {"labels": "Edema", "boxes": [[0]]}]}
    other = {"StudyID": "3", "ImageID": "other.png", "findings": [finding]}
    path = write_json(tmp_path / "gr.json", [study, {"StudyID": "2"}, other])
    rows, card = prepared("table", pictures.root, {"padchest_gr": str(path)}, file=str(pictures.table))
    (box,) = rows["q/0"]["boxes"]
    assert box["label"] == "edema"
    corners = [box[corner] for corner in ("x1", "y1", "x2", "y2")]
    np.testing.assert_allclose(corners, [0.15 * WIDTH, 0.2 * HEIGHT, 0.55 * WIDTH, 0.8 * HEIGHT])
    assert rows["q/1"]["boxes"] == []
    assert card["drops"] == {
        "box: finding that is not {labels, boxes, extra_boxes}": 2,
        "row: entry without ImageID or findings": 1,
        "box: corner is not a share of the image": 1,
        "image: belongs to no image that was taken": 1,
    }
    assert card["options"]["padchest_gr"] == str(path)


def test_mask_folder_that_is_none(pictures: SimpleNamespace, prepared: Callable, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, fault in (("gone", "no such folder"), ("empty", "has neither")):
        with pytest.raises(PrepareError, match=fault):
            prepared("table", pictures.root, {"masks": str(tmp_path / name)}, file=str(pictures.table))
