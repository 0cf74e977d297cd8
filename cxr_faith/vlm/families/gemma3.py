"""Gemma-3 and MedGemma: pictures, prompts, token layout and attention masks. No other file knows them.

A prompt is `<bos> … <start_of_image> image tokens | <end_of_image> … question … <start_of_turn>model`; the bar marks
the end of the prefix. Image tokens attend to each other in both directions (transformers needs `token_type_ids` for
that) and never see the question, so the cache up to the bar depends on the picture alone.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Gemma3ForConditionalGeneration

from cxr_faith.vlm.capture import leaf_output
from cxr_faith.vlm.checkpoint import hash_weights, load, read_config
from cxr_faith.vlm.config import MAX_QUESTION_TOKENS, ModelConfig
from cxr_faith.vlm.decoder import Decoder
from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.families.gemma3_config import check_image_tokens, check_weights, parse_config
from cxr_faith.vlm.folder import ModelFolder, is_hub_id, read_json
from cxr_faith.vlm.hub import local_folder
from cxr_faith.vlm.prompts import Prompter, check_prompts
from cxr_faith.vlm.quantized import check_library
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
        prompt_template: how a question is put to the model; must contain `{question}`.
        source: the folder or hub id that the model came from, for the run's provenance.
        max_question_tokens: longest question, with the prompt template.

    Raises:
        ModelError: model and processor do not fit together, or yes and no are not single tokens.
    """

    def __init__(
        self,
        model: Gemma3ForConditionalGeneration,
        processor: Any,
        prompt_template: str = "{question}",
        source: str = "",
        max_question_tokens: int = MAX_QUESTION_TOKENS,
    ) -> None:
        if "{question}" not in prompt_template:
            raise ModelError(f"prompt_template must contain '{{question}}', got {prompt_template!r}")
        grid, image_size = grid_and_size(model.config)
        _check_processor(processor, grid, image_size)
        n_cells, positions = grid[0] * grid[1], model.config.get_text_config().max_position_embeddings
        encode = partial(encode_prompt, processor, model.config.image_token_id, n_cells)
        prompter = Prompter(processor, encode, n_cells, prompt_template, max_question_tokens, positions)
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
        prompt_template: str = "{question}",
        revision: str | None = None,
        max_question_tokens: int = MAX_QUESTION_TOKENS,
    ) -> "Gemma3VLM":
        """Load from a local folder or a hub id; safetensors only, no remote code.

        Args:
            path: folder with `config.json`, or a hub id such as `google/medgemma-4b-it`.
            device: default: cuda if there is one, else cpu.
            dtype: default: bfloat16 on cuda, float32 on cpu. float16 overflows in Gemma 3 and is refused.
            prompt_template: how a question is put to the model.
            revision: hub revision.
            max_question_tokens: longest question, with the prompt template.

        Raises:
            ModelError: a file of the model is missing or damaged, the files do not fit each other, or it is another
                kind of model.
        """
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        if dtype == torch.float16:
            raise ModelError("float16 overflows to NaN in Gemma 3: use bfloat16 or float32")
        peek(path, revision)
        folder = ModelFolder.open(local_folder(path, revision))
        content = read_json(folder.files["config.json"])
        check_library(content, path)
        config = parse_config(content, path)
        check_weights(config, read_tensors(folder), path)
        check_image_tokens(config, folder)
        config._commit_hash = folder.path.name if is_hub_id(path) else None
        model, processor = load(Gemma3ForConditionalGeneration, config, folder, dtype)
        try:
            vlm = cls(model.to(device), processor, prompt_template, str(path), max_question_tokens)
            check_prompts(vlm.prompter, model.get_input_embeddings().weight.shape[0])
        except Exception as error:  # a tokenizer fails in many ways where one of its settings has a wrong type
            kind = "" if isinstance(error, ModelError) else f"the tokenizer fails: {type(error).__name__}: "
            raise ModelError(f"{path}: {kind}{' '.join(str(error).split())}") from error
        return vlm

    @classmethod
    def of(cls, config: ModelConfig, device: torch.device | str | None = None) -> "Gemma3VLM":
        """Load the model of a run's config; see `from_pretrained`."""
        return cls.from_pretrained(
            config.source, device, config.dtype, config.prompt_template, config.revision, config.max_question_tokens
        )

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

    def tower_hidden(self, pixels: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Image tokens, and the tower's residual stream after a layer; see `VLM.tower_hidden`."""
        layers = self._tower.encoder.layers
        if not 0 <= layer < len(layers):
            raise ModelError(f"no vision tower layer {layer}: the tower has {len(layers)}, counted from 0")
        with leaf_output(layers[layer]) as streams:
            return self.encode(pixels), streams[0]

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


def grid_and_size(config: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """(grid_h, grid_w) image tokens and (H, W) pixels of the input, both square, from a `Gemma3Config`."""
    side, pixels = int(config.mm_tokens_per_image**0.5), config.vision_config.image_size
    return (side, side), (pixels, pixels)


def _check_processor(processor: Any, grid: tuple[int, int], image_size: tuple[int, int]) -> None:
    """Raise a ModelError if a processor makes other pictures or image tokens than the model takes."""
    images, n_cells = getattr(processor, "image_processor", None), grid[0] * grid[1]
    if images is None or getattr(processor, "image_seq_length", None) is None:
        raise ModelError("the folder's processor is no Gemma3Processor: processor_config.json is missing or damaged")
    made = (getattr(images.size, "height", None), getattr(images.size, "width", None))
    if made != image_size:
        size = f"{made[0]}x{made[1]}"
        raise ModelError(f"the processor makes {size} px pictures, the tower wants {image_size[0]} px squares")
    for name in ("image_mean", "image_std"):
        values = getattr(images, name)
        numbers = isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values)
        if not numbers or len(values) != 3 or not all(map(math.isfinite, values)):
            raise ModelError(f"the processor's {name} must be three numbers, got {values}")
    if min(images.image_std) <= 0:
        raise ModelError(f"the processor's image_std must be positive, got {images.image_std}")
    factor = images.rescale_factor if isinstance(images.rescale_factor, float) else 0
    if not (images.do_rescale and images.do_normalize and math.isclose(factor, 1 / 255, rel_tol=1e-6)):
        raise ModelError("the processor must rescale by 1/255 and normalize: see do_rescale, rescale_factor")
    if getattr(images, "do_pan_and_scan", None):
        raise ModelError("pan-and-scan adds image blocks that a map cannot show: set do_pan_and_scan to false")
    if processor.image_seq_length != n_cells:
        raise ModelError(f"processor writes {processor.image_seq_length} image tokens, the model has {n_cells}")


def encode_prompt(processor: Any, image_id: int, n_cells: int, text: str) -> tuple[tuple[int, ...], int]:
    """Token ids of a filled chat template, and the position of its first image token.

    Raises:
        ModelError: the tokens are not one BOS token and one block of image tokens.
    """
    mark, tokenizer = processor.boi_token, processor.tokenizer
    if text.count(mark) != 1:
        raise ModelError(f"the chat template gives {text.count(mark)} {mark} tokens, not one")
    whole = text.replace(mark, processor.full_image_sequence)
    # A template that writes the BOS token itself must not get a second one.
    if not tokenizer.bos_token:
        raise ModelError("the tokenizer has no BOS token: see tokenizer_config.json")
    ids: list[int] = tokenizer(whole, add_special_tokens=not whole.startswith(tokenizer.bos_token))["input_ids"]
    start = _image_block(ids, image_id, n_cells)
    if ids.count(tokenizer.bos_token_id) != 1:
        raise ModelError(f"the chat template gives {ids.count(tokenizer.bos_token_id)} BOS tokens, not one")
    return tuple(ids), start


def _image_block(ids: list[int], image_id: int, n_cells: int) -> int:
    """Where the block of image tokens starts.

    Raises:
        ModelError: the tokens are not one block of `n_cells`.
    """
    start, count = (ids.index(image_id) if image_id in ids else 0), ids.count(image_id)
    if count != n_cells or any(token != image_id for token in ids[start : start + n_cells]):
        raise ModelError(
            f"the chat template gives {count} image tokens, not one block of {n_cells}; see image_token_index"
        )
    return start
