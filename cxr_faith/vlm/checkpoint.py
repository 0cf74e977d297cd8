"""Load a model from a folder or a hub id, and hash its weights; safetensors only, no remote code."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor, PretrainedConfig, PreTrainedModel

from cxr_faith.vlm.base import ModelError


def read_config(path: str | Path, revision: str | None = None) -> PretrainedConfig:
    """The model's config, which says what kind of model it is before any weights are read.

    Raises:
        ModelError: no such folder, a folder without config or weights, or a config that cannot be read.
    """
    _check_folder(path)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the config of {path}: {str(error).strip().splitlines()[0]}") from error
    return config


def load(
    kind: type[PreTrainedModel], path: str | Path, dtype: torch.dtype, revision: str | None = None
) -> tuple[Any, Any]:
    """(model of this kind, its processor) on the CPU.

    Raises:
        ModelError: the folder lacks weights or a processor, or they do not fit the model.
    """
    try:
        processor = AutoProcessor.from_pretrained(path, revision=revision or "main", trust_remote_code=False)
        loaded: Any = kind.from_pretrained(
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
        raise ModelError(f"cannot load the model from {path}: {reason}") from error
    model, loading = loaded
    if loading["missing_keys"]:
        # transformers only warns, and leaves random numbers in their place.
        missing = sorted(loading["missing_keys"])
        raise ModelError(f"{path} lacks {len(missing)} weights, such as {missing[0]}")
    return model, processor


def hash_weights(module: torch.nn.Module, dtype: torch.dtype | None = None) -> str:
    """Hash of a module's weights and their names.

    Args:
        module: on any device.
        dtype: hash the weights as if they were of this type; default: as they are.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(module.state_dict().items()):
        digest.update(name.encode())
        values = weight.detach().cpu().to(dtype or weight.dtype)
        digest.update(values.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


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
