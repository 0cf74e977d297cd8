"""Show a decoder's attention probabilities and hidden states to an observer while it runs.

SDPA never forms the probabilities, and transformers' `output_attentions` keeps those of all layers in memory. The
attention function registered here forms them for one layer, hands them to the observer and computes the layer's output
from them. So the observer sees what the model used, and gradients with respect to it exist.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from cxr_faith.vlm.base import Observer

IMPLEMENTATION = "cxr_faith_observed"
_observer: list[Observer] = []


def _observed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as in transformers' eager implementation, with logits, softmax and probabilities in float32."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    logits = query.float() @ key.float().transpose(2, 3) * scale
    if attention_mask is not None:
        logits = logits + attention_mask.float()
    probabilities = logits.softmax(dim=-1)
    _observer[-1](int(module.layer_idx), probabilities)  # type: ignore[arg-type]
    output = probabilities.to(value.dtype) @ value
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(IMPLEMENTATION, _observed_attention)
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)


@contextmanager
def observed(configs: Sequence[Any], observer: Observer | None) -> Iterator[None]:
    """Show the attention of a decoder to `observer` while it runs; with None, change nothing.

    Args:
        configs: every config object that names the decoder's attention implementation: that of the layers and that
            from which masks are made (transformers copies configs, so they may be different objects).
        observer: called once for each layer, first to last.
    """
    if observer is None:
        yield
        return
    before = [config._attn_implementation for config in configs]
    _observer.append(observer)
    for config in configs:
        config._attn_implementation = IMPLEMENTATION
    try:
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation
        _observer.pop()


@contextmanager
def observed_states(layers: Sequence[torch.nn.Module], observer: Observer | None) -> Iterator[None]:
    """Show each layer's output [batch, sequence, hidden] to `observer` while a decoder runs; with None, do nothing.

    Args:
        layers: the decoder's layers, first to last.
        observer: called once for each layer, first to last.
    """
    if observer is None:
        yield
        return

    shown: Observer = observer

    def watch(index: int, layer: torch.nn.Module) -> Any:
        def hook(module: torch.nn.Module, args: Any, output: Tensor) -> None:
            shown(index, output)

        return layer.register_forward_hook(hook)

    handles = [watch(index, layer) for index, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
