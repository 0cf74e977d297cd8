"""The faster kernels of `vlm.faster` against the plain model: the same numbers within rounding."""

import copy

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from cxr_faith.attribution import build_methods
from cxr_faith.attribution.base import AttributionBatch
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.run.identity import Identity
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.vlm import Gemma3VLM, Target
from cxr_faith.vlm.config import FASTER, ModelConfig
from cxr_faith.vlm.kernels import HEAD_SIZES, _padded_attention, fuse_norms
from tests.random_model import random_model, random_processor

QUESTION = "Is there a nodule?"
METHODS = {"rollout": {}, "chefer": {}, "grad_cam": {}, "integrated_gradients": {"baseline": "mean", "steps": 2}}


class Watch(TorchFunctionMode):
    """Notes the heads' sizes of each SDPA call, and counts calls of PyTorch's RMSNorm."""

    def __init__(self):
        super().__init__()
        self.head_sizes, self.norms = [], 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.scaled_dot_product_attention:
            self.head_sizes.append(args[0].shape[-1])
        self.norms += function is torch.nn.functional.rms_norm
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module", params=["bundled", "heads of 72"])
def plain(request) -> Gemma3VLM:
    """The bundled model, and one whose tower has the head size of Gemma 3's."""
    if request.param == "bundled":
        return request.getfixturevalue("bundled")
    processor = random_processor()
    return Gemma3VLM(random_model(processor.tokenizer, tower=2 * 72), processor, source="random")


@pytest.fixture(scope="module")
def fast(plain) -> Gemma3VLM:
    """The same model with all faster kernels."""
    return Gemma3VLM(copy.deepcopy(plain.model), plain.processor, plain.prompter.options, faster=FASTER)


def assert_close(computed, expected, share=2e-5):
    """To a share of the largest value, so that tiny values are not passed by their size."""
    assert expected.abs().amax() > 0
    torch.testing.assert_close(computed, expected, atol=share * float(expected.abs().amax()), rtol=0)


def test_each_kernel_runs_where_it_is_switched_on(plain, fast, pictures):
    pixels, calls = pictures(plain, 1), {}
    for name, vlm in (("plain", plain), ("fast", fast)):
        with torch.no_grad(), Watch() as calls[name]:
            vlm.score(vlm.prefill(vlm.encode(pixels)), vlm.prompt(QUESTION), Target("margin"))
    size = plain.model.config.vision_config.hidden_size // plain.model.config.vision_config.num_attention_heads
    layers = plain.model.config.vision_config.num_hidden_layers
    assert calls["plain"].head_sizes[:layers] == [size] * layers
    assert calls["fast"].head_sizes[:layers] == [{72: 96}.get(size, size)] * layers
    assert calls["fast"].head_sizes[layers:] == calls["plain"].head_sizes[layers:] != []
    assert calls["plain"].norms == 0 and calls["fast"].norms > 4 * len(plain.decoder.layers)


def test_scores_tokens_and_gradients_are_equal(plain, fast, pictures):
    pixels, results = pictures(plain, 2), []
    for vlm in (plain, fast):
        given = pixels.clone().requires_grad_()
        tokens = vlm.encode(given)
        scores = vlm.trace(tokens, [vlm.prompt(QUESTION)] * 2, [Target("margin")] * 2)
        (gradient,) = torch.autograd.grad(scores.sum(), given)
        with torch.no_grad():
            s = vlm.score(vlm.prefill(vlm.encode(pixels)), vlm.prompt(QUESTION), Target("margin")).s
        results.append((tokens.detach(), scores.detach(), gradient, s))
    for expected, computed in zip(*results, strict=True):
        assert_close(computed, expected, 1e-4)


def test_maps_are_equal(plain, fast, pictures):
    pixels = pictures(plain, 1)
    maps = []
    for vlm in (plain, fast):
        batch = AttributionBatch(pixels, [vlm.prompt(QUESTION)], ["a"])
        methods = build_methods(METHODS)
        maps.append([method.attribute(vlm, batch, [Target("margin")]).maps for method in methods.values()])
    for expected, computed in zip(*maps, strict=True):
        assert_close(computed, expected, 1e-3)


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("size", [8, 32, 72, 130, 300])
def test_padded_heads_are_a_plain_softmax(size, scaling):
    """Against float64 in NumPy; 300 is larger than any kernel and stays."""
    query, key, value = torch.randn(3, 2, 4, 6, size, generator=torch.Generator().manual_seed(size))
    with Watch() as calls:
        output, _ = _padded_attention(torch.nn.Module(), query, key, value, None, scaling, is_causal=False)
    assert calls.head_sizes == [min((fused for fused in HEAD_SIZES if fused >= size), default=size)]
    q, k, v = (x.double().numpy() for x in (query, key, value))
    weights = np.exp(q @ k.swapaxes(2, 3) * (size**-0.5 if scaling is None else scaling))
    expected = (weights / weights.sum(-1, keepdims=True) @ v).swapaxes(1, 2)
    assert output.shape == (2, 6, 4, size)
    assert np.abs(output.numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "offset"), [(Gemma3RMSNorm, 1.0), (LlamaRMSNorm, 0.0)])
def test_a_fused_norm_is_the_formula(kind, offset, dtype):
    """Against float64 in NumPy, and against transformers' own within two rounding steps; values go up to 1e4."""
    generator = torch.Generator().manual_seed(0)
    norm = kind(48, eps=1e-6)
    with torch.no_grad():
        norm.weight.copy_(1 - offset + 0.4 * torch.randn(48, generator=generator))
    norm = norm.to(dtype)
    hidden = (torch.randn(7, 5, 48, generator=generator) * torch.logspace(-3, 4, 7)[:, None, None]).to(dtype)
    own = norm(hidden)
    fuse_norms(torch.nn.ModuleList([norm]), offset)
    with Watch() as calls:
        fused = norm(hidden)
    assert calls.norms == 1 and fused.dtype == dtype
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(fused, own, atol=0, rtol=2 * step)
    x, w = hidden.double().numpy(), norm.weight.detach().double().numpy()
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * (offset + w)
    assert np.abs(fused.detach().double().numpy() / expected - 1).max() < 3 * step


def test_gemma_norms_keep_small_weights():
    """1 + w is formed in float32: in bfloat16 a weight of 0.001 would be lost."""
    norm = Gemma3RMSNorm(16).to(torch.bfloat16)
    hidden = torch.ones(16, dtype=torch.float32)
    with torch.no_grad():
        norm.weight.fill_(0.001)
        fuse_norms(torch.nn.ModuleList([norm]), 1.0)
        assert abs(norm(hidden)[0].item() - 1.001) < 1e-5


def test_the_identity_names_the_kernels(fast, plain):
    data, cpu = CXRVQADataModule("bundled"), torch.device("cpu")
    names = ("padded_heads", "fused_norm", "fused_norm")
    configs = (ModelConfig(), ModelConfig(faster=names))
    off, on = (Identity.of(FaithfulnessModule({"chefer": {}}, config), data, cpu) for config in configs)
    assert dict(on.model) == {**off.model, "faster": "fused_norm+padded_heads"}
    assert fast.identity()["faster"] == "fused_norm+padded_heads"
    assert "faster" not in plain.identity() and fast.identity()["weights"] == plain.identity()["weights"]


def test_a_kernel_that_does_not_exist_is_one_line():
    with pytest.raises(ValueError, match="^vlm.faster must name fused_norm or padded_heads, got 'fused'$"):
        ModelConfig(faster=("fused",))
