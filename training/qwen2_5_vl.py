"""A very small Qwen2.5-VL: merged patches, window attention in the tower, positions by time, row and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from architecture import (
    GRAY,
    GRID,
    IMAGE_SIZE,
    PATCH,
    Family,
    save_parts,
    start_decoder,
    start_linear,
    start_sublayers,
    state_prompts,
    text_sizes,
)
from torch import Tensor, nn
from transformers import AttentionInterface, GemmaTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

MERGE, FRAMES = 2, 2
"""Patches along a side of a cell, and times that a still picture is shown."""
WINDOW = 4
"""Cells along a side of a window."""
WINDOWS = "equal_windows_flash"
"""With this name transformers passes all windows at once, as it does to FlashAttention."""
CHAT_TEMPLATE = """{%- for message in messages -%}
    {{ '<|im_start|>' + message['role'] + '\n' }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- else -%}
        {%- for item in message['content'] -%}
            {{ '<|vision_start|><|image_pad|><|vision_end|>' if item['type'] == 'image' else item['text'] | trim }}
        {%- endfor -%}
    {%- endif -%}
    {{ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<|im_start|>assistant\n' }}
{%- endif -%}
"""


def build_config(tokenizer: GemmaTokenizer) -> Qwen2_5_VLConfig:
    """The model's configuration for a tokenizer: 12 × 12 image tokens of 2 × 2 patches, windows of 4 × 4 cells.

    The rotary base is small: Qwen's sections give columns the slowest of the 16 frequencies, and with a base of
    1,000,000 twelve columns would hardly differ.
    """
    text = text_sizes(tokenizer) | {"tie_word_embeddings": False}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 30.0, "mrope_section": [6, 5, 5]}
    vision = {
        "depth": 4,
        "hidden_size": 80,
        "intermediate_size": 160,
        "num_heads": 4,
        "out_hidden_size": text["hidden_size"],
        "patch_size": PATCH // MERGE,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": FRAMES,
        "window_size": WINDOW * PATCH,
        "fullatt_block_indexes": [1, 3],
        "image_size": IMAGE_SIZE,
    }
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids, tie_word_embeddings=False)


def equal_windows(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float,
    max_length_q: int,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention [1, positions, heads, channels] within windows of equal length that follow each other."""
    windows = (states[0].unflatten(1, (-1, max_length_q)).transpose(0, 1) for states in (query, key, value))
    query, key, value = windows
    weights = (query @ key.mT * scaling).softmax(-1, dtype=torch.float32).to(value.dtype)
    return (weights @ value).transpose(1, 2).flatten(0, 1)[None], None


AttentionInterface.register(WINDOWS, equal_windows)


class Qwen2_5VL(Family):  # noqa: N801 - the family's name
    """See `Family`."""

    model_class = Qwen2_5_VLForConditionalGeneration
    image = "<|image_pad|>"
    before, after = "<|im_start|>user\n<|vision_start|>", "<|vision_end|>"
    asked = "{question}<|im_end|>\n<|im_start|>assistant\n"
    end = "<|im_end|>"
    special = {
        "sot_token": "<|im_start|>",
        "eot_token": "<|im_end|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
    }
    words = ("assistant",)
    template = CHAT_TEMPLATE

    @torch.no_grad()
    def build(self, tokenizer: GemmaTokenizer, seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
        """A newly initialized model; see `start_decoder`. The merger gives image tokens the RMS of embeddings."""
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer))
        start_decoder(model)
        visual = model.model.visual
        start_linear(visual.patch_embed.proj)
        start_sublayers(visual.blocks, ("proj", "down_proj"))
        for layer in visual.merger.mlp:
            if isinstance(layer, nn.Linear):
                start_linear(layer)
        state_prompts(model, tokenizer, self.end)
        return model.eval()

    def features(self, model: Qwen2_5_VLForConditionalGeneration, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Image tokens, twice: the tower's own output lies in the order of windows; see `Family.features`."""
        side = PATCH // MERGE
        blocks = pixels.unflatten(3, (GRID, MERGE, side)).unflatten(2, (GRID, MERGE, side))
        patches = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7)[..., None, :, :].expand(*[-1] * 6, FRAMES, -1, -1)
        grid = torch.tensor([[1, GRID * MERGE, GRID * MERGE]] * len(pixels), device=pixels.device)
        tokens = model.model.visual(patches.reshape(len(pixels) * (GRID * MERGE) ** 2, -1), grid).pooler_output
        cells = tokens.unflatten(0, (len(pixels), -1))
        return cells, cells

    def cell_width(self, config: Qwen2_5_VLConfig) -> int:
        """Channels of an image token."""
        return int(config.vision_config.out_hidden_size)

    def places(self, is_image: Tensor) -> Tensor:
        """Time, row and column: a picture has one time, and text goes on after its last row; see `Family.places`."""
        start = int(is_image.nonzero()[0])
        cell = torch.arange(GRID**2)
        image = start + torch.stack([torch.zeros_like(cell), cell // GRID, cell % GRID])
        before, after = torch.arange(start), start + GRID + torch.arange(len(is_image) - start - GRID**2)
        return torch.cat([before.expand(3, -1), image, after.expand(3, -1)], 1)

    def start_training(self, model: Qwen2_5_VLForConditionalGeneration) -> None:
        """All windows of all pictures at once; see `Family.start_training`."""
        super().start_training(model)
        for module in model.model.visual.modules():
            if getattr(module, "config", None) is model.config.vision_config:
                module.config._attn_implementation = WINDOWS

    def blocks(self, model: Qwen2_5_VLForConditionalGeneration) -> list[nn.Module]:
        """The layers of decoder and tower."""
        return [*model.model.language_model.layers, *model.model.visual.blocks]

    def save_processor(self, tokenizer: GemmaTokenizer, folder: Path) -> None:
        """Pictures of the area that training saw, pixels in [-1, 1]; see `Family.save_processor`."""
        size = {"shortest_edge": IMAGE_SIZE**2, "longest_edge": IMAGE_SIZE**2}
        images = Qwen2VLImageProcessorPil(size=size, patch_size=PATCH // MERGE, merge_size=MERGE, resample=2, **GRAY)
        tokenizer.bos_token = None  # no prompt of the family has one
        save_parts(tokenizer, self.template, images, folder)
