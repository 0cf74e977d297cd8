"""A VLM's decoder: hidden states of sequences that hold an image, and of text that follows a prefix cache.

A family says which positions attend to which (`make_masks`) and how transformers' own pass is told where the image is
(`image_inputs`). What is computed from the hidden states is in `cxr_faith.vlm.head`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from cxr_faith.vlm.head import Head
from cxr_faith.vlm.prefix_cache import FillingCache, PrefixCache, PrefixComplete


class Decoder(ABC):
    """The language model inside a transformers VLM.

    Args:
        model: a transformers model with `model.language_model` and `lm_head`.

    Attributes:
        layers: its layers, first to last.
        layer_types: `full_attention` or `sliding_attention` for each layer.
        head: reads logits in its hidden states.
        attention_configs: every config object that names its attention implementation, see `capture.observed`.
        masks: attention masks by (cached positions, new positions, image start); made once, see `make_masks`.
        ids: token ids [1, length] on the device by tuple; made once.
    """

    def __init__(self, model: Any) -> None:
        self.model, language_model = model, model.model.language_model
        text_config = model.config.get_text_config()
        self.layers: Sequence[torch.nn.Module] = language_model.layers
        self.layer_types: tuple[str, ...] = tuple(text_config.layer_types)
        self.head = Head(language_model.norm, model.lm_head)
        self.attention_configs = list({id(c): c for c in (text_config, language_model.config)}.values())
        self.masks = lru_cache(maxsize=256)(self.make_masks)
        self.ids = lru_cache(maxsize=4096)(self._make_ids)
        self._norm, self._embed_tokens = language_model.norm, language_model.embed_tokens

    @abstractmethod
    def make_masks(self, seen: int, new: int, image_start: int | None) -> dict[str, Tensor]:
        """Which of the `seen + new` positions each new one attends to, bool [1, 1, new, seen + new] by layer type.

        One mask serves every picture of a batch, since all have their image at the same place.

        Args:
            seen: positions in the cache.
            new: positions that follow.
            image_start: position of the first image token; None where the new positions hold no image.
        """

    @abstractmethod
    def image_inputs(self, embedded: Tensor, image_start: int) -> dict[str, Tensor]:
        """Arguments that tell transformers' forward where the image is in embeddings [batch, sequence, hidden]."""

    def forget(self) -> None:
        """Drop the masks and ids that were made: the model has moved to another device."""
        self.masks.cache_clear()
        self.ids.cache_clear()

    def embed(self, tokens: Tensor, ids: Sequence[Sequence[int]], image_start: int) -> Tensor:
        """Input embeddings [batch, sequence, hidden] of token ids, with the image tokens in place."""
        embedded = self._embed_tokens(torch.cat([self.ids(tuple(row)) for row in ids]))
        tokens = tokens.to(embedded.dtype)
        return torch.cat([embedded[:, :image_start], tokens, embedded[:, image_start + tokens.shape[1] :]], dim=1)

    def full(self, embedded: Tensor, image_start: int, cache: DynamicCache | None = None) -> Tensor:
        """Hidden states [batch, sequence, hidden] of a sequence that holds the image, by transformers' own pass."""
        return self._hidden(
            inputs_embeds=embedded,
            past_key_values=cache,
            use_cache=cache is not None,
            **self.image_inputs(embedded, image_start),
        )

    def prefill(self, embedded: Tensor, image_start: int, shortcuts: bool) -> PrefixCache:
        """Keys and values of a prefix that ends with the image.

        Args:
            embedded: input embeddings [batch, prefix, hidden].
            image_start: position of the first image token.
            shortcuts: take masks that were made once, and stop at the last layer's keys and values.
        """
        if not shortcuts:
            cache = DynamicCache()
            self.full(embedded, image_start, cache)
            return PrefixCache(cache)
        filling, masks = FillingCache(len(self.layers)), self.masks(0, embedded.shape[1], image_start)
        try:
            self.model.model(inputs_embeds=embedded, attention_mask=masks, past_key_values=filling, use_cache=True)
        except PrefixComplete:
            pass
        return PrefixCache(filling)

    def extend(self, cache: DynamicCache, ids: tuple[int, ...], batch: int, shortcuts: bool) -> Tensor:
        """Hidden states [batch, len(ids), hidden] of text that follows a cache."""
        embedded = self._embed_tokens(self.ids(ids)).expand(batch, -1, -1)
        masks = self.masks(cache.get_seq_length(), len(ids), None) if shortcuts else None
        return self._hidden(inputs_embeds=embedded, attention_mask=masks, past_key_values=cache, use_cache=True)

    def _hidden(self, **inputs: Any) -> Tensor:
        """Hidden states before the final norm. The hook goes after the pass: one that stays keeps graphs alive."""
        kept: list[Tensor] = []
        hook = self._norm.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
        try:
            self.model.model(**inputs)
        finally:
            hook.remove()
        return kept[0]

    def _make_ids(self, ids: tuple[int, ...]) -> Tensor:
        """Token ids [1, length] on the device, kept there: a copy from the host would wait for all work before it.

        The image token, which may lie outside the vocabulary, is replaced by 0; its embedding is never used.
        """
        tensor = torch.tensor([ids], device=self.model.device)
        return tensor.masked_fill(tensor == self.model.config.image_token_id, 0)
