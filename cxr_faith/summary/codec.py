"""Frozen dataclasses as JSON and back: the one pair of functions that every class of the summary uses."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_json(value: object) -> Any:
    """A value as JSON: dataclasses become objects, tuples become arrays.

    A field whose default is None is left out while it is None; every other None becomes null.
    """
    if is_dataclass(value):
        pairs = ((field, getattr(value, field.name)) for field in fields(value))
        return {field.name: to_json(item) for field, item in pairs if item is not None or field.default is not None}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], value: object, place: str = "") -> T:
    """The value that `to_json` wrote, as the type it had; keys that the type does not know are ignored.

    Args:
        kind: a dataclass, `str`, `int`, `float`, `bool`, `tuple[X, ...]`, `Mapping[str, X]`, or one of these or None.
        value: what `json.loads` returned.
        place: where the value stands in the file, for messages.

    Raises:
        ValueError: the JSON does not fit the type; the message names the place.
    """
    return cast(T, _read(kind, value, place))


def _read(kind: Any, value: Any, place: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (UnionType, Union):
        (inner,) = (one for one in arguments if one is not NoneType)
        return None if value is None else _read(inner, value, place)
    if origin is tuple:
        items = _expect(list, value, place)
        return tuple(_read(arguments[0], item, f"{place}[{number}]") for number, item in enumerate(items))
    if origin is not None:
        pairs = _expect(dict, value, place).items()
        return {key: _read(arguments[1], item, f"{place}.{key}") for key, item in pairs}
    if is_dataclass(kind):
        return _read_fields(kind, _expect(dict, value, place), place)
    return _expect(kind, value, place)


def _read_fields(kind: Any, value: dict[str, Any], place: str) -> Any:
    values = {}
    for name, (hint, required) in _hints(kind).items():
        if name in value:
            values[name] = _read(hint, value[name], f"{place}.{name}" if place else name)
        elif required:
            raise ValueError(f"{place or 'the file'} has no {name!r}")
    return kind(**values)


@cache
def _hints(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Field → its type, and whether JSON must have it."""
    hints = get_type_hints(kind)
    return {field.name: (hints[field.name], field.default is not None) for field in fields(kind)}


def _expect(kind: Any, value: Any, place: str) -> Any:
    fits = isinstance(value, float | int if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{place or 'the file'}: expected {kind.__name__}, got {type(value).__name__}")
    return value
