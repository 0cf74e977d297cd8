"""Faster kernels for the same formulas: section `vlm.faster` of a config.

They round differently, so a model's identity names those that it uses. All of them are off by default.
"""

from collections.abc import Callable, Iterable
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, rms_norm
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PADDED = "cxr_faith_padded"
HEAD_SIZES = (32, 64, 96, 128, 192, 256)
"""Channels of a head for which FlashAttention-2 has kernels; it runs other sizes in the next larger one."""


def use_kernels(model: Any, names: Iterable[str], norm_offset: float) -> None:
    """Let a model use some of the kernels from now on.

    Args:
        model: a transformers VLM.
        names: of `cxr_faith.vlm.config.FASTER`.
        norm_offset: added to the weights of the decoder's norms, see `Head`.
    """
    kernels: dict[str, Callable[[Any], None]] = {
        "fused_norm": partial(fuse_norms, offset=norm_offset),
        "padded_heads": pad_heads,
    }
    for name in names:
        kernels[name](model)


def pad_heads(model: Any) -> None:
    """Let the vision tower attend with heads that are padded with zeros to the next of `HEAD_SIZES`.

    SigLIP's heads in Gemma 3 have 72 channels. Zeros change no product of queries and keys, and the scale stays that of
    the unpadded size.
    """
    kind = type(model.config.vision_config)
    for module in model.modules():
        if isinstance(getattr(module, "config", None), kind):
            module.config._attn_implementation = PADDED


def _padded_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """SDPA attention of transformers on padded heads [batch, heads, positions, channels]."""
    size = query.shape[-1]
    scale = size**-0.5 if scaling is None else scaling
    more = next((fused for fused in HEAD_SIZES if fused >= size), size) - size
    if more:
        query, key, value = pad(query, (0, more)), pad(key, (0, more)), pad(value, (0, more))
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scale, **kwargs)
    return output[..., :size], None


AttentionInterface.register(PADDED, _padded_attention)
AttentionMaskInterface.register(PADDED, sdpa_mask)


def fuse_norms(model: Any, offset: float) -> None:
    """Compute every RMSNorm of a model by PyTorch's own operation, on a GPU one kernel, in float32 as before.

    Args:
        model: a transformers model.
        offset: added to the norms' weights, see `Head`.
    """
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            llama = hasattr(module, "variance_epsilon")  # as in Qwen; Gemma calls it eps, and multiplies in float32
            module.forward = MethodType(_llama_norm if llama else partial(_gemma_norm, offset), module)


def _gemma_norm(offset: float, norm: Any, hidden: Tensor) -> Tensor:
    """RMSNorm with the weight (offset + w), or without a weight, all in float32."""
    # The sum is made again each time: the randomization checks change weights in place.
    weight = offset + norm.weight.float() if hasattr(norm, "weight") else None
    return rms_norm(hidden.float(), hidden.shape[-1:], weight, norm.eps).type_as(hidden)


def _llama_norm(norm: Any, hidden: Tensor) -> Tensor:
    """RMSNorm in float32 inside the operation, rounded, then times the weight."""
    scaled: Tensor = norm.weight * rms_norm(hidden, hidden.shape[-1:], None, norm.variance_epsilon)
    return scaled
