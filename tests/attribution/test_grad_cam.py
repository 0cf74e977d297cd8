"""Layer-wise Grad-CAM against transformers' own gradients and against models with a known answer."""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import METHODS, AttributionBatch
from cxr_faith.attribution.grad_cam import GradCam
from cxr_faith.vlm import Target
from tests.analytic import CHANNELS, MARGIN, LinearVLM, blind, one_cell, picture, redundant
from tests.reference import cam as reference
from tests.reference import gemma

QUESTION = "Is there a nodule?"


def attribute(vlm, method, pixels, target=MARGIN, question=QUESTION):
    batch = AttributionBatch(pixels, [vlm.prompt(question)] * len(pixels), [str(i) for i in range(len(pixels))])
    return method.attribute(vlm, batch, [target] * len(pixels)).maps


@pytest.mark.parametrize("weights", ["local", "pooled"])
@pytest.mark.parametrize("kind", ["margin", "tokens"])
def test_gradients_of_a_real_model(any_vlm, pictures, weights, kind):
    words = tuple(any_vlm.tokenizer("left lung")["input_ids"][-2:])
    target = Target("margin", sign=-1) if kind == "margin" else Target("tokens", answer_ids=words, scored=(0, 1))
    pixels, twin, method = pictures(any_vlm, 2), gemma.twin_model(any_vlm.model), GradCam(weights=weights)
    layer = method.chosen_layer(any_vlm)
    assert (
        any_vlm.layer_types[layer + 1] == "full_attention" and "full_attention" not in any_vlm.layer_types[layer + 2 :]
    )
    found = attribute(any_vlm, method, pixels, target)[1].double().numpy()
    expected = reference.grad_cam(any_vlm, twin, pixels[1], QUESTION, target, layer, weights)
    assert np.abs(found - expected).max() < 1e-4 * expected.max()
    shifted = reference.grad_cam(any_vlm, twin, pixels[1], QUESTION, target, layer - 1, weights)
    assert np.abs(found - shifted).max() > 1e-2 * expected.max()


@pytest.mark.parametrize("sign", [1, -1])
def test_local_weights_of_a_linear_model_are_the_contributions(sign):
    weights = np.random.default_rng(0).standard_normal((3, 5))
    vlm, target = LinearVLM({QUESTION: weights}), Target("margin", sign=sign)
    pixels = picture(vlm)[None]
    truth = vlm.contributions(pixels[0], torch.zeros_like(pixels[0]), QUESTION, sign)
    found = attribute(vlm, GradCam(weights="local"), pixels, target)[0].numpy()
    assert np.abs(found - truth.clip(0)).max() < 1e-5 * truth.max()


def test_pooled_weights_forget_the_position():
    """The documented limit: the map follows the activation, whichever cell is read."""
    vlm, _ = one_cell(QUESTION)
    pixels = picture(vlm)[None]
    found = attribute(vlm, GradCam(weights="pooled"), pixels)[0].numpy()
    activation = (vlm.encode(pixels)[0] @ torch.tensor(CHANNELS)).clamp_min(0).reshape(vlm.grid).numpy()
    assert np.abs(found - activation / vlm.n_cells).max() < 1e-5 * activation.max()


def test_known_answers():
    vlm, cell = one_cell(QUESTION)
    values = attribute(vlm, GradCam(), torch.ones(1, 3, *vlm.image_size))[0].flatten()
    assert int(values.argmax()) == cell and (values != 0).sum() == 1
    assert attribute(blind(QUESTION), GradCam(), picture(vlm)[None]).abs().max() == 0
    vlm, cells = redundant(QUESTION)  # a maximum of equals shares its gradient
    values = attribute(vlm, GradCam(), torch.ones(1, 3, *vlm.image_size))[0].flatten()
    assert set(values.nonzero().flatten().tolist()) == set(cells)


def test_what_is_not_finite_stays_with_its_sample():
    vlm, _ = one_cell(QUESTION)
    pixels = torch.stack([picture(vlm, 0), picture(vlm, 1)])
    pixels[0, 0, 0, 0] = torch.nan
    maps = attribute(vlm, GradCam(), pixels)
    assert not maps[0].isfinite().all() and maps[1].isfinite().all()


def test_layers_count_from_both_ends(random_vlm):
    assert METHODS["grad_cam"] is GradCam
    assert [GradCam(layer).chosen_layer(random_vlm) for layer in (0, 3, -2, -5, None)] == [0, 3, 3, 0, 3]
    for layer in (4, 5, -1, -6):
        with pytest.raises(ValueError, match=f"grad_cam: layer must be 0 to 3, or -5 to -2, got {layer}"):
            GradCam(layer).chosen_layer(random_vlm)
    with pytest.raises(ValueError, match="weights must be one of"):
        GradCam(weights="global")
