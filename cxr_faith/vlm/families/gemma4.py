"""Gemma 4: pictures of any size, patches pooled three by three, per-layer inputs, and logits that are capped.

A prompt is `<bos> … <|image> image tokens | <image|> question … <|turn>model`; the bar marks the end of the prefix.
Each token also feeds every decoder layer by an embedding of its own; that of an image token is the padding token's. The
last layers read keys and values of earlier ones. Where the config says `vision`, a picture's tokens see each other in
both directions in layers with a window; elsewhere all layers are causal.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Gemma4ForConditionalGeneration

from cxr_faith.vlm.decoder import Decoder, Starts, placed
from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.family import Size
from cxr_faith.vlm.layout import Layout
from cxr_faith.vlm.pretrained import FamilyVLM

SIDE = 16
"""Tokens on a side of the square at which pictures are read by default: what a square gets of the usual 280."""
MOST = 1120
"""Most tokens of a picture that any model of the family learned from."""


class Gemma4Decoder(Decoder):
    """Takes the per-layer inputs behind the input embeddings, one layer after another."""

    def __init__(self, model: Any, layout: Layout) -> None:
        super().__init__(model, layout)
        text = model.config.get_text_config()
        self.head.cap = text.final_logit_softcapping
        self.key_layers = _key_layers(self.layer_types, text.num_kv_shared_layers)
        self.image_stand_in = text.pad_token_id or 0
        self.body = self._with_layer_inputs
        self._channels = text.hidden_size_per_layer_input
        if self._channels:
            self._embed_tokens = self._embed_with_layer_inputs

    def make_masks(self, seen: int, new: int, image_starts: Starts | None) -> dict[str, Tensor]:
        """Masks of both layer types; see `Decoder.make_masks`."""
        text, device = self.model.config.get_text_config(), self.model.device
        query = torch.arange(seen, seen + new, device=device)[:, None]
        key = torch.arange(seen + new, device=device)[None]
        causal = near = key <= query
        count = self.layout.n_tokens // len(self.layout.grids)
        for start in image_starts or () if text.use_bidirectional_attention == "vision" else ():
            key_in_image, query_in_image = ((start <= place) & (place < start + count) for place in (key, query))
            near = near | (key_in_image & query_in_image)
        window = key > query - text.sliding_window
        return {"full_attention": causal[None, None], "sliding_attention": (near & window)[None, None]}

    def image_inputs(self, embedded: Tensor, image_starts: Starts, prompt_length: int | None) -> dict[str, Tensor]:
        """Token types: 1 for image tokens; see `Decoder.image_inputs`."""
        types = torch.zeros(embedded.shape[:2], dtype=torch.long, device=embedded.device)
        for start in image_starts:
            types[:, start : start + self.layout.n_tokens // len(self.layout.grids)] = 1
        return {"mm_token_type_ids": types}

    def embed(self, tokens: Tensor, ids: Sequence[Sequence[int]], image_starts: Starts) -> Tensor:
        """Input embeddings with the per-layer inputs behind them: [batch, sequence, hidden + layers * channels]."""
        embedded = self._embed_tokens(torch.cat([self.ids(tuple(row)) for row in ids]))
        first, layered = embedded.tensor_split([self.hidden_size], dim=-1)
        return torch.cat([placed(first, tokens.to(first.dtype), image_starts), layered], dim=-1)

    def _embed_with_layer_inputs(self, ids: Tensor) -> Tensor:
        inner = self.model.model.language_model
        return torch.cat([inner.embed_tokens(ids), inner.embed_tokens_per_layer(ids)], dim=-1)

    def _with_layer_inputs(self, inputs_embeds: Tensor, **inputs: Any) -> Any:
        first, layered = inputs_embeds.tensor_split([self.hidden_size], dim=-1)
        if self._channels:
            inputs["per_layer_inputs"] = layered.unflatten(-1, (len(self.layers), self._channels))
        # The outer module makes masks from token types, and looks for image tokens to do so.
        inner, masks = self.model.model, inputs.get("attention_mask")
        return (inner.language_model if isinstance(masks, dict) else inner)(inputs_embeds=first, **inputs)


def _key_layers(kinds: Sequence[str], shared: int) -> tuple[int, ...]:
    """The last layers read keys and values of the last layer of their kind among the others."""
    own = len(kinds) - shared
    last = {kind: index for index, kind in enumerate(kinds[:own])}
    return (*range(own), *(last[kind] for kind in kinds[own:]))


class Gemma4VLM(FamilyVLM):
    """A `Gemma4ForConditionalGeneration` with a vision tower; see `FamilyVLM`."""

    model_class = Gemma4ForConditionalGeneration
    decoder_class = Gemma4Decoder
    stops = ("<turn|>",)
    computes: ClassVar[tuple[str, ...]] = ("final_logit_softcapping",)

    @property
    def looks_ahead(self) -> bool:
        """Whether layers with a window let image tokens see later ones; see `VLM.looks_ahead`."""
        return bool(self.model.config.get_text_config().use_bidirectional_attention == "vision")

    @classmethod
    def layout_of(cls, config: Any, image_size: Size | None = None) -> tuple[Layout, Size]:
        """Each cell is a block of pooled patches; see `Family.layout_of`."""
        vision = config.vision_config
        cell = vision.patch_size * vision.pooling_kernel_size
        height, width = image_size or (SIDE * cell, SIDE * cell)
        if height % cell or width % cell or min(height, width) < cell:
            raise ModelError(f"vlm.image_size: both sides must be multiples of {cell} px, got {height}x{width}")
        rows, columns = height // cell, width // cell
        if rows * columns > MOST or max(height, width) // vision.patch_size > vision.position_embedding_size:
            raise ModelError(f"vlm.image_size: {height}x{width} px give {rows * columns} tokens, the most are {MOST}")
        return Layout.of_grid((rows, columns)), (height, width)

    @classmethod
    def image_text(cls, processor: Any, config: Any, n_tokens: int) -> tuple[str, str]:
        """The tokens of the picture between its marks; see `Family.image_text`."""
        mark, written = super().image_text(processor, config, n_tokens)
        begin, end = processor.tokenizer.convert_ids_to_tokens([config.boi_token_id, config.eoi_token_id])
        return mark, f"{begin}{written}{end}"

    @classmethod
    def check_config(cls, config: Any, source: object) -> None:
        """Causal text, and layers that others read; see `Family.check_config`."""
        text = config.get_text_config()
        if text.use_bidirectional_attention == "all":
            raise ModelError(f"{source}: config.json: use_bidirectional_attention is all: the text must be causal")
        shared, layers = text.num_kv_shared_layers, text.num_hidden_layers
        if not 0 <= shared < layers or {*text.layer_types[: layers - shared]} != {*text.layer_types}:
            raise ModelError(
                f"{source}: config.json: num_kv_shared_layers must leave a layer of each kind, got {shared}"
            )

    @classmethod
    def layer_counts(cls, config: Any) -> dict[str, int]:
        """Layers of the decoder and of the tower; see `Family.layer_counts`."""
        parts = {"language_model": config.text_config, "vision_tower": config.vision_config}
        return {name: part.num_hidden_layers for name, part in parts.items()}

    def encode_each(self, pixels: Tensor) -> Tensor:
        """Pixel values [batch, 3, H, W] to projected image tokens [batch, tokens, hidden]."""
        self.counts.embed += len(pixels)
        self.counts.encode += len(pixels)
        features = self.model.model.get_image_features(*self.patches(pixels))
        return torch.stack(list(features.pooler_output))

    def patches(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Flat patches [batch, patches, values], row by row, and the column and row of each [batch, patches, 2]."""
        side = self.model.config.vision_config.patch_size
        blocks = pixels.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # [batch, 3, rows, side, columns, side]
        rows, columns = blocks.shape[2], blocks.shape[4]
        places = torch.cartesian_prod(*(torch.arange(count, device=pixels.device) for count in (rows, columns)))
        flat = blocks.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        return flat.to(self.model.dtype), places.flip(-1).expand(len(pixels), -1, -1)
