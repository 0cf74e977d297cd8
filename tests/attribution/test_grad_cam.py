"""Layer-wise Grad-CAM against transformers' own gradients and against models with a known answer."""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import METHODS, AttributionBatch
from cxr_faith.attribution.base import MethodError
from cxr_faith.attribution.grad_cam import GradCam
from cxr_faith.vlm import Target
from tests.analytic import CHANNELS, MARGIN, blind, one_cell, picture
from tests.reference import cam as reference
from tests.reference import gemma

QUESTION = "Is there a nodule?"


def attribute(vlm, method, pixels, target=MARGIN, question=QUESTION):
    batch = AttributionBatch(pixels, [vlm.prompt(question)] * len(pixels), [str(i) for i in range(len(pixels))])
    return method.attribute(vlm, batch, [target] * len(pixels)).maps


@pytest.mark.parametrize("kind", ["margin", "tokens"])
def test_gradients_of_a_real_model(any_vlm, pictures, kind):
    words = tuple(any_vlm.tokenizer("left lung")["input_ids"][-2:])
    target = Target("margin", sign=-1) if kind == "margin" else Target("tokens", answer_ids=words, scored=(0, 1))
    pixels, twin, method = pictures(any_vlm, 2), gemma.twin_model(any_vlm.model), GradCam()
    layer = method.chosen_layer(any_vlm)
    assert layer == len(any_vlm.layer_types) // 2
    computed = attribute(any_vlm, method, pixels, target)[1].double().numpy()
    expected = reference.grad_cam(any_vlm, twin, pixels[1], QUESTION, target, layer)
    assert np.abs(computed - expected).max() < 1e-4 * expected.max()
    shifted = reference.grad_cam(any_vlm, twin, pixels[1], QUESTION, target, layer - 1)
    assert np.abs(computed - shifted).max() > 1e-2 * expected.max()


def test_pooled_weights_forget_the_position():
    """The documented limit: the map follows the activation, whichever cell is read."""
    vlm, _ = one_cell(QUESTION)
    pixels = picture(vlm)[None]
    computed = attribute(vlm, GradCam(), pixels)[0].numpy()
    activation = (vlm.encode(pixels)[0] @ torch.tensor(CHANNELS)).clamp_min(0).reshape(vlm.grid).numpy()
    assert np.abs(computed - activation / vlm.n_cells).max() < 1e-5 * activation.max()


def test_a_model_that_ignores_the_picture_has_no_map():
    assert attribute(blind(QUESTION), GradCam(), picture(blind(QUESTION))[None]).abs().max() == 0


def test_a_tokens_own_gradient_would_give_nothing(bundled, pictures):
    """Why weights are pooled: the last state that is read has no component along its gradient; norms ignore length."""
    layer, states = GradCam(-2).chosen_layer(bundled), []
    batch = AttributionBatch(pictures(bundled, 1), [bundled.prompt(QUESTION)], ["a"])
    with torch.enable_grad():
        tokens = batch.tokens(bundled).detach().requires_grad_()
        score = bundled.trace(
            tokens, batch.prompts, [MARGIN], states=lambda i, state: states.append(state) if i == layer else None
        )
    state, gradient = states[0], torch.autograd.grad(score.sum(), states)[0]
    columns = slice(batch.prompts[0].image_start, batch.prompts[0].image_start + bundled.n_cells)
    along = (state * gradient).sum(-1)[0, columns].abs()
    assert (along < 1e-3 * (state.norm(dim=-1) * gradient.norm(dim=-1))[0, columns].max()).all()


def test_what_is_not_finite_stays_with_its_sample():
    vlm, _ = one_cell(QUESTION)
    pixels = torch.stack([picture(vlm, 0), picture(vlm, 1)])
    pixels[0, 0, 0, 0] = torch.nan
    maps = attribute(vlm, GradCam(), pixels)
    assert not maps[0].isfinite().all() and maps[1].isfinite().all()


def test_layers_count_from_both_ends(random_vlm):
    assert METHODS["grad_cam"] is GradCam
    assert [GradCam(layer).chosen_layer(random_vlm) for layer in (0, 3, -2, -5, "auto")] == [0, 3, 3, 0, 2]
    for layer in (4, 5, -1, -6):
        with pytest.raises(MethodError, match=f"grad_cam: layer must be 0 to 3, or -5 to -2, got {layer}"):
            GradCam(layer).check(random_vlm)
