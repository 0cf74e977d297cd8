"""Observed attention: transformers' own eager numbers, and nothing left behind."""

import gc
import weakref

import numpy as np
import pytest
import torch

from cxr_faith.attribution import METHODS, AttributionBatch
from cxr_faith.vlm import Gemma3VLM, Target
from cxr_faith.vlm.capture import IMPLEMENTATION, _observed_attention, _observer, observed
from tests.reference import attribution as reference
from tests.reference import gemma
from tests.runs import cheap_options

QUESTION = "Is there a nodule?"


def implementations(vlm):
    """Names of the attention implementations wherever a decoder layer or its masks look them up."""
    layers = vlm.model.model.language_model.layers
    configs = [vlm.model.config.get_text_config(), vlm.model.model.language_model.config]
    return {config._attn_implementation for config in [*configs, *(layer.self_attn.config for layer in layers)]}


def trace(vlm, pixels, observer, grad=False):
    prompt = vlm.prompt(QUESTION)
    tokens = vlm.encode(pixels).detach().requires_grad_(grad)
    return tokens, vlm.trace(tokens, [prompt] * len(pixels), [Target("margin")] * len(pixels), observer)


def test_observed_probabilities_are_the_eager_ones(any_vlm, pictures):
    pixels, seen, twin = pictures(any_vlm, 2), {}, gemma.twin_model(any_vlm.model)
    with torch.no_grad():
        trace(any_vlm, pixels, seen.__setitem__)
        tokens = reference.image_tokens(twin, pixels[1])
        _, attentions, _, _ = reference.run(any_vlm, twin, tokens, QUESTION, Target("margin"))
    assert list(seen) == list(range(len(any_vlm.layer_types)))
    for layer, attention in enumerate(attentions):
        assert seen[layer].dtype == torch.float32
        assert seen[layer].shape == (2, *attention.shape[1:])
        assert (seen[layer][1] - attention[0]).abs().max() < 1e-5
        torch.testing.assert_close(seen[layer].sum(-1), torch.ones_like(seen[layer][..., 0]))


def test_probabilities_take_part_in_the_graph(any_vlm, pictures):
    """Their gradients are those of transformers' own eager attention, for every layer and head."""
    pixels, seen, twin = pictures(any_vlm, 2), [], gemma.twin_model(any_vlm.model)
    _, scores = trace(any_vlm, pixels, lambda _, probabilities: seen.append(probabilities), grad=True)
    computed = torch.autograd.grad(scores.sum(), seen)
    leaf = reference.image_tokens(twin, pixels[0]).requires_grad_()
    margins, attentions, _, _ = reference.run(any_vlm, twin, leaf, QUESTION, Target("margin"))
    expected = torch.autograd.grad(margins[0], attentions)
    for mine, theirs in zip(computed, expected, strict=True):
        assert (mine[0] - theirs[0]).abs().max() < 1e-4 * max(1.0, float(theirs.abs().max()))


def test_attention_is_restored(random_vlm, pictures):
    before = implementations(random_vlm)
    inside = []
    trace(random_vlm, pictures(random_vlm, 1), lambda *_: inside.append(implementations(random_vlm)))
    assert inside and all(names == {IMPLEMENTATION} for names in inside)
    assert implementations(random_vlm) == before == {"sdpa"}
    assert _observer == []


def test_attention_is_restored_when_the_observer_raises(random_vlm, pictures):
    def observer(layer, probabilities):
        raise RuntimeError(f"layer {layer}")

    pixels = pictures(random_vlm, 1)
    with torch.no_grad():
        _, expected = trace(random_vlm, pixels, None)
        with pytest.raises(RuntimeError, match="layer 0"):
            trace(random_vlm, pixels, observer)
        _, after = trace(random_vlm, pixels, None)
    assert implementations(random_vlm) == {"sdpa"}
    assert _observer == []
    assert torch.equal(after, expected)


def test_no_observer_leaves_sdpa(random_vlm):
    with observed(random_vlm.decoder.attention_configs, None):
        assert implementations(random_vlm) == {"sdpa"}


def test_methods_leave_nothing_behind(random_vlm, random_sae, pictures):
    """No parameter gradients, no hooks beyond the model's own, no attention function."""

    def hooks():
        return sum(
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
            for m in random_vlm.model.modules()
        )

    before, pixels = hooks(), pictures(random_vlm, 2)
    batch = AttributionBatch(pixels, [random_vlm.prompt(QUESTION)] * 2, ["a", "b"], 0, torch.ones(2, *random_vlm.grid))
    for name, method in METHODS.items():
        if name == "file":  # reads maps
            continue
        result = method(**cheap_options(random_sae).get(name, {})).attribute(random_vlm, batch, [Target("margin")] * 2)
        assert result.maps.shape == (2, *random_vlm.grid), name
        assert not result.maps.requires_grad, name
    assert hooks() == before
    assert all(p.grad is None and not p.requires_grad for p in random_vlm.model.parameters())
    assert not pixels.requires_grad and pixels.grad is None
    assert implementations(random_vlm) == {"sdpa"}


def test_a_finished_trace_is_freed(random_vlm, pictures):
    """All layers' probabilities and the graph hang on the result alone: at 4B they are gigabytes."""
    # Another one on the same weights keeps nothing of this one's runs.
    alive, other = [], Gemma3VLM(random_vlm.model, random_vlm.processor)
    tokens, scores = trace(random_vlm, pictures(random_vlm, 1), lambda _, a: alive.append(weakref.ref(a)), grad=True)
    assert all(ref() is not None for ref in alive)
    del tokens, scores
    gc.collect()
    assert [ref() is not None for ref in alive] == [False] * len(random_vlm.layer_types), other


@pytest.mark.parametrize("name", ["attention", "rollout", "cleann"])
def test_one_layers_probabilities_are_alive_at_a_time(random_vlm, pictures, monkeypatch, name):
    """Methods without gradients keep rows, or a mean over heads: memory does not grow with layers x heads x S²."""
    alive, most, plain = [], [], random_vlm.trace

    def watched(tokens, prompts, targets, observer=None, states=None):
        def see(layer, probabilities):
            most.append(sum(reference() is not None for reference in alive))
            alive.append(weakref.ref(probabilities))
            observer(layer, probabilities)

        return plain(tokens, prompts, targets, see, states)

    monkeypatch.setattr(random_vlm, "trace", watched)
    batch = AttributionBatch(pictures(random_vlm, 1), [random_vlm.prompt(QUESTION)], ["a"])
    METHODS[name]().attribute(random_vlm, batch, [Target("margin")])
    assert len(most) == len(random_vlm.layer_types) and max(most) == 0


def test_observed_states_are_the_hidden_states(any_vlm, pictures):
    """Output of every layer; those that transformers reports are the same, but for the norm on the last."""
    pixels, seen, twin = pictures(any_vlm, 2), {}, gemma.twin_model(any_vlm.model)
    prompt = any_vlm.prompt(QUESTION)
    with torch.no_grad():
        any_vlm.trace(any_vlm.encode(pixels), [prompt] * 2, [Target("margin")] * 2, states=seen.__setitem__)
        expected = reference.hidden_states(any_vlm, twin, pixels[1], QUESTION)
    assert list(seen) == list(range(len(any_vlm.layer_types)))
    for layer in range(len(seen) - 1):
        assert (seen[layer][1] - expected[layer + 1]).abs().max() < 1e-4 * expected[layer + 1].abs().max()
    last = any_vlm.model.model.language_model.norm(seen[len(seen) - 1])[1]
    assert (last - expected[-1]).abs().max() < 1e-4 * expected[-1].abs().max()


def test_token_logits_are_the_heads(any_vlm, pictures):
    pixels, last, twin = pictures(any_vlm, 2), {}, gemma.twin_model(any_vlm.model)
    prompt, ids = any_vlm.prompt(QUESTION), torch.tensor([[5, 30, any_vlm.yes_ids[0]], [30, 8, any_vlm.no_ids[0]]])
    with torch.no_grad():
        any_vlm.trace(any_vlm.encode(pixels), [prompt] * 2, [Target("margin")] * 2, states=last.__setitem__)
        computed = any_vlm.token_logits(last[len(last) - 1], ids)
    assert computed.dtype == torch.float32
    for index in (0, 1):
        expected = gemma.all_logits(any_vlm, twin, pixels[index], QUESTION)[:, ids[index].numpy()]
        assert np.abs(computed[index].double().numpy() - expected).max() < 1e-4 * np.abs(expected).max()


def test_states_take_part_in_the_graph_and_leave_no_hooks(random_vlm, pictures):
    def hooks():
        return [len(layer._forward_hooks) for layer in random_vlm.model.model.language_model.layers]

    seen, prompt, before = [], random_vlm.prompt(QUESTION), hooks()
    tokens = random_vlm.encode(pictures(random_vlm, 1)).detach().requires_grad_()
    scores = random_vlm.trace(tokens, [prompt], [Target("margin")], states=lambda _, state: seen.append(state))
    gradients = torch.autograd.grad(scores.sum(), seen)
    image = slice(prompt.image_start, prompt.image_start + random_vlm.n_cells)
    norms = [float(gradient[:, image].norm()) for gradient in gradients]
    assert min(norms[:-1]) > 0
    assert norms[-1] == 0  # nothing reads the image after the last layer
    assert hooks() == before


def test_in_bfloat16_the_logits_of_attention_are_not_rounded(random_vlm):
    """Queries and keys are bfloat16; their products are summed in float32, as SDPA's kernels sum them."""
    random, seen = torch.Generator().manual_seed(0), []
    query, key, value = (4 * torch.randn(1, 2, 9, 16, generator=random).bfloat16() for _ in range(3))
    _observer.append(lambda _, probabilities: seen.append(probabilities))
    try:
        _observed_attention(random_vlm.model.model.language_model.layers[0].self_attn, query, key, value, None)
    finally:
        _observer.pop()
    exact = (query.double() @ key.double().transpose(2, 3) / 4).softmax(-1)
    assert (seen[0] - exact).abs().max() < 1e-5
    rounded = ((query @ key.transpose(2, 3)).float() / 4).softmax(-1)
    assert (rounded - exact).abs().max() > 1e-3
