"""Whether the config of a Gemma-3 makes sense and fits its weights, checked before a model of its size is made."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import Gemma3Config

from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.folder import PROCESSOR_FILES, ModelFolder, read_json
from cxr_faith.vlm.weights import Tensor

_LARGEST = {"num_hidden_layers": 1_000, "image_size": 10_000, "patch_size": 10_000, "mm_tokens_per_image": 100_000}
_SIZES = (
    *_LARGEST,
    *("hidden_size", "intermediate_size", "head_dim", "vocab_size", "sliding_window", "max_position_embeddings"),
    *("num_attention_heads", "num_key_value_heads", "num_channels"),
)

_POSITIVE = ("rms_norm_eps", "layer_norm_eps", "rope_theta", "rope_local_base_freq", "factor")


def parse_config(content: Mapping[str, Any], source: object) -> Any:
    """The `Gemma3Config` as transformers reads it.

    Args:
        content: of `config.json`.
        source: what messages call the model.

    Raises:
        ModelError: another kind of model, or a value that no such model has.
    """
    kind = content.get("model_type")
    if kind != "gemma3":
        what = f"is a {kind} model" if isinstance(kind, str) else "has a config.json without model_type"
        raise ModelError(f"{source} {what}; this version reads gemma3 with a vision tower")
    for name in ("text_config", "vision_config"):
        if not isinstance(content.get(name), dict):
            raise ModelError(f"{source}: config.json has no {name}: not a gemma3 with a vision tower")
    for name, value in _values(content):
        if isinstance(value, float) and not math.isfinite(value):
            raise ModelError(f"{source}: config.json: {name} must be a finite number, got {value}")
        if name.rsplit(".", 1)[-1] in _POSITIVE and not (type(value) in (int, float) and value > 0):
            raise ModelError(f"{source}: config.json: {name} must be a positive number, got {value!r}")
    for name, value in _sizes(content):
        most = _LARGEST.get(name.rsplit(".", 1)[-1], 10_000_000)
        if type(value) is not int or not 1 <= value <= most:
            raise ModelError(f"{source}: config.json: {name} must be a whole number from 1 to {most}, got {value!r}")
    try:
        config: Any = Gemma3Config.from_dict(dict(content))
    except Exception as error:  # of any kind, by values of the wrong type
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"cannot read the config of {source}: {reason}") from error
    scale = config.text_config.query_pre_attn_scalar
    if not scale > 0:
        raise ModelError(f"{source}: config.json: text_config.query_pre_attn_scalar must be positive, got {scale}")
    vision, side = config.vision_config, int(config.mm_tokens_per_image**0.5)
    patches = vision.image_size // vision.patch_size
    if side**2 != config.mm_tokens_per_image or patches == 0 or patches % side:
        grid = f"{config.mm_tokens_per_image} image tokens"
        raise ModelError(f"{source}: config.json: {patches}x{patches} patches cannot become a square of {grid}")
    if len(config.text_config.layer_types) != config.text_config.num_hidden_layers:
        raise ModelError(f"{source}: config.json: layer_types must name each of the num_hidden_layers layers")
    return config


def check_layers(config: Any, tensors: Mapping[str, Tensor], source: object) -> None:
    """Refuse weights with other layers than the config states.

    Args:
        config: the `Gemma3Config`.
        tensors: name → tensor, as `cxr_faith.vlm.weights.read_tensors` gives them.
        source: what messages call the model.

    Raises:
        ModelError: the numbers differ.
    """
    for part, stated in (("language_model", config.text_config), ("vision_tower", config.vision_config)):
        numbers = [re.search(rf"\b{part}\b.*\.layers\.(\d+)\.", name) for name in tensors]
        layers = {int(match[1]) for match in numbers if match}
        if layers != set(range(stated.num_hidden_layers)):
            raise ModelError(
                f"{source}: config.json says {stated.num_hidden_layers} layers of the {part}, the weights have "
                f"{len(layers)}"
            )


def check_weights(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor], source: object) -> None:
    """Refuse missing weights and weights of other shapes, before memory is taken for them.

    Args:
        expected: name → shape, as `cxr_faith.vlm.checkpoint.expected_weights` gives them.
        tensors: name → tensor in the files.
        source: what messages call the model.

    Raises:
        ModelError: names or shapes differ, or weights are no floating-point numbers.
    """
    shapes = {_plain(name): shape for name, shape in expected.items()}
    for name, tensor in tensors.items():
        if name.endswith((".weight", ".bias")) and not tensor.floating:
            raise ModelError(f"{source}: {name} holds {tensor.dtype}, not floating-point numbers")
        shape = shapes.get(_plain(name), tensor.shape)
        if tensor.shape != shape:
            raise ModelError(f"{source}: {name} has shape {list(tensor.shape)}, config.json says {list(shape)}")
    held = set(map(_plain, tensors))
    missing = sorted(name for name in expected if _plain(name) not in held)
    if missing:
        raise ModelError(f"{source} lacks {len(missing)} weights, such as {missing[0]}")


def check_image_tokens(config: Any, folder: ModelFolder) -> None:
    """Refuse a processor that writes another number of image tokens, before it makes a text of that length.

    Raises:
        ModelError: the numbers differ.
    """
    for name in PROCESSOR_FILES:
        stated = read_json(folder.files[name]).get("image_seq_length") if name in folder.files else None
        if stated is not None and stated != config.mm_tokens_per_image:
            written = f"processor writes {stated!r} image tokens, the model has {config.mm_tokens_per_image}"
            raise ModelError(f"{folder.path / name}: {written}")


def _sizes(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, value) of everything in a config that is a size and is stated."""
    for name, value in content.items():
        if isinstance(value, dict) and name in ("text_config", "vision_config"):
            yield from ((f"{name}.{key}", size) for key, size in _sizes(value))
        elif name in _SIZES:
            yield name, value


def _values(content: Mapping[str, Any], depth: int = 3) -> Iterator[tuple[str, Any]]:
    """(name, value) of everything in a config; `depth` reaches `text_config.rope_parameters.full_attention`."""
    for name, value in content.items():
        if isinstance(value, dict) and depth:
            yield from ((f"{name}.{key}", inner) for key, inner in _values(value, depth - 1))
        else:
            yield name, value


def _plain(name: str) -> str:
    """A weight's name without the levels that versions of transformers put at different places."""
    return ".".join(part for part in name.split(".") if part not in ("model", "language_model", "vision_model"))
