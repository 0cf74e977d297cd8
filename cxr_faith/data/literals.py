"""Reads lists and mappings that a program wrote into a cell of a table as text: JSON, Python, pandas or NumPy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

MAX_LENGTH = 100_000
"""Longest text that is read as a list or mapping, in characters."""

GOES_ON = "goes on after its end"
"""Fault of a text that begins with a list or mapping and has more text behind it."""

_MAX_DEPTH = 20
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<call>(?:np\.|numpy\.)?(?:array|list|tuple|set|frozenset|dict|str_|bool_?|int\d+|float\d+)\()
    | (?P<open>[\[({])
    | (?P<close>[\])}])
    | (?P<mark>[,:])
    | [bBuU]?(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<word>[^\[\](){},:'"\s][^\[\](){},:\s]*)
    )\s*""",
    re.VERBOSE | re.DOTALL,
)
_AROUND = re.compile(r"\s*(?:\[.*\]|\{.*\})\s*\Z", re.DOTALL)
_BEGINS = re.compile(r"\s*(?:[\[{(]+\s*[bBuU]?['\"]|\[\s*[\[{]|(?:np\.|numpy\.)?(?:array|set|frozenset|dict)\()")
_CLOSES = {"[": "]", "(": ")", "{": "}"}
_WORDS: dict[str, object] = {
    **dict.fromkeys(("None", "nan", "NaN", "null", "NaT", "<NA>"), None),
    **dict.fromkeys(("True", "true", "np.True_"), True),
    **dict.fromkeys(("False", "false", "np.False_"), False),
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}


_PRINTED = re.compile(
    r"(?P<call>[A-Za-z_][\w.]*)\(.*\)|<(?P<mark>[A-Za-z_][\w.]*)(?!.*</).*>|(?P<series>.*\bdtype: \w+)|\S+\n0 {2,}\S.*",
    re.DOTALL,
)


def printed_type(text: str) -> str | None:
    """The type whose printed form a text is, such as `Counter` for `Counter({'yes': 9})`; None for any other text.

    A printed form has no space before its parenthesis and ends with it: `yes (mild)` is none.
    """
    match = _PRINTED.fullmatch(text)
    if match is None:
        return None
    return match["call"] or match["mark"] or ("Series" if match["series"] else "DataFrame")


def looks_like_literal(text: str) -> bool:
    """Whether a text has the brackets of a list, mapping, set or array around it, or begins as Python writes one."""
    return _AROUND.match(text) is not None or _BEGINS.match(text) is not None


def read_literal(text: str) -> object:
    """Read a list or mapping from text.

    JSON is read as JSON. All else is read by one forgiving rule: quotes of either kind, `True`, `nan` and `None`,
    NumPy's lists without commas (`['a' 'b']`), sets, tuples, `array(…)`, and words without quotes (`[edema, nodule]`).

    Args:
        text: the cell.

    Returns:
        lists, mappings, texts, numbers, booleans and None; sets and tuples become lists.

    Raises:
        ValueError: the text is no such value, is cut off, or is longer or deeper than any table's cell.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"longer than {MAX_LENGTH} characters")
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        tokens = _Tokens(text)
        value = tokens.value(0)
        if tokens.kind:
            raise ValueError(GOES_ON) from None
    return value


def read_cell(text: str) -> object:
    """A list or mapping from text as in `read_literal`; None for any other text."""
    try:
        return read_literal(text)
    except ValueError:
        return None


class _Tokens:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self._tokens = self._split(text)
        self._next()

    def _split(self, text: str) -> Iterator[tuple[str, str]]:
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None or match.lastgroup is None:
                raise ValueError("has an open quote")
            position = match.end()
            yield match.lastgroup, match[match.lastgroup]

    def _next(self) -> None:
        self.kind, self.text = next(self._tokens, ("", ""))

    def value(self, depth: int) -> object:
        kind, text = self.kind, self.text
        self._next()
        if depth > _MAX_DEPTH:
            raise ValueError(f"is nested deeper than {_MAX_DEPTH}")
        if kind == "open":
            return self._group(_CLOSES[text], depth)
        if kind == "call":
            inner = self._group(")", depth)
            # set() and array() hold one list at most, a number or a text is what it wraps.
            return inner[0] if isinstance(inner, list) and len(inner) == 1 else inner
        if kind == "quoted":
            return _unquoted(text)
        if kind == "word":
            return self._word(text)
        raise ValueError("is cut off" if not kind else f"has {text} where a value belongs")

    def _word(self, text: str) -> object:
        if text == "...":
            raise ValueError("was shortened by the program that wrote it")
        if text in _WORDS:
            return _WORDS[text]
        if re.fullmatch(r"[+-]?\d{1,300}", text):
            return int(text)
        if re.fullmatch(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", text):
            return float(text)
        if (self.kind, self.text) == ("open", "("):
            raise ValueError(f"holds {text}(…)")
        # Words without quotes are one text up to the next comma: [left lung, right lung].
        while self.kind == "word":
            text = f"{text} {self.text}"
            self._next()
        return text

    def _group(self, close: str, depth: int) -> list[object] | dict[str, object]:
        items: list[object] = []
        pairs: dict[str, object] = {}
        while (self.kind, self.text) != ("close", close):
            if self.kind == "word" and self.text.startswith("dtype="):
                self._next()
                continue
            item = self.value(depth + 1)
            if (self.kind, self.text) == ("mark", ":") and close == "}":
                self._next()
                pairs[str(item)] = self.value(depth + 1)
            else:
                items.append(item)
            if (self.kind, self.text) == ("mark", ","):
                self._next()
        self._next()
        if items and pairs:
            raise ValueError("is half a mapping and half a list")
        return pairs if pairs or (close == "}" and not items) else items


def _unquoted(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code[1:], 16)) if len(code) > 1 else _ESCAPES.get(code, code)

    plain = re.sub(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", character, text[1:-1], flags=re.DOTALL)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
