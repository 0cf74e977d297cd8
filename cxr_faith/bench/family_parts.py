"""A model of each family with random weights in its true class, saved as a folder and loaded as any other model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from cxr_faith.storage.atomic import write_atomic
from cxr_faith.vlm import bundled_model


@dataclass(frozen=True)
class ModelSize:
    """How large a model is.

    Attributes:
        text: sizes of the decoder, as its config names them.
        width: channels of the vision tower.
        hidden: channels inside its feed-forward blocks.
        layers: its layers.
        heads: its attention heads.
        times: how many times larger both sides of a picture are than in the tiny model.
    """

    text: Mapping[str, Any]
    width: int
    hidden: int
    layers: int
    heads: int
    times: int

    @property
    def vision(self) -> dict[str, Any]:
        """Sizes of the tower, as most configs name them."""
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        return dict(zip(names, (self.width, self.hidden, self.layers, self.heads), strict=True))

    @property
    def blocks(self) -> dict[str, Any]:
        """Sizes of the tower, as the Qwen configs name them, with one layer more."""
        names = ("depth", "hidden_size", "intermediate_size", "num_heads", "out_hidden_size")
        values = (self.layers + 1, self.width, self.hidden, self.heads, self.text["hidden_size"])
        return dict(zip(names, values, strict=True))

    @property
    def rope_sections(self) -> list[int]:
        """Rotary channels of the three rows of positions."""
        half = self.text["head_dim"] // 2
        return [half - 2 * (half // 3), half // 3, half // 3]

    def picture(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) of a picture that has this size in the tiny model."""
        return height * self.times, width * self.times


_SHARED = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
TINY = ModelSize(
    {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "head_dim": 12}
    | {"max_position_embeddings": 512, **_SHARED},
    width=32,
    hidden=48,
    layers=2,
    heads=2,
    times=1,
)
"""For tests."""
CPU = ModelSize(
    {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6, "head_dim": 32}
    | {"max_position_embeddings": 2048, **_SHARED},
    width=96,
    hidden=384,
    layers=4,
    heads=4,
    times=2,
)
"""For measurements on a processor."""


@dataclass
class Parts:
    """What a family's folder is made of.

    Attributes:
        model: the transformers model.
        tokenizer: with the family's special tokens.
        template: its chat template.
        images: its image processor.
        image_size: (H, W) to ask for; None: the family's own.
    """

    model: Any
    tokenizer: Any
    template: str
    images: Any
    image_size: tuple[int, int] | None = None


def tokenizer_with(*special: str, bos: bool = True) -> Any:
    """The bundled tokenizer with more special tokens."""
    tokenizer = AutoTokenizer.from_pretrained(bundled_model())
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = None
    if bos:
        start = tokenizer.bos_token
        pieces = TemplateProcessing(single=f"{start} $A", special_tokens=[(start, tokenizer.bos_token_id)])
        tokenizer.backend_tokenizer.post_processor = pieces
    else:
        tokenizer.bos_token = None
    return tokenizer


def text_ids(tokenizer: Any) -> dict[str, Any]:
    """Ids that a text config names."""
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def enlarge(model: Any, seed: int = 0) -> Any:
    """Random weights that are large enough for the picture to matter; norms' own weights take part, too."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name and weight.ndim == 1 and name.endswith("weight"):
                weight.add_(torch.rand_like(weight) * 0.6 - 0.3)
            elif weight.ndim >= 2:
                weight.normal_(std=1.2 * weight[0].numel() ** -0.5)
        model.model.language_model.embed_tokens.weight.normal_(std=0.3)
        model.lm_head.weight.normal_(std=0.5)
    return model.eval()


def save(parts: Parts, folder: Path) -> Path:
    """Write the folder of a model."""
    parts.model.save_pretrained(folder)
    parts.tokenizer.save_pretrained(folder)
    if parts.template:
        write_atomic(folder / "chat_template.jinja", parts.template)
    settings = json.loads(parts.images.to_json_string())
    write_atomic(folder / "preprocessor_config.json", json.dumps(settings))
    return folder
