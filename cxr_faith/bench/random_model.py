"""A Gemma 3 with random weights in a given shape, for measuring speed."""

from typing import Any

import torch
from transformers import (
    AutoProcessor,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma3TextConfig,
    SiglipVisionConfig,
)

from cxr_faith.bench.presets import SHAPES, VOCABULARY
from cxr_faith.vlm import Gemma3VLM, bundled_model
from cxr_faith.vlm.devices import exact_arithmetic


def random_vlm(shape: str) -> Gemma3VLM:
    """A Gemma 3 of that shape with random weights, the vocabulary size of Gemma 3 and the bundled tokenizer.

    Speed needs no trained weights, and ids of a small tokenizer are ids of the large embedding too.
    """
    bundled = AutoProcessor.from_pretrained(bundled_model())
    tokenizer = bundled.tokenizer
    sizes = SHAPES[shape]
    side = sizes["vision"]["image_size"]
    images = Gemma3ImageProcessor(
        size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=True
    )
    processor = Gemma3Processor(images, tokenizer, bundled.chat_template, image_seq_length=256)
    layers = sizes["text"]["num_hidden_layers"]
    text = Gemma3TextConfig(
        vocab_size=VOCABULARY,
        layer_types=["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(layers)],
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
        **sizes["text"],
    )
    config = Gemma3Config(
        text_config=text,
        vision_config=SiglipVisionConfig(vision_use_head=False, **sizes["vision"]),
        mm_tokens_per_image=256,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        tie_word_embeddings=True,
    )
    device = "cuda" if shape == "medgemma-4b" and torch.cuda.is_available() else "cpu"
    exact_arithmetic(torch.device(device))
    return Gemma3VLM(_random_weights(config, device), processor, source=shape)


def _random_weights(config: Any, device: str) -> Gemma3ForConditionalGeneration:
    """Weights with which the answer depends on the picture; transformers would start with a projector of zeros."""
    torch.manual_seed(0)
    with torch.device(device):
        model = Gemma3ForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    hidden = config.text_config.hidden_size
    with torch.no_grad():
        model.model.multi_modal_projector.mm_input_projection_weight.normal_(std=hidden**-0.5)
        for layer in model.model.language_model.layers:
            layer.post_attention_layernorm.weight.fill_(-0.7)
            layer.post_feedforward_layernorm.weight.fill_(-0.7)
    placed: Gemma3ForConditionalGeneration = model.to(torch.bfloat16 if device == "cuda" else torch.float32)
    return placed
