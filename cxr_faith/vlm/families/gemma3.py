"""Gemma-3 and MedGemma: pictures, prompts, token layout and attention masks. No other file knows them.

A prompt is `<bos> … <start_of_image> image tokens | <end_of_image> … question … <start_of_turn>model`; the bar marks
the end of the prefix. Image tokens attend to each other in both directions (transformers needs `token_type_ids` for
that) and never see the question, so the cache up to the bar depends on the picture alone.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Gemma3ForConditionalGeneration

from cxr_faith.vlm.checkpoint import expected_weights, hash_weights, load_model, read_config
from cxr_faith.vlm.config import ModelConfig, PromptOptions, default_template
from cxr_faith.vlm.decoder import Decoder
from cxr_faith.vlm.devices import check_device, choose_accelerator, default_dtype, exact_arithmetic
from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.families.gemma3_config import check_image_tokens, check_layers, check_weights, parse_config
from cxr_faith.vlm.families.gemma3_processor import checked_processor, grid_and_size, make_prompter
from cxr_faith.vlm.folder import CONFIG, ModelFolder, read_json
from cxr_faith.vlm.hub import local_folder, resolved_revision
from cxr_faith.vlm.quantized import check_library, is_quantized
from cxr_faith.vlm.transformers_vlm import TransformersVLM
from cxr_faith.vlm.weights import read_tensors


class Gemma3Decoder(Decoder):
    """Causal, but for the image tokens among themselves; sliding layers see a window."""

    def make_masks(self, seen: int, new: int, image_start: int | None) -> dict[str, Tensor]:
        """Masks of both layer types; see `Decoder.make_masks`."""
        config, device = self.model.config, self.model.device
        query = torch.arange(seen, seen + new, device=device)[:, None]
        key = torch.arange(seen + new, device=device)[None]
        attends = key <= query
        if image_start is not None:
            image_end = image_start + config.mm_tokens_per_image
            key_in_image, query_in_image = ((image_start <= place) & (place < image_end) for place in (key, query))
            attends = attends | (key_in_image & query_in_image)
        window = key > query - config.get_text_config().sliding_window
        return {"full_attention": attends[None, None], "sliding_attention": (attends & window)[None, None]}

    def image_inputs(self, embedded: Tensor, image_start: int) -> dict[str, Tensor]:
        """Token types: 1 for image tokens; see `Decoder.image_inputs`."""
        types = torch.zeros(embedded.shape[:2], dtype=torch.long, device=embedded.device)
        types[:, image_start : image_start + self.model.config.mm_tokens_per_image] = 1
        return {"token_type_ids": types}


class Gemma3VLM(TransformersVLM):
    """A `Gemma3ForConditionalGeneration` with a vision tower, and its processor.

    Args:
        model: the model.
        processor: its `Gemma3Processor`.
        prompts: how questions are put to the model.
        source: the folder or hub id that the model came from, for the run's provenance.

    Raises:
        ModelError: model and processor do not fit together, or yes and no are not single tokens.
    """

    def __init__(
        self,
        model: Gemma3ForConditionalGeneration,
        processor: Any,
        prompts: PromptOptions = PromptOptions(),  # noqa: B008 - frozen
        source: str = "",
    ) -> None:
        grid, image_size = grid_and_size(model.config)
        prompter = make_prompter(processor, model.config, prompts)
        super().__init__(processor, Gemma3Decoder(model), grid, image_size, ("<end_of_turn>",), prompter, source)
        mean, std = processor.image_processor.image_mean, processor.image_processor.image_std
        self._mean, self._std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        # transformers 5.17 keeps the tower's layers one level deeper.
        self._tower: Any = getattr(model.model.vision_tower, "vision_model", model.model.vision_tower)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        prompts: PromptOptions | None = None,
        revision: str | None = None,
    ) -> "Gemma3VLM":
        """Load from a local folder or a hub id; safetensors only, no remote code.

        On a GPU this also settles how the process computes, see `exact_arithmetic`.

        Args:
            path: folder with `config.json`, or a hub id such as `google/medgemma-4b-it`.
            device: default: cuda if there is one, else cpu.
            dtype: default: bfloat16 on cuda, float32 on cpu. float16 overflows in Gemma 3 and is refused.
            prompts: how questions are put to the model; default: with `default_template`.
            revision: branch, tag or commit of a hub id; default: main.

        Raises:
            ModelError: a file of the model is missing or damaged, the files do not fit each other, or it is another
                kind of model.
            ValueError: the device cannot compute the scores.
        """
        device = torch.device(device or choose_accelerator())
        check_device(device)
        exact_arithmetic(device)
        dtype = dtype or default_dtype(device)
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        if dtype == torch.float16:
            raise ModelError("float16 overflows to NaN in Gemma 3: use bfloat16 or float32")
        folder, config = open_model(path, revision)
        prompts = prompts or PromptOptions(default_template(path))
        processor = checked_processor(folder, config, str(path), prompts)
        config._commit_hash = resolved_revision(path, folder.path) or None
        model = load_model(Gemma3ForConditionalGeneration, config, folder, dtype)
        return cls(model.to(device), processor, prompts, str(path))

    @classmethod
    def of(cls, config: ModelConfig, device: torch.device | str | None = None) -> "Gemma3VLM":
        """Load the model of a run's config; see `from_pretrained`."""
        return cls.from_pretrained(config.source, device, config.dtype, config.prompts, config.revision)

    def normalize(self, images: Tensor) -> Tensor:
        """Pictures uint8 [batch, 3, H, W] to the float32 pixel values that the model gets."""
        return (images.to(self.device).float() / 255 - self._mean.to(self.device)) / self._std.to(self.device)

    def denormalize(self, pixels: Tensor) -> Tensor:
        """The inverse of `normalize`, rounded to uint8."""
        values = pixels * self._std.to(pixels.device) + self._mean.to(pixels.device)
        return (values * 255).round().clamp(0, 255).to(torch.uint8)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixel values [batch, 3, H, W] to projected image tokens [batch, N, hidden]."""
        self.counts.embed += len(pixels)
        self.counts.encode += len(pixels)
        hidden = self.model.model.vision_tower(pixel_values=pixels.to(self.model.dtype)).last_hidden_state
        tokens: Tensor = self.model.model.multi_modal_projector(hidden)
        return tokens

    def embed(self, pixels: Tensor) -> Tensor | None:
        """Patch embeddings with their positions [batch, rows, columns, channels]; see `VLM.embed`."""
        if not self.shortcuts:
            return None
        self.counts.embed += len(pixels)
        side = self.image_size[0] // self.model.config.vision_config.patch_size
        embedded: Tensor = self._tower.embeddings(pixels.to(self.model.dtype)).unflatten(1, (side, side))
        return embedded

    def encode_embedded(self, embedded: Tensor) -> Tensor:
        """The rest of the vision tower, and the projector."""
        self.counts.encode += len(embedded)
        hidden = self._tower.encoder(inputs_embeds=embedded.flatten(1, 2)).last_hidden_state
        tokens: Tensor = self.model.model.multi_modal_projector(self._tower.post_layernorm(hidden))
        return tokens

    def tower_stream(self, pixels: Tensor, layer: int) -> Tensor:
        """The tower's residual stream after a layer; see `VLM.tower_stream`."""
        layers = self._tower.encoder.layers
        if not 0 <= layer < len(layers):
            raise ModelError(f"no vision tower layer {layer}: the tower has {len(layers)}, counted from 0")
        self.counts.embed += len(pixels)
        stream: Tensor = self._tower.embeddings(pixels.to(self.model.dtype))
        for block in layers[: layer + 1]:
            stream = block(stream, None)
        return stream

    def encode_stream(self, stream: Tensor, layer: int) -> Tensor:
        """The tower's later layers, and the projector."""
        self.counts.encode += len(stream)
        for block in self._tower.encoder.layers[layer + 1 :]:
            stream = block(stream, None)
        tokens: Tensor = self.model.model.multi_modal_projector(self._tower.post_layernorm(stream))
        return tokens

    def tower_identity(self) -> str:
        """Hash of the vision tower's weights; see `VLM.tower_identity`."""
        # Both dtypes that a model can be loaded in agree in bfloat16.
        return hash_weights(self._tower, torch.bfloat16)


def peek(path: str | Path, revision: str | None = None) -> tuple[tuple[int, int], tuple[int, int]]:
    """(grid, image size) from the model's config alone, so that a bad setting stops before weights are read.

    Raises:
        ModelError: no such folder, not a Gemma-3 with a vision tower, or a quantized one whose library is missing.
    """
    content = read_config(path, revision)
    check_library(content, path)
    return grid_and_size(parse_config(content, path))


def open_model(path: str | Path, revision: str | None = None) -> tuple[ModelFolder, Any]:
    """The model's folder and its `Gemma3Config`, once they fit each other; a model of the hub is downloaded.

    Raises:
        ModelError: a file is missing or damaged, or they do not fit each other.
    """
    peek(path, revision)
    folder = ModelFolder.open(local_folder(path, revision))
    config = parse_config(read_json(folder.files[CONFIG]), path)
    tensors = read_tensors(folder)
    check_layers(config, tensors, path)
    expected = expected_weights(Gemma3ForConditionalGeneration, config, folder)
    if not is_quantized(config.to_dict()):  # their tensors have other names and shapes
        check_weights(expected, tensors, path)
    check_image_tokens(config, folder)
    return folder, config


def check_files(config: ModelConfig) -> None:
    """Check all files of a run's model, and the prompt template, before any weights are read.

    Raises:
        ModelError: what is wrong with which of them.
    """
    folder, content = open_model(config.source, config.revision)
    checked_processor(folder, content, config.source, config.prompts)
