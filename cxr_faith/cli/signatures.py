"""The options of a command, read from the source text of the classes and functions that take them.

Importing those classes would load PyTorch and Lightning, which takes seconds. `--help` and a typo need only names,
defaults and docstrings, and these are in the source files. A test compares them with the real signatures.
"""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from docstring_parser import parse as parse_docstring

Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        key: its name on the command line and in a config, such as `model.protocol.steps`.
        type: its annotation as written, such as `int | None`.
        default: its default as written; None: the option is required.
        text: what the docstring says about it.
    """

    key: str
    type: str
    default: str | None
    text: str

    @property
    def holds_keys(self) -> bool:
        """Whether its value may hold keys that no signature lists, as `model.methods` does."""
        return self.key.startswith("trainer.") or any(word in self.type for word in ("dict", "Mapping"))


def options_of(place: str, prefix: str = "", skip: Sequence[str] = ()) -> list[Option]:
    """Options that a class or function takes; an argument that is itself one of our dataclasses gives its fields.

    Args:
        place: `module:name`.
        prefix: put before each key, such as `model.`.
        skip: arguments to leave out.
    """
    return list(_options(*_definition(*place.split(":")), prefix, skip))


def description_of(place: str) -> str:
    """Docstring of a class or function, `module:name`, up to its arguments."""
    docstring = ast.get_docstring(_definition(*place.split(":"))[0]) or ""
    return re.split(r"\n(?:Args|Attributes|Example|Raises|Returns):\n", docstring)[0].strip()


def registry(module: str, name: str) -> dict[str, str]:
    """Entries of a table of classes or functions: key → `module:name`.

    The table may be written as one dict, or entry by entry as in `METHODS["rise"] = Rise`. If its module is loaded,
    entries that other modules have added to it count too.
    """
    loaded = getattr(sys.modules.get(module), name, {})
    places = {key: f"{entry.__module__}:{entry.__name__}" for key, entry in loaded.items() if _file(entry.__module__)}
    for statement in _tree(module).body:
        match statement:
            case ast.Assign(targets=[ast.Subscript(ast.Name(id), ast.Constant(str(key)))], value=ast.Name(held)):
                if id == name:
                    places[key] = f"{module}:{held}"
            case ast.AnnAssign(target=ast.Name(id), value=ast.Dict(keys, values)) if id == name:
                for entry, value in zip(keys, values, strict=True):
                    assert isinstance(entry, ast.Constant) and isinstance(value, ast.Name)
                    places[str(entry.value)] = f"{module}:{value.id}"
    return places


def _options(node: Definition, module: str, prefix: str, skip: Sequence[str] = ()) -> Iterator[Option]:
    texts = dict(_texts(node))
    for name, annotation, default in _arguments(node):
        if name in skip:
            continue
        kind, home = _resolved(annotation, module)
        if isinstance(kind, ast.ClassDef) and home.startswith("cxr_faith."):
            yield from _options(kind, home, f"{prefix}{name}.")
        else:
            written = ast.unparse(annotation if isinstance(kind, Definition) else kind)
            yield Option(prefix + name, written, _default(default, module), texts.get(name, ""))


def _arguments(node: Definition) -> Iterator[tuple[str, ast.expr, ast.expr | None]]:
    """(name, annotation, default) of a function's arguments, of a class's `__init__`, or of a dataclass's fields."""
    if isinstance(node, ast.ClassDef):
        init = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
        if init is None:
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield field.target.id, field.annotation, field.value
            return
        node = init
    given = node.args
    defaults: list[ast.expr | None] = [None] * (len(given.args) - len(given.defaults))
    pairs = zip([*given.args, *given.kwonlyargs], [*defaults, *given.defaults, *given.kw_defaults], strict=True)
    for argument, default in pairs:
        if argument.annotation is not None:  # all but self
            yield argument.arg, argument.annotation, default


def _texts(node: Definition) -> Iterator[tuple[str, str]]:
    """(argument, text) from the docstrings of a class, its `__init__`, or a function."""
    inner = node.body if isinstance(node, ast.ClassDef) else []
    for each in (node, *(one for one in inner if isinstance(one, ast.FunctionDef) and one.name == "__init__")):
        for entry in parse_docstring(ast.get_docstring(each) or "").params:
            yield entry.arg_name, " ".join((entry.description or "").split())


def _default(default: ast.expr | None, module: str) -> str | None:
    if default is None:
        return None
    if isinstance(default, ast.Call):  # field(default_factory=dict)
        factories = [keyword.value for keyword in default.keywords if keyword.arg == "default_factory"]
        return "{}" if factories and ast.unparse(factories[0]) == "dict" else ast.unparse(default)
    value, _ = _resolved(default, module)
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value or '""'
    return ast.unparse(value)


def _resolved(node: ast.expr, module: str) -> tuple[Definition | ast.expr, str]:
    """What a plain name stands for, and the module that says so; anything else stands for itself."""
    if isinstance(node, ast.Name):
        try:
            return _lookup(module, node.id)
        except LookupError:  # a builtin, or a name of another package
            pass
    return node, module


def _definition(module: str, name: str) -> tuple[Definition, str]:
    """The class or function of that name, and the module that defines it."""
    node, home = _lookup(module, name)
    if not isinstance(node, Definition):
        raise LookupError(f"{home}: {name} is neither a class nor a function")
    return node, home


def _lookup(module: str, name: str) -> tuple[Definition | ast.expr, str]:
    """The class, function or constant of that name, followed through `from … import …`.

    Raises:
        LookupError: the module neither defines nor imports the name.
    """
    for statement in _tree(module).body:
        match statement:
            case ast.ClassDef() | ast.FunctionDef() if statement.name == name:
                return statement, module
            case ast.Assign(targets=[ast.Name(id)], value=value) if id == name:
                return value, module
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                for target, value in zip(targets, values, strict=True):
                    if ast.unparse(target) == name:
                        return value, module
            case ast.ImportFrom(module=str(source), names=names):
                for alias in names:
                    if (alias.asname or alias.name) == name:
                        return _lookup(source, alias.name)
    raise LookupError(f"{module} has no {name}")


def _file(module: str) -> str | None:
    """Source file of a module that is loaded; None for others, and for code that was typed in."""
    return getattr(sys.modules.get(module), "__file__", None)


@cache
def _tree(module: str) -> ast.Module:
    """Syntax tree of a module; only its top package is looked up, so nothing is imported."""
    if loaded := _file(module):
        return ast.parse(Path(loaded).read_text(encoding="utf-8"), loaded)
    top, *rest = module.split(".")
    spec = find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"no package {top}")
    path = Path(spec.submodule_search_locations[0], *rest)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.is_file():
        raise LookupError(f"no module {module}")
    return ast.parse(file.read_text(encoding="utf-8"), str(file))
