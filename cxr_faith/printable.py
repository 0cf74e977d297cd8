"""Text from data, file names and configs, made safe for the place where it is shown.

Questions, ids and names come from files that others wrote. They may hold escape sequences that change a terminal,
characters that reverse or hide text, and the markup of Markdown or of a spreadsheet. Records keep such text as it is.
"""

import json
import re
import unicodedata
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\U0001d159")
"""Letters, signs and marks that Unicode calls printable and that look like nothing or like a blank."""
_MARKDOWN = re.compile(
    r"""\\                # a backslash, which would escape the character after it
      | `                 # code
      | \](?=[(:\[])      # the middle of a link or a picture
      | \*(?=\S)          # the begin of an emphasis
      | ~                 # strikes out
    """,
    re.VERBOSE,
)
_BLOCK = re.compile(
    r"""[-+*](?=\ |$)                # an item of a list
      | \#                          # a heading
      | \[(?=[ xX]\]\ )             # a box to tick
      | [-=](?=[-=|:\ ]*$)          # a rule, or the line below a heading or a table's head
      | :(?=[-|:\ ]*$)
    """,
    re.VERBOSE,
)
_UNDERSCORES = re.compile(r"(?<!\w)_+")
"""Underscores that begin an emphasis: no letter is before them."""
_ITEM = re.compile(r"(\d{1,9})([.)])(?= |$)")
_LINK = re.compile(r"(?<=[a-z])(?=://)|(?<=www)(?=\.)|(?<=\w@)(?=\w)|(?<=@)(?=[^\W\d])", re.IGNORECASE)
"""Where an address or a name of a user would become a link; a number such as @50 is none."""
_SPLIT = "<!-- -->"
"""A comment, which nobody sees. GitHub makes no link of the text around it; after a backslash it still does."""


def printable(text: str, keep: str = "") -> str:
    r"""The text in one line of visible characters.

    A line end and a tab become a blank. A control character, and a character that reverses or hides text, becomes its
    escape, such as `\x1b` or `\u202e`. So does a letter without a shape, such as the Hangul filler `\u3164`.

    Args:
        text: any text.
        keep: control characters that stay, such as a line end.
    """
    if _is_clear(text):
        return text
    return "".join(c if c in keep or _is_visible(c) else " " if c.isspace() else _escaped(c) for c in text)


def _is_clear(text: str) -> bool:
    return text.isprintable() and (text.isascii() or _BLANK.isdisjoint(text))


def _is_visible(character: str) -> bool:
    """Whether a character is a letter, a sign or a space between words, however wide."""
    return _is_clear(character) or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def markdown_text(text: str) -> str:
    """The text in one line that Markdown shows as it is.

    Nothing in it is a link, picture, emphasis, heading, list, rule, HTML or the end of a table's cell.
    """
    text = " ".join(printable(text).split())
    text = _UNDERSCORES.sub(lambda run: run[0].replace("_", "\\_"), _MARKDOWN.sub(r"\\\g<0>", text))
    for char, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|")):
        text = text.replace(char, safe)
    text = _LINK.sub(_SPLIT, text)
    number = _ITEM.match(text)
    if number:
        return f"{number[1]}\\{text[number.end(1) :]}"
    return f"\\{text}" if _BLOCK.match(text) else text


def csv_text(value: object) -> str:
    """A cell of a CSV file in one line that a spreadsheet shows as text: a formula begins with an apostrophe."""
    text = str(value)
    is_formula = text.startswith(_FORMULA) and not _is_number(text)
    return printable(f"'{text}" if is_formula else text)


def of_csv_text(cell: str) -> str:
    """What `csv_text` made a cell of, without the apostrophe before a formula."""
    return cell[1:] if cell.startswith(tuple(f"'{sign}" for sign in _FORMULA)) else cell


def json_text(value: Any, indent: int | None = 1, **options: Any) -> str:
    """JSON in UTF-8 whose control characters are escaped, those that reverse or hide text too; no NaN.

    Args:
        value: what to write.
        indent: blanks of each level; None: one line.
        options: others of `json.dumps`.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, **options)
    if _is_clear(text.replace("\n", "")):
        return text
    return "".join(c if c == "\n" or _is_visible(c) else json.dumps(c)[1:-1] for c in text)


def plain(content: Any) -> Any:
    """The same lists and mappings with every text in them `printable`."""
    if isinstance(content, str):
        return printable(content)
    if isinstance(content, dict):
        return {plain(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):  # mostly of numbers: a page has millions
        return [value if type(value) in (int, float) else plain(value) for value in content]
    return content


def page_text(value: object) -> object:
    """A value of a page's template, `printable` if it is text; what is marked as HTML stays as it is."""
    return printable(value) if type(value) is str else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
