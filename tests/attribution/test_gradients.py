"""Gradient methods against plain loops on one picture, and against closed forms."""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import AttributionBatch
from cxr_faith.attribution.gradients import Gradient, GradXInput, IntegratedGradients
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.vlm import Target
from tests.analytic import CHANNELS, LinearVLM
from tests.analytic import picture as analytic_picture
from tests.reference import attribution as reference
from tests.reference import gemma

QUESTION = "Is there a nodule?"
TARGETS = [
    pytest.param(lambda vlm: Target("margin"), id="yes"),
    pytest.param(lambda vlm: Target("margin", sign=-1), id="no"),
    pytest.param(
        lambda vlm: Target("tokens", answer_ids=tuple(vlm.tokenizer("left lung")["input_ids"][-2:]), scored=(0, 1)),
        id="tokens",
    ),
]


def batch_of(vlm, pixels, question=QUESTION):
    return AttributionBatch(pixels, [vlm.prompt(question)] * len(pixels), [str(i) for i in range(len(pixels))], seed=5)


def attribute(vlm, method, pixels, target, question=QUESTION):
    return method.attribute(vlm, batch_of(vlm, pixels, question), [target] * len(pixels))


def assert_close(computed, expected, tolerance=1e-4):
    assert np.abs(computed.double().numpy() - expected).max() < tolerance * np.abs(expected).max()


def baseline_tokens(vlm, twin, pixels, index, spec):
    if spec == "zero_tokens":
        return torch.zeros_like(reference.image_tokens(twin, pixels[index]))
    removed = Substrate.parse(spec).apply(pixels[index : index + 1], [str(index)], 5)
    return reference.image_tokens(twin, removed[0])


@pytest.mark.parametrize("make", TARGETS)
def test_gradient_is_the_norm_over_channels(any_vlm, pictures, make):
    pixels, target, twin = pictures(any_vlm, 2), make(any_vlm), gemma.twin_model(any_vlm.model)
    computed = attribute(any_vlm, Gradient(), pixels, target).maps
    assert_close(computed[1], reference.gradient(any_vlm, twin, pixels[1], QUESTION, target))


@pytest.mark.parametrize("spec", ["blur:0.1", "zero", "noise", "zero_tokens"])
@pytest.mark.parametrize("make", TARGETS[1:])
def test_grad_x_input(random_vlm, pictures, make, spec):
    pixels, target, twin = pictures(random_vlm, 2), make(random_vlm), gemma.twin_model(random_vlm.model)
    computed = attribute(random_vlm, GradXInput(spec), pixels, target).maps
    baseline = baseline_tokens(random_vlm, twin, pixels, 1, spec)
    expected = reference.grad_x_input(random_vlm, twin, pixels[1], baseline, QUESTION, target)
    assert_close(computed[1], expected)


@pytest.mark.parametrize("spec", ["blur:0.1", "zero_tokens"])
@pytest.mark.parametrize("make", TARGETS[1:])
def test_integrated_gradients_and_their_residual(random_vlm, pictures, make, spec):
    pixels, target, twin = pictures(random_vlm, 2), make(random_vlm), gemma.twin_model(random_vlm.model)
    computed = attribute(random_vlm, IntegratedGradients(spec, steps=3), pixels, target)
    baseline = baseline_tokens(random_vlm, twin, pixels, 1, spec)
    expected, residual = reference.integrated_gradients(random_vlm, twin, pixels[1], baseline, QUESTION, target, 3)
    assert_close(computed.maps[1], expected)
    assert computed.extras["completeness_residual"][1] == pytest.approx(residual, rel=1e-3, abs=1e-4)


def test_completeness_with_many_steps(random_vlm, pictures):
    """The signed sum reaches the effect that the engine would measure, and few steps reach it less well."""
    pixels, target, prompt = pictures(random_vlm, 2), Target("margin", sign=-1), random_vlm.prompt(QUESTION)
    computed = attribute(random_vlm, IntegratedGradients(steps=64), pixels, target)
    assert max(computed.extras["completeness_residual"]) < 0.02
    removed = Substrate.parse("blur:0.1").apply(pixels, ["0", "1"], 5)
    with torch.no_grad():
        both = [random_vlm.score(random_vlm.prefill(random_vlm.encode(x)), prompt, target).s for x in (pixels, removed)]
    effect = both[0] - both[1]
    floor = torch.maximum(effect.abs(), (0.05 * both[0].abs()).clamp_min(0.5))
    assert ((computed.maps.sum((1, 2)).double() - effect).abs() < 0.02 * floor).all()
    coarse = attribute(random_vlm, IntegratedGradients(steps=1), pixels, target)
    assert max(coarse.extras["completeness_residual"]) > max(computed.extras["completeness_residual"])


def test_signs_follow_the_answer(random_vlm, pictures):
    """For a model that answers no, the map of s = -m is minus that of m; its magnitude map is the same."""
    pixels, yes, no = pictures(random_vlm, 2), Target("margin", sign=1), Target("margin", sign=-1)
    for method in (GradXInput(), IntegratedGradients(steps=2)):
        maps = [attribute(random_vlm, method, pixels, target).maps for target in (yes, no)]
        assert torch.equal(maps[0], -maps[1])
        assert (maps[0] < 0).any() and (maps[0] > 0).any()
    norms = [attribute(random_vlm, Gradient(), pixels, target).maps for target in (yes, no)]
    assert torch.equal(norms[0], norms[1])


def test_a_step_along_the_gradient_raises_the_score(random_vlm, pictures):
    target, prompt = Target("margin", sign=-1), random_vlm.prompt(QUESTION)
    tokens = random_vlm.encode(pictures(random_vlm, 1)).detach().requires_grad_()
    before = random_vlm.trace(tokens, [prompt], [target])
    gradient = torch.autograd.grad(before.sum(), tokens)[0]
    with torch.no_grad():
        step = 1e-2 / gradient.norm()
        after = random_vlm.trace(tokens + step * gradient, [prompt], [target])
    assert float((after - before).detach()) == pytest.approx(1e-2 * float(gradient.norm()), rel=0.1)


def test_the_baseline_is_the_methods_own_substrate():
    assert GradXInput("mean").substrate == Substrate.parse("mean")
    assert IntegratedGradients().substrate.spec == "blur:0.1"
    assert IntegratedGradients("zero_tokens").substrate is None
    assert Gradient().substrate is None
    with pytest.raises(ValueError, match="substrate 'blurr'"):
        GradXInput("blurr")
    with pytest.raises(ValueError, match="steps must be at least 1"):
        IntegratedGradients(steps=0)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("spec", ["blur:0.1", "mean", "zero", "noise"])
def test_closed_forms_of_a_linear_model(spec, sign):
    """On a grid of 3 rows and 5 columns, so that swapped axes cannot pass."""
    weights = np.random.default_rng(0).standard_normal((3, 5))
    vlm, target = LinearVLM({QUESTION: weights}), Target("margin", sign=sign)
    pixels = torch.stack([analytic_picture(vlm, seed) for seed in (0, 1)])
    removed = Substrate.parse(spec).apply(pixels, ["0", "1"], 5)
    norms = attribute(vlm, Gradient(), pixels, target).maps
    for index in (0, 1):
        truth = vlm.contributions(pixels[index], removed[index], QUESTION, sign)
        assert_close(norms[index], np.abs(weights) * np.linalg.norm(CHANNELS), 1e-5)
        for method in (GradXInput(spec), IntegratedGradients(spec, steps=4)):
            assert_close(attribute(vlm, method, pixels, target).maps[index], truth, 1e-5)
    residuals = attribute(vlm, IntegratedGradients(spec, steps=1), pixels, target).extras["completeness_residual"]
    assert max(residuals) < 1e-5


def test_zero_tokens_are_not_the_zero_picture(random_vlm, pictures):
    pixels, target = pictures(random_vlm, 1), Target("margin")
    zero, tokens = (attribute(random_vlm, GradXInput(spec), pixels, target).maps for spec in ("zero", "zero_tokens"))
    assert not torch.allclose(zero, tokens, rtol=1e-2, atol=0)


def test_backwards_and_forwards_are_counted(random_vlm, pictures):
    before = random_vlm.counts.snapshot()
    attribute(random_vlm, IntegratedGradients(steps=3), pictures(random_vlm, 2), Target("margin"))
    assert random_vlm.counts.backward - before.backward == 2 * 3
    assert random_vlm.counts.trace - before.trace == 2 * (3 + 2)
