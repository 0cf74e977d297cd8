"""Gemma 4 in its sizes: with and without what only some of them have, against transformers' own forward."""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import build_methods
from cxr_faith.attribution.base import AttributionBatch, MethodError
from cxr_faith.attribution.grad_cam import GradCam
from cxr_faith.attribution.layers import UNREAD
from cxr_faith.attribution.tam import Tam
from cxr_faith.bench.family_makers import gemma4
from cxr_faith.bench.family_parts import save
from cxr_faith.vlm import ModelError, Target
from cxr_faith.vlm.config import PromptOptions
from cxr_faith.vlm.families.gemma4 import Gemma4VLM
from cxr_faith.vlm.loading import load_vlm
from cxr_faith.vlm.model_files import parse
from tests.reference.families import Gemma4Twin

QUESTION = "Is there a nodule?"
SIZES = {
    "causal images": {"use_bidirectional_attention": None},
    "a window longer than the prompt": {"sliding_window": 400},
    "no inputs for each layer, nor shared keys": {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0},
    "experts": {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16},
    "keys that are the values": {"attention_k_eq_v": True, "num_global_key_value_heads": 1},
    "logits without bound": {"final_logit_softcapping": None},
}


@pytest.mark.parametrize("changes", SIZES.values(), ids=list(SIZES))
def test_scores_are_the_twins_for_every_size(changes, tmp_path):
    parts = gemma4(**changes)
    vlm, twin = load_vlm(save(parts, tmp_path), "cpu", prompts=PromptOptions(), image_size=(48, 88)), Gemma4Twin(parts)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 48, 88, 3)).astype(np.uint8)
    pixels, prompt = vlm.normalize(torch.from_numpy(pictures).permute(0, 3, 1, 2)), vlm.prompt(QUESTION)
    answer = vlm.tokenizer("left lung", add_special_tokens=False)["input_ids"]
    target = Target("tokens", answer_ids=tuple(answer), scored=(0, len(answer) - 1))
    expected = [twin.score(vlm, picture, QUESTION, target)[0] for picture in pictures]
    assert abs(expected[0] - expected[1]) > 0.02  # the picture matters
    with torch.no_grad():
        tokens = vlm.encode(pixels)
        for vlm.shortcuts in (True, False):  # masks of our own, and those of transformers
            scores = vlm.score(vlm.prefill(tokens), prompt, target).s
            np.testing.assert_allclose(scores, expected, atol=1e-4)
        np.testing.assert_allclose(vlm.trace(tokens, [prompt] * 2, [target] * 2).mean(1), expected, atol=1e-4)


def looks_ahead(vlm):
    """Attention of image tokens to later ones, one number a layer."""
    shares, pixels, prompt = [], torch.rand(1, 3, *vlm.image_size), vlm.prompt(QUESTION)
    start, end = prompt.image_start, len(prompt.prefix_ids)
    with torch.no_grad():
        vlm.trace(
            vlm.encode(pixels),
            [prompt],
            [Target("margin")],
            lambda _, probabilities: shares.append(float(probabilities[..., start:end, start:end].triu(1).sum())),
        )
    return shares


def test_image_tokens_look_ahead_in_layers_with_a_window_where_the_config_says_so(tmp_path):
    both, causal = (
        Gemma4VLM.from_pretrained(save(gemma4(use_bidirectional_attention=kind), tmp_path / str(kind)), "cpu")
        for kind in ("vision", None)
    )
    sliding, *full = looks_ahead(both)
    assert sliding > 1 and full == [0, 0] and both.looks_ahead
    assert looks_ahead(causal) == [0, 0, 0] and not causal.looks_ahead


def test_patches_are_those_of_the_processor_without_its_padding(tmp_path):
    parts = gemma4()
    vlm = load_vlm(save(parts, tmp_path), "cpu", image_size=(48, 88))
    picture = np.random.default_rng(0).integers(0, 256, (48, 88, 3)).astype(np.uint8)
    made, given = Gemma4Twin(parts).pixels(picture), vlm.patches(vlm.normalize(torch.from_numpy(picture.T).mT[None]))
    for own, whole in zip(given, made.values(), strict=True):
        assert own.shape[1] == 264 and whole.shape[1] == 280
        torch.testing.assert_close(own[0], whole[0, :264].to(own.dtype))
    assert (made["image_position_ids"][0, 264:] == -1).all()


def test_the_logits_are_bounded(tmp_path):
    parts = gemma4(final_logit_softcapping=0.5)
    vlm = load_vlm(save(parts, tmp_path), "cpu", image_size=(48, 88))
    states = torch.randn(1, 3, 48, generator=torch.Generator().manual_seed(0)) * 9
    ids = torch.arange(7)[None]
    logits = vlm.decoder.head.logits(states)
    hidden = vlm.model.model.language_model.norm(states)
    torch.testing.assert_close(logits, 0.5 * torch.tanh(vlm.model.lm_head(hidden) / 0.5))
    assert 0.4 < logits.abs().max() <= 0.5
    torch.testing.assert_close(vlm.token_logits(states, ids), logits[..., :7])


def test_states_that_no_layer_reads_have_no_gradient_and_are_not_chosen(tmp_path):
    """The last layer reads the keys of the one before it, so that image states behind that one are read by none."""
    vlm = load_vlm(save(gemma4(), tmp_path), "cpu", image_size=(48, 88))
    prompt, kept = vlm.prompt(QUESTION), []
    tokens = vlm.encode(torch.rand(1, 3, 48, 88, generator=torch.Generator().manual_seed(0))).requires_grad_()
    score = vlm.trace(tokens, [prompt], [Target("margin")], states=lambda _, state: kept.append(state))
    image = slice(prompt.image_start, len(prompt.prefix_ids))
    moved = [bool(one[0, image].abs().max() > 0) for one in torch.autograd.grad(score.sum(), kept)]
    assert moved == [True, False, False] and vlm.key_layers == (0, 1, 1)
    assert GradCam().chosen_layer(vlm) == 0 and Tam().chosen_layer(vlm) == 0
    with pytest.raises(MethodError, match="grad_cam: layer must be 0 to 0, or -3 to -3, got 1"):
        GradCam(layer=1).check(vlm)
    batch = AttributionBatch(torch.rand(1, 3, 48, 88), [prompt], ["a"])
    assert Tam(layer=1).attribute(vlm, batch, [Target("margin")]).extras["caution"] == [UNREAD]
    assert "caution" not in Tam().attribute(vlm, batch, [Target("margin")]).extras


@pytest.mark.parametrize("full", [False, True])
def test_relevancy_and_rollout_of_layers_that_read_earlier_keys(full, tmp_path):
    """Three of five layers read the keys of the first two; row by row, and with whole matrices."""
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    parts = gemma4(num_hidden_layers=5, layer_types=kinds, num_kv_shared_layers=3)
    vlm, twin = load_vlm(save(parts, tmp_path), "cpu", prompts=PromptOptions(), image_size=(48, 88)), Gemma4Twin(parts)
    assert vlm.key_layers == tuple(twin.key_layers()) == (0, 1, 0, 0, 1)
    picture = np.random.default_rng(0).integers(0, 256, (48, 88, 3)).astype(np.uint8)
    pixels = vlm.normalize(torch.from_numpy(picture).permute(2, 0, 1)[None])
    batch, target = AttributionBatch(pixels, [vlm.prompt(QUESTION)], ["a"]), Target("margin")
    _, *expected = twin.rows(vlm, picture, QUESTION, target)
    methods = build_methods({"chefer": {"full_matrices": full}, "rollout": {"full_matrices": full}})
    for method, row in zip(methods.values(), expected, strict=True):
        computed = method.attribute(vlm, batch, [target]).maps[0].flatten().numpy()
        assert np.abs(computed - row).max() < 1e-3 * np.abs(row).max()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention is all: the text must be causal"),
        ({"num_kv_shared_layers": 2}, "num_kv_shared_layers must leave a layer of each kind, got 2"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping changes logits"),
    ],
)
def test_decoders_that_are_not_computed_are_refused(changes, message):
    content = gemma4().model.config.to_dict()
    content["text_config"] |= changes
    with pytest.raises(ModelError, match=message):
        parse(Gemma4VLM, content, "it")


def test_sizes_of_pictures():
    config = gemma4().model.config
    layout, size = Gemma4VLM.layout_of(config)
    assert size == (128, 128) and layout.grids == ((16, 16),)
    assert Gemma4VLM.layout_of(config, (48, 88))[0].grids == ((6, 11),)
    for wrong in ((50, 88), (0, 8), (280, 328), (8, 264)):
        with pytest.raises(ModelError, match=r"^vlm.image_size: "):
            Gemma4VLM.layout_of(config, wrong)
