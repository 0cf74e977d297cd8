"""Ablations: noise in place of a method's idea, and maps that then say nothing about the model."""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import METHODS, AttributionBatch, build_methods
from cxr_faith.attribution.base import Method
from cxr_faith.perturb.schedule import stream
from tests.analytic import MARGIN, LinearVLM

QUESTION = "Is there a nodule?"
ABLATED = sorted(name for name, method in METHODS.items() if method.can_ablate)
LINEAR = {"grad_x_input": {"baseline": "zero"}, "integrated_gradients": {"baseline": "zero"}, "igos_pp": {}}
LINEAR |= {
    "occlusion": {"window": 1},
    "rise": {"masks": 200, "coarse": 9},
    "greedy": {},
    "counterfactual": {"edit": "zero"},
}
LINEAR |= {"eagle": {"regions": 15}, "multi_scale": {"inner": "random_map", "tolerance": 0.0}}


def explain(name, vlm, pixels, ids=("a",), **options):
    settings = {name: dict(LINEAR.get(name, {})) | options}
    batch = AttributionBatch(pixels, [vlm.prompt(QUESTION)] * len(pixels), list(ids), 3)
    return build_methods(settings)[name].attribute(vlm, batch, [MARGIN] * len(pixels)).maps


def test_which_methods_have_an_ablation():
    """The others' idea is all of their map: without it they are noise, which is a row of its own."""
    assert set(METHODS) - set(ABLATED) == set(
        "attention rollout gradient smooth_grad ensemble random_map center edges oracle oracle_near file".split()
    )


@pytest.mark.parametrize("name", sorted(LINEAR))
def test_without_its_idea_a_method_does_not_find_the_cell_that_decides(name):
    """All cells differ from the substrate alike, one decides; over pictures, noise finds it as often as chance does."""
    weights = np.zeros((3, 5))
    weights[1, 3] = 4.0
    vlm = LinearVLM({QUESTION: weights}, cell=(8, 8))
    pixels = torch.ones(8, 3, *vlm.image_size)
    ids = [str(index) for index in range(8)]
    true = explain(name, vlm, pixels, ids).flatten(1).argmax(1)
    assert (true == 8).all()
    assert (explain(name, vlm, pixels, ids, ablated=True).flatten(1).argmax(1) == 8).sum() <= 3


@pytest.mark.parametrize("name", ABLATED)
def test_noise_is_seeded_by_the_image(name, bundled, pictures):
    quick = {"igos_pp": {"iterations": 1, "path_steps": 1}, "rise": {"masks": 8}, "greedy": {"cells": 1}}
    quick |= {"counterfactual": {"cells": 1}}
    quick |= {
        "eagle": {"regions": 9, "budget": 18},
        "attention_sink_masked": {"factor": 1.2},
        "multi_scale": {"tolerance": 0.5},
    }
    options = quick.get(name, {}) | {"ablated": True}
    pixels = pictures(bundled, 2)
    both = explain(name, bundled, pixels, ("a", "b"), **options)
    alone = explain(name, bundled, pixels[1:], ("b",), **options)
    renamed = explain(name, bundled, pixels[1:], ("c",), **options)
    torch.testing.assert_close(both[1], alone[0], rtol=1e-3, atol=1e-5 * float(both.abs().max()))
    assert not torch.allclose(alone, renamed)
    assert not torch.allclose(alone, explain(name, bundled, pixels[1:], ("b",), **options | {"ablated": False}))


def test_noise_has_the_spread_of_what_it_replaces():
    class Some(Method):
        can_ablate = True

        def attribute(self, vlm, batch, target):
            raise NotImplementedError

    method, values = Some(), torch.randn(4, 50, 40) * torch.tensor([1.0, 10.0, 1.0, 10.0])[:, None, None]
    assert method.core(values, ["a", "b"], 0) is values
    method.ablated = True
    noise = method.core(values, ["a", "b"], 0)
    assert noise.shape == values.shape and not torch.equal(noise, values)
    drawn = [stream(0, one, "ablation", "Some").standard_normal((50, 40), dtype="float32") for one in "abab"]
    assert torch.equal(noise, torch.tensor(np.stack(drawn)) * values.flatten(1).std(1, correction=0)[:, None, None])
    torch.testing.assert_close(noise.std((1, 2)), values.std((1, 2)), rtol=0.1, atol=0)
    assert abs(float(torch.corrcoef(torch.stack([noise[0].flatten(), values[0].flatten()]))[0, 1])) < 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": {"ablated": True}}, "methods.attention.ablated: without its idea, attention is noise"),
        ({"chefer": {"ablated": "yes"}}, "methods.chefer.ablated: must be true or false, got 'yes'"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        build_methods(settings)
