"""The data module: lazily decoded items, bad samples with a reason, resume, ranks, and Lightning's predict loop."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cxr_faith.data import items as items_file
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import write_manifest
from cxr_faith.data.module import CXRVQADataModule, SampleItem
from cxr_faith.data.sample import MANIFEST_SCHEMA, Box, Sample

HEIGHT, WIDTH = 60, 90
SIZE = (30, 30)  # (height, width): 2 × 3 original pixels to each model pixel


def sample(index: int, image: int, **values: Any) -> Sample:
    defaults: dict[str, Any] = {"image_id": f"i{image}", "image_path": f"i{image}.png", "question": "Is it?"}
    return Sample(f"s{index}", **{**defaults, **values})


def make(folder: Path, samples: list[Sample], **options: Any) -> CXRVQADataModule:
    for name in {s.image_path for s in samples}:
        pixels = np.random.default_rng(len(name)).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        if name.endswith(".png") and not (folder / name).exists():
            Image.fromarray(pixels).save(folder / name)
    write_manifest(samples, folder / "manifest.parquet")
    module = CXRVQADataModule(str(folder / "manifest.parquet"), **options)
    module.image_size = SIZE
    return module


def items(module: CXRVQADataModule, rank: int = 0, world_size: int = 1) -> list[SampleItem]:
    return [item for batch in module.loader(rank, world_size) for item in batch]


def ids(module: CXRVQADataModule, rank: int = 0, world_size: int = 1) -> list[str]:
    return [item.sample.sample_id for item in items(module, rank, world_size)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_items_hold_picture_geometry_and_row(tmp_path: Path, num_workers: int) -> None:
    samples = [sample(i, i // 2, height=HEIGHT, width=WIDTH) for i in range(5)]
    module = make(tmp_path, samples, num_workers=num_workers, batch_size=2)
    batches = list(module.loader())
    assert [len(batch) for batch in batches] == [2, 2, 1]
    for item, expected in zip([item for batch in batches for item in batch], samples, strict=True):
        assert item.sample == expected and item.error is None and item.finding_mask is None
        assert item.image is not None and item.image.shape == (3, *SIZE) and item.image.dtype == torch.uint8
        assert item.geometry is not None and item.geometry.original == (HEIGHT, WIDTH)


def test_an_image_is_decoded_once_for_all_its_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(tmp_path, [sample(i, i % 3) for i in range(12)])
    decoded = []
    monkeypatch.setattr(
        items_file, "load_image", lambda *args, **limit: (decoded.append(args[0]), load_image(*args))[1]
    )
    assert ids(module) == [f"s{i}" for i in (0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11)]
    assert decoded == ["i0.png", "i1.png", "i2.png"]


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(tmp_path, [sample(i, i) for i in range(4)])
    monkeypatch.setattr(items_file, "load_image", lambda *_, **limit: pytest.fail("decoded"))
    assert len(module.loader()) == 1 and module.samples_total == 4


def test_finding_mask_from_boxes_of_that_finding_only(tmp_path: Path) -> None:
    boxes = (Box("Nodule", 30, 20, 60, 40), Box("nodule", 0, 0, 3, 2), Box("heart", 60, 40, 90, 60))
    module = make(
        tmp_path,
        [
            sample(0, 0, finding="nodule", boxes=boxes),
            sample(1, 0, finding="effusion", boxes=boxes),
            sample(2, 0, boxes=boxes),
        ],
    )
    nodule, effusion, unnamed = items(module)
    expected = torch.zeros(SIZE, dtype=torch.bool)
    expected[10:20, 10:20] = True
    expected[0, 0] = True
    assert nodule.finding_mask is not None and torch.equal(nodule.finding_mask, expected)
    assert effusion.finding_mask is None and unnamed.finding_mask is None


def test_mask_file_comes_before_boxes_and_is_cropped_like_the_picture(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[6:33, 9:45] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    row = sample(0, 0, finding="nodule", finding_mask_path="mask.png", boxes=(Box("nodule", 0, 0, 90, 60),))
    (item,) = items(make(tmp_path, [row], border_crop=0.1))  # crop: 6 rows, 9 columns each side
    assert item.geometry is not None and item.geometry.crop == (6, 9, 48, 72)
    expected = torch.zeros(SIZE, dtype=torch.bool)
    expected[:17, :15] = True  # 27 of 48 rows, 36 of 72 columns
    assert item.finding_mask is not None and torch.equal(item.finding_mask, expected)


def test_whatever_a_file_raises_costs_its_sample(tmp_path: Path) -> None:
    """A file whose reading fails (EIO), nulls in every column that may be null, a mask without name or path."""
    Image.fromarray(np.eye(60, 90, dtype=np.uint8) * 255).save(tmp_path / "i0.png")
    write_manifest([sample(0, 0), sample(1, 0), sample(2, 0)], tmp_path / "m.parquet")
    rows = pq.read_table(tmp_path / "m.parquet").to_pylist()
    rows[0] = dict.fromkeys(rows[0]) | {"sample_id": "nulls"}
    rows[1] |= {"anatomy_masks": [None]}
    pq.write_table(pa.Table.from_pylist(rows, MANIFEST_SCHEMA), tmp_path / "m.parquet")
    module = CXRVQADataModule(str(tmp_path / "m.parquet"))
    module.image_size = SIZE
    errors = {item.sample.sample_id: item.error for item in items(module)}
    assert errors["nulls"] == "image_path is missing" and errors["s1"] and errors["s2"] is None
    write_manifest([sample(0, 0, image_path="mem"), sample(1, 1, image_path="maps")], tmp_path / "m.parquet")
    module = CXRVQADataModule(str(tmp_path / "m.parquet"), data_root="/proc/self")
    module.image_size = SIZE
    broken, text = items(module)
    assert broken.error and "/mem: " in broken.error and "Input/output error" in broken.error
    assert text.error and "not an image" in text.error


def test_a_bad_sample_has_a_reason_and_costs_no_other(tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF")
    Image.fromarray(np.eye(5, dtype=np.uint8)).save(tmp_path / "small.png")
    bad = {
        "not found": {"image_id": "gone", "image_path": "gone.jpg"},
        "JPEG": {"image_id": "cut", "image_path": "cut.jpg"},
        "outside the data root": {"image_id": "secret", "image_path": "../secret.jpg"},
        "unknown kind 'maybe'": {"kind": "maybe"},
        "question is missing": {"question": ""},
        "is empty": {"boxes": (Box("nodule", 5, 5, 5, 9),)},
        r"picture is 60×90 px, the manifest says 600×900": {"height": 600, "width": 900},
        r"small.png: mask is \(5, 5\)": {"finding_mask_path": "small.png"},
        "mask.png: file not found": {"finding_mask_path": "mask.png"},
    }
    rows = [sample(0, 0)]
    for values in bad.values():
        rows += [sample(len(rows), 0, **values), sample(len(rows) + 1, 0)]
    for index, item in enumerate(sorted(items(make(tmp_path, rows)), key=lambda item: int(item.sample.sample_id[1:]))):
        assert item.sample == rows[index]
        if index % 2 == 0:
            assert item.error is None and item.image is not None
        else:
            assert item.image is None and item.geometry is None and item.finding_mask is None
            assert item.error is not None and "\n" not in item.error
            with pytest.raises(AssertionError, match=list(bad)[index // 2]):
                raise AssertionError(item.error)


def test_limit_comes_before_skip(tmp_path: Path) -> None:
    module = make(tmp_path, [sample(i, i // 2) for i in range(8)])
    module.limit = 5
    assert ids(module) == ["s0", "s1", "s2", "s3", "s4"]
    module.skip = {"s0", "s3", "s7", "of another run"}
    assert ids(module) == ["s1", "s2", "s4"]
    assert module.samples_total == 8
    module.limit = 100
    assert ids(module) == ["s1", "s2", "s4", "s5", "s6"]


@pytest.mark.parametrize("samples", [1, 7, 9])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5])
def test_ranks_share_what_is_left_exactly(tmp_path: Path, samples: int, world_size: int) -> None:
    module = make(tmp_path, [sample(i, i // 2) for i in range(samples)], batch_size=3)
    module.skip = {"s2"}
    ranks = [ids(module, rank, world_size) for rank in range(world_size)]
    assert sorted(sum(ranks, [])) == sorted({f"s{i}" for i in range(samples)} - {"s2"})


def test_rows_without_image_id_do_not_share_an_image(tmp_path: Path) -> None:
    module = make(tmp_path, [replace(sample(i, 0), image_id=None) for i in range(4)])  # type: ignore[arg-type]
    assert sorted(sum((ids(module, rank, 4) for rank in range(4)), [])) == ["s0", "s1", "s2", "s3"]
    assert all(len(ids(module, rank, 4)) == 1 for rank in range(4))


def test_fingerprint_follows_content_and_crop_only(tmp_path: Path) -> None:
    first = make(tmp_path, [sample(0, 0)])
    path = str(tmp_path / "manifest.parquet")
    assert CXRVQADataModule(path, data_root="/elsewhere", batch_size=1, num_workers=3).fingerprint == first.fingerprint
    assert CXRVQADataModule(path, border_crop=0.05).fingerprint != first.fingerprint
    before = first.fingerprint
    assert make(tmp_path, [sample(1, 0)]).fingerprint != before


def test_data_root_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "lists").mkdir()
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "pictures" / "a.png")
    write_manifest([sample(0, 0, image_path="a.png")], tmp_path / "lists" / "m.parquet")
    module = CXRVQADataModule(str(tmp_path / "lists" / "m.parquet"), data_root=str(tmp_path / "pictures"))
    module.image_size = SIZE
    assert [item.error for item in items(module)] == [None]


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"border_crop": 0.5}, {"border_crop": -0.1}])
def test_bad_options_fail_before_anything_is_read(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        CXRVQADataModule("nowhere.parquet", **options)


def test_image_size_must_be_known(tmp_path: Path) -> None:
    module = make(tmp_path, [sample(0, 0)])
    module.image_size = None
    with pytest.raises(ValueError, match="image_size"):
        module.loader()


class Recorder(L.LightningModule):
    image_size = (12, 8)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[SampleItem] = []

    def predict_step(self, batch: list[SampleItem], batch_idx: int) -> None:
        self.seen += batch


@pytest.mark.parametrize("distributed_sampler", [True, False])
def test_lightning_predict_hands_over_every_sample_once(tmp_path: Path, distributed_sampler: bool) -> None:
    module = make(tmp_path, [sample(i, i // 2) for i in range(7)], batch_size=3)
    module.image_size = None
    recorder = Recorder()
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        use_distributed_sampler=distributed_sampler,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.predict(recorder, module, return_predictions=False)
    assert [item.sample.sample_id for item in recorder.seen] == [f"s{i}" for i in range(7)]
    assert all(item.image is not None and item.image.shape == (3, 12, 8) for item in recorder.seen)
    assert not [str(w.message) for w in caught if "sampler" in str(w.message)]


def test_lightning_predict_with_nothing_left(tmp_path: Path) -> None:
    module = make(tmp_path, [sample(i, i) for i in range(3)])
    module.skip = {"s0", "s1", "s2"}
    recorder = Recorder()
    L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path).predict(
        recorder, module, return_predictions=False
    )
    assert recorder.seen == []


def test_pictures_and_masks_are_pinned_and_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the function by which a `DataLoader` pins batches; a bad sample has nothing to pin."""
    from torch.utils.data._utils.pin_memory import pin_memory

    nodule = sample(0, 0, finding="nodule", boxes=(Box("nodule", 30, 20, 60, 40),))
    module = make(tmp_path, [nodule, sample(1, 1, image_path="none.jpg")])
    (loaded, bad), pinned = items(module), list[torch.Tensor]()
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor.clone())
    first, second = pin_memory([loaded, bad])
    assert [id(tensor) for tensor in pinned] == [id(loaded.image), id(loaded.finding_mask)]
    assert loaded.image is not None and first.image is not loaded.image and torch.equal(first.image, loaded.image)
    assert first.sample is loaded.sample and second.image is None and second.error == bad.error
    moved = module.transfer_batch_to_device([loaded, bad], torch.device("meta"), 0)[0]
    assert moved.image is not None and moved.image.device.type == moved.finding_mask.device.type == "meta"


@pytest.mark.parametrize("cached", [False, True])
def test_a_picture_that_is_constant_for_the_model_is_invalid(tmp_path: Path, cached: bool) -> None:
    """One bright pixel is lost in resizing, and a label in the border is cut off."""
    hot, label = np.zeros((2, 1000, 1000), dtype=np.uint8)
    hot[500, 500], label[:40, :40] = 255, 255
    Image.fromarray(hot).save(tmp_path / "hot.png")
    Image.fromarray(label).save(tmp_path / "label.png")
    Image.fromarray(np.zeros((HEIGHT, WIDTH), dtype=np.uint8)).save(tmp_path / "empty.png")
    rows = [sample(0, 0, image_path="hot.png"), sample(1, 1, image_path="label.png"), sample(2, 2)]
    cache = {"cache": str(tmp_path / "cache")} if cached else {}
    errors = [item.error for item in items(make(tmp_path, rows, border_crop=0.05, **cache))]
    reason = "the picture is constant at model size, after cropping and resizing"
    assert errors == [f"hot.png: {reason}", f"label.png: {reason}", None]
    rows = [sample(2, 2, anatomy_masks=(("heart", "empty.png"),))]
    [item] = items(make(tmp_path, rows, keep_anatomy=["heart"], **cache))
    assert item.error == "keep_anatomy (heart) leaves a constant picture"
