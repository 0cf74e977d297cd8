"""How a random model of each family is put together; see `family_parts`."""

from collections.abc import Callable
from typing import Any

from transformers import (
    CLIPVisionConfig,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4TextConfig,
    Gemma4VisionConfig,
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
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from cxr_faith.bench.family_parts import TINY, ModelSize, Parts, enlarge, text_ids, tokenizer_with

MEAN, STD = [0.4, 0.5, 0.6], [0.5, 0.4, 0.3]


def llava(size: ModelSize = TINY) -> Parts:
    """8x8 tokens at 64 px from the last but one layer of a CLIP tower, Llama."""
    tokenizer = tokenizer_with("<image>")
    text = LlamaConfig(**size.text, **text_ids(tokenizer))
    side = 64 * size.times
    vision = CLIPVisionConfig(**size.vision, image_size=side, patch_size=8)
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=image_id, tie_word_embeddings=False)
    images = LlavaImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, image_mean=MEAN, image_std=STD
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


def qwen2_5_vl(size: ModelSize = TINY) -> Parts:
    """4x5 merged patches at 112x140 px, windows of 2x2 merged patches in two of three blocks, M-RoPE."""
    tokenizer = tokenizer_with(*CHAT_MARKS, "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", bos=False)
    start, image, end = map(tokenizer.convert_tokens_to_ids, ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"))
    ropes = {"rope_type": "default", "mrope_section": size.rope_sections, "rope_theta": 10_000.0}
    text = {**size.text, "head_dim": None, "rope_parameters": ropes}
    config = Qwen2_5_VLConfig(
        text_config=text | text_ids(tokenizer),
        vision_config=size.blocks | {"patch_size": 14, "window_size": 56 * size.times, "fullatt_block_indexes": [1]},
        image_token_id=image,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=False,
    )
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 784, "longest_edge": 10**7}, image_mean=MEAN, image_std=STD, patch_size=14, merge_size=2
    )
    template = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    return Parts(
        enlarge(Qwen2_5_VLForConditionalGeneration(config)), tokenizer, template, images, size.picture(112, 140)
    )


def qwen3_vl(size: ModelSize = TINY) -> Parts:
    """3x4 merged patches at 96x128 px, interleaved M-RoPE, features of two tower blocks added in the decoder."""
    tokenizer = tokenizer_with(*CHAT_MARKS, "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", bos=False)
    start, image, end = map(tokenizer.convert_tokens_to_ids, ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"))
    ropes: dict[str, Any] = {"rope_type": "default", "mrope_section": size.rope_sections}
    ropes |= {"mrope_interleaved": True, "rope_theta": 10_000.0}
    config = Qwen3VLConfig(
        text_config={**size.text, "rope_parameters": ropes} | text_ids(tokenizer),
        vision_config=size.blocks | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]},
        image_token_id=image,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=False,
    )
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 1024, "longest_edge": 10**7}, image_mean=MEAN, image_std=STD, patch_size=16, merge_size=2
    )
    template = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    return Parts(enlarge(Qwen3VLForConditionalGeneration(config)), tokenizer, template, images, size.picture(96, 128))


def internvl(size: ModelSize = TINY) -> Parts:
    """Two rows of three tiles of 32 px, and a thumbnail; 4x4 tokens each."""
    tokenizer = tokenizer_with(*CHAT_MARKS, "<img>", "</img>", "<IMG_CONTEXT>", bos=False)
    side = 32 * size.times
    vision = InternVLVisionConfig(**size.vision, image_size=[side, side], patch_size=[4, 4])
    config = InternVLConfig(
        vision_config=vision,
        text_config=Qwen2Config(**_without_head_dim(size), **text_ids(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=(side // 8) ** 2,
        tie_word_embeddings=False,
    )
    images = GotOcr2ImageProcessorPil(
        size={"height": side, "width": side}, crop_to_patches=True, max_patches=6, image_mean=MEAN, image_std=STD
    )
    template = CHATML.replace("IMAGE", "<IMG_CONTEXT>\n")
    return Parts(enlarge(InternVLForConditionalGeneration(config)), tokenizer, template, images, size.picture(64, 96))


def llava_onevision(size: ModelSize = TINY) -> Parts:
    """6x6 tokens a view at 32 px with 2 px unseen; two by two tiles that pad a picture of 64x48 px."""
    tokenizer = tokenizer_with(*CHAT_MARKS, "<image>", bos=False)
    side = 32 * size.times
    pinpoints = [[side * rows, side * columns] for rows, columns in ((1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1))]
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**size.vision, image_size=side, patch_size=5, vision_use_head=False),
        text_config=Qwen2Config(**_without_head_dim(size), **text_ids(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        tie_word_embeddings=False,
    )
    images = LlavaOnevisionImageProcessorPil(
        size={"height": side, "width": side}, image_grid_pinpoints=pinpoints, image_mean=MEAN, image_std=STD
    )
    template = CHATML.replace("IMAGE", "<image>\n")
    return Parts(
        enlarge(LlavaOnevisionForConditionalGeneration(config)), tokenizer, template, images, size.picture(64, 48)
    )


def paligemma(size: ModelSize = TINY) -> Parts:
    """8x8 tokens at 64 px; image and question attend to each other."""
    tokenizer = tokenizer_with("<image>")
    tokenizer.add_bos_token = False
    tokenizer.backend_tokenizer.post_processor = None
    side, hidden = 64 * size.times, size.text["hidden_size"]
    tower: dict[str, Any] = {**size.vision, "vision_use_head": False, "projection_dim": hidden}
    vision = SiglipVisionConfig(**tower, image_size=side, patch_size=8)
    config = PaliGemmaConfig(
        vision_config=vision,
        text_config=GemmaConfig(**size.text, **text_ids(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=hidden,
        hidden_size=hidden,
        tie_word_embeddings=False,
    )
    images = SiglipImageProcessorPil(size={"height": side, "width": side}, image_mean=MEAN, image_std=STD)
    return Parts(enlarge(PaliGemmaForConditionalGeneration(config)), tokenizer, "", images)


def gemma4(size: ModelSize = TINY, **changes: Any) -> Parts:
    """6x11 tokens of 2x2 patches at 48x88 px, per-layer inputs, a window, shared keys and values, capped logits.

    Args:
        size: how large the model is.
        changes: other settings of the text config.
    """
    marks = ("<|turn>", "<turn|>", "<|image>", "<|image|>", "<image|>", "<|video|>", "<|audio|>")
    tokenizer = tokenizer_with(*marks)
    begin, image, end, video, audio = tokenizer.convert_tokens_to_ids(list(marks[2:]))
    text = {**size.text, **text_ids(tokenizer), "sliding_window": 24 * size.times**2}
    kinds = ["sliding_attention", "full_attention", "full_attention"]
    text |= {"layer_types": kinds * (size.text["num_hidden_layers"] // len(kinds))}
    text |= {
        "num_kv_shared_layers": 1,
        "global_head_dim": size.text["head_dim"] + 4,
        "use_bidirectional_attention": "vision",
    }
    text |= {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": len(tokenizer)}
    text |= {"final_logit_softcapping": 6.0}
    vision: dict[str, Any] = {"num_key_value_heads": size.heads, "head_dim": size.width // size.heads}
    vision |= {"patch_size": 4, "pooling_kernel_size": 2}
    config = Gemma4Config(
        text_config=Gemma4TextConfig(**text | changes),
        vision_config=Gemma4VisionConfig(**size.vision, **vision, position_embedding_size=64),
        **{"boi_token_id": begin, "image_token_id": image, "eoi_token_id": end},
        **{"video_token_id": video, "audio_token_id": audio},
        tie_word_embeddings=False,
    )
    images = Gemma4ImageProcessorPil(patch_size=4, max_soft_tokens=70, pooling_kernel_size=2)
    template = (
        "{% for message in messages %}{{ '<|turn>' + message['role'] + '\n' }}{% for content in message['content'] %}"
        "{% if content['type'] == 'image' %}{{ '\n<|image|>\n' }}{% else %}{{ content['text'] }}{% endif %}"
        "{% endfor %}{{ '<turn|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|turn>model\n' }}{% endif %}"
    )
    return Parts(enlarge(Gemma4ForConditionalGeneration(config)), tokenizer, template, images, size.picture(48, 88))


def _without_head_dim(size: ModelSize) -> dict[str, Any]:
    """Sizes of a decoder whose heads divide its channels."""
    return {name: value for name, value in size.text.items() if name != "head_dim"}


MAKERS: dict[str, Callable[..., Parts]] = {
    "gemma4": gemma4,
    "llava": llava,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "internvl": internvl,
    "llava_onevision": llava_onevision,
    "paligemma": paligemma,
}
"""Families by their `model_type`; each takes a size."""
