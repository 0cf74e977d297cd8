"""A tiny model of each family with random weights, saved as a folder, so that the whole way from a folder is tested."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoTokenizer,
    CLIPVisionConfig,
    GemmaConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipVisionConfig,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from cxr_faith.vlm import bundled_model

MEAN, STD = [0.4, 0.5, 0.6], [0.5, 0.4, 0.3]
TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


@dataclass
class Parts:
    """What a family's folder is made of.

    Attributes:
        model: the transformers model.
        tokenizer: with the family's special tokens.
        template: its chat template.
        images: its image processor.
        image_size: (H, W) to ask for; None: the family's own.
    """

    model: torch.nn.Module
    tokenizer: object
    template: str
    images: object
    image_size: tuple[int, int] | None = None


def tokenizer_with(*special, bos=True):
    """The bundled tokenizer with more special tokens."""
    tokenizer = AutoTokenizer.from_pretrained(bundled_model())
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = None
    if bos:
        start = tokenizer.bos_token
        pieces = TemplateProcessing(single=f"{start} $A", special_tokens=[(start, tokenizer.bos_token_id)])
        tokenizer.backend_tokenizer.post_processor = pieces
    else:
        tokenizer.bos_token = None
    return tokenizer


def text_ids(tokenizer):
    """Ids that a text config names."""
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def enlarge(model, seed=0):
    """Random weights that are large enough for the picture to matter; norms' own weights take part, too."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name and weight.ndim == 1 and name.endswith("weight"):
                weight.add_(torch.rand_like(weight) * 0.6 - 0.3)
            elif weight.ndim >= 2:
                weight.normal_(std=1.2 * weight[0].numel() ** -0.5)
        model.model.language_model.embed_tokens.weight.normal_(std=0.3)
        model.lm_head.weight.normal_(std=0.5)
    return model.eval()


def llava():
    """8x8 tokens at 64 px from the last but one layer of a CLIP tower, Llama."""
    tokenizer = tokenizer_with("<image>")
    text = LlamaConfig(**TEXT, **text_ids(tokenizer))
    vision = CLIPVisionConfig(**VISION, image_size=64, patch_size=8)
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=image_id, tie_word_embeddings=False)
    images = LlavaImageProcessorPil(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=MEAN, image_std=STD
    )
    template = (
        "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
        "{% for content in message['content'] if content['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
        "{% for content in message['content'] if content['type'] == 'text' %}{{ content['text'] + ' ' }}{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )
    return Parts(enlarge(LlavaForConditionalGeneration(config)), tokenizer, template, images)


CHATML = (
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ 'IMAGE' }}{% else %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHAT_MARKS = ("<|im_start|>", "<|im_end|>")


def qwen2_5_vl():
    """4x5 merged patches at 112x140 px, windows of 2x2 merged patches in two of three blocks, M-RoPE."""
    tokenizer = tokenizer_with(*CHAT_MARKS, "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", bos=False)
    start, image, end = map(tokenizer.convert_tokens_to_ids, ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"))
    text = TEXT | {"head_dim": None, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2]}}
    text["rope_parameters"]["rope_theta"] = 10_000.0
    vision = {"depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 48}
    config = Qwen2_5_VLConfig(
        text_config=text | text_ids(tokenizer),
        vision_config=vision | {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]},
        image_token_id=image,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=False,
    )
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 784, "longest_edge": 10**7}, image_mean=MEAN, image_std=STD, patch_size=14, merge_size=2
    )
    template = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    return Parts(enlarge(Qwen2_5_VLForConditionalGeneration(config)), tokenizer, template, images, (112, 140))


def qwen3_vl():
    """3x4 merged patches at 96x128 px, interleaved M-RoPE, features of two tower blocks added in the decoder."""
    tokenizer = tokenizer_with(*CHAT_MARKS, "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", bos=False)
    start, image, end = map(tokenizer.convert_tokens_to_ids, ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"))
    ropes = {"rope_type": "default", "mrope_section": [2, 2, 2], "mrope_interleaved": True, "rope_theta": 10_000.0}
    vision = {"depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 48}
    config = Qwen3VLConfig(
        text_config=TEXT | {"rope_parameters": ropes} | text_ids(tokenizer),
        vision_config=vision | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]},
        image_token_id=image,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=False,
    )
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 1024, "longest_edge": 10**7}, image_mean=MEAN, image_std=STD, patch_size=16, merge_size=2
    )
    template = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    return Parts(enlarge(Qwen3VLForConditionalGeneration(config)), tokenizer, template, images, (96, 128))


def internvl():
    """Two rows of three tiles of 32 px, and a thumbnail; 4x4 tokens each."""
    tokenizer = tokenizer_with(*CHAT_MARKS, "<img>", "</img>", "<IMG_CONTEXT>", bos=False)
    vision = InternVLVisionConfig(**VISION, image_size=[32, 32], patch_size=[4, 4])
    config = InternVLConfig(
        vision_config=vision,
        text_config=Qwen2Config(**{k: v for k, v in TEXT.items() if k != "head_dim"}, **text_ids(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=16,
        tie_word_embeddings=False,
    )
    images = GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, max_patches=6, image_mean=MEAN, image_std=STD
    )
    template = CHATML.replace("IMAGE", "<IMG_CONTEXT>\n")
    return Parts(enlarge(InternVLForConditionalGeneration(config)), tokenizer, template, images, (64, 96))


def llava_onevision():
    """6x6 tokens a view at 32 px with 2 px unseen; two by two tiles that pad a picture of 64x48 px."""
    tokenizer = tokenizer_with(*CHAT_MARKS, "<image>", bos=False)
    pinpoints = [[32, 32], [32, 64], [64, 32], [64, 64], [32, 96], [96, 32]]
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION, image_size=32, patch_size=5, vision_use_head=False),
        text_config=Qwen2Config(**{k: v for k, v in TEXT.items() if k != "head_dim"}, **text_ids(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        tie_word_embeddings=False,
    )
    images = LlavaOnevisionImageProcessorPil(
        size={"height": 32, "width": 32}, image_grid_pinpoints=pinpoints, image_mean=MEAN, image_std=STD
    )
    template = CHATML.replace("IMAGE", "<image>\n")
    return Parts(enlarge(LlavaOnevisionForConditionalGeneration(config)), tokenizer, template, images, (64, 48))


def paligemma():
    """8x8 tokens at 64 px; image and question attend to each other."""
    tokenizer = tokenizer_with("<image>")
    tokenizer.add_bos_token = False
    tokenizer.backend_tokenizer.post_processor = None
    vision = SiglipVisionConfig(**VISION, image_size=64, patch_size=8, vision_use_head=False, projection_dim=48)
    config = PaliGemmaConfig(
        vision_config=vision,
        text_config=GemmaConfig(**TEXT, **text_ids(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=48,
        hidden_size=48,
        tie_word_embeddings=False,
    )
    images = SiglipImageProcessorPil(size={"height": 64, "width": 64}, image_mean=MEAN, image_std=STD)
    return Parts(enlarge(PaliGemmaForConditionalGeneration(config)), tokenizer, "", images)


MAKERS = {
    "llava": llava,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "internvl": internvl,
    "llava_onevision": llava_onevision,
    "paligemma": paligemma,
}


def save(parts: Parts, folder: Path) -> Path:
    """Write the folder of a model."""
    parts.model.save_pretrained(folder)
    parts.tokenizer.save_pretrained(folder)
    if parts.template:
        (folder / "chat_template.jinja").write_text(parts.template)
    settings = json.loads(parts.images.to_json_string())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder
