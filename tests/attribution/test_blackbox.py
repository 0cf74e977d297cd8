"""Occlusion and RISE against plain loops, closed forms and models with a known answer."""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import METHODS, AttributionBatch
from cxr_faith.attribution.blackbox import Masker, Occlusion, Rise
from cxr_faith.cases import compute_maps, read_answers
from cxr_faith.perturb.schedule import stream
from cxr_faith.perturb.substrate import Substrate, compose
from cxr_faith.protocol import Protocol
from cxr_faith.vlm import Target
from tests.analytic import MARGIN, LinearVLM, blind, one_cell, picture, redundant
from tests.reference import blackbox as reference
from tests.reference import gemma

QUESTION = "Is there a nodule?"


def attribute(vlm, method, pixels, target=MARGIN, question=QUESTION, names=("a", "b"), seed=3):
    batch = AttributionBatch(pixels, [vlm.prompt(question)] * len(pixels), names[: len(pixels)], seed)
    return method.attribute(vlm, batch, [target] * len(pixels)).maps


def scorer(vlm, twin, image, name, substrate, target, seed=3):
    removed = Substrate.parse(substrate).apply(image[None], [name], seed)[0]
    return lambda cells: reference.score_removed(vlm, twin, image, removed, cells, QUESTION, target)


def assert_close(computed, expected, tolerance=1e-4):
    assert np.abs(computed.double().numpy() - expected).max() < tolerance * np.abs(expected).max()


def tokens(vlm):
    return Target("tokens", answer_ids=tuple(vlm.tokenizer("left lung")["input_ids"][-2:]), scored=(0, 1))


@pytest.mark.parametrize(
    ("window", "substrate", "make"),
    [(1, "mean", tokens), (3, "blur:0.1", lambda vlm: MARGIN)],
    ids=["tokens", "margin"],
)
def test_occlusion_on_a_real_model(random_vlm, pictures, window, substrate, make):
    pixels, twin, target = pictures(random_vlm, 1), gemma.twin_model(random_vlm.model), make(random_vlm)
    computed = attribute(random_vlm, Occlusion(window, substrate), pixels, target)
    score = scorer(random_vlm, twin, pixels[0], "a", substrate, target)
    assert_close(computed[0], reference.occlusion(random_vlm.grid, window, score), 1e-3)


def test_rise_on_a_real_model(random_vlm, pictures):
    pixels, twin = pictures(random_vlm, 2), gemma.twin_model(random_vlm.model)
    method = Rise(masks=12, substrate="noise")
    score = scorer(random_vlm, twin, pixels[1], "b", "noise", MARGIN)
    expected = reference.rise(random_vlm.grid, method.masks(random_vlm.grid, "b", 3), score)
    assert_close(attribute(random_vlm, method, pixels)[1], expected, 1e-3)


def test_both_find_the_evidence_of_the_bundled_model(bundled, pictures):
    """A picture of noise with one blob: removing by the map, most salient first, lowers s more than in reverse."""
    pixels = pictures(bundled, 1)
    with torch.no_grad():
        margin = bundled.score(bundled.prefill(bundled.encode(pixels)), bundled.prompt(QUESTION), MARGIN).s
    target = Target("margin", sign=1 if float(margin) >= 0 else -1)
    for method in (Occlusion(1), Rise(60)):
        values = attribute(bundled, method, pixels, target)[0].flatten().numpy()
        half = set(np.argsort(-values)[: len(values) // 2].tolist())
        score = scorer(bundled, gemma.twin_model(bundled.model), pixels[0], "a", "blur:0.1", target)
        assert score(half) < score(set(range(len(values))) - half)


@pytest.mark.parametrize("sign", [1, -1])
def test_occlusion_of_a_linear_model_is_the_contribution(sign):
    vlm = LinearVLM({QUESTION: np.random.default_rng(0).standard_normal((3, 5))})
    pixels = torch.stack([picture(vlm, seed) for seed in (0, 1)])
    removed = Substrate.parse("mean").apply(pixels, ["a", "b"], 3)
    target = Target("margin", sign=sign)
    for index in (0, 1):
        truth = vlm.contributions(pixels[index], removed[index], QUESTION, sign)
        assert_close(attribute(vlm, Occlusion(1, "mean"), pixels, target)[index], truth)
        expected = reference.occlusion((3, 5), 2, lambda cells, t=truth: -t.ravel()[list(cells)].sum())
        assert_close(attribute(vlm, Occlusion(2, "mean"), pixels, target)[index], expected)


def test_rise_of_a_linear_model_approaches_the_contributions():
    """The masks are smooth, so that neighbors share: with a coarse grid as fine as the map they are not."""
    vlm = LinearVLM({QUESTION: np.random.default_rng(0).standard_normal((4, 6))})
    pixels = picture(vlm)[None]
    truth = vlm.contributions(pixels[0], Substrate.parse("mean").apply(pixels, ["a"], 3)[0], QUESTION)
    errors = []
    for count in (40, 1000):
        computed = attribute(vlm, Rise(count, coarse=9, substrate="mean"), pixels)[0].numpy()
        errors.append(1 - np.corrcoef(computed.ravel(), truth.ravel())[0, 1])
    assert errors[1] < 0.15 and errors[1] < errors[0]


@pytest.mark.parametrize("method", [Occlusion(1, "mean"), Occlusion(3, "mean"), Rise(600, 9, "mean")])
def test_one_cell_is_found(method):
    vlm, cell = one_cell(QUESTION)
    pixels = picture(vlm)[None].abs()
    values = attribute(vlm, method, pixels)[0]
    assert values.shape == vlm.grid
    assert int(values.flatten().abs().argmax()) == cell or isinstance(method, Occlusion) and method.window == 3
    if isinstance(method, Occlusion):  # every cell of the windows around it, and no other
        where = (values != 0).nonzero() - torch.tensor(divmod(cell, vlm.grid[1]))
        assert int(where.abs().max()) == method.window - 1


@pytest.mark.parametrize("method", [Occlusion(), Rise(20)])
def test_a_model_that_ignores_the_picture_has_a_flat_map(method):
    vlm = blind(QUESTION)
    assert attribute(vlm, method, picture(vlm)[None]).abs().max() == 0


def test_two_redundant_cells():
    """Removing one of them changes nothing: a limit of single-cell occlusion, not of RISE or of a wide window."""
    vlm, cells = redundant(QUESTION)
    pixels = torch.ones(1, 3, *vlm.image_size)
    single, wide, rise = (
        attribute(vlm, m, pixels)[0].flatten()
        for m in (Occlusion(1, "zero"), Occlusion(3, "zero"), Rise(600, 9, "zero"))
    )
    assert single.abs().max() == 0
    assert set(wide.topk(2).indices.tolist()) == set(rise.topk(2).indices.tolist()) == set(cells)


def test_rise_masks_by_hand():
    method, grid = Rise(masks=6, coarse=3), (4, 7)
    masks = method.masks(grid, "image", 9)
    random = stream(9, "image", "masks", "rise")
    for pair in range(3):
        noise = random.random((5, 5))
        smooth = reference.smoothed_noise(grid, 3, noise, (random.random(), random.random()))
        highest = sorted(range(28), key=lambda cell: -smooth.ravel()[cell])[:14]
        assert set(np.flatnonzero(masks[2 * pair])) == set(highest)
        assert (masks[2 * pair + 1] == ~masks[2 * pair]).all()


def test_masks_belong_to_the_image():
    method = Rise(masks=20)
    first = method.masks((5, 5), "a", 0)
    assert (first == method.masks((5, 5), "a", 0)).all()
    assert (first != method.masks((5, 5), "b", 0)).any() and (first != method.masks((5, 5), "a", 1)).any()
    assert (first.mean(0) == 0.5).all() and len({mask.tobytes() for mask in first}) == 20


def test_what_is_not_finite_stays_with_its_sample():
    vlm = LinearVLM({QUESTION: np.ones((3, 5))})
    pixels = torch.stack([picture(vlm, 0), picture(vlm, 1)])
    pixels[0, 0, 0, 0] = torch.nan
    for method in (Occlusion(), Rise(20)):
        maps = attribute(vlm, method, pixels)
        assert not maps[0].isfinite().all() and maps[1].isfinite().all()


def test_options():
    assert METHODS["occlusion"] is Occlusion and METHODS["rise"] is Rise
    assert Occlusion(substrate="mean").substrate.spec == "mean" and Rise().substrate.spec == "blur:0.1"
    for call, message in [
        (lambda: Occlusion(0), "window must be at least 1"),
        (lambda: Rise(7), "masks must be even"),
        (lambda: Rise(0), "masks must be even"),
        (lambda: Rise(4, 0), "coarse must be at least 1"),
        (lambda: Rise(substrate="blurr"), "substrate 'blurr'"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_a_batch_that_does_not_fit_is_halved_for_good():
    vlm = LinearVLM({QUESTION: np.ones((3, 5))})
    method, pixels = Occlusion(1, "mean"), picture(vlm)[None]
    expected = attribute(vlm, method, pixels)
    vlm.limit = 5
    assert torch.equal(attribute(vlm, method, pixels), expected)
    before = vlm.counts.encode
    attribute(vlm, method, pixels)
    assert vlm.counts.encode - before == 16  # nothing is run twice


def test_cost_counts_every_perturbed_picture():
    vlm = LinearVLM({QUESTION: np.ones((3, 5))}, bias={QUESTION: 9.0})
    pixels = picture(vlm)
    cases = read_answers(vlm, pixels, "a", [QUESTION], ["yes_no"], Protocol(steps=3))
    compute_maps(vlm, {"cells": Occlusion(1), "masks": Rise(8)}, [pixels], cases, 0)
    assert cases[0].costs["cells"]["forwards"] == 1 + 15 and cases[0].costs["masks"]["forwards"] == 8
    assert cases[0].costs["cells"]["backwards"] == 0


def test_removal_by_interpolation_is_that_of_the_curves(random_vlm, pictures):
    """Under `road` what stands for a cell depends on the cells that are left: each mask has its own substrate."""
    pixels, prompt = pictures(random_vlm, 1), random_vlm.prompt("Is there a nodule?")
    masks = np.random.default_rng(0).random((4, random_vlm.n_cells)) < 0.5
    batch, road = AttributionBatch(pixels, [prompt], ["a"], 3), Substrate.parse("road")
    computed = Masker(road).scores(random_vlm, batch, [MARGIN], 0, masks)[0].s
    expected = []
    for mask in torch.from_numpy(masks):
        filled = road.fill(pixels[0], "a", 3, random_vlm.grid)(mask[None])
        seen = compose(pixels[0], filled[0] if filled.dim() == 4 else filled, mask[None], random_vlm.grid, 0.0)
        expected.append(random_vlm.score(random_vlm.prefill(random_vlm.encode(seen)), prompt, MARGIN).s)
    torch.testing.assert_close(computed, torch.cat(expected), rtol=1e-4, atol=1e-4)
    plain = Masker(Substrate.parse("mean")).scores(random_vlm, batch, [MARGIN], 0, masks)[0].s
    assert not torch.allclose(computed, plain, rtol=1e-2)
