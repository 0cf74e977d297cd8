"""Models and pictures that several rooms' tests share."""

import functools
import os
from collections.abc import Callable

import pytest
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

from cxr_faith.attribution.sae_model import SAEConfig, TopKSAE, save_sae
from cxr_faith.vlm import Gemma3VLM, bundled_model

RANDOM_SIDE, RANDOM_IMAGE = 8, 128
LAYER_TYPES = ("sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention")

# One thread in each of pytest's processes: a run on a CPU would take all cores, and two such wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


def random_processor(side: int = RANDOM_SIDE, image_size: int = RANDOM_IMAGE, **image_options) -> Gemma3Processor:
    """The bundled tokenizer and chat template with another picture size and image block."""
    bundled = AutoProcessor.from_pretrained(bundled_model())
    size = {"height": image_size, "width": image_size}
    images = Gemma3ImageProcessor(
        size=size, image_mean=[0.4, 0.5, 0.6], image_std=[0.5, 0.4, 0.3], do_convert_rgb=True, **image_options
    )
    return Gemma3Processor(images, bundled.tokenizer, bundled.chat_template, image_seq_length=side * side)


def random_model(tokenizer, sliding_window: int = 512, seed: int = 0) -> Gemma3ForConditionalGeneration:
    """Random weights that are large enough for the picture to matter, with 2x2 pooling, GQA and both layer types."""
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
        hidden_size=32,
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


@functools.cache
def _random_vlm(sliding_window: int) -> Gemma3VLM:
    processor = random_processor()
    return Gemma3VLM(random_model(processor.tokenizer, sliding_window), processor, source="random")


@pytest.fixture(scope="session")
def bundled() -> Gemma3VLM:
    """The model that ships."""
    return Gemma3VLM.from_pretrained(bundled_model(), device="cpu")


@pytest.fixture(scope="session")
def random_vlm() -> Gemma3VLM:
    """Another Gemma 3: random weights, 8x8 image tokens pooled from 16x16 patches, sliding windows that never bind."""
    return _random_vlm(512)


@pytest.fixture(scope="session")
def windowed_vlm() -> Gemma3VLM:
    """The same with a sliding window of 12 tokens, far shorter than the sequence and than the image block."""
    return _random_vlm(12)


@pytest.fixture(scope="session", params=["bundled", "random", "windowed"])
def any_vlm(request) -> Gemma3VLM:
    """Each of the three in turn."""
    return request.getfixturevalue({"random": "random_vlm", "windowed": "windowed_vlm"}.get(request.param, "bundled"))


@pytest.fixture(scope="session")
def random_sae(random_vlm, tmp_path_factory) -> str:
    """Folder of an untrained sparse autoencoder for the random model's last but one tower layer."""
    folder = tmp_path_factory.mktemp("random_sae")
    torch.manual_seed(0)
    sae = TopKSAE(width=32, features=48, k=5)
    sae.mean.normal_(std=0.1)
    sae.scale.fill_(1.5)
    sae.encoder_bias.data.normal_(std=0.1)
    save_sae(sae, SAEConfig(random_vlm.tower_identity(), layer=0, width=32, features=48, k=5), folder)
    return str(folder)


@pytest.fixture(scope="session")
def pictures() -> Callable[..., torch.Tensor]:
    """`pictures(vlm, count, seed)`: smooth blobs on noise, pixel values [count, 3, H, W]; left and right differ."""

    def make(vlm, count: int, seed: int = 0) -> torch.Tensor:
        height, width = vlm.image_size
        generator = torch.Generator().manual_seed(seed)
        rows = torch.linspace(0, 1, height)[None, :, None]
        columns = torch.linspace(0, 1, width)[None, None, :]
        at = torch.rand(count, 2, generator=generator)[:, :, None, None] * 0.6 + 0.2
        blob = (-((rows - at[:, 0]) ** 2 + (columns - at[:, 1]) ** 2) / 0.02).exp()
        noise = 0.4 * torch.randn(count, 3, height, width, generator=generator)
        return (1.5 * blob + 0.5 * columns - 0.8)[:, None] + noise

    return make
