"""Seconds and memory from the shape of a Gemma 3 model, where no pilot has measured them."""

from types import SimpleNamespace
from typing import Any

import torch

from cxr_faith.bench.flops import decoder_flops, tower_flops
from cxr_faith.planning.work import Work
from cxr_faith.vlm.checkpoint import read_config
from cxr_faith.vlm.config import ModelConfig
from cxr_faith.vlm.loading import family_of
from cxr_faith.vlm.micro_batch import GPU_BATCH
from cxr_faith.vlm.model_files import peek_config

COUNTED = "gemma3"
"""The `model_type` whose operations are counted."""
AROUND, SUFFIX = 6, 28
"""Assumed tokens around the image's, and of a question with the chat's turn."""
BYTES = 2  # bfloat16


class Shape:
    """The shape of a model, from its config alone.

    Args:
        config: the model.
        cells: image tokens.
    """

    def __init__(self, config: ModelConfig, cells: int) -> None:
        content = read_config(config.source, config.revision)
        self.counted = content.get("model_type") == COUNTED
        family = family_of(content, config.source)
        self._family, self._config = family, peek_config(family, config.source, config.revision)
        self._shape: Any = SimpleNamespace(model=SimpleNamespace(config=self._config), n_cells=cells)
        self._prefix = cells + AROUND

    def operations(self, work: Work) -> float:
        """Floating-point operations of the expected work; matrix products only."""
        shape, prefix, whole = self._shape, self._prefix, self._prefix + SUFFIX
        picture = tower_flops(shape) + decoder_flops(shape, prefix, prefix)
        question = decoder_flops(shape, SUFFIX, whole)
        forward, backward = (decoder_flops(shape, whole, whole, products) for products in (2, 4))
        curves = (work.pictures + work.use) * picture + (work.curves + work.answers + work.use) * question
        return curves + work.maps * forward + work.backwards * backward

    def memory(self, micro_batch: int | None) -> int:
        """Bytes on a GPU while curves run: weights, one layer of the vision tower, and the cache of the pictures.

        A tower layer holds its input, normalized input, queries, keys, values and output, and the MLP before and after
        its nonlinearity.
        """
        text, vision = self._config.get_text_config(), self._config.vision_config
        with torch.device("meta"):
            weights = sum(weight.numel() for weight in self._family.model_class(self._config).parameters())
        pictures, patches = micro_batch or GPU_BATCH, (vision.image_size // vision.patch_size) ** 2
        cache = 2 * self._prefix * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
        layer = patches * (6 * vision.hidden_size + 2 * vision.intermediate_size)
        return BYTES * int(weights + pictures * (cache + layer))
