"""How questions and reference answers are read, whatever form a data set gives them; one rule for all sources.

`docs/data.md` has the rule as a table. What cannot be read is an `UnreadableError`, which names the type: the source
counts the question as dropped, so that no value's printed form is ever taken for an answer.
"""

from __future__ import annotations

import numbers
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from cxr_faith.data.literals import looks_like_literal, read_literal
from cxr_faith.data.sample import KINDS
from cxr_faith.data.tally import Tally

YES_NO = ("yes", "no")
# Keys under which data sets store the text of an answer, the more telling one first.
_TEXT_KEYS = ("multiple_choice_answer", "answer", "answers", "text", "value", "label", "name")
# What pandas and others write for a missing value. In lower case `none` is an answer.
_MISSING = {"nan", "NaN", "NaT", "None", "<NA>", "NA", "N/A", "n/a", "#N/A", "NULL", "null"}
_TRUTH = {"true": "yes", "false": "no"}
_FLAGS = {**_TRUTH, "1": "yes", "0": "no", "1.0": "yes", "0.0": "no", "y": "yes", "n": "no", "t": "yes", "f": "no"}
_CLOSED = re.compile(
    r"\W*(is|are|was|were|does|do|did|has|have|had|can|could|will|would|should|may|might|any)\b", re.IGNORECASE
)
_OPEN = re.compile(r"\W*(how|what|which|where|who|whose|when|why|count|name|list|describe)\b", re.IGNORECASE)
_MAX_DEPTH = 20


class UnreadableError(ValueError):
    """A question or answer that holds no text; the message is a reason for the list of drops and names the type."""


class Reference(NamedTuple):
    """What a row says about the right answer.

    Attributes:
        kind: `yes_no`, `choice` or `open` as stated; without a statement `yes_no` if the answers say so, else None.
        answers: reference answers; empty: none; None: unknown.
    """

    kind: str | None
    answers: tuple[str, ...] | None


def read_question(value: object) -> str:
    """The question of a row; a list or mapping with one text is that text, and a missing value is the empty text.

    Raises:
        UnreadableError: the value is something else.
    """
    if isinstance(value, str) and not re.match(r"\s*[\[({]+\s*['\"]", value):
        return value.strip()
    words = [word for word in _words(value, "question", 0, Tally()) if word]
    if len(words) > 1:
        raise UnreadableError(f"question is a list of {len(words)}")
    return words[0] if words else ""


def read_reference(
    value: object, question: str, tally: Tally, stated: str | None = None, flags: bool = False
) -> Reference:
    """The reference answers of a row and the kind of its question.

    Args:
        value: the answer in any form.
        question: the question: where it can only be answered with yes or no, 1 and 0 mean that.
        tally: takes a note of answers that are kept in another form.
        stated: the kind as the data set states it; None: it does not.
        flags: the column holds nothing but yes, no, true, false, 1 and 0; see `holds_flags`.

    Raises:
        UnreadableError: the value is or holds something that is no text.
    """
    words = list(_words(value, "answer", 0, tally))
    answers = [word for word in words if word]
    if not answers and (words or not _is_list(value)):
        return Reference(stated, None)
    if len(answers) < len(words):
        tally.note("empty items of answers, left out")
    closed = stated == "yes_no" or _CLOSED.match(question) is not None or (flags and not _OPEN.match(question))
    plain = [_yes_no(word, closed, tally) for word in answers]
    if answers and all(word in YES_NO for word in plain):
        kind = stated if stated in KINDS else "yes_no"
        # Where another kind is stated, a text stays as the data set spells it.
        kept = [word if _plain(word) in YES_NO else flag for word, flag in zip(answers, plain, strict=True)]
        return Reference(kind, _elected(plain if kind == "yes_no" else kept, tally))
    return Reference(stated, _elected(answers, tally))


def holds_flags(values: Iterable[object]) -> bool:
    """Whether a column holds nothing but yes, no, true, false, 1 and 0, and missing values."""
    some = False
    for value in values:
        try:
            for word in _words(value, "answer", 0, Tally()):
                if word and _plain(word) not in (*YES_NO, *_FLAGS):
                    return False
                some = some or bool(word)
        except UnreadableError:
            return False
    return some


def _words(value: Any, what: str, depth: int, tally: Tally) -> Iterator[str | None]:
    """Every text in a value, flat; None for a missing one."""
    if depth > _MAX_DEPTH:
        raise UnreadableError(f"{what} is nested deeper than {_MAX_DEPTH}")
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list) and value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
        value = {str(key): item for key, item in value}  # what Arrow makes of a map
    if _is_missing(value):
        yield None
    elif isinstance(value, str):
        yield from _text(value, what, depth, tally)
    elif isinstance(value, bytes):
        try:
            yield from _text(value.decode(), what, depth, tally)
        except UnicodeDecodeError:
            raise UnreadableError(f"{what} is bytes that are no text") from None
    elif isinstance(value, numbers.Real | Decimal) and what == "answer":
        yield _number(value)
    elif isinstance(value, Mapping):
        key = next((key for key in ("question", *_TEXT_KEYS)[what == "answer" :] if value.get(key) is not None), None)
        if key is None:
            raise UnreadableError(f"{what} is a mapping without {what}, text, value or label")
        yield from _words(value[key], what, depth + 1, tally)
    elif isinstance(value, Sequence | Set):
        for item in sorted(value, key=str) if isinstance(value, Set) else value:
            yield from _words(item, what, depth + 1, tally)
    else:
        raise UnreadableError(f"{what} is of type {type(value).__name__}")


def _text(value: str, what: str, depth: int, tally: Tally) -> Iterator[str | None]:
    """A text, or the list or mapping that it spells."""
    word = value.strip()
    if not word or (what == "answer" and word in _MISSING):
        if word:
            tally.note("answers written as nan, None or N/A, taken as unknown")
        yield None
    elif looks_like_literal(word):
        try:
            parsed = read_literal(word)
        except ValueError as error:
            raise UnreadableError(f"{what} is a list or mapping as text that {error}") from None
        if isinstance(parsed, str) and looks_like_literal(parsed):
            raise UnreadableError(f"{what} is a list as text in a text")
        tally.note(f"{what}s read from lists or mappings written as text")
        yield from _words(parsed, what, depth + 1, tally)
    else:
        quoted = re.fullmatch(r"b?'([^']*)'|b?\"([^\"]*)\"", word)
        yield (quoted[1] or quoted[2] or "").strip() if quoted and what == "answer" else word


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    if not -(2**63) < value < 2**63:
        raise UnreadableError("answer is a number of more than 64 bits")
    return str(int(value)) if value == int(value) else str(value)


def _plain(word: str) -> str:
    """A word in lower case, without the punctuation and quotes around it."""
    return re.sub(r"^[\s\"'(]+|[\s.,;:!\"')]+$", "", word).casefold()


def _yes_no(word: str, closed: bool, tally: Tally) -> str:
    """The word as yes or no, if it is one; else as it stands."""
    plain = _plain(word)
    if plain in YES_NO:
        return plain
    flag = (_FLAGS if closed else _TRUTH).get(plain)
    if flag is None:
        return word
    tally.note("answers true or false, 1 or 0, taken as yes or no")
    return flag


def _elected(answers: Sequence[str], tally: Tally) -> tuple[str, ...]:
    """The answers; where one occurs more than once they are annotators' votes, and the most frequent one counts."""
    votes = Counter(answers)
    if len(votes) == len(answers):
        return tuple(answers)
    most = max(votes.values())
    tally.note("answers of several annotators, the most frequent taken")
    return tuple(answer for answer, count in votes.items() if count == most)


def _is_missing(value: Any) -> bool:
    """None, NaN of any kind, NaT and NA."""
    if isinstance(value, numbers.Number):
        return bool(value != value)
    return value is None or type(value).__name__ in ("NaTType", "NAType")


def _is_list(value: object) -> bool:
    if isinstance(value, str):
        return looks_like_literal(value)
    return isinstance(value, Sequence | Set | Mapping | np.ndarray)
