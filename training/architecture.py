"""What training must know of a family of models, and how a small one of it starts.

All families see the same pictures, 216 px squares of 12 x 12 cells, and have one image token for each cell.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

IMAGE_SIZE = 216
PATCH = 18
GRID = IMAGE_SIZE // PATCH
GRAY = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_convert_rgb": True}
"""Settings of every image processor: pixels in [-1, 1]."""


class Family(ABC):
    """A family of models: its architecture, its prompts, and how its pictures become image tokens.

    A prompt is `before`, the image tokens, `after`, then `asked` with the question; the reply follows, then `end`.
    """

    model_class: ClassVar[Any]
    """The transformers class."""
    image: ClassVar[str]
    """The image token."""
    before: ClassVar[str]
    after: ClassVar[str]
    asked: ClassVar[str]
    end: ClassVar[str]
    special: ClassVar[Mapping[str, str]]
    """Special tokens by the name that the tokenizer knows them by, besides those of all families."""
    words: ClassVar[tuple[str, ...]] = ()
    """Words of the chat template that should be single tokens."""
    template: ClassVar[str]
    """The chat template."""
    looks_ahead: ClassVar[bool] = False
    """Whether image tokens attend to each other in both directions."""

    @abstractmethod
    def build(self, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> PreTrainedModel:
        """A newly initialized model."""

    @abstractmethod
    def features(self, model: PreTrainedModel, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What a picture becomes.

        Args:
            model: the model.
            pixels: pictures in model space [batch, 3, side, side].

        Returns:
            image tokens [batch, N, hidden], and what a head reads lesions from [batch, N, `cell_width`], cell by cell.
        """

    @abstractmethod
    def save_processor(self, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
        """Write tokenizer, chat template and image settings into the model's folder."""

    def cell_width(self, config: Any) -> int:
        """Channels of the features of a cell."""
        return int(config.vision_config.hidden_size)

    def places(self, is_image: Tensor) -> Tensor:
        """Positions int64 [rows, P] of a prefix, from where its image tokens are, bool [P]; text goes on after them."""
        return torch.arange(len(is_image))[None]

    def start_training(self, model: PreTrainedModel) -> None:
        """Let the model compute as training needs it."""
        if model.device.type == "cpu":
            # On a CPU the backward pass of fused attention is by far the slowest part; eager takes a fifth of it.
            model.set_attn_implementation("eager")

    def blocks(self, model: PreTrainedModel) -> list[nn.Module]:
        """The layers of decoder and tower."""
        return [*model.model.language_model.layers, *model.model.vision_tower.encoder.layers]


def text_sizes(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Sizes and token ids of every decoder: six layers of 128 channels."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


@torch.no_grad()
def start_decoder(model: PreTrainedModel, embedding: float = 0.5) -> None:
    """First weights of a decoder that only has norms before its sublayers.

    Sublayers keep the size of what they read, and what they add is divided among the layers. Embeddings and image
    tokens are of similar size, at least twice what the first layer adds.

    Args:
        model: the model, with a head of its own.
        embedding: RMS of the embeddings; projected image tokens should have the same.
    """
    decoder = model.model.language_model
    nn.init.normal_(decoder.embed_tokens.weight, std=embedding)
    start_linear(model.lm_head)
    start_sublayers(decoder.layers, ("o_proj", "down_proj"))


def start_linear(module: nn.Module, share: float = 1.0) -> None:
    """Weights that keep the RMS of their input, times a factor; no bias."""
    nn.init.normal_(module.weight, std=share * module.weight[0].numel() ** -0.5)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def start_sublayers(layers: nn.ModuleList, last: tuple[str, ...]) -> None:
    """`start_linear` for all layers; the `last` matrix of each sublayer is divided among the layers."""
    for name, module in layers.named_modules():
        if isinstance(module, nn.Linear):
            start_linear(module, (2 * len(layers)) ** -0.5 if name.endswith(last) else 1.0)


def state_prompts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, end: str) -> None:
    """How the model generates: greedily, up to the token that ends a turn; and that it learned plain questions."""
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(end)}
    model.generation_config.eos_token_id = sorted(ends)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.do_sample = False
    model.config.prompt_template = "{question}"


def save_parts(tokenizer: PreTrainedTokenizerBase, template: str, images: Any, folder: Path) -> None:
    """Write tokenizer, chat template and image settings, as published folders hold them."""
    tokenizer.save_pretrained(folder)
    images.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
