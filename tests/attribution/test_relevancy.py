"""Chefer's relevancy as a row vector against the full product of whole matrices."""

import weakref

import numpy as np
import pytest
import torch

from cxr_faith.attribution import METHODS, AttributionBatch, backward
from cxr_faith.attribution.relevancy import Chefer, CheferGlobal
from cxr_faith.vlm import Target
from tests.reference import attribution as reference
from tests.reference import gemma

QUESTION = "Is there a nodule?"


def answer_of(vlm, length, scored=None):
    ids = vlm.tokenizer("left lung, no nodule", add_special_tokens=False)["input_ids"][:length]
    return Target("tokens", answer_ids=tuple(ids), scored=scored or tuple(range(length)))


def maps_of(vlm, method, pixels, target):
    names = [str(i) for i in range(len(pixels))]
    batch = AttributionBatch(pixels, [vlm.prompt(QUESTION)] * len(pixels), names)
    return method.attribute(vlm, batch, [target] * len(pixels)).maps


def assert_close(computed, expected):
    """To 1e-5 of the largest value, so that a map of tiny values is not passed by its size."""
    assert np.abs(computed.double().numpy() - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(expected).max() > 0


@pytest.mark.parametrize("sign", [1, -1])
def test_row_vector_is_the_full_product(any_vlm, pictures, sign):
    pixels, target, twin = pictures(any_vlm, 2), Target("margin", sign=sign), gemma.twin_model(any_vlm.model)
    computed = maps_of(any_vlm, Chefer(), pixels, target)
    assert computed.shape == (2, *any_vlm.grid)
    for result, picture in zip(computed, pixels, strict=True):
        assert_close(result, reference.chefer_per_token(any_vlm, twin, picture, QUESTION, target)[0])


def test_normalized_rows(random_vlm, pictures):
    pixels, target, twin = pictures(random_vlm, 1), Target("margin"), gemma.twin_model(random_vlm.model)
    expected = reference.chefer_per_token(random_vlm, twin, pixels[0], QUESTION, target, normalize_rows=True)[0]
    assert_close(maps_of(random_vlm, Chefer(normalize_rows=True), pixels, target)[0], expected)
    plain = maps_of(random_vlm, Chefer(), pixels, target)[0].double().numpy()
    assert np.abs(plain - expected).max() > 0.01 * np.abs(expected).max()


def test_global_layers_only(any_vlm, pictures):
    pixels, target, twin = pictures(any_vlm, 1), Target("margin"), gemma.twin_model(any_vlm.model)
    layers = [i for i, kind in enumerate(twin.config.text_config.layer_types) if kind == "full_attention"]
    assert 0 < len(layers) < len(any_vlm.layer_types)
    computed = maps_of(any_vlm, CheferGlobal(), pixels, target)[0]
    assert_close(computed, reference.chefer_per_token(any_vlm, twin, pixels[0], QUESTION, target, layers=layers)[0])
    assert METHODS["chefer_global"] is CheferGlobal
    assert not torch.allclose(computed, maps_of(any_vlm, Chefer(), pixels, target)[0], rtol=1e-3, atol=0)


def test_an_answer_is_the_sum_of_its_tokens_maps(any_vlm, pictures):
    pixels, target, twin = pictures(any_vlm, 1), answer_of(any_vlm, 3, (0, 2)), gemma.twin_model(any_vlm.model)
    computed = maps_of(any_vlm, Chefer(), pixels, target)
    expected = reference.chefer_per_token(any_vlm, twin, pixels[0], QUESTION, target)
    assert len(expected) == 2
    assert_close(computed[0], sum(expected))
    alone = [maps_of(any_vlm, Chefer(), pixels, answer_of(any_vlm, 3, scored=(i,))) for i in (0, 2)]
    torch.testing.assert_close(computed, sum(alone), rtol=1e-4, atol=1e-6 * float(computed.abs().max()))


def test_the_row_is_the_one_before_the_token(random_vlm, pictures):
    """Row p, where the token itself stands, gives another map: a test that fails with the usual slip by one."""
    pixels, target, twin = pictures(random_vlm, 1), answer_of(random_vlm, 3, (0, 1)), gemma.twin_model(random_vlm.model)
    computed = maps_of(random_vlm, Chefer(), pixels, target)[0].double().numpy()
    right, wrong = (
        sum(reference.chefer_per_token(random_vlm, twin, pixels[0], QUESTION, target, shift=shift)) for shift in (0, 1)
    )
    assert np.abs(computed - right).max() < 1e-5 * right.max()
    assert np.abs(computed - wrong).max() > 0.1 * right.max()


def test_later_answer_tokens_do_not_matter(random_vlm, pictures):
    """A causal model's first token has the same map whatever follows it."""
    pixels = pictures(random_vlm, 1)
    short = maps_of(random_vlm, Chefer(), pixels, answer_of(random_vlm, 1))
    long = maps_of(random_vlm, Chefer(), pixels, answer_of(random_vlm, 4, (0,)))
    assert torch.equal(short, long)


def test_one_gradient_of_attention_is_alive_at_a_time(random_vlm, pictures, monkeypatch):
    """When a layer's gradient comes, the one of the layer above is gone."""
    alive, most = [], []

    def relevance(attention, gradient, normalize_rows):
        most.append(sum(reference() is not None for reference in alive))
        alive.append(weakref.ref(gradient))
        return attention.mean(1)

    monkeypatch.setattr(backward, "relevance", relevance)
    maps_of(random_vlm, Chefer(), pictures(random_vlm, 1), Target("margin"))
    assert len(most) == len(random_vlm.layer_types) and max(most) == 0
