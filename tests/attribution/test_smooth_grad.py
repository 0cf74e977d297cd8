"""SmoothGrad on the pixels against one backward a copy, and against models with a known answer."""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import METHODS, AttributionBatch
from cxr_faith.attribution.smooth_grad import SmoothGrad
from cxr_faith.perturb.schedule import stream_key
from cxr_faith.vlm import Target
from tests.analytic import CHANNELS, MARGIN, LinearVLM, blind, one_cell, picture, redundant
from tests.reference import cam as reference
from tests.reference import gemma
from tests.reference.philox import normal_noise

QUESTION = "Is there a nodule?"


def attribute(vlm, method, pixels, target=MARGIN, names=("a", "b"), seed=4):
    batch = AttributionBatch(pixels, [vlm.prompt(QUESTION)] * len(pixels), names[: len(pixels)], seed)
    return method.attribute(vlm, batch, [target] * len(pixels)).maps


@pytest.mark.parametrize("kind", ["margin", "tokens"])
def test_gradients_of_a_real_model(random_vlm, pictures, kind):
    words = tuple(random_vlm.tokenizer("left lung")["input_ids"][-2:])
    target = Target("margin", sign=-1) if kind == "margin" else Target("tokens", answer_ids=words, scored=(0, 1))
    pixels, twin = pictures(random_vlm, 2), gemma.twin_model(random_vlm.model)
    computed = attribute(random_vlm, SmoothGrad(copies=5, noise=0.1), pixels, target)[1].double().numpy()
    noise = torch.from_numpy(normal_noise(stream_key(4, "b", "noise", "smooth_grad"), (5, *pixels[1].shape))).float()
    scaled = 0.1 * (pixels[1].max() - pixels[1].min()) * noise
    expected = reference.smooth_grad(random_vlm, twin, pixels[1], scaled, QUESTION, target)
    assert np.abs(computed - expected).max() < 1e-3 * expected.max()


def test_a_linear_model_has_its_weights_whatever_the_noise():
    weights = np.random.default_rng(0).standard_normal((3, 5))
    vlm = LinearVLM({QUESTION: weights}, cell=(4, 6))
    expected = np.abs(weights) * np.linalg.norm(CHANNELS) / np.sqrt(4 * 6)
    for method in (SmoothGrad(copies=1, noise=0), SmoothGrad(copies=6, noise=0.3)):
        computed = attribute(vlm, method, picture(vlm)[None])[0].numpy()
        assert np.abs(computed - expected).max() < 1e-5 * expected.max()


def test_known_answers():
    vlm, cell = one_cell(QUESTION)
    values = attribute(vlm, SmoothGrad(), picture(vlm)[None])[0].flatten()
    assert int(values.argmax()) == cell and (values != 0).sum() == 1
    assert attribute(blind(QUESTION), SmoothGrad(), picture(vlm)[None]).abs().max() == 0
    vlm, cells = redundant(QUESTION)  # noise makes now one, now the other the larger
    values = attribute(vlm, SmoothGrad(copies=32), 1 + 0.1 * picture(vlm)[None])[0].flatten()
    assert set(values.topk(2).indices.tolist()) == set(cells)
    pixels = torch.ones(1, 3, *vlm.image_size)
    pixels[..., cells[0] % 6 * 6 : cells[0] % 6 * 6 + 6] = 2
    plain = attribute(vlm, SmoothGrad(copies=1, noise=0), pixels)[0].flatten()
    assert plain[cells[0]] > 0 and plain[cells[1]] == 0  # the gradient alone sees one of them


def test_noise_belongs_to_the_image(random_vlm, pictures):
    pixels, method = pictures(random_vlm, 1), SmoothGrad(copies=2)
    first = attribute(random_vlm, method, pixels)
    assert torch.equal(first, attribute(random_vlm, method, pixels))
    assert not torch.equal(first, attribute(random_vlm, method, pixels, names=("other",)))
    assert not torch.equal(first, attribute(random_vlm, method, pixels, seed=5))


def test_what_is_not_finite_stays_with_its_sample():
    vlm = LinearVLM({QUESTION: np.ones((3, 5))})
    vlm.combine = lambda contributions: contributions.square().sum(-1)
    pixels = torch.stack([picture(vlm, 0), picture(vlm, 1)])
    pixels[0, 0, 0, 0] = torch.nan
    maps = attribute(vlm, SmoothGrad(copies=2), pixels)
    assert not maps[0].isfinite().all() and maps[1].isfinite().all()


def test_cost_and_options():
    vlm, _ = one_cell(QUESTION)
    before = vlm.counts.snapshot()
    attribute(vlm, SmoothGrad(copies=7), torch.stack([picture(vlm, 0), picture(vlm, 1)]))
    assert vlm.counts.trace - before.trace == vlm.counts.backward - before.backward == 2 * 7
    assert METHODS["smooth_grad"] is SmoothGrad and SmoothGrad().substrate is None
    for options in ({"copies": 0}, {"noise": -0.1}):
        with pytest.raises(ValueError, match="copies must be at least 1 and noise not negative"):
            SmoothGrad(**options)
