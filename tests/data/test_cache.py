"""The image cache gives the same pictures bit for bit, without reading the files again."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cxr_faith.data.cache import ImageCache
from cxr_faith.data.geometry import fit
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import write_manifest
from cxr_faith.data.module import CXRVQADataModule, SampleItem
from cxr_faith.data.sample import Sample

SIZE = (24, 30)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Gray, colored, deep and damaged pictures."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (60, 90), np.uint8)).save(tmp_path / "gray.png")
    Image.fromarray(rng.integers(0, 256, (50, 40, 3), np.uint8)).save(tmp_path / "color.png")
    Image.fromarray(rng.integers(0, 4000, (33, 44), np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG")
    return tmp_path


def items(root: Path, **options: object) -> list[SampleItem]:
    samples = [
        Sample(f"{path.stem}{i}", image_id=path.stem, image_path=path.name, question="Is it?")
        for path in sorted(root.glob("*.png"))
        for i in range(2)
    ]
    write_manifest(samples, root / "m.parquet")
    data = CXRVQADataModule(str(root / "m.parquet"), border_crop=0.05, **options)
    data.image_size = SIZE
    return [item for batch in data.loader() for item in batch]


@pytest.mark.parametrize("workers", [0, 2])
def test_cached_items_are_the_plain_ones(root: Path, workers: int) -> None:
    plain = items(root)
    cached = items(root, cache=str(root / "cache"), num_workers=workers)
    assert len(plain) == len(cached) == 8
    for one, other in zip(plain, cached, strict=True):
        assert one.sample == other.sample and one.geometry == other.geometry and one.error == other.error
        assert (one.image is None) == (other.image is None) == (one.sample.image_id == "bad")
        if one.image is not None:
            assert torch.equal(one.image, other.image)
            # The memory order too: a mean over pixels has other last bits in another one.
            assert one.image.stride() == other.image.stride()


def test_second_run_needs_no_files_and_no_decoder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = items(root, cache=str(root / "cache"))
    for name in ("cxr_faith.data.cache.load_image", "cxr_faith.data.items.load_image"):
        monkeypatch.setattr(
            name,
            lambda path, _, **limit: pytest.fail("decoded") if path != "bad.png" else load_image(path, root, **limit),
        )
    after = items(root, cache=str(root / "cache"))
    assert [torch.equal(a.image, b.image) for a, b in zip(before, after, strict=True) if a.image is not None] == [
        True
    ] * 6


def test_another_size_or_crop_is_another_cache(root: Path) -> None:
    paths = ["gray.png"]
    files = {
        ImageCache.open(root / "cache", paths, root, size, crop).file for size in (SIZE, (8, 8)) for crop in (0.0, 0.1)
    }
    assert len(files) == 4
    image, geometry = ImageCache.open(root / "cache", paths, root, (8, 8), 0.1).get("gray.png") or pytest.fail(
        "missing"
    )
    expected, same = fit(load_image("gray.png", root), (8, 8), 0.1)
    assert torch.equal(image, expected) and geometry == same
    image.zero_()  # the caller's own memory: the cache does not change
    assert ImageCache.open(root / "cache", paths, root, (8, 8), 0.1).get("gray.png")[0].any()


def test_cache_travels_without_its_pictures(root: Path) -> None:
    cache = ImageCache.open(root / "cache", ["gray.png"], root, (200, 200), 0.0)
    assert cache.get("gray.png") is not None and cache.get("none.png") is None
    packed = pickle.dumps(cache)
    assert len(packed) < 2000
    assert torch.equal(pickle.loads(packed).get("gray.png")[0], cache.get("gray.png")[0])
    assert cache.file.stat().st_size < 2 * 200 * 200, "a gray picture takes one byte per pixel"
