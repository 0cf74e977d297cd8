"""Whether a model's config makes sense and fits its weights, checked before a model of its size is made."""

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from transformers import PretrainedConfig

from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.weights import Tensor

_LARGEST = {"num_hidden_layers": 1_000, "image_size": 10_000, "patch_size": 10_000, "mm_tokens_per_image": 100_000}
_SIZES = (
    *_LARGEST,
    *("hidden_size", "intermediate_size", "head_dim", "vocab_size", "sliding_window", "max_position_embeddings"),
    *("num_attention_heads", "num_key_value_heads", "num_channels"),
)

_POSITIVE = ("rms_norm_eps", "layer_norm_eps", "rope_theta", "rope_local_base_freq", "factor")
_EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(.*)")
"""Name of a weight of one expert, in a checkpoint that holds them one by one."""


def parse_config(
    content: Mapping[str, Any], kind: type[PretrainedConfig], source: object, nullable: Collection[str] = ()
) -> Any:
    """The config as transformers reads it.

    Args:
        content: of `config.json`.
        kind: the family's config class.
        source: what messages call the model.
        nullable: names that may be null or left out: sections of the config, and sizes.

    Raises:
        ModelError: a value that no such model has.
    """
    for name in ("text_config", "vision_config"):
        if name not in nullable and not isinstance(content.get(name), dict):
            raise ModelError(f"{source}: config.json has no {name}: not a {kind.model_type} with a vision tower")
    for name, value in _values(content):
        if isinstance(value, float) and not math.isfinite(value):
            raise ModelError(f"{source}: config.json: {name} must be a finite number, got {value}")
        if name.rsplit(".", 1)[-1] in _POSITIVE and not (type(value) in (int, float) and value > 0):
            raise ModelError(f"{source}: config.json: {name} must be a positive number, got {value!r}")
    for name, value in _sizes(content):
        last = name.rsplit(".", 1)[-1]
        most = _LARGEST.get(last, 10_000_000)
        if value is None and last in nullable:
            continue
        if type(value) is not int or not 1 <= value <= most:
            raise ModelError(f"{source}: config.json: {name} must be a whole number from 1 to {most}, got {value!r}")
    try:
        config: Any = kind.from_dict(dict(content))
    except Exception as error:  # of any kind, by values of the wrong type
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"cannot read the config of {source}: {reason}") from error
    text = config.get_text_config()
    if len(getattr(text, "layer_types", None) or range(text.num_hidden_layers)) != text.num_hidden_layers:
        raise ModelError(f"{source}: config.json: layer_types must name each of the num_hidden_layers layers")
    return config


def check_layers(counts: Mapping[str, int], tensors: Mapping[str, Tensor], source: object) -> None:
    """Refuse weights with other layers than the config states.

    Args:
        counts: name of a part of the model → number of layers that the config states.
        tensors: name → tensor, as `cxr_faith.vlm.weights.read_tensors` gives them.
        source: what messages call the model.

    Raises:
        ModelError: the numbers differ.
    """
    for part, stated in counts.items():
        numbers = [re.search(rf"\b{part}\b.*\.(?:layers|layer|blocks)\.(\d+)\.", name) for name in tensors]
        layers = {int(match[1]) for match in numbers if match}
        if layers != set(range(stated)):
            held = f"the weights have {len(layers)}"
            raise ModelError(f"{source}: config.json says {stated} layers of the {part}, {held}")


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
    missing = _missing(expected, set(map(_plain, tensors)))
    if missing:
        raise ModelError(f"{source} lacks {len(missing)} weights, such as {missing[0]}")


def _missing(expected: Mapping[str, tuple[int, ...]], held: Collection[str]) -> list[str]:
    """Names of weights that the files do not hold.

    Experts may be stored one by one; transformers puts them together when it loads them. Then each of them must have
    what the others have.
    """
    numbers, parts = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for match in filter(None, map(_EXPERT.fullmatch, held)):
        numbers[match[1]].add(match[2])
        parts[match[1]].add(match[3])
    whole = {
        f"{experts}.{number}.{part}" for experts in numbers for number in numbers[experts] for part in parts[experts]
    }
    plain = [name for name in expected if _plain(name) not in held and _plain(name).rpartition(".")[0] not in numbers]
    return sorted([*plain, *(whole - {*held})])


def _sizes(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, value) of everything in a config that is a size and is stated."""
    for name, value in content.items():
        if isinstance(value, dict) and name in ("text_config", "vision_config"):
            yield from ((f"{name}.{key}", size) for key, size in _sizes(value))
        elif name in ("image_size", "patch_size") and isinstance(value, list):
            yield from ((name, side) for side in value)
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
