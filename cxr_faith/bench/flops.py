"""Floating-point operations of a model's stages, from its shape. A multiply-add counts as two operations."""

from dataclasses import dataclass
from typing import Any

from cxr_faith.vlm import Gemma3VLM
from cxr_faith.vlm.base import Prompt


@dataclass(frozen=True)
class Stages:
    """One number for each bare stage of a picture: seconds, or floating-point operations.

    Attributes:
        tower: pixels to image tokens.
        prefill: image tokens to the decoder's cache.
        suffix: a question on that cache, and its margin.
    """

    tower: float
    prefill: float
    suffix: float

    def total(self, pictures: int, scores: int) -> float:
        """All stages for a number of distinct pictures and a number of questions about them."""
        return pictures * (self.tower + self.prefill) + scores * self.suffix


def stage_flops(vlm: Gemma3VLM, prompt: Prompt) -> Stages:
    """Floating-point operations (two for a multiply-add) of each bare stage, from the model's shape.

    Matrix products only: projections, attention and the patch embedding.
    """
    prefix, suffix = len(prompt.prefix_ids), len(prompt.suffix_ids)
    head = 2 * vlm.model.config.get_text_config().hidden_size * (len(vlm.yes_ids) + len(vlm.no_ids))
    question = decoder_flops(vlm, suffix, prefix + suffix) + head
    return Stages(tower_flops(vlm), decoder_flops(vlm, prefix, prefix), question)


def tower_flops(vlm: Gemma3VLM) -> float:
    """Operations of vision tower and projector for one picture."""
    vision: Any = vlm.model.config.vision_config
    patches, width = (vision.image_size // vision.patch_size) ** 2, vision.hidden_size
    linear = 4 * width**2 + 2 * width * vision.intermediate_size
    layer = 2 * patches * linear + 4 * patches**2 * width
    projector = 2 * vlm.n_cells * width * vlm.model.config.get_text_config().hidden_size
    return float(vision.num_hidden_layers * layer + projector) + embedding_flops(vlm)


def embedding_flops(vlm: Gemma3VLM) -> float:
    """Operations of cutting one picture into patch embeddings."""
    vision: Any = vlm.model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    return float(2 * patches * vision.num_channels * vision.patch_size**2 * vision.hidden_size)


def last_layer_flops(vlm: Gemma3VLM, length: int) -> float:
    """Operations of the last decoder layer after its keys and values; a prefix of `length` skips them."""
    text: Any = vlm.model.config.get_text_config()
    width, heads = text.hidden_size, text.num_attention_heads * text.head_dim
    linear = width * heads + 3 * width * text.intermediate_size
    return float(2 * length * linear + 4 * length * length * heads)


def decoder_flops(vlm: Gemma3VLM, new: int, seen: int, products: int = 2) -> float:
    """Operations of all decoder layers for `new` positions that attend to `seen` ones, masked or not.

    Args:
        vlm: the model.
        new: positions that pass the layers.
        seen: positions that their attention reaches.
        products: matrix products of an attention: 2 forwards, 4 backwards (frozen weights: the projections' backward
            costs what their forward does).
    """
    text: Any = vlm.model.config.get_text_config()
    width, heads = text.hidden_size, text.num_attention_heads * text.head_dim
    linear = 2 * width * (heads + text.num_key_value_heads * text.head_dim) + 3 * width * text.intermediate_size
    return float(text.num_hidden_layers * (2 * new * linear + 2 * products * new * seen * heads))


def logits_flops(vlm: Gemma3VLM, positions: int) -> float:
    """Operations of the full logits of a number of positions."""
    text: Any = vlm.model.config.get_text_config()
    return float(2 * positions * text.hidden_size * text.vocab_size)
