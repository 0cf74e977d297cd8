"""Makes typed options from a command's arguments, with jsonargparse; the names in them are checked before."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from jsonargparse import ArgumentParser

from cxr_faith.cli.errors import USAGE_STATUS, plain_type_error, print_error
from cxr_faith.cli.parser import Given

T = TypeVar("T")


def typed(options: type[T], given: Given, positionals: Sequence[str] = ()) -> T:
    """Make a dataclass of options from what the user wrote; a wrong type is one line on stderr and exit status 2."""
    return options(**typed_values(given, {options: set()}, positionals)[0])


def typed_values(
    given: Given, takers: Mapping[Callable[..., object], set[str | int]], positionals: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """What each of some classes and functions takes of the arguments, as name → value of the annotated type.

    Args:
        given: what the user wrote.
        takers: dataclass or function → its arguments that no option gives.
        positionals: names of the words that belong to no option; they are left out of the result.
    """
    parser = CommandParser(allow_abbrev=False)
    for name in positionals:
        parser.add_argument(name, type=str)
    if given.configs:
        parser.add_argument("--config", action="config")
    names = []
    for taker, skip in takers.items():
        add = parser.add_class_arguments if isinstance(taker, type) else parser.add_function_arguments
        names.append(add(taker, as_group=False, skip=skip))
    parsed = parser.parse_args(given.arguments)
    return [{name: parsed[name] for name in taken} for taken in names]


class OneLineErrors:
    """Mixin of a jsonargparse parser: an error is one line on stderr and exit status 2, without the usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and exit with 2."""
        print_error(plain_type_error(" ".join(str(message).split())))
        raise SystemExit(USAGE_STATUS)


class CommandParser(OneLineErrors, ArgumentParser):
    """jsonargparse's parser with errors of one line."""
