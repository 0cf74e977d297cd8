"""Substrates and composition against SciPy and NumPy."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from cxr_faith.perturb.schedule import keep_masks, schedule
from cxr_faith.perturb.substrate import Substrate, compose
from tests.reference import gemma


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def kernel(sigma, side):
    """Normalized Gaussian of 2·⌈3σ⌉ + 1 taps, cut to the largest odd size that reflect padding allows."""
    taps = 2 * math.ceil(3 * sigma) + 1
    while taps // 2 > side - 1:  # reflect padding repeats no edge pixel: at most side - 1 on each side
        taps -= 2
    offsets = np.arange(taps) - taps // 2
    values = np.exp(-(offsets**2) / (2 * sigma**2))
    return values / values.sum()


def blurred(plane, sigmas):
    """Explicit convolution with mirrored indices, rows then columns, in float64."""
    for axis, sigma in enumerate(sigmas):
        weights, side = kernel(sigma, plane.shape[axis]), plane.shape[axis]
        result = np.zeros(plane.shape)
        for tap, weight in enumerate(weights):
            at = np.abs(np.arange(side) + tap - len(weights) // 2)
            at = np.where(at > side - 1, 2 * (side - 1) - at, at)
            result += weight * plane.take(at, axis=axis)
        plane = result
    return plane


@pytest.mark.parametrize("spec", ["blur:0.1", "blur:0.05", "blur:0.3", "blur:0.5", "blur:1"])
@pytest.mark.parametrize("size", [(24, 40), (40, 24), (9, 64)])
def test_blur_is_an_explicit_mirrored_convolution(spec, size):
    pixels, sigma = noise(2, 3, *size), float(spec.split(":")[1])
    computed = Substrate.parse(spec).apply(pixels, ["a", "b"], 0)
    for picture, result in zip(pixels.double().numpy(), computed.numpy(), strict=True):
        for plane, other in zip(picture, result, strict=True):
            assert np.abs(blurred(plane, (sigma * size[0], sigma * size[1])) - other).max() < 1e-5


def test_blur_is_scipys_gaussian_filter():
    pixels = noise(1, 3, 40, 60)
    computed = Substrate.parse("blur:0.1").apply(pixels, ["a"], 0)[0].numpy()
    for channel in range(3):
        expected = ndimage.gaussian_filter(
            pixels[0, channel].double().numpy(), sigma=(4, 6), mode="mirror", radius=(12, 18)
        )
        assert np.abs(computed[channel] - expected).max() < 1e-5


def test_blur_removes_detail_and_keeps_a_flat_picture():
    pixels, flat = noise(1, 3, 64, 64), torch.full((1, 3, 64, 64), 0.3)
    blur = Substrate.parse("blur:0.1")
    assert blur.apply(pixels, ["a"], 0).std() < 0.1 * pixels.std()
    torch.testing.assert_close(blur.apply(flat, ["a"], 0), flat)


def test_mean_zero_and_noise():
    pixels = noise(3, 3, 10, 14) * torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1) + 0.25
    mean = Substrate.parse("mean").apply(pixels, ["a", "b", "c"], 0)
    assert mean.shape == pixels.shape
    for b in range(3):
        for c in range(3):
            assert np.allclose(mean[b, c].numpy(), pixels[b, c].double().numpy().mean(), atol=1e-6)
    assert (Substrate.parse("zero").apply(pixels, ["a", "b", "c"], 0) == 0).all()
    gray = noise(1, 1, 200, 300).expand(1, 3, 200, 300) * 0.7 + 0.1
    filled = Substrate.parse("noise").apply(gray, ["a"], 0)[0]
    assert torch.equal(filled[0], filled[1]) and torch.equal(filled[0], filled[2])  # gray stays gray
    assert abs(float(filled.mean() - gray.mean())) < 0.02
    assert abs(float(filled.std() - gray.std())) < 0.02


def test_noise_depends_on_image_and_seed_alone():
    pixels, substrate = noise(2, 3, 12, 12), Substrate.parse("noise")
    both = substrate.apply(pixels, ["a", "b"], 3)
    assert torch.equal(both[1:], substrate.apply(pixels[1:], ["b"], 3))
    assert torch.equal(both.flip(0), substrate.apply(pixels.flip(0), ["b", "a"], 3))
    same = pixels[:1].repeat(3, 1, 1, 1)
    first, second, third = substrate.apply(same, ["a", "b", "a"], 3)
    assert torch.equal(first, third) and not torch.equal(first, second)
    assert not torch.equal(substrate.apply(same[:1], ["a"], 4)[0], first)


@pytest.mark.parametrize("spec", ["blur:0.1", "mean", "zero", "noise"])
def test_a_substrate_does_not_depend_on_the_batch_or_change_its_input(spec):
    pixels, names = noise(5, 3, 24, 24), list("abcde")
    before, substrate = pixels.clone(), Substrate.parse(spec)
    whole = substrate.apply(pixels, names, 0)
    alone = torch.cat([substrate.apply(pixels[i : i + 1], [names[i]], 0) for i in range(5)])
    assert torch.equal(whole, alone)
    assert torch.equal(pixels, before)
    assert whole.dtype == pixels.dtype


@pytest.mark.parametrize(
    ("given", "spec"), [("blur", "blur:0.1"), ("blur:0.10", "blur:0.1"), ("blur:1", "blur:1"), ("mean", "mean")]
)
def test_canonical_spelling(given, spec):
    assert Substrate.parse(given).spec == spec
    assert Substrate.parse(spec) == Substrate.parse(given)


@pytest.mark.parametrize("given", ["blurr:0.1", "", "blur:0", "blur:-1", "blur:x", "blur:nan", "blur:1.5", "mean:1"])
def test_wrong_spellings(given):
    with pytest.raises(ValueError, match="substrate ") as error:
        Substrate.parse(given)
    assert repr(given) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("grid", "size"), [((4, 4), (16, 16)), ((3, 5), (12, 35)), ((5, 3), (35, 12))])
def test_composition_is_cell_by_cell_and_rows_are_rows(grid, size):
    original, removed = noise(3, *size, seed=1), noise(3, *size, seed=2)
    keep = np.random.default_rng(0).random((6, grid[0] * grid[1])) < 0.5
    computed = compose(original, removed, torch.from_numpy(keep), grid)
    for picture, mask in zip(computed, keep, strict=True):
        assert np.array_equal(picture.numpy(), gemma.compose(original.numpy(), removed.numpy(), mask, grid))


def test_one_cell_stands_where_its_row_and_column_say():
    original, removed = torch.ones(3, 8, 15), torch.zeros(3, 8, 15)
    keep = torch.zeros(1, 12, dtype=torch.bool)  # a grid of 4 rows and 3 columns
    keep[0, 2 * 3 + 1] = True
    picture = compose(original, removed, keep, (4, 3))[0, 0]
    expected = torch.zeros(8, 15)
    expected[4:6, 5:10] = 1
    assert torch.equal(picture, expected)


@pytest.mark.parametrize("softness", [0.0, 3.0])
@pytest.mark.parametrize("steps", [4, 5, 12])
def test_insertion_is_the_deletion_of_the_reversed_order_mirrored(softness, steps):
    """On the composed pictures, exactly: insertion(order)[s] = deletion(reversed order)[T - s]."""
    original, removed = noise(3, 24, 32, seed=1), noise(3, 24, 32, seed=2)
    k, order = schedule(12, steps), np.random.default_rng(steps).permutation(12)
    insertion = torch.from_numpy(keep_masks(order, k, "insertion"))
    deletion = torch.from_numpy(keep_masks(order[::-1], k, "deletion"))
    forward = compose(original, removed, insertion, (3, 4), softness)
    backward = compose(original, removed, deletion, (3, 4), softness)
    assert torch.equal(forward, backward.flip(0))
    torch.testing.assert_close(forward[0], removed)
    torch.testing.assert_close(forward[-1], original)
    assert not torch.equal(forward[1], backward[1])


@pytest.mark.parametrize("softness", [2.0, 5.0, 40.0])
def test_soft_masks_are_gaussian_mirrored_in_pixels(softness):
    grid, size = (2, 5), (20, 60)
    original, removed = noise(3, *size, seed=1), noise(3, *size, seed=2)
    keep = np.random.default_rng(1).random((3, 10)) < 0.5
    computed = compose(original, removed, torch.from_numpy(keep), grid, softness)
    for picture, cells in zip(computed.numpy(), keep, strict=True):
        hard = np.kron(cells.reshape(grid), np.ones((10, 12)))
        weight = blurred(hard, (softness, softness))
        expected = weight * original.double().numpy() + (1 - weight) * removed.double().numpy()
        assert np.abs(picture - expected).max() < 1e-5
