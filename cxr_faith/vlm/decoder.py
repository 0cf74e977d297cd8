"""A VLM's decoder: hidden states of sequences that hold an image, and of text that follows a prefix cache.

A family whose decoder is no plain causal one says what differs: masks (`make_masks`), positions (`positions`), how
transformers' own pass is told where the image is (`image_inputs`). What is computed from the hidden states is in
`cxr_faith.vlm.head`.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import DynamicCache

from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.head import Head
from cxr_faith.vlm.layout import Layout
from cxr_faith.vlm.prefix_cache import (
    FillingCache,
    ImageTokens,
    Prefix,
    PrefixCache,
    PrefixComplete,
    batch_of,
    cache_argument,
)
from cxr_faith.vlm.question import Prompt

Starts = tuple[int, ...]
"""Position of the first image token of each picture."""


class Decoder:
    """The language model inside a transformers VLM.

    Args:
        model: a transformers model with `model.language_model` and `lm_head`.
        layout: where the image tokens lie.

    Attributes:
        body, hidden_size: the module that is called with input embeddings, and the channels of its hidden states.
        layers, key_layers: its layers, first to last, and for each the index of the one whose keys and values it reads.
        layer_types: `full_attention` or `sliding_attention` for each layer.
        head: reads logits in its hidden states.
        attention_configs: every config object that names its attention implementation, see `capture.observed`.
        masks, ids: attention masks by the arguments of `make_masks`, ids [1, length] on the device by tuple; made once.
    """

    norm_offset: ClassVar[float] = 0.0
    """Added to the weight of the final norm, see `Head`."""

    def __init__(self, model: Any, layout: Layout) -> None:
        self.model, self.layout, language_model = model, layout, model.model.language_model
        text_config = model.config.get_text_config()
        self.body: Any = language_model
        self.hidden_size: int = text_config.hidden_size
        self.layers: Sequence[torch.nn.Module] = language_model.layers
        self.key_layers, self.image_stand_in = tuple(range(len(self.layers))), 0
        kinds = getattr(text_config, "layer_types", None) or ("full_attention",) * len(self.layers)
        self.layer_types: tuple[str, ...] = tuple(kinds)
        self.head = Head(language_model.norm, model.lm_head, self.norm_offset)
        self.attention_configs = list({id(c): c for c in (text_config, language_model.config)}.values())
        self.masks, self.ids = lru_cache(maxsize=256)(self.make_masks), lru_cache(maxsize=4096)(self._make_ids)
        self._norm, self._embed_tokens = language_model.norm, language_model.embed_tokens

    def make_masks(self, seen: int, new: int, image_starts: Starts | None) -> dict[str, Tensor] | None:
        """Which of the `seen + new` positions each new one attends to, bool [1, 1, new, seen + new] by layer type.

        One mask serves every picture of a batch, since all have their image at the same place. None, as here, where
        transformers makes its own.

        Args:
            seen: positions in the cache.
            new: positions that follow.
            image_starts: position of the first image token of each picture; None where the new positions hold no image.
        """
        return None

    def positions(self, seen: int, new: int, image_starts: Starts | None) -> dict[str, Tensor]:
        """Arguments that number the new positions; by default transformers counts them. See `make_masks`."""
        return {}

    def image_inputs(self, embedded: Tensor, image_starts: Starts, prompt_length: int | None) -> dict[str, Tensor]:
        """Arguments that tell transformers' forward where the image is.

        Args:
            embedded: [batch, sequence, hidden].
            image_starts: position of the first image token of each picture.
            prompt_length: positions before the answer; None: all.
        """
        return {}

    def forget(self) -> None:
        """Drop masks and ids: the model has moved to another device."""
        self.masks.cache_clear()
        self.ids.cache_clear()

    def embed(self, tokens: Tensor, ids: Sequence[Sequence[int]], image_starts: Starts) -> Tensor:
        """Input embeddings [batch, sequence, hidden] of token ids, with the image tokens in place."""
        embedded = self._embed_tokens(torch.cat([self.ids(tuple(row)) for row in ids]))
        return placed(embedded, tokens.to(embedded.dtype), image_starts)

    def whole(
        self,
        tokens: Tensor,
        ids: Sequence[Sequence[int]],
        image_starts: Starts,
        prompt_length: int,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """Hidden states [batch, sequence, hidden] of whole prompts with forced answer tokens.

        Args:
            tokens: image tokens [batch, tokens, hidden].
            ids: token ids of each sequence, of equal length.
            image_starts: position of the first image token of each picture.
            prompt_length: positions before the answer.
            cache: takes the keys and values.
        """
        return self.full(self.embed(tokens, ids, image_starts), image_starts, prompt_length, cache)

    def full(
        self,
        embedded: Tensor,
        image_starts: Starts,
        prompt_length: int | None = None,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """Hidden states [batch, sequence, hidden] of a sequence that holds the image, by transformers' own pass."""
        return self._hidden(
            inputs_embeds=embedded,
            use_cache=cache is not None,
            **cache_argument(self.body, cache),
            **self.positions(0, embedded.shape[1], image_starts),
            **self.image_inputs(embedded, image_starts, prompt_length),
        )

    def prefill(self, embedded: Tensor, image_starts: Starts, shortcuts: bool) -> PrefixCache:
        """Keys and values of a prefix that ends with the image.

        Args:
            embedded: input embeddings [batch, prefix, hidden].
            image_starts: position of the first image token of each picture.
            shortcuts: take masks that were made once, and stop at the last layer's keys and values.
        """
        if not shortcuts:
            cache = DynamicCache()
            self.full(embedded, image_starts, cache=cache)
            return PrefixCache(cache)
        filling, masks = FillingCache(max(self.key_layers) + 1), self.masks(0, embedded.shape[1], image_starts)
        told = self.image_inputs(embedded, image_starts, None) if masks is None else {"attention_mask": masks}
        positions = self.positions(0, embedded.shape[1], image_starts)
        try:
            self.body(inputs_embeds=embedded, use_cache=True, **cache_argument(self.body, filling), **positions, **told)
        except PrefixComplete:
            pass
        return PrefixCache(filling)

    def extend(self, cache: DynamicCache, ids: tuple[int, ...], batch: int, shortcuts: bool) -> Tensor:
        """Hidden states [batch, len(ids), hidden] of text that follows a cache."""
        seen, embedded = cache.get_seq_length(), self._embed_tokens(self.ids(ids)).expand(batch, -1, -1)
        masks = self.masks(seen, len(ids), None) if shortcuts else None
        told = {"attention_mask": masks, **self.positions(seen, len(ids), None)}
        return self._hidden(inputs_embeds=embedded, use_cache=True, **cache_argument(self.body, cache), **told)

    def _hidden(self, **inputs: Any) -> Tensor:
        """Hidden states before the final norm. The hook goes after the pass: one that stays keeps graphs alive."""
        kept: list[Tensor] = []
        hook = self._norm.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
        try:
            self.body(**inputs)
        finally:
            hook.remove()
        return kept[0]

    def _make_ids(self, ids: tuple[int, ...]) -> Tensor:
        """Token ids [1, length] on the device, kept there: a copy from the host would wait for all work before it.

        The image token, which may lie outside the vocabulary, is replaced by `image_stand_in`, only to be embedded.
        """
        tensor = torch.tensor([ids], device=self.model.device)
        return tensor.masked_fill(tensor == self.model.config.image_token_id, self.image_stand_in)


def placed(sequence: Tensor, tokens: Tensor, starts: Starts) -> Tensor:
    """A sequence [batch, positions, channels] with image tokens [batch, tokens, channels] at their places.

    Args:
        sequence: what the other positions hold.
        tokens: those of all pictures, in equal numbers.
        starts: position of each picture's first token.
    """
    parts, end = list[Tensor](), 0
    for start, part in zip(starts, tokens.chunk(len(starts), dim=1), strict=True):
        parts += [sequence[:, end:start], part]
        end = start + part.shape[1]
    return torch.cat([*parts, sequence[:, end:]], dim=1)


def feed_after(
    decoder: Decoder, prefix: Prefix, prompt: Prompt, shortcuts: bool
) -> Callable[[tuple[int, ...]], Tensor]:
    """Feeds tokens after a prefix of one picture, or of copies of it: first the prompt's suffix, then an answer.

    Args:
        decoder: the decoder.
        prefix: what the questions share.
        prompt: the question, for its prefix.
        shortcuts: see `Decoder.prefill`.

    Returns:
        a function from token ids to the logits [vocabulary] of the token that follows; it keeps what it was fed.
    """
    cache, copies = DynamicCache() if isinstance(prefix, ImageTokens) else prefix.growing(), batch_of(prefix)

    def feed(ids: tuple[int, ...]) -> Tensor:
        if isinstance(prefix, ImageTokens) and cache.get_seq_length() == 0:
            whole = prompt.prefix_ids + ids
            hidden = decoder.whole(prefix.tokens, [whole] * copies, prompt.image_starts, len(whole), cache)
        else:
            hidden = decoder.extend(cache, ids, copies, shortcuts)
        return decoder.head.logits(hidden[:1, -1])[0]

    return feed


def check_head(decoder: Decoder) -> None:
    """Refuse a decoder whose final norm is another one than `Head` computes: every score would be wrong.

    Raises:
        ModelError: the two differ on a vector.
    """
    norm = decoder.model.model.language_model.norm
    if norm.weight.is_meta:  # weights that have no values yet
        return
    with torch.no_grad():
        vector = torch.linspace(-1, 3, decoder.hidden_size, device=norm.weight.device, dtype=norm.weight.dtype)
        same = torch.allclose(decoder.head.norm(vector), norm(vector).float(), rtol=0.02, atol=0.02, equal_nan=True)
    if not same:
        raise ModelError(f"this family's final norm is no {type(norm).__name__}: the decoder is of another kind")
