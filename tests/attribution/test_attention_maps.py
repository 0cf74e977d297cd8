"""Raw attention and rollout against transformers' eager attentions."""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import AttributionBatch
from cxr_faith.attribution.attention import Attention, Rollout, entropy_weights, image_share
from cxr_faith.vlm import Target
from tests.reference import attribution as reference
from tests.reference import gemma

QUESTION = "Is there a nodule?"


def answer_of(vlm, scored):
    ids = vlm.tokenizer("left lung, no nodule", add_special_tokens=False)["input_ids"][: max(scored) + 1]
    return Target("tokens", answer_ids=tuple(ids), scored=scored)


def maps_of(vlm, method, pixels, target):
    names = [str(i) for i in range(len(pixels))]
    batch = AttributionBatch(pixels, [vlm.prompt(QUESTION)] * len(pixels), names)
    return method.attribute(vlm, batch, [target] * len(pixels)).maps.double().numpy()


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("layers", ["mean", "last", "deep"])
@pytest.mark.parametrize("heads", ["mean", "max", "entropy"])
def test_options_of_attention(random_vlm, pictures, heads, layers, renormalize):
    pixels, twin = pictures(random_vlm, 2), gemma.twin_model(random_vlm.model)
    computed = maps_of(random_vlm, Attention(heads, layers, renormalize), pixels, Target("margin"))
    options = (heads, layers, renormalize)
    expected = reference.attention_per_token(random_vlm, twin, pixels[1], QUESTION, Target("margin"), *options)[0]
    assert np.abs(computed[1] - expected).max() < 1e-5 * expected.max()


def test_the_options_differ(random_vlm, pictures):
    pixels, maps = pictures(random_vlm, 1), []
    for options in [{}, {"heads": "max"}, {"heads": "entropy"}, {"layers": "last"}, {"layers": "deep"}]:
        maps.append(maps_of(random_vlm, Attention(**options), pixels, Target("margin"))[0])
    maps.append(maps_of(random_vlm, Attention(renormalize=True), pixels, Target("margin"))[0])
    for i, one in enumerate(maps):
        for other in maps[:i]:
            assert np.abs(one - other).max() > 1e-3 * one.max()


@pytest.mark.parametrize("options", [{}, {"heads": "max"}, {"heads": "entropy"}, {"renormalize": True}])
def test_an_answer_is_the_mean_of_its_tokens_maps(random_vlm, pictures, options):
    pixels = pictures(random_vlm, 1)
    together = maps_of(random_vlm, Attention(**options), pixels, answer_of(random_vlm, (0, 1, 3)))
    alone = [maps_of(random_vlm, Attention(**options), pixels, answer_of(random_vlm, (i,))) for i in (0, 1, 3)]
    assert np.abs(together - np.mean(alone, axis=0)).max() < 1e-5 * together.max()


def test_the_row_is_the_one_before_the_token(random_vlm, pictures):
    pixels, twin = pictures(random_vlm, 1), gemma.twin_model(random_vlm.model)
    ids = answer_of(random_vlm, (0, 1, 2)).answer_ids
    target = Target("tokens", answer_ids=ids, scored=(0, 1))
    computed = maps_of(random_vlm, Attention(), pixels, target)[0]
    right, wrong = (
        np.mean(
            reference.attention_per_token(
                random_vlm, twin, pixels[0], QUESTION, target, "mean", "mean", False, shift=shift
            ),
            axis=0,
        )
        for shift in (0, 1)
    )
    assert np.abs(computed - right).max() < 1e-5 * right.max()
    assert np.abs(computed - wrong).max() > 0.01 * right.max()


def test_rollout_is_the_full_product(any_vlm, pictures):
    pixels, twin = pictures(any_vlm, 2), gemma.twin_model(any_vlm.model)
    for target in (Target("margin"), answer_of(any_vlm, (0, 2))):
        computed = maps_of(any_vlm, Rollout(), pixels, target)
        expected = reference.rollout(any_vlm, twin, pixels[1], QUESTION, target)
        assert np.abs(computed[1] - expected).max() < 1e-5 * expected.max()
        assert 0 < computed.sum() < len(computed)  # rows of the product sum to 1 over all positions


def test_entropy_weights_by_hand():
    uniform, peaked, empty = torch.full((4,), 0.1), torch.tensor([0.2, 0.0, 0.0, 0.0]), torch.zeros(4)
    half = torch.tensor([0.1, 0.1, 0.0, 0.0])
    weights = entropy_weights(torch.stack([uniform, peaked, empty, half]))
    torch.testing.assert_close(weights, torch.tensor([0.0, 1.0, 0.0, 0.5]), atol=1e-6, rtol=0)


def test_heads_without_information_fall_back_to_the_mean():
    rows = torch.stack([torch.full((4,), 0.1), torch.full((4,), 0.2), torch.zeros(4)])[None, None]
    computed = Attention("entropy")._over_heads(torch.cat([rows, rows * 0]))
    assert computed.isfinite().all()
    torch.testing.assert_close(computed[0, 0], torch.full((4,), 0.1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", [{"heads": "median"}, {"layers": "first"}])
def test_wrong_options(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be one of"):
        Attention(**options)


def test_share_of_the_image_in_each_layer(any_vlm, pictures):
    pixels, twin, target = pictures(any_vlm, 2), gemma.twin_model(any_vlm.model), answer_of(any_vlm, (0, 2))
    batch = AttributionBatch(pixels, [any_vlm.prompt(QUESTION)] * 2, ["a", "b"])
    computed = image_share(any_vlm, batch, [target] * 2)
    expected = reference.image_share(any_vlm, twin, pixels[1], QUESTION, target)
    assert computed.shape == (len(any_vlm.layer_types), 2)
    assert np.abs(computed[:, 1].numpy() - expected).max() < 1e-5
    # A window shorter than the question never reaches the picture.
    assert 0 <= min(expected) and 0 < max(expected) < 1
