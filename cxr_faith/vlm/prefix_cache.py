"""The decoder's keys and values up to the end of the image: made once for a picture, read by each of its questions."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


def cache_argument(
    body: torch.nn.Module | Callable[..., Any], cache: DynamicCache | None
) -> dict[str, DynamicCache | None]:
    """A cache as an argument of a transformers module, under the name that this version of transformers has for it."""
    forward = type(body).forward if isinstance(body, torch.nn.Module) else getattr(body, "__func__", body)
    return {_cache_name(forward): cache}


@lru_cache(maxsize=64)
def _cache_name(forward: Callable[..., Any]) -> str:
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


class PrefixComplete(Exception):  # noqa: N818 - no error
    """Stops the decoder: the last layer's keys and values are stored, and the prefix needs nothing after them."""


class FillingCache(DynamicCache):
    """Stores keys and values, and stops the decoder after those of the last layer.

    Args:
        layers: number of the decoder's layers, without those at the end that read keys and values of earlier ones.
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.expected = layers

    def update(  # type: ignore[override]
        self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store a layer's keys and values.

        Raises:
            PrefixComplete: these are the last layer's.
        """
        super().update(key, value, layer_idx, *args, **kwargs)
        if layer_idx + 1 == self.expected:
            raise PrefixComplete
        return key, value


class PrefixCache(DynamicCache):
    """Keys and values up to the end of the image, read-only: `update` appends without storing.

    One prefix then serves any number of questions. It keeps all positions of every layer; the masks apply sliding
    windows, which is exact where a window is shorter than the prefix, too.

    Args:
        filled: a cache that has seen the prefix; its layers are taken over.
    """

    layers: list[Any]

    def __init__(self, filled: DynamicCache) -> None:
        super().__init__()
        self.layers = filled.layers

    def update(  # type: ignore[override]
        self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of the prefix followed by the given ones, each [batch, heads, prefix + new, head_dim]."""
        layer = self.layers[layer_idx]
        return torch.cat([layer.keys, key], dim=-2), torch.cat([layer.values, value], dim=-2)

    def growing(self) -> DynamicCache:
        """A copy that stores what is appended, for generation."""
        cache = DynamicCache()
        for index, layer in enumerate(self.layers):
            cache.update(layer.keys, layer.values, index)
        return cache


@dataclass(frozen=True)
class ImageTokens:
    """Image tokens that see the question, so nothing but themselves is shared: each question takes the whole pass.

    Attributes:
        tokens: [batch, tokens, hidden].
    """

    tokens: Tensor


Prefix = PrefixCache | ImageTokens
"""What the questions about a picture share."""


def batch_of(prefix: Prefix) -> int:
    """Number of pictures."""
    return len(prefix.tokens) if isinstance(prefix, ImageTokens) else prefix.layers[0].keys.shape[0]
