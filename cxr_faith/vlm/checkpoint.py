"""Load a model from a folder or a hub id, and hash its weights; safetensors only, no remote code."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor, AutoTokenizer, PretrainedConfig, PreTrainedModel

from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.folder import CONFIG, WEIGHTS, ModelFolder, config_file, read_json
from cxr_faith.vlm.hub import local_folder


def read_config(path: str | Path, revision: str | None = None) -> dict[str, Any]:
    """The content of the model's `config.json`, which says what kind of model it is before any weights are read.

    Raises:
        ModelError: no such model, or a config that cannot be read.
    """
    folder = local_folder(path, revision, config_only=True)
    config_file(folder)
    try:
        return read_json(folder / CONFIG)
    except ModelError as error:
        raise ModelError(f"cannot read the config: {error}") from error


def load_processor(folder: ModelFolder) -> Any:
    """The model's processor.

    Raises:
        ModelError: its files or those of the tokenizer are missing or damaged; the message says which of them.
    """
    with folder.staged() as staged:
        try:
            with _one_line("the processor (processor_config.json, tokenizer_config.json)", folder, staged):
                return AutoProcessor.from_pretrained(staged, trust_remote_code=False)
        except ModelError:
            load_tokenizer(folder)
            raise


def load_tokenizer(folder: ModelFolder) -> Any:
    """The model's tokenizer alone.

    Raises:
        ModelError: its files are missing or damaged.
    """
    with folder.staged() as staged, _one_line("the tokenizer (tokenizer.json, tokenizer_config.json)", folder, staged):
        return AutoTokenizer.from_pretrained(staged, trust_remote_code=False)


def expected_weights(
    kind: type[PreTrainedModel], config: PretrainedConfig, folder: ModelFolder
) -> dict[str, tuple[int, ...]]:
    """Name → shape of the weights that a model of this config needs; takes no memory for them.

    Raises:
        ModelError: no model can be made of the config.
    """
    with _one_line("the model", folder, folder.path):
        if getattr(config, "transformers_weights", None) not in (None, WEIGHTS):
            raise ValueError(f"transformers_weights of {CONFIG} must not name another file than {WEIGHTS}")
        with torch.device("meta"):
            model: Any = kind._from_config(deepcopy(config), attn_implementation="sdpa")
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def load_model(kind: type[PreTrainedModel], config: PretrainedConfig, folder: ModelFolder, dtype: torch.dtype) -> Any:
    """A model of this kind on the CPU.

    Raises:
        ModelError: the folder lacks weights, or they do not fit the config.
    """
    with folder.staged() as staged, _one_line("the model", folder, staged), _without_report():
        loaded: Any = kind.from_pretrained(
            staged,
            config=config,
            dtype=dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    model, loading = loaded
    if loading["missing_keys"]:
        # transformers only warns, and leaves random numbers in their place.
        missing = sorted(loading["missing_keys"])
        raise ModelError(f"{folder.path} lacks {len(missing)} weights, such as {missing[0]}")
    return model


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


@contextmanager
def _without_report() -> Iterator[None]:
    """Silence what transformers prints about missing, unneeded and undivided weights."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _one_line(what: str, folder: ModelFolder, staged: Path) -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into a `ModelError` that names the folder."""
    try:
        yield
    except BaseException as error:
        # The tokenizers library panics on some files, which is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).replace(str(staged), str(folder.path)).split())[:300]
        if not isinstance(error, OSError | ValueError | RuntimeError):
            reason = f"{type(error).__name__}: {reason}"
        raise ModelError(f"cannot load {what} from {folder.path}: {reason}") from error
