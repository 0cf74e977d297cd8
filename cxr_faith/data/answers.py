"""How questions and reference answers are read, whatever form a data set gives them; one rule for all sources.

`docs/data.md` has the rule as a table. What cannot be read is an `UnreadableError`, which names the type: the source
counts the question as dropped, so that no value's printed form is ever taken for an answer.
"""

from __future__ import annotations

import numbers
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from cxr_faith.data.literals import GOES_ON, looks_like_literal, printed_type, read_literal
from cxr_faith.data.sample import KINDS
from cxr_faith.data.tally import Tally

YES_NO = ("yes", "no")
# Keys under which data sets store the text of an answer, the more telling one first.
_TEXT_KEYS = ("multiple_choice_answer", "answer", "answers", "text", "value", "label", "name")
# What pandas and others write for a missing value. In lower case `none` is an answer.
_MISSING = {"nan", "NaN", "NaT", "None", "<NA>", "NA", "N/A", "n/a", "#N/A", "NULL", "null"}
_NO_QUESTION = {word.casefold() for word in _MISSING}
_TRUTH = {"true": "yes", "false": "no"}
_LETTERS = {"y": "yes", "n": "no", "t": "yes", "f": "no"}
_DIGITS = {"1": "yes", "0": "no", "1.0": "yes", "0.0": "no"}
_FLAGS = {**_TRUTH, **_LETTERS, **_DIGITS}
_CLOSED = re.compile(
    r"\W*(is|are|was|were|does|do|did|has|have|had|can|could|will|would|should|may|might|any)\b", re.IGNORECASE
)
_OPEN = re.compile(r"\W*(how|what|which|where|who|whose|when|why|count|name|list|describe)\b", re.IGNORECASE)
# A question that offers more than yes and no, and one that offers numbers.
_OFFERS = re.compile(r"\b(?:\d+(?:\.\d+)?|or|how (?:many|much)|count|number of)\b", re.IGNORECASE)
_OFFERS_NUMBERS = re.compile(r"\b\d+\s*(?:,|/|or\b|,\s*or\b)\s*\d+\b|\bhow (?:many|much)\b", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?")
_BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u200b\u200c\u200d\u2060\ufeff"
"""White space, and the characters without width that some programs leave around a text."""
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


class AnswerColumn(NamedTuple):
    """What the answers of a column tell about each of them.

    Attributes:
        flags: the column holds nothing but yes, no, true, false, 1 and 0, and missing values.
        numbers: it holds numbers other than 1 and 0.
    """

    flags: bool = False
    numbers: bool = False

    @classmethod
    def of(cls, values: Iterable[object]) -> AnswerColumn:
        """Look at the values of a column, up to the first other number."""
        some, others = False, False
        for value in values:
            try:
                for word in filter(None, _words(value, "answer", 0, Tally())):
                    plain = _plain(word)
                    if plain not in _DIGITS and _NUMBER.fullmatch(plain):
                        return cls(numbers=True)
                    some, others = True, others or plain not in (*YES_NO, *_FLAGS)
            except UnreadableError:
                others = True
        return cls(flags=some and not others)


_ANY_COLUMN = AnswerColumn()


def read_question(value: object) -> str:
    """The question of a row; a list or mapping with one text is that text, and a missing value is the empty text.

    Raises:
        UnreadableError: the value is something else.
    """
    if isinstance(value, str) and not re.match(r"\s*[\[({]+\s*['\"]", value):
        return _read_text(value, "question")
    words = [word for word in _words(value, "question", 0, Tally()) if word]
    if len(words) > 1:
        raise UnreadableError(f"question is a list of {len(words)}")
    return words[0] if words else ""


def read_reference(
    value: object, question: str, tally: Tally, stated: str | None = None, column: AnswerColumn = _ANY_COLUMN
) -> Reference:
    """The reference answers of a row and the kind of its question.

    Args:
        value: the answer in any form.
        question: the question: where it can only be answered with yes or no, 1 and 0 mean that.
        tally: takes a note of answers that are kept in another form.
        stated: the kind as the data set states it; None: it does not.
        column: what the other answers of the column tell.

    Raises:
        UnreadableError: the value is or holds something that is no text.
    """
    words = list(_words(value, "answer", 0, tally))
    answers = [word for word in words if word]
    if not answers and (words or not _is_list(value)):
        return Reference(stated, None)
    if len(answers) < len(words):
        tally.note("empty items of answers, left out")
    known = _flags(question, stated, column)
    plain = [_yes_no(word, known, tally) for word in answers]
    if answers and all(word in YES_NO for word in plain):
        kind = stated if stated in KINDS else "yes_no"
        # Where another kind is stated, a text stays as the data set spells it.
        kept = [word if _plain(word) in YES_NO else flag for word, flag in zip(answers, plain, strict=True)]
        return Reference(kind, _elected(plain if kind == "yes_no" else kept, tally))
    return Reference(stated, _elected(answers, tally))


def _flags(question: str, stated: str | None, column: AnswerColumn) -> Mapping[str, str]:
    """What means yes or no as an answer to a question, beside these words."""
    asked = _CLOSED.match(question) is not None
    if (
        stated == "yes_no"
        or (asked and not column.numbers and not _OFFERS.search(question))
        or (column.flags and not _OPEN.match(question) and not _OFFERS_NUMBERS.search(question))
    ):
        return _FLAGS
    return {**_TRUTH, **_LETTERS} if asked else _TRUTH


def _words(value: Any, what: str, depth: int, tally: Tally) -> Iterator[str | None]:
    """Every text in a value, flat; None for a missing one."""
    if depth > _MAX_DEPTH:
        raise UnreadableError(f"{what} is nested deeper than {_MAX_DEPTH}")
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytearray | memoryview):
        value = bytes(value)
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
        texts = [value[key] for key in ("question", *_TEXT_KEYS)[what == "answer" :] if key in value]
        if value and not texts:
            raise UnreadableError(f"{what} is a mapping without {what}, text, value or label")
        yield from _words(next((text for text in texts if text is not None), None), what, depth + 1, tally)
    elif isinstance(value, Sequence | Set):
        for item in sorted(value, key=str) if isinstance(value, Set) else value:
            yield from _words(item, what, depth + 1, tally)
    else:
        raise UnreadableError(f"{what} is of type {type(value).__name__}")


def _text(value: str, what: str, depth: int, tally: Tally) -> Iterator[str | None]:
    """A text, or the list or mapping that it spells."""
    word = _trimmed(value)
    if word and what == "answer" and word in _MISSING:
        tally.note("answers written as nan, None or N/A, taken as unknown")
        yield None
        return
    if not looks_like_literal(word):
        yield _read_text(word, what) or None
        return
    try:
        parsed = read_literal(word)
    except ValueError as error:
        if str(error) == GOES_ON and word[-1] not in "])}":  # ("Left") lung
            yield word
            return
        raise UnreadableError(f"{what} is a list or mapping as text that {error}") from None
    if isinstance(parsed, str) and looks_like_literal(parsed):
        raise UnreadableError(f"{what} is a list as text in a text")
    tally.note(f"{what}s read from lists or mappings written as text")
    yield from _words(parsed, what, depth + 1, tally)


def _read_text(value: str, what: str) -> str:
    """A text that spells no list or mapping; empty for a missing question.

    Raises:
        UnreadableError: it is the printed form of a value.
    """
    word = _trimmed(value)
    if kind := printed_type(word):
        raise UnreadableError(f"{what} is the printed form of {kind[:40]}")
    if what == "question":
        return "" if word.casefold() in _NO_QUESTION else word
    quoted = re.fullmatch(r"b?'([^']*)'|b?\"([^\"]*)\"", word)
    return (quoted[1] or quoted[2] or "").strip() if quoted else word


def _trimmed(text: str) -> str:
    """A text without the blanks and the characters without width around it."""
    return text.strip(_BLANKS)


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    if not -(2**63) < value < 2**63:
        raise UnreadableError("answer is a number of more than 64 bits")
    return str(int(value)) if value == int(value) else str(value)


def _plain(word: str) -> str:
    """A word in lower case and of usual width, without the punctuation, quotes and marks of emphasis around it."""
    usual = unicodedata.normalize("NFKC", word)
    return usual.lstrip(_BLANKS + "\"'(*_`“‘").rstrip(_BLANKS + ".,;:!。\"')*_`”’").casefold()


def _yes_no(word: str, flags: Mapping[str, str], tally: Tally) -> str:
    """The word as yes or no, if it is one; else as it stands."""
    plain = _plain(word)
    if plain in YES_NO:
        return plain
    flag = flags.get(plain)
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
    if isinstance(value, Decimal):
        return value.is_nan()  # comparing a signaling NaN raises
    if isinstance(value, numbers.Number):
        return bool(value != value)
    return value is None or type(value).__name__ in ("NaTType", "NAType")


def _is_list(value: object) -> bool:
    if isinstance(value, str):
        return looks_like_literal(value)
    return isinstance(value, Sequence | Set | Mapping | np.ndarray)
