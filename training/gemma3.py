"""A very small Gemma-3: SigLIP tower, linear projector, a decoder whose image tokens see each other."""

from __future__ import annotations

from pathlib import Path

import torch
from architecture import GRAY, GRID, IMAGE_SIZE, PATCH, Family, state_prompts, text_sizes
from torch import Tensor
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma3TextConfig,
    GemmaTokenizer,
    SiglipVisionConfig,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

LAYER_TYPES = ["sliding_attention", "sliding_attention", "full_attention"] * 2
CHAT_TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
"""


def build_config(tokenizer: GemmaTokenizer) -> Gemma3Config:
    """The model's configuration for a tokenizer: 12 × 12 image tokens and six decoder layers, two of them global."""
    text = Gemma3TextConfig(
        **text_sizes(tokenizer),
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=512,
        layer_types=LAYER_TYPES,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        tie_word_embeddings=True,
    )
    vision = SiglipVisionConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    return Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=GRID * GRID,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        tie_word_embeddings=True,
    )


class Gemma3(Family):
    """See `Family`."""

    model_class = Gemma3ForConditionalGeneration
    image = "<image_soft_token>"
    before, after = "<bos><start_of_turn>user\n\n\n<start_of_image>", "<end_of_image>"
    asked = "\n\n{question}<end_of_turn>\n<start_of_turn>model\n"
    end = "<end_of_turn>"
    special = {
        "sot_token": "<start_of_turn>",
        "eot_token": "<end_of_turn>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    template = CHAT_TEMPLATE
    looks_ahead = True

    @torch.no_grad()
    def build(self, tokenizer: GemmaTokenizer, seed: int = 0) -> Gemma3ForConditionalGeneration:
        """A newly initialized model.

        Gemma also has norms after attention and MLP, so by default each sublayer adds a vector of RMS 1 to much smaller
        embeddings, and the projector starts at zero: the decoder then never learns to use the picture. Smaller
        post-norms (1 + w = 0.3), embeddings of RMS 1 and a projector of RMS 1 fix that.
        """
        torch.manual_seed(seed)
        config = build_config(tokenizer)
        model = Gemma3ForConditionalGeneration(config)
        hidden = config.text_config.hidden_size
        decoder = model.model.language_model
        torch.nn.init.normal_(decoder.embed_tokens.weight, std=hidden**-0.5)
        torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=hidden**-0.5)
        for layer in decoder.layers:
            torch.nn.init.constant_(layer.post_attention_layernorm.weight, -0.7)
            torch.nn.init.constant_(layer.post_feedforward_layernorm.weight, -0.7)
        state_prompts(model, tokenizer, self.end)
        return model.eval()

    def features(self, model: Gemma3ForConditionalGeneration, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Image tokens, and the tower's output; see `Family.features`."""
        vision = model.model.get_image_features(pixels, return_dict=True)
        return vision.pooler_output, vision.last_hidden_state

    def save_processor(self, tokenizer: GemmaTokenizer, folder: Path) -> None:
        """Square bilinear resize, pixels in [-1, 1], Gemma-3's chat template; see `Family.save_processor`."""
        images = Gemma3ImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, **GRAY)
        processor = Gemma3Processor(images, tokenizer, chat_template=self.template, image_seq_length=GRID**2)
        processor.save_pretrained(folder)
