"""Refuses values that the typed parser would refuse too, before any heavy library is loaded.

These are numbers, switches and choices that cannot be read as such, and names of methods. All other values are left to
the typed parser.
"""

import ast
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from cxr_faith.cli.errors import TYPES, UsageError, nearest
from cxr_faith.cli.signatures import Option, registry


def check_value(option: Option, value: Any) -> None:
    """Compare a value with an option's annotation, if that consists of numbers, bool, Literal and None.

    Args:
        option: the option.
        value: as written on the command line or read from a YAML file.

    Raises:
        UsageError: the value is of another type, or none of the choices.
    """
    kinds = [kind for kind in option.type.split(" | ") if kind != "None"]
    choices = [str(choice) for kind in kinds if kind.startswith("Literal[") for choice in _choices(kind)]
    classes = [kind for kind in kinds if kind in ("int", "float", "bool")]
    if not kinds or len(kinds) != len(classes) + any(choices):
        return
    readings = [value, as_yaml(value)] if isinstance(value, str) else [value]
    if not any(reading is None or str(reading) in choices or classes and _is_number(reading) for reading in readings):
        wanted = [f"one of {', '.join(choices)}"] if choices else []
        wanted += [TYPES[kind] for kind in classes]
        near = nearest(str(value), choices) if choices else ""
        raise UsageError(f"{option.key} must be {' or '.join(wanted)}, got {value}{near}")


def check_methods(methods: Any) -> None:
    """Compare the classes of `model.methods` with the registered ones.

    Where the methods are loaded already, as in a program that registers its own, their own check says all.

    Raises:
        UsageError: a class that no method has.
    """
    methods = as_yaml(methods) if isinstance(methods, str) else methods
    if not isinstance(methods, dict) or "cxr_faith.attribution" in sys.modules:
        return
    known = registry("cxr_faith.attribution", "METHODS")
    for name, settings in methods.items():
        key = settings.get("class", name) if isinstance(settings, dict) else name
        if isinstance(key, str) and key not in known:
            hint = nearest(key, known) or f"; there are {', '.join(sorted(known))}"
            raise UsageError(f"methods.{name}: no method class {key!r}{hint}")


def text_of(given: Mapping[str, Any], key: str) -> str | None:
    """The text that the user gave for an option; None: nothing, or null."""
    value = given.get(key)
    return None if value is None or as_yaml(str(value)) is None else str(value)


def as_yaml(text: str) -> Any:
    """A word of the command line as YAML reads it; the word itself if it is not valid YAML."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # ValueError: a date that no calendar has
        return text


def _choices(literal: str) -> Sequence[object]:
    choices: list[object] = ast.literal_eval(literal.removeprefix("Literal"))
    return choices


def _is_number(value: Any) -> bool:
    """Whether a value reads as a number or as true or false; the typed parser decides which of them it may be."""
    try:
        float({"true": 1, "yes": 1, "false": 0, "no": 0}.get(value.lower(), value) if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return False
    except OverflowError:  # an int beyond the floats
        return True
    return True
