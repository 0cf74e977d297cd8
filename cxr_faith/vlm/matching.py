"""Whether an answer is right: lists, options and sentences against the reference answers.

The rules fit the answer lists of MIMIC-Ext-MIMIC-CXR-VQA (verify, choose and query questions) and models that answer in
sentences; docs/answers.md has them as tables.
"""

import re
from collections.abc import Mapping, Sequence

from cxr_faith.vlm.sentences import denies_all, denies_something, is_sentence, read_items
from cxr_faith.vlm.vocabulary import (
    ANATOMY,
    FINDINGS,
    GROUPS,
    NOT_AN_ANSWER,
    NOTHING,
    PAIRED_PARTS,
    SYNONYMS,
    spellings,
)

CORRECT, WRONG, NOT_PARSED = "correct", "wrong", "not_parsed"

_LONGEST_TEXT = 2000  # characters that are read as sentences
_LEAD = re.compile(r"^.*\b(?:answer|response)\b(?: to [^.:\n]{1,60})?(?: is\b:?|:)\s*", re.DOTALL)
_SMALL_WORDS = ("a", "an", "the", "in", "on", "at")
_HEDGES = r"(?:(?:most|very|quite) )?(?:(?:likely|probably|possibly|perhaps|maybe|definitely|certainly)\W+)?"
_FIRST_LETTER = re.compile(r"\W*([a-e])(?:\W*$|[.):,])")
_NAMED_LETTER = re.compile(
    r"\b(?:answer|option|choice)(?: is)?:? \(?(?:([b-e])\b|(a)(?=\W*$|[.):,]))"
    r"|(?:^|\s)\(?([a-e])\)? is (?:the )?(?:correct|right)\b"
)
_BOTH_PARTS = re.compile(rf"\b(?:both|bilateral) (?:the )?({'|'.join(map(re.escape, PAIRED_PARTS))})(?:e?s)?\b")


def judge(predicted: str, reference: Sequence[str] | None, question: str = "") -> str | None:
    """`correct`, `wrong`, or `not_parsed` for an answer that neither names an item nor denies all; None: no reference.

    Lists are split at commas, semicolons, line breaks, bullets, numbers and "and", and must have the items of the
    reference: case, punctuation, text in parentheses, a leading article, order, repetition and plurals are ignored, and
    other spellings of an item count (`vocabulary`). Other answers are read for the items that they affirm. A part of a
    list is wrong, and so is more than the list. An empty reference asks for none.

    Args:
        predicted: the answer.
        reference: the reference answers; None: not known.
        question: where it lists options with letters, one a line, an option's text is its letter.
    """
    if reference is None:
        return None
    predicted = re.sub(r"\*\*|__|`|(?m:^#+ )", "", predicted)
    wanted, items = _keys(answer_items(reference)), answer_items([predicted])
    if _is_list(items, wanted):
        return CORRECT
    start = predicted[:_LONGEST_TEXT]
    answer = start[match.end() :] if (match := _LEAD.match(start.casefold())) else start
    if answer != start and _is_list(answer_items([answer]), wanted):
        return CORRECT
    text = _plain(answer)
    letter = _letter_of(answer, text, question)
    if letter is not None and len(wanted) == 1 and re.fullmatch("[a-z]", min(wanted)):
        return CORRECT if {letter} == wanted else WRONG
    if re.search(NOT_AN_ANSWER, _plain(start)):
        return NOT_PARSED
    whole = " ".join(re.findall(r"\w+", " ".join(reference).casefold()))
    options = _options(start.casefold(), text, {whole} if whole in ("yes", "no") else wanted)
    if options is not None:
        return NOT_PARSED if not options else CORRECT if options in (wanted, {whole}) else WRONG
    return _judge_words(text, wanted, any(map(is_sentence, items)))


def _judge_words(text: str, wanted: set[str], sentence: bool) -> str:
    """The verdict on an answer that is not the list of the reference, by the words in it."""
    tables = [table for table in (FINDINGS, ANATOMY) if wanted & _keys(set(table))]
    if not sentence and wanted and not wanted <= _keys({item for table in tables for item in table}):
        return WRONG  # the tables do not have these words, and a short answer must be them
    lexicon = {
        spelled: item
        for table in tables or ((FINDINGS, ANATOMY) if wanted else (FINDINGS,))
        for spelled, item in spellings(table).items()
    }
    named, denied = (_keys(items) for items in read_items(text, lexicon | {item: item for item in wanted}))
    if named:
        return CORRECT if named == wanted else WRONG
    if not wanted:
        return CORRECT if denied or denies_all(text) else NOT_PARSED if sentence else WRONG
    return WRONG if not sentence or denied & wanted or denies_all(text) else NOT_PARSED


def answer_items(answers: Sequence[str]) -> set[str]:
    """The items of some answers in one spelling, without those that name nothing; see `judge`."""
    items = set()
    for piece in re.split(r"[,;\n]|\band\b", _listed("\n".join(answers))):
        words = re.findall(r"\w+", piece.replace("'", ""))
        first = next((place for place, word in enumerate(words) if word not in _SMALL_WORDS), len(words) - 1)
        item = " ".join(words[max(first, 0) :])
        items.add(SYNONYMS.get(item, SYNONYMS.get(_singular(item), item)))
    # "and" is a part of this name only.
    if {"wires"} < items and "cardiac pacer" in items:
        items = items - {"wires", "cardiac pacer"} | {"cardiac pacer and wires"}
    return {item for item in items if _singular(item) not in NOTHING and item not in NOTHING}


def _is_list(items: set[str], wanted: set[str]) -> bool:
    """Whether the items of an answer are those of the reference."""
    same = {_singular(re.sub(r"^(?:both|bilateral) (?=.)", "", item)) for item in items}
    return any(_keys(variant) == _keys(_both(wanted)) for variant in (items, _both(items), same))


def _listed(text: str) -> str:
    """Lower-case text, its bullets and numbers as line breaks, without what stands in parentheses beside other text."""
    # Nothing can match after the last ")": looking there takes a time that grows with the square of the length.
    closed, mark, rest = text.casefold().replace("’", "'").rpartition(")")
    text, outside = closed + mark + rest, re.sub(r"\([^)]*\)", " ", closed + mark) + rest
    text = outside if re.search(r"\w", outside) else text
    text = re.sub(r"(?:^|\s)\d{1,2}[.)]\s+|(?:^|\n)\s*[-*•]\s+|(?:^|\n)\s*\(?[a-e][.)]\s+(?=\w)", "\n", text)
    return re.sub(r"\b(left|right) and (left|right) (\w[\w ]*)", r"\1 \3, \2 \3", text)


def _plain(text: str) -> str:
    """Lower-case text without apostrophes, list numbers and hyphens; "both lungs" are the left and the right one."""
    text = re.sub(r"[-/]", " ", _listed(text).replace("'", ""))
    return _BOTH_PARTS.sub(r"left \1, right \1", text)


def _singular(item: str) -> str:
    if item.endswith("ies"):
        return f"{item[:-3]}y"
    return item[:-1] if re.search(r"[^isu]s$", item) else item


def _keys(items: set[str]) -> set[str]:
    """Items as they are compared: in the singular, and in the table's spelling."""
    singular = {_singular(item) for item in items}
    return {_singular(SYNONYMS.get(item, item)) for item in singular}


def _both(items: set[str]) -> set[str]:
    """Items with "both …" and "bilateral …" as the left and the right one."""
    sided = set()
    for item in items:
        match = re.match(r"(?:both|bilateral|bilaterally)(?: (?:the )?(.+))?$", item)
        rest = "" if match is None or match[1] in (None, "side", "sides") else f" {_singular(match[1])}"
        sided |= {item} if match is None else {f"left{rest}", f"right{rest}"}
    return sided


def _letter_of(answer: str, text: str, question: str) -> str | None:
    """The letter of the one option below a question whose text an answer is, or affirms; None where there is none."""
    offered = {letter.casefold(): option for letter, option in re.findall(r"(?m)^([A-Z])\. (.+)$", question)}
    said = _keys(answer_items([answer]))
    same = [letter for letter, option in offered.items() if answer.strip() and _keys(answer_items([option])) == said]
    plain = {word: letter for letter, option in offered.items() if (word := _plain(option).strip())}
    affirmed = read_items(text, plain)[0] if plain else set()
    letters = same or sorted(affirmed)
    return letters[0] if len(letters) == 1 else None


def _options(whole: str, text: str, wanted: set[str]) -> set[str] | None:
    """The options that an answer names, where the reference is one of a closed group; None for other references.

    Args:
        whole: the answer in lower case.
        text: its plain text after "the answer is", if it has such words.
        wanted: items of the reference.
    """
    if len(wanted) == 1 and re.fullmatch("[a-e]", min(wanted)):
        letters = answer_items([whole])
        if letters and all(re.fullmatch("[a-e]", letter) for letter in letters):
            return letters
        match = _FIRST_LETTER.match(whole.strip()) or _NAMED_LETTER.search(whole)
        return {letter for letter in match.groups() if letter} if match else set()
    if wanted in ({"yes"}, {"no"}):
        match = re.match(rf"\W*{_HEDGES}(yes|no)\b", text)
        return {match[1]} if match else {"no"} if denies_something(text) else set()
    for name, group in GROUPS.items():
        if wanted and wanted <= set(group):
            named, _ = read_items(text, spellings(group) if len(text.split()) <= 2 else _words(group))
            both = name == "side" and re.search(r"\b(?:both|bilateral(?:ly)?)\b", text)
            return set(group) if both else named
    return None


def _words(group: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Spellings of a group that can stand in a sentence: a single letter there is something else."""
    return {spelled: item for spelled, item in spellings(group).items() if len(spelled) > 1}
