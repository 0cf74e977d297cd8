"""Noisy linear imputation against the sparse system, solved directly."""

import numpy as np
import pytest
import torch

from benchmarks.gpu import launches
from cxr_faith.perturb import road
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.perturb.road import NOISE, impute, noise_field, road_fill
from cxr_faith.perturb.road_cycle import Cycle
from cxr_faith.perturb.schedule import keep_masks, schedule
from cxr_faith.perturb.substrate import Substrate, compose
from tests.analytic import MARGIN, LinearVLM, picture
from tests.reference import road as twin


def textured(height, width, seed=0):
    """A slope, a wave and noise, in the range of a model's input."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    planes = np.stack([y - x, np.sin(9 * x * y), x]) + 0.3 * rng.standard_normal((3, height, width))
    return torch.from_numpy(planes.astype(np.float32))


def on_pixels(keep, grid, size):
    cells = keep.reshape(grid)
    return np.kron(cells, np.ones((size[0] // grid[0], size[1] // grid[1]), bool)).astype(bool)


@pytest.mark.parametrize(
    ("grid", "size"), [((8, 8), (64, 64)), ((5, 7), (45, 49)), ((12, 12), (60, 96)), ((3, 3), (90, 90))]
)
def test_agrees_with_the_sparse_direct_solution(grid, size):
    n, rng, pixels = grid[0] * grid[1], np.random.default_rng(1), textured(*size)
    keeps = [rng.permutation(n) < count for count in (1, 2, n // 4, n // 2, n - 1)]
    keeps.append((np.arange(n).reshape(grid) % grid[1] == 0).ravel())  # one column is left
    computed = impute(pixels, torch.from_numpy(np.stack(keeps)), grid).numpy()
    for keep, result in zip(keeps, computed, strict=True):
        kept = on_pixels(keep, grid, size)
        assert np.abs(result - twin.impute(pixels.numpy(), ~kept)).max() < 1e-3
        assert np.array_equal(result[:, kept], pixels.numpy()[:, kept])


@pytest.mark.slow
@pytest.mark.parametrize("kept", [[0], [0, 255], range(0, 256, 2)])
def test_agrees_with_it_on_pictures_of_448_pixels(kept):
    """Where few cells hold many pixels, rounding is what counts."""
    pixels, keep = textured(448, 448), np.isin(np.arange(256), kept)
    computed = impute(pixels, torch.from_numpy(keep)[None], (16, 16))[0].numpy()
    expected = twin.impute(pixels.numpy(), ~on_pixels(keep, (16, 16), (448, 448)))
    assert np.abs(computed - expected).max() < 5e-4


def test_every_cell_gone_leaves_the_channel_means_and_noise():
    pixels = textured(32, 32)
    nothing = torch.zeros(1, 16, dtype=torch.bool)
    computed = road_fill(pixels, "a", 0, (4, 4))(nothing)[0]
    torch.testing.assert_close(computed, Substrate.parse("road").apply(pixels[None], ["a"], 0)[0])
    noise = computed - pixels.mean((1, 2), keepdim=True)
    torch.testing.assert_close(noise, noise_field(pixels, "a", 0)[0], atol=1e-6, rtol=0)
    assert (noise.std((1, 2)) / pixels.std((1, 2))).mean() == pytest.approx(NOISE, rel=0.1)


def test_noise_depends_on_the_image_and_seed_only():
    pixels, masks = textured(32, 32), torch.rand(2, 16) < 0.5
    fields = road_fill(pixels, "a", 0, (4, 4))(masks) - impute(pixels, masks, (4, 4))
    torch.testing.assert_close(fields[0], fields[1], atol=1e-6, rtol=0)
    assert not torch.equal(noise_field(pixels, "a", 0), noise_field(pixels, "b", 0))
    assert not torch.equal(noise_field(pixels, "a", 0), noise_field(pixels, "a", 1))


def test_a_mask_is_imputed_the_same_in_any_batch_and_with_any_threads():
    """Bit for bit."""
    pixels, masks = textured(48, 48), torch.rand(9, 36, generator=torch.Generator().manual_seed(0)) < 0.4
    together = impute(pixels, masks, (6, 6))
    assert all(
        torch.equal(impute(pixels, mask[None], (6, 6))[0], one) for mask, one in zip(masks, together, strict=True)
    )
    torch.set_num_threads(2)
    try:
        assert torch.equal(impute(pixels, masks, (6, 6)), together)
    finally:
        torch.set_num_threads(1)


def test_the_engine_fills_each_picture_by_its_own_mask():
    vlm = LinearVLM({"q": np.random.default_rng(2).standard_normal((4, 4))})
    original, k = picture(vlm), schedule(16, 4)
    order = np.random.default_rng(3).permutation(16)
    plan = Plan(16)
    masks = keep_masks(order, k, "deletion")
    places = plan.add(0, masks)
    fill = Substrate.parse("road").fill(original, "a", 0, vlm.grid)
    removed = Substrate.parse("road").apply(original[None], ["a"], 0)[0]
    for micro_batch in (1, 3, 64):
        engine = Engine(vlm, micro_batch=micro_batch)
        scores = engine.run(original, removed, plan, [vlm.prompt("q")], [MARGIN], fill)[0].s[places]
        for mask, score in zip(masks, scores, strict=True):
            kept = torch.from_numpy(on_pixels(mask, (4, 4), vlm.image_size))
            planes = torch.from_numpy(twin.impute(original.numpy(), ~kept.numpy())) if mask.any() else None
            filled = removed if planes is None else planes.float() + noise_field(original, "a", 0)
            pixels = torch.where(kept, original, filled)
            expected = float(vlm.logit(vlm.encode(pixels[None]), vlm.prompt("q")))
            assert float(score) == pytest.approx(expected, abs=1e-3)
    assert Substrate.parse("blur").fill(original, "a", 0, vlm.grid) is None


def test_a_small_system_is_solved_in_one_cycle():
    gone = np.ones((7, 9), bool)
    gone[2, 3] = gone[:, 8] = False
    values = np.random.default_rng(0).standard_normal((7, 9))
    framed = torch.from_numpy(np.pad(values, 1))[None, None]
    cycle = Cycle(torch.from_numpy(gone)[None, None], torch.float64)
    solved = values + cycle.correct(cycle.residual(framed))[0, 0].numpy()
    assert np.abs(solved - twin.impute(values[None], gone)[0]).max() < 1e-12


def test_equal_channels_are_solved_once():
    """With the bits of three solutions, at a third of the traffic."""
    color, masks = textured(32, 32), torch.rand(5, 16, generator=torch.Generator().manual_seed(0)) < 0.4
    gray = color[:1].expand(3, -1, -1).contiguous()
    fills = {name: road_fill(planes, "a", 0, (4, 4)) for name, planes in (("gray", gray), ("color", color))}
    assert torch.equal(fills["gray"](masks), impute(gray, masks, (4, 4)) + noise_field(gray, "a", 0))
    moved = {name: launches.counted(lambda fill=fill: fill(masks)).bytes_moved for name, fill in fills.items()}
    assert moved["color"] > 2 * moved["gray"]


def test_cost_at_896_pixels_by_count():
    """Without a GPU, on tensors without values; docs/speed.md has these counts."""
    cost = launches.road(896, 1, 1)
    assert (cost.operations, round(cost.bytes_moved / 1e9, 1)) == (5072, 12.4)


def test_memory_does_not_grow_with_the_batch(monkeypatch):
    monkeypatch.setattr(road, "_CYCLES", 2)
    assert launches.road(896, 3, 64).peak_bytes - 64 * 3 * 896**2 * 4 < 2e9


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_agrees_with_the_direct_solver():
    """448 px in a batch of 64; `benchmarks/gpu/road.py` measures the time."""
    pixels, n = textured(448, 448), 256
    keeps = np.stack([np.random.default_rng(i).permutation(n) < n // 2 for i in range(64)])
    solved = impute(pixels.cuda(), torch.from_numpy(keeps).cuda(), (16, 16))[0].cpu().numpy()
    assert np.abs(solved - twin.impute(pixels.numpy(), ~on_pixels(keeps[0], (16, 16), (448, 448)))).max() < 1e-3


def test_soft_masks_mix_the_imputed_picture():
    pixels, keep = textured(32, 32), torch.tensor([[True] * 8 + [False] * 8])
    instead = impute(pixels, keep, (4, 4))
    mixed = compose(pixels, instead, keep, (4, 4), softness=2.0)
    torch.testing.assert_close(mixed[0, :, :8], pixels[:, :8], atol=1e-4, rtol=0)
    torch.testing.assert_close(mixed[0, :, 26:], instead[0, :, 26:], atol=1e-4, rtol=0)
