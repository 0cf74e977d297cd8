"""Every position goes to exactly one rank, images stay whole, and batches are split between images."""

import itertools

import numpy as np
import pytest

from cxr_faith.data.sharding import ImageBatches, shard_by_image


def images_of(kind: str, samples: int) -> np.ndarray:
    rng = np.random.default_rng(samples)
    return {
        "one question each": np.arange(samples),
        "runs": np.sort(rng.integers(0, max(samples // 3, 1), samples)),
        "scattered": rng.integers(-5, max(samples // 4, 1), samples),
        "one image": np.zeros(samples, dtype=np.int64),
    }[kind]


@pytest.mark.parametrize("kind", ["one question each", "runs", "scattered", "one image"])
def test_shards_are_a_partition_that_keeps_images_whole(kind: str) -> None:
    for samples, world_size in itertools.product([0, 1, 2, 3, 7, 9, 64], [1, 2, 3, 4, 5]):
        case, images = f"{samples} samples on {world_size} ranks", images_of(kind, samples)
        shards = [shard_by_image(images, rank, world_size) for rank in range(world_size)]
        assert sorted(np.concatenate(shards).tolist()) == list(range(samples)), case
        owners = [set(images[shard].tolist()) for shard in shards]
        assert sum(len(owner) for owner in owners) == len(set(images.tolist())), case  # no image on two ranks
        largest = np.unique(images, return_counts=True)[1].max(initial=0)
        assert max(map(len, shards)) - min(map(len, shards)) <= largest, case
        for shard in shards:
            codes = images[shard]
            assert (np.diff(codes) != 0).sum() == max(len(set(codes.tolist())) - 1, 0), case  # side by side
            for code in set(codes.tolist()):
                assert (np.diff(shard[codes == code]) > 0).all(), case  # the manifest's order within an image


def test_images_go_in_the_order_of_their_first_question() -> None:
    images = np.array([7, 7, 2, 9, 2, 7])
    assert shard_by_image(images, 0, 1).tolist() == [0, 1, 5, 2, 4, 3]
    assert shard_by_image(images, 0, 2).tolist() == [0, 1, 5]
    assert shard_by_image(images, 1, 2).tolist() == [2, 4, 3]


@pytest.mark.parametrize("world_size", [2, 3, 8, 64])
def test_shards_are_balanced_within_two_percent(world_size: int) -> None:
    counts = np.random.default_rng(world_size).geometric(0.2, 6_000)
    images = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    sizes = [len(shard_by_image(images, rank, world_size)) for rank in range(world_size)]
    assert max(sizes) - min(sizes) <= counts.max()
    assert max(sizes) / np.mean(sizes) < 1.02


@pytest.mark.parametrize("rank, world_size", [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_outside_the_world(rank: int, world_size: int) -> None:
    with pytest.raises(ValueError, match="not in a world"):
        shard_by_image(np.arange(4), rank, world_size)


@pytest.mark.parametrize(
    "images, batch_size, expected",
    [
        ([1, 1, 2, 2, 3, 3], 4, [[0, 1, 2, 3], [4, 5]]),
        ([1, 1, 1, 2, 2, 2], 4, [[0, 1, 2], [3, 4, 5]]),
        ([1, 1, 1, 1, 1, 2], 2, [[0, 1], [2, 3], [4, 5]]),
        ([3, 1, 2], 2, [[0, 1], [2]]),
        ([5, 5], 9, [[0, 1]]),
        ([], 3, []),
    ],
)
def test_batches_end_between_images_where_they_can(
    images: list[int], batch_size: int, expected: list[list[int]]
) -> None:
    batches = ImageBatches(np.array(images, dtype=np.int64), batch_size)
    assert list(batches) == expected
    assert len(batches) == len(expected)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8, 100])
def test_batches_hold_every_position_once_and_split_only_large_images(batch_size: int) -> None:
    images = np.sort(np.random.default_rng(0).integers(0, 30, 120))
    batches = list(ImageBatches(images, batch_size))
    assert np.concatenate(batches).tolist() == list(range(120))
    assert max(map(len, batches)) <= batch_size
    for code in np.unique(images):
        holders = [batch for batch in batches if code in images[batch]]
        assert len(holders) == 1 or (images == code).sum() > batch_size


def test_batch_size_zero() -> None:
    with pytest.raises(ValueError, match="batch_size"):
        ImageBatches(np.arange(3), 0)
