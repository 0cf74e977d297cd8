"""What a command says when it cannot do what was asked: one line on stderr, and the exit status."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

from cxr_faith.printable import printable

USAGE_STATUS = 2

_TYPE_ERROR = re.compile(
    r'Parser key "([\w.]+)": .*?(?:Got value|Given value): (.*?)(?: - Expected a .*| Given value type: .*)?$'
)
TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "dict": "a mapping such as {key: value}",
    "list": "a list such as [a, b]",
    "tuple": "a list such as [a, b]",
}
"""Class of an annotation → what its values are called."""


class UsageError(Exception):
    """The user asked for something that cannot be done; the message becomes one line."""


@contextmanager
def usage_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn these exceptions into a `UsageError` with the same message."""
    try:
        yield
    except kinds as error:
        raise UsageError(str(error)) from error


def print_error(message: str) -> None:
    """Print one line on stderr."""
    print(f"cxr-faith: error: {printable(' '.join(message.split()))}", file=sys.stderr)


def nearest(word: str, known: Sequence[str] | Mapping[str, object], prefix: str = "") -> str:
    """End of an error message: the known name that is most like the word; empty if none is.

    A dotted name that resembles none of them is compared by its last part, so `--steps` finds `model.protocol.steps`.
    """
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    if not near:
        by_last = {name.rsplit(".", 1)[-1]: name for name in known}
        near = [by_last[last] for last in get_close_matches(word.rsplit(".", 1)[-1], list(by_last), n=1)]
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def plain_type_error(message: str) -> str:
    """Say in plain words which type an option has; any other message of jsonargparse stays as it is."""
    match = _TYPE_ERROR.match(message)
    if match is None:
        return message
    classes = [TYPES[name] for name in re.findall(r"Expected a <class '(\w+)'>", message) if name in TYPES]
    choices = ["one of " + text.replace("'", "") for text in re.findall(r"Literal\[([^\]]*)\]", message)]
    wanted = " or ".join(dict.fromkeys([*choices, *classes]))
    return f"{match[1]} must be {wanted}, got {match[2]}" if wanted else message
