"""Organ masks of a manifest's pictures: the layout, going on, faults; the library's own model on random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cxr_faith.__main__ import main
from cxr_faith.data.images import load_image, load_mask
from cxr_faith.data.manifest import write_manifest
from cxr_faith.data.sample import Sample
from cxr_faith.data.segmentation import write_organ_masks
from cxr_faith.data.segmenters import (
    LABELS,
    WEIGHTS,
    Masks,
    TorchXRayVision,
    by_side,
    from_square,
    segmenter,
    to_square,
)
from cxr_faith.data.tally import PrepareError
from tests.data.layouts import HEIGHT, WIDTH, save, write_csv


def quarters(pixels: np.ndarray) -> Masks:
    """A segmenter whose organs are the quarters of the picture; the heart is where the picture is bright."""
    height, width = pixels.shape[:2]
    masks = {label: np.zeros((height, width), bool) for label in LABELS}
    masks["right lung"][:, : width // 4] = masks["left lung"][:, -(width // 4) :] = True
    masks["heart"] = pixels[..., 0] > 127
    return masks


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two pictures, one of them in a folder, a broken one, and an id that leads out of the folder of masks."""
    samples = []
    for seed, name in enumerate(("a", "p1/b", "broken", "../../secret")):
        path = f"{Path(name).name}.png"
        save(tmp_path / "root" / path, seed)
        samples.append(Sample(f"s{seed}", image_id=name, image_path=path, question="Is it?"))
    (tmp_path / "root/broken.png").write_text("no picture")
    write_manifest(samples, tmp_path / "root/m.parquet")
    return tmp_path / "root/m.parquet"


def test_masks_are_written_where_prepare_reads_them(manifest: Path, tmp_path: Path, prepared: Callable) -> None:
    reports: list[tuple[int, int | None]] = []
    done = write_organ_masks(manifest, tmp_path / "masks", quarters, progress=lambda *report: reports.append(report))
    assert (done.pictures, done.written, done.there) == (4, 2, 0) and reports[-1] == (4, 4)
    assert "not an image" in done.faults["broken"] and done.faults["../../secret"] == "image id is no name of a file"
    expected = quarters(load_image(manifest.parent / "b.png"))
    for label in LABELS:
        np.testing.assert_array_equal(load_mask(tmp_path / f"masks/{label}/p1/b.png"), expected[label])
    assert not (tmp_path / "secret.png").exists(), "an id with .. stays in the folder of its label"
    table = write_csv(tmp_path / "q.csv", "image_id,image_path,question", "a,a.png,Is it?", "p1/b,b.png,Is it?")
    rows, card = prepared("table", manifest.parent, {"masks": str(tmp_path / "masks")}, file=str(table))
    assert all({mask["label"] for mask in row["anatomy_masks"]} == set(LABELS) for row in rows.values())
    assert card["masks"] == 8 and not card["drops"]


def test_a_second_run_makes_what_is_missing(manifest: Path, tmp_path: Path) -> None:
    write_organ_masks(manifest, tmp_path / "masks", quarters)
    (tmp_path / "masks/heart/a.png").unlink()
    asked: list[Any] = []

    def counted(pixels: np.ndarray) -> Masks:
        asked.append(pixels.shape)
        return quarters(pixels)

    done = write_organ_masks(manifest, tmp_path / "masks", counted)
    assert (done.written, done.there) == (1, 1) and asked == [(HEIGHT, WIDTH, 3)]


def test_the_left_lung_of_a_mirrored_film_is_the_patients(tmp_path: Path) -> None:
    """The same film, once mirrored: its masks are mirrored too, and keep their names."""
    save(tmp_path / "usual.png", 0)
    usual = load_image(tmp_path / "usual.png")
    Image.fromarray(usual[:, ::-1]).save(tmp_path / "mirrored.png")
    rows = [
        Sample(name, image_id=name, image_path=f"{name}.png", question="Is it?", orientation=name)
        for name in ("usual", "mirrored")
    ]
    write_manifest(rows, tmp_path / "m.parquet")
    assert write_organ_masks(tmp_path / "m.parquet", tmp_path / "masks", quarters).written == 2
    for label, mask in quarters(usual).items():
        np.testing.assert_array_equal(load_mask(tmp_path / f"masks/{label}/usual.png"), mask)
        np.testing.assert_array_equal(load_mask(tmp_path / f"masks/{label}/mirrored.png"), mask[:, ::-1])


def test_lungs_are_named_by_their_side_of_the_picture() -> None:
    left_half, none = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    left_half[:, :2] = True
    right_half = left_half[:, ::-1]
    for one, other in ((left_half, right_half), (right_half, left_half)):
        assert by_side(one, other)["right lung"] is left_half and by_side(one, other)["left lung"] is right_half
    for one, other in ((left_half, none), (none, left_half)):
        named = by_side(one, other)
        assert named["right lung"].any() and not named["left lung"].any()
    for one, other in ((right_half, none), (none, right_half)):
        named = by_side(one, other)
        assert named["left lung"].any() and not named["right lung"].any()


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (700, 900)])
def test_a_picture_and_its_masks_lie_on_each_other(size: tuple[int, int]) -> None:
    inside = np.zeros(size, bool)
    inside[size[0] // 2 : -20, 30 : size[1] // 3] = True
    square = to_square(np.repeat(inside[..., None].astype(np.uint8) * 255, 3, axis=2))
    assert square.shape == (1, 1, 512, 512)
    back = from_square(square[0] / 255, size)[0] > 0.5
    assert back.shape == size and (back != inside).sum() < 0.03 * inside.sum()


def test_what_a_segmenter_needs_is_said(tmp_path: Path, manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PrepareError, match="cxas needs pydicom below 3"):
        segmenter("cxas", None, "cpu")
    with pytest.raises(PrepareError, match="no segmenter 'unet'; there is torchxrayvision$"):
        segmenter("unet", None, "cpu")
    with pytest.raises(PrepareError, match=r"cxr-faith\[segment\]|file not found; download it from https://"):
        TorchXRayVision(tmp_path)
    arguments = ["prepare", "masks", str(manifest), "--weights", str(tmp_path)]
    assert main(arguments) == 2 and "--out missing" in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "masks"), "--segmenter", "cxas"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1 and not (tmp_path / "masks").exists()


@pytest.mark.slow
def test_the_library_s_model_on_random_weights(manifest: Path, tmp_path: Path) -> None:
    pspnet = pytest.importorskip("torchxrayvision.baseline_models.chestx_det.ptsemseg.pspnet").pspnet
    torch.manual_seed(0)
    random = pspnet(14).state_dict()
    (tmp_path / "weights").mkdir()
    torch.save({f"module.{name}": value for name, value in random.items()}, tmp_path / "weights" / WEIGHTS)
    masks = TorchXRayVision(tmp_path / "weights")(load_image(manifest.parent / "a.png"))
    assert set(masks) == set(LABELS)
    assert all(mask.shape == (HEIGHT, WIDTH) and mask.dtype == bool for mask in masks.values())
    (tmp_path / "weights" / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(PrepareError, match="is not the file of the model"):
        TorchXRayVision(tmp_path / "weights")
