"""Whether an answer is right: lists, options and sentences against the reference answers.

The rules fit the answer lists of MIMIC-Ext-MIMIC-CXR-VQA (verify, choose and query questions) and models that answer in
sentences; docs/answers.md has them as tables.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from cxr_faith.vlm.vocabulary import ANATOMY, FINDINGS, GROUPS, NOT_AN_ANSWER, NOTHING, SYNONYMS, spellings

CORRECT, WRONG, NOT_PARSED = "correct", "wrong", "not_parsed"

_LONGEST_TEXT = 2000  # characters that are read as sentences
_LONGEST_ITEM = 4  # words; a longer piece of a list is a sentence
_SENTENCE = re.compile(
    r"\b(?:is|are|was|were|has|have|shows?|showing|seen|see|there|this|it|i|appears?|demonstrates?|suggests?)\b"
    r"|\b(?:indicates?|reveals?|consistent|evidence|patient|image|answer)\b"
)
_DENIES_AFTER = re.compile(r"\b(?:no|not|without|negative for|free of|absence of|rather than|instead of|nor|neither)\b")
_DENIES_BEFORE = re.compile(
    r"\b(?:not (?:seen|present|visible|identified|evident|noted)|absent|ruled out|isnt|arent|excluded)\b"
)
_AFFIRMS = re.compile(r"\b(?:is|are|was|were|there|shows?|has|have|seen|demonstrates?|with)\b")
_NORMAL = re.compile(r"\b(?:normal|unremarkable|clear|healthy)\b")
_DENIES_ALL = re.compile(
    r"\b(?:no|not|without|nothing|none|free of)\b.*\b(?:abnormal\w*|findings?|acute|disease|process|pathology)\b"
    r"|\b(?:nothing|none|no)$"
)


def judge(predicted: str, reference: Sequence[str] | None) -> str | None:
    """`correct`, `wrong`, or `not_parsed` for an answer that neither names an item nor denies all; None: no reference.

    Lists are split at commas, semicolons, line breaks, bullets, numbers and "and", and must have the items of the
    reference: case, punctuation, text in parentheses, a leading article, order, repetition and plurals are ignored, and
    other spellings of an item count (`vocabulary`). A sentence is read for the items that it affirms. A part of a list
    is wrong, and so is more than the list. An empty reference asks for none.
    """
    if reference is None:
        return None
    wanted = _keys(answer_items(reference))
    items = answer_items([predicted])
    same = {_singular(re.sub(r"^(?:both|bilateral) (?=.)", "", item)) for item in items}
    if any(_keys(variant) == _keys(_both(wanted)) for variant in (items, _both(items), same)):
        return CORRECT
    text = _plain(predicted[:_LONGEST_TEXT])
    if re.search(NOT_AN_ANSWER, text):
        return NOT_PARSED
    whole = " ".join(re.findall(r"\w+", " ".join(reference).casefold()))
    options = _options(predicted, text, {whole} if whole in ("yes", "no") else wanted)
    if options is not None:
        return NOT_PARSED if not options else CORRECT if options in (wanted, {whole}) else WRONG
    if not _is_sentence(items):
        return WRONG
    named = _affirmed(text, _lexicon(wanted))
    if not wanted:
        return WRONG if named else CORRECT if _denies_all(text) else NOT_PARSED
    if not named:
        return WRONG if _denies_all(text) else NOT_PARSED
    return CORRECT if _keys(named) == wanted else WRONG


def answer_items(answers: Sequence[str]) -> set[str]:
    """The items of some answers in one spelling, without those that name nothing; see `judge`."""
    items = set()
    for piece in re.split(r"[,;\n]|\band\b", _listed("\n".join(answers))):
        words = re.findall(r"\w+", piece.replace("'", ""))
        words = words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words
        item = " ".join(words)
        items.add(SYNONYMS.get(item, SYNONYMS.get(_singular(item), item)))
    # "and" is a part of this name only.
    if {"wires"} < items and "cardiac pacer" in items:
        items = items - {"wires", "cardiac pacer"} | {"cardiac pacer and wires"}
    return {item for item in items if _singular(item) not in NOTHING and item not in NOTHING}


def _listed(text: str) -> str:
    """Lower-case text, its bullets and numbers as line breaks, without what stands in parentheses beside other text."""
    # Nothing can match after the last ")": looking there takes a time that grows with the square of the length.
    closed, mark, rest = text.casefold().rpartition(")")
    text, outside = closed + mark + rest, re.sub(r"\([^)]*\)", " ", closed + mark) + rest
    text = outside if re.search(r"\w", outside) else text
    text = re.sub(r"(?:^|\s)\d{1,2}[.)]\s+|(?:^|\n)\s*[-*•]\s+|(?:^|\n)\s*\(?[a-e][.)]\s+(?=\w)", "\n", text)
    return re.sub(r"\b(left|right) and (left|right) (\w[\w ]*)", r"\1 \3, \2 \3", text)


def _plain(text: str) -> str:
    """Lower-case text without apostrophes, numbers of lists and hyphens."""
    return re.sub(r"[-/]", " ", _listed(text).replace("'", "").replace("’", ""))


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


def _options(predicted: str, text: str, wanted: set[str]) -> set[str] | None:
    """The options that an answer names, where the reference is one of a closed group; None for other references."""
    if len(wanted) == 1 and re.fullmatch("[a-e]", min(wanted)):
        match = re.match(r"\W*([a-e])(?:\W*$|[.):,])", predicted.casefold().strip())
        match = match or re.search(r"\b(?:answer|option|choice)(?: is)?:? \(?([a-e])\b", predicted.casefold())
        return {match[1]} if match else set()
    if wanted in ({"yes"}, {"no"}):
        match = re.match(r"\W*(yes|no)\b", text)
        return {match[1]} if match else {"no"} if _DENIES_AFTER.search(text) or _DENIES_BEFORE.search(text) else set()
    for name, group in GROUPS.items():
        if wanted and wanted <= set(group):
            found = _affirmed(text, spellings(group) if len(text.split()) <= 2 else _words(group))
            both = name == "side" and re.search(r"\b(?:both|bilateral(?:ly)?)\b", text)
            return set(group) if both else found
    return None


def _words(group: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Spellings of a group that can stand in a sentence: a single letter there is something else."""
    return {spelled: item for spelled, item in spellings(group).items() if len(spelled) > 1}


def _is_sentence(items: set[str]) -> bool:
    return any(len(item.split()) > _LONGEST_ITEM or _SENTENCE.search(item) for item in items)


def _lexicon(wanted: set[str]) -> dict[str, str]:
    """Spelling → item of all items of the reference's kind: findings, places, or both where it is neither."""
    tables = [table for table in (FINDINGS, ANATOMY) if wanted & _keys(set(table))]
    if not wanted:
        tables = [FINDINGS]
    known = {spelled: item for table in tables or (FINDINGS, ANATOMY) for spelled, item in spellings(table).items()}
    return known | {item: item for item in wanted}


def _affirmed(text: str, lexicon: Mapping[str, str]) -> set[str]:
    """Items that a text names without denying them."""
    named = set()
    longest = sorted(lexicon, key=len, reverse=True)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, longest))})(?:e?s)?\b")
    for piece in _affirming(text.replace("opacities", "opacity")):
        named |= {lexicon[match[1]] for match in pattern.finditer(piece)}
    return named


def _affirming(text: str) -> Iterator[str]:
    """The parts of a text that are not denied; a denial reaches over commas until something is affirmed."""
    for sentence in re.split(r"[.;\n]|\b(?:but|however|although|except)\b", text):
        denied = False
        for piece in re.split(r",|\bor\b|\band\b", sentence):
            words = " ".join(re.findall(r"\w+", piece))
            if _DENIES_BEFORE.search(words):
                continue
            match = _DENIES_AFTER.search(words)
            if denied and not match and _AFFIRMS.search(words):
                denied = False
            if not denied:
                yield words[: match.start()] if match else words
            denied = denied or match is not None


def _denies_all(text: str) -> bool:
    """Whether a text says that nothing is there, or that all is normal."""
    words = " ".join(re.findall(r"\w+", text))
    return bool(_NORMAL.search(words) or _DENIES_ALL.search(words))
