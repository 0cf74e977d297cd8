"""Options of a question: how data sets write them, and how a question shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cxr_faith.data.answers import YES_NO, Reference, UnreadableError, read_reference
from cxr_faith.data.literals import looks_like_literal, read_cell
from cxr_faith.data.sample import LETTERS, OPTION
from cxr_faith.data.tables import text
from cxr_faith.data.tally import Tally

_LETTERED = re.compile(r"\s*\(?([A-Z])[.):]\s+")


def read_options(value: object) -> tuple[str, ...]:
    """The options of a row: a list, a list as text, or a mapping from letters to texts; empty places are left out.

    Raises:
        UnreadableError: the value is something else, or has more than 26 entries.
    """
    if isinstance(value, str) and looks_like_literal(value):
        value = read_cell(value)
    if isinstance(value, dict):
        value = [entry for _, entry in sorted(value.items(), key=lambda pair: str(pair[0]))]
    if value is None or (not isinstance(value, list | tuple) and text(value) is None):
        return ()
    if not isinstance(value, list | tuple):
        raise UnreadableError("options are not a list")
    words = [word for word in map(text, value) if word]
    if len(words) > len(LETTERS):
        raise UnreadableError(f"options are a list of more than {len(LETTERS)}")
    marks = [_LETTERED.match(word) for word in words]
    lettered = len(words) > 1 and [mark and mark[1] for mark in marks] == list(LETTERS[: len(words)])
    return tuple(_LETTERED.sub("", word, count=1) if lettered else word for word in words)


def read_with_options(
    question: str, answer: object, options: Sequence[str], tally: Tally, stated: str | None = None
) -> tuple[str, Reference]:
    """Question and reference of a row with options.

    Yes and no make a yes/no question. Other options are put below the question; its kind is `option`, and its
    reference is the letter of the right one.

    Args:
        question: the question.
        answer: text or letter of the right option; None: it is not known.
        options: what `read_options` gave, not empty.
        tally: takes a note of answers that are kept in another form.
        stated: the kind as the data set states it, which holds for `open`; None: it does not.

    Raises:
        UnreadableError: the answer is none of the options.
    """
    place = chosen(answer, options)
    if place is None and text(answer) is not None:
        raise UnreadableError("answer is none of the options")
    if are_yes_no(options):
        return question, read_reference(None if place is None else options[place], question, tally, stated or "yes_no")
    letter = None if place is None else (LETTERS[place],)
    kind = OPTION if stated != "open" and len(options) > 1 else stated or "choice"
    return with_options(question, options), Reference(kind, letter)


def are_yes_no(options: Sequence[str]) -> bool:
    """Whether the options are yes and no."""
    return sorted(option.casefold() for option in options) == sorted(YES_NO)


def chosen(answer: object, options: Sequence[str]) -> int | None:
    """Place of the option that an answer names by its text or its letter; None: none."""
    word = (text(answer) or "").casefold()
    places = [place for place, option in enumerate(options) if option.casefold() == word]
    if not places:
        letter = re.fullmatch(r"\(?([a-z])[.):]?(\s.*)?", word)
        place = LETTERS.index(letter[1].upper()) if letter else len(options)
        if place < len(options) and (not letter or not letter[2] or letter[2].strip() == options[place].casefold()):
            places = [place]
    return places[0] if len(places) == 1 else None


def with_options(question: str, options: Sequence[str]) -> str:
    """The question followed by its options, one a line, with letters; unchanged if it shows them so or is empty."""
    lettered = list(zip(LETTERS, options, strict=False))
    if not question or all(
        re.search(rf"(?<!\w){letter}\W{{1,3}}{re.escape(option)}(?!\w)", question, re.IGNORECASE)
        for letter, option in lettered
    ):
        return question
    return "\n".join((question, *(f"{letter}. {option}" for letter, option in lettered)))
