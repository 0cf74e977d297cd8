"""A model's folder or hub id: what is in it, and its weights; safetensors only, no remote code."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor, Gemma3ForConditionalGeneration

from cxr_faith.vlm.base import ModelError


def load(path: str | Path, dtype: torch.dtype, revision: str | None = None) -> tuple[Any, Any]:
    """(model, processor) on the CPU; see `Gemma3VLM.from_pretrained`.

    Raises:
        ModelError: the folder lacks weights or a processor, or holds another kind of model.
    """
    if dtype == torch.float16:
        raise ModelError("float16 overflows to NaN in Gemma 3: use bfloat16 or float32")
    peek(path, revision)
    try:
        processor = AutoProcessor.from_pretrained(path, revision=revision or "main", trust_remote_code=False)
        loaded: Any = Gemma3ForConditionalGeneration.from_pretrained(
            path,
            revision=revision or "main",
            dtype=dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"cannot load a Gemma-3 model from {path}: {reason}") from error
    model, loading = loaded
    if loading["missing_keys"]:
        # transformers only warns, and leaves random numbers in their place.
        missing = sorted(loading["missing_keys"])
        raise ModelError(f"{path} lacks {len(missing)} weights, such as {missing[0]}")
    return model, processor


def _check_folder(path: str | Path) -> None:
    """Say what is missing in a local folder before transformers looks for it on the hub."""
    folder = Path(path)
    if not folder.exists():
        if str(path).count("/") != 1 or str(path).startswith((".", "/", "~")):
            raise ModelError(f"no model folder {path}: give an existing one or a hub id such as google/medgemma-4b-it")
        return
    if not (folder / "config.json").is_file():
        raise ModelError(f"{path} holds no config.json: not a transformers model folder")
    if not list(folder.glob("*.safetensors")):
        raise ModelError(f"{path} holds no *.safetensors weights (other weight formats are not read)")


def peek(path: str | Path, revision: str | None = None) -> tuple[tuple[int, int], tuple[int, int]]:
    """(grid, image size) from the model's config alone, so that a bad setting stops before weights are read.

    Raises:
        ModelError: no such folder, or not a Gemma-3 with a vision tower.
    """
    _check_folder(path)
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the config of {path}: {str(error).strip().splitlines()[0]}") from error
    if config.model_type != "gemma3":
        raise ModelError(f"{path} is a {config.model_type} model; this version reads gemma3 with a vision tower")
    side, pixels = int(config.mm_tokens_per_image**0.5), config.vision_config.image_size
    return (side, side), (pixels, pixels)
