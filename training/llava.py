"""A very small LLaVA: the last but one layer of a CLIP tower, an MLP as projector, a causal Llama."""

from __future__ import annotations

from pathlib import Path

import torch
from architecture import (
    GRAY,
    IMAGE_SIZE,
    PATCH,
    Family,
    save_parts,
    start_decoder,
    start_linear,
    state_prompts,
    text_sizes,
)
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    GemmaTokenizer,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

CHAT_TEMPLATE = """{{ bos_token }}
{%- for message in messages -%}
    {{ 'ASSISTANT:' if message['role'] == 'assistant' else 'USER: ' }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- else -%}
        {%- for item in message['content'] -%}
            {{ '<image>\n' if item['type'] == 'image' else item['text'] | trim }}
        {%- endfor -%}
    {%- endif -%}
    {{ eos_token if message['role'] == 'assistant' else ' ' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ 'ASSISTANT:' }}
{%- endif -%}
"""


def build_config(tokenizer: GemmaTokenizer) -> LlavaConfig:
    """The model's configuration for a tokenizer: 12 × 12 image tokens, six decoder layers, five of the tower."""
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=5,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**text_sizes(tokenizer), tie_word_embeddings=False),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(IMAGE_SIZE // PATCH) ** 2,
        tie_word_embeddings=False,
    )


class Llava(Family):
    """See `Family`."""

    model_class = LlavaForConditionalGeneration
    image = "<image>"
    before, after = "<bos>USER: ", ""
    asked = "\n{question} ASSISTANT:"
    end = "<eos>"
    special = {"image_token": "<image>"}
    words = ("USER", "▁ASSISTANT")
    template = CHAT_TEMPLATE

    @torch.no_grad()
    def build(self, tokenizer: GemmaTokenizer, seed: int = 0) -> LlavaForConditionalGeneration:
        """A newly initialized model.

        The projector gives image tokens the RMS of the embeddings, and the tower's positions start as large as those of
        SigLIP; see also `start_decoder`.
        """
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(build_config(tokenizer))
        start_decoder(model)
        start_linear(model.model.multi_modal_projector.linear_1)
        start_linear(model.model.multi_modal_projector.linear_2)
        embeddings = model.model.vision_tower.embeddings
        start_linear(embeddings.patch_embedding)
        nn.init.normal_(embeddings.position_embedding.weight, std=embeddings.embed_dim**-0.5)
        state_prompts(model, tokenizer, self.end)
        return model.eval()

    def features(self, model: LlavaForConditionalGeneration, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Image tokens, and the tower's inner layer without the class token; see `Family.features`."""
        hidden = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        cells = hidden[model.config.vision_feature_layer][:, 1:]
        return model.model.multi_modal_projector(cells), cells

    def save_processor(self, tokenizer: GemmaTokenizer, folder: Path) -> None:
        """Square bilinear resize, pixels in [-1, 1]; see `Family.save_processor`."""
        size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        images = LlavaImageProcessorPil(size=size, crop_size=size, do_center_crop=False, resample=2, **GRAY)
        save_parts(tokenizer, self.template, images, folder)
