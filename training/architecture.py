"""Architecture and initialization of the bundled model: a very small Gemma-3 (SigLIP tower, projector, decoder)."""

from __future__ import annotations

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GemmaTokenizer,
    SiglipVisionConfig,
)

IMAGE_SIZE = 216
PATCH = 18
GRID = IMAGE_SIZE // PATCH
LAYER_TYPES = ["sliding_attention", "sliding_attention", "full_attention"] * 2


def build_config(tokenizer: GemmaTokenizer) -> Gemma3Config:
    """The model's configuration for a tokenizer: 12 × 12 image tokens and six decoder layers, two of them global."""
    text = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=len(LAYER_TYPES),
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        query_pre_attn_scalar=32,
        max_position_embeddings=1024,
        sliding_window=512,
        layer_types=LAYER_TYPES,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
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


@torch.no_grad()
def build_model(tokenizer: GemmaTokenizer, seed: int = 0) -> Gemma3ForConditionalGeneration:
    """A newly initialized model.

    Gemma also has norms after attention and MLP, so by default each sublayer adds a vector of RMS 1 to much smaller
    embeddings, and the projector starts at zero: the decoder then never learns to use the picture. Smaller post-norms
    (1 + w = 0.3), embeddings of RMS 1 and a projector of RMS 1 fix that.
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
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.do_sample = False
    return model.eval()
