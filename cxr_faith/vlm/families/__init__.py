"""One file a family of models, which alone knows its token layout."""

FAMILIES = {
    "gemma3": "Gemma3VLM",
    "gemma4": "Gemma4VLM",
    "internvl": "InternVLVLM",
    "llava": "LlavaVLM",
    "llava_onevision": "LlavaOnevisionVLM",
    "paligemma": "PaliGemmaVLM",
    "qwen2_5_vl": "Qwen2_5VLM",
    "qwen3_vl": "Qwen3VLM",
}
"""`model_type` of a config → class, in the module that has the type's name. Loaded on first use, see `vlm.loading`."""
