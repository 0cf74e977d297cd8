"""A small Gemma 3 with random weights, for tests of what must hold for any weights."""

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

from cxr_faith.vlm import Gemma3VLM, bundled_model

RANDOM_SIDE, RANDOM_IMAGE = 8, 128
LAYER_TYPES = ("sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention")


def random_processor(side: int = RANDOM_SIDE, image_size: int = RANDOM_IMAGE, **image_options) -> Gemma3Processor:
    """The bundled tokenizer and chat template with another picture size and image block."""
    bundled = AutoProcessor.from_pretrained(bundled_model())
    size = {"height": image_size, "width": image_size}
    images = Gemma3ImageProcessor(
        size=size, image_mean=[0.4, 0.5, 0.6], image_std=[0.5, 0.4, 0.3], do_convert_rgb=True, **image_options
    )
    return Gemma3Processor(images, bundled.tokenizer, bundled.chat_template, image_seq_length=side * side)


def random_model(
    tokenizer, sliding_window: int = 512, seed: int = 0, tower: int = 32
) -> Gemma3ForConditionalGeneration:
    """Random weights that are large enough for the picture to matter, with 2x2 pooling, GQA and both layer types.

    Args:
        tokenizer: for its size and special ids.
        sliding_window: tokens that a sliding layer sees.
        seed: of the weights.
        tower: channels of the vision tower, which has two heads.
    """
    text = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=len(LAYER_TYPES),
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=16,
        max_position_embeddings=512,
        sliding_window=sliding_window,
        layer_types=list(LAYER_TYPES),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    vision = SiglipVisionConfig(
        hidden_size=tower,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=RANDOM_IMAGE,
        patch_size=RANDOM_IMAGE // (2 * RANDOM_SIDE),
        vision_use_head=False,
    )
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=RANDOM_SIDE**2,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = Gemma3ForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2:
                weight.normal_(std=1.3 * weight.shape[-1] ** -0.5)
            elif "norm" in name and "language_model" in name:
                weight.uniform_(-0.6, 0.2)  # the norms' own weights must take part
        model.model.language_model.embed_tokens.weight.normal_(std=64**-0.5)
        model.model.multi_modal_projector.mm_input_projection_weight.normal_(std=1.5 * 64**-0.5)
        model.lm_head.weight.normal_(std=1.5)
    return model


def random_gemma(sliding_window: int = 512) -> Gemma3VLM:
    """The model with its processor: 8x8 image tokens pooled from 16x16 patches."""
    processor = random_processor()
    return Gemma3VLM(random_model(processor.tokenizer, sliding_window), processor, source="random")
