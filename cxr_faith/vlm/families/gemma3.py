"""Gemma-3 and MedGemma: pictures, prompts, token layout and attention masks. No other file knows them.

A prompt is `<bos> … <start_of_image> image tokens | <end_of_image> … question … <start_of_turn>model`; the bar marks
the end of the prefix. Image tokens attend to each other in both directions (transformers needs `token_type_ids` for
that) and never see the question, so the cache up to the bar depends on the picture alone.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Gemma3ForConditionalGeneration

from cxr_faith.vlm.checkpoint import hash_weights, load_processor
from cxr_faith.vlm.decoder import Decoder, Starts
from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.family import Size
from cxr_faith.vlm.folder import PROCESSOR_FILES, ModelFolder, read_json
from cxr_faith.vlm.layout import Layout
from cxr_faith.vlm.pretrained import FamilyVLM


class Gemma3Decoder(Decoder):
    """Causal, but for the image tokens among themselves; sliding layers see a window."""

    norm_offset = 1.0

    def __init__(self, model: Any, layout: Layout) -> None:
        super().__init__(model, layout)
        self.body = model.model  # makes masks from token types

    def make_masks(self, seen: int, new: int, image_starts: Starts | None) -> dict[str, Tensor]:
        """Masks of both layer types; see `Decoder.make_masks`."""
        config, device = self.model.config, self.model.device
        query = torch.arange(seen, seen + new, device=device)[:, None]
        key = torch.arange(seen + new, device=device)[None]
        attends = key <= query
        for start in image_starts or ():  # a picture's tokens do not see those of a later picture
            end = start + config.mm_tokens_per_image
            key_in_image, query_in_image = ((start <= place) & (place < end) for place in (key, query))
            attends = attends | (key_in_image & query_in_image)
        window = key > query - config.get_text_config().sliding_window
        return {"full_attention": attends[None, None], "sliding_attention": (attends & window)[None, None]}

    def image_inputs(self, embedded: Tensor, image_starts: Starts, prompt_length: int | None) -> dict[str, Tensor]:
        """Token types: 1 for image tokens; see `Decoder.image_inputs`."""
        types = torch.zeros(embedded.shape[:2], dtype=torch.long, device=embedded.device)
        for start in image_starts:
            types[:, start : start + self.model.config.mm_tokens_per_image] = 1
        return {"token_type_ids": types}


class Gemma3VLM(FamilyVLM):
    """A `Gemma3ForConditionalGeneration` with a vision tower, and its `Gemma3Processor`; see `FamilyVLM`."""

    model_class = Gemma3ForConditionalGeneration
    decoder_class = Gemma3Decoder
    stops = ("<end_of_turn>",)
    nullable = ()
    looks_ahead = True

    @classmethod
    def layout_of(cls, config: Any, image_size: Size | None = None) -> tuple[Layout, Size]:
        """A square of image tokens over a square picture of one size; see `Family.layout_of`."""
        side, pixels = int(config.mm_tokens_per_image**0.5), config.vision_config.image_size
        if image_size not in (None, (pixels, pixels)):
            raise ModelError(f"vlm.image_size: this model reads {pixels} px squares only")
        return Layout.of_grid((side, side)), (pixels, pixels)

    @classmethod
    def image_text(cls, processor: Any, config: Any, n_tokens: int) -> tuple[str, str]:
        """The mark of the start of an image, and the whole image; see `Family.image_text`."""
        return processor.boi_token, processor.full_image_sequence

    @classmethod
    def check_config(cls, config: Any, source: object) -> None:
        """Attention scale, and a square of image tokens; see `Family.check_config`."""
        scale = config.text_config.query_pre_attn_scalar
        if not scale > 0:
            raise ModelError(f"{source}: config.json: text_config.query_pre_attn_scalar must be positive, got {scale}")
        vision, side = config.vision_config, int(config.mm_tokens_per_image**0.5)
        patches = vision.image_size // vision.patch_size
        if side**2 != config.mm_tokens_per_image or patches == 0 or patches % side:
            grid = f"{config.mm_tokens_per_image} image tokens"
            raise ModelError(f"{source}: config.json: {patches}x{patches} patches cannot become a square of {grid}")

    @classmethod
    def layer_counts(cls, config: Any) -> dict[str, int]:
        """Layers of the decoder and of the tower; see `Family.layer_counts`."""
        parts = {"language_model": config.text_config, "vision_tower": config.vision_config}
        return {name: part.num_hidden_layers for name, part in parts.items()}

    @classmethod
    def load_processor(cls, folder: ModelFolder, config: Any) -> Any:
        """The processor, once its files fit; see `Family.load_processor`."""
        for name in PROCESSOR_FILES:  # before it makes a text of that length
            stated = read_json(folder.files[name]).get("image_seq_length") if name in folder.files else None
            if stated is not None and stated != config.mm_tokens_per_image:
                written = f"processor writes {stated!r} image tokens, the model has {config.mm_tokens_per_image}"
                raise ModelError(f"{folder.path / name}: {written}")
        _check_class(folder)
        return load_processor(folder)

    @classmethod
    def check_processor(cls, processor: Any, config: Any) -> None:
        """Size of pictures and number of image tokens; see `Family.check_processor`."""
        images, side = getattr(processor, "image_processor", None), config.vision_config.image_size
        if images is None or getattr(processor, "image_seq_length", None) is None:
            raise ModelError(
                "the folder's processor is no Gemma3Processor: processor_config.json is missing or damaged"
            )
        made = (getattr(images.size, "height", None), getattr(images.size, "width", None))
        if made != (side, side):
            raise ModelError(f"the processor makes {made[0]}x{made[1]} px pictures, the tower wants {side} px squares")
        if getattr(images, "do_pan_and_scan", None):
            raise ModelError("pan-and-scan adds image blocks that a map cannot show: set do_pan_and_scan to false")
        written, wanted = processor.image_seq_length, config.mm_tokens_per_image
        if written != wanted:
            raise ModelError(f"processor writes {written} image tokens, the model has {wanted}")

    @property
    def _tower(self) -> Any:
        # transformers 5.17 keeps the tower's layers one level deeper.
        return getattr(self.model.model.vision_tower, "vision_model", self.model.model.vision_tower)

    def encode_each(self, pixels: Tensor) -> Tensor:
        """Pixel values [batch, 3, H, W] to projected image tokens [batch, N, hidden]."""
        self.counts.embed += len(pixels)
        self.counts.encode += len(pixels)
        hidden = self.model.model.vision_tower(pixel_values=pixels.to(self.model.dtype)).last_hidden_state
        tokens: Tensor = self.model.model.multi_modal_projector(hidden)
        return tokens

    def embed(self, pixels: Tensor) -> Tensor | None:
        """Patch embeddings with their positions [batch, rows, columns, channels]; see `VLM.embed`."""
        if not self.shortcuts or self.pictures > 1:
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
        if self.pictures > 1:
            raise ModelError("the vision tower is observed for one picture, and this question shows several")
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


def _check_class(folder: ModelFolder) -> None:
    """Refuse the processor of another family, by the first file that states it, as transformers looks for it.

    Raises:
        ModelError: its class is another one.
    """
    for name in (*PROCESSOR_FILES, "tokenizer_config.json"):
        stated = read_json(folder.files[name]).get("processor_class") if name in folder.files else None
        if stated == "Gemma3Processor":
            return
        if stated is not None:
            what = f"processor_class is {repr(stated)[:100]}: the folder's processor is no Gemma3Processor"
            raise ModelError(f"{folder.path / name}: {what}")
