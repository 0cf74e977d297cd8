"""The picture that stands in for a sample's own: another patient's, of the opposite reference where there is one."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cxr_faith.data.items import ManifestDataset, SampleItem
from cxr_faith.data.manifest import open_manifest, write_manifest
from cxr_faith.data.sample import Sample, ShownImage
from cxr_faith.data.swaps import SwappedDataset, Swaps
from cxr_faith.perturb.schedule import stream
from tests.reference import image_use as slow

SIDE = 12


def draw(seed: int = 0) -> Any:
    return partial(stream, seed, purpose="swap")


def opened(folder: Path, samples: list[Sample]) -> ManifestDataset:
    for place, name in enumerate(sorted({image.path for s in samples for image in shown(s)})):
        pixels = np.random.default_rng(place).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    write_manifest(samples, folder / "manifest.parquet")
    table = open_manifest(folder / "manifest.parquet")
    return ManifestDataset(table, np.arange(len(samples)), folder, (SIDE, SIDE), 0.0)


def shown(sample: Sample) -> tuple[ShownImage, ...]:
    return sample.images or (ShownImage(sample.image_id, sample.image_path),)


def made(number: int, patient: str | None, **values: Any) -> Sample:
    own = {"image_id": f"i{number}", "image_path": f"i{number}.png", "patient_id": patient, "kind": "yes_no"}
    return Sample(f"s{number}", **{**own, "question": "Is it?", **values})


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> ManifestDataset:
    """Forty rows of twelve patients, and of some without one: findings, sides, kinds and unknown references."""
    rng, samples = np.random.default_rng(0), []
    for number in range(40):
        kind = ("yes_no", "yes_no", "choice")[rng.integers(3)]
        answer = ("yes", "no")[rng.integers(2)] if kind == "yes_no" else ("left", "right")[rng.integers(2)]
        samples.append(
            made(
                number,
                None if number % 13 == 0 else f"p{rng.integers(12)}",
                kind=kind,
                question=("Is it there?", "Do you see it?")[rng.integers(2)],
                finding=(None, "nodule", "Nodule", "mass")[rng.integers(4)],
                side=(None, None, "left", "right")[rng.integers(4)],
                planted=(None, None, None, True, False)[number % 5],
                answer=None if number % 9 == 0 else (answer,),
            )
        )
    return opened(tmp_path_factory.mktemp("mixed"), samples)


def test_pictures_are_those_that_a_loop_over_the_manifest_allows(mixed: ManifestDataset) -> None:
    rows = mixed.table.to_list()
    swaps, opposites = Swaps(mixed, draw()), 0
    for place, row in enumerate(rows):
        opposite, others = slow.stand_ins(rows, row)
        drawn = [Swaps(mixed, draw(seed)).of(place, row["image_id"]) for seed in range(4)] if place < 5 else []
        for swap in (swaps.of(place, row["image_id"]), *drawn):
            assert swap is not None and swap.opposite == bool(opposite)
            assert swap.image_id in (opposite or others)
            picture = next(mixed[at].image for at, other in enumerate(rows) if other["image_id"] == swap.image_id)
            assert picture is not None and torch.equal(swap.image, picture)
        opposites += bool(opposite)
        assert len({swap.image_id for swap in drawn}) > 1 or len(opposite) == 1 or not drawn
    assert 10 < opposites < 40


def test_the_draw_depends_on_seed_and_image_alone(mixed: ManifestDataset) -> None:
    """Not on which rows a rank has, nor on what was drawn before."""
    rows = mixed.table.to_list()
    few = ManifestDataset(mixed.table, np.array([31, 7]), mixed.root, (SIDE, SIDE), 0.0)
    whole, some = (SwappedDataset(each, draw()) for each in (mixed, few))
    assert [name(some[place]) for place in (0, 1)] == [name(whole[place]) for place in (31, 7)]
    assert [name(whole[place]) for place in range(40)] != [
        swap.image_id for place in range(40) if (swap := Swaps(mixed, draw(1)).of(place, rows[place]["image_id"]))
    ]
    assert mixed[3].swap is None  # nobody asked


def name(item: SampleItem) -> str:
    assert item.swap is not None
    return item.swap.image_id


def test_a_damaged_picture_is_passed_over_and_one_patient_has_no_other(tmp_path: Path) -> None:
    samples = [made(0, "a", answer=("yes",)), made(1, "b", answer=("no",)), made(2, "c", answer=("yes",))]
    table = opened(tmp_path, samples).table

    def of_the_first() -> tuple[str, bool] | None:
        dataset = ManifestDataset(table, np.arange(3), tmp_path, (SIDE, SIDE), 0.0)
        swap = Swaps(dataset, draw()).of(0, "i0")
        return None if swap is None else (swap.image_id, swap.opposite)

    assert of_the_first() == ("i1", True)
    (tmp_path / "i1.png").write_bytes(b"no picture")
    assert of_the_first() == ("i2", False)
    (tmp_path / "i2.png").write_bytes(b"no picture")
    assert of_the_first() is None
    (alone := tmp_path / "alone").mkdir()
    assert Swaps(opened(alone, [made(0, "a"), made(1, "a")]), draw()).of(0, "i0") is None


def test_a_question_about_several_pictures_gets_as_many(tmp_path: Path) -> None:
    def pair(number: int, patient: str) -> Sample:
        shown = (ShownImage(f"i{number}", f"i{number}.png"), ShownImage(f"j{number}", f"j{number}.png", "prior"))
        return made(number, patient, images=shown)

    dataset = opened(tmp_path, [pair(0, "a"), made(1, "b"), pair(2, "c")])
    swap, single = (Swaps(dataset, draw()).of(place, f"i{place}") for place in (0, 1))
    assert swap is not None and swap.image_id == "i2+j2" and swap.image.shape == (3, 2 * SIDE, SIDE)
    assert single is None  # no other patient's question shows one picture
