"""What a sentence affirms and what it denies; docs/answers.md has the rules."""

import re
from collections.abc import Iterator, Mapping

_LONGEST_ITEM = 4  # words; a longer piece of a list is a sentence
_SENTENCE = re.compile(
    r"\b(?:is|are|was|were|has|have|shows?|showing|seen|see|there|this|it|i|appears?|demonstrates?|suggests?)\b"
    r"|\b(?:indicates?|reveals?|consistent|evidence|patient|image|answer)\b"
)
_DENIES_AFTER = re.compile(r"\b(?:no|not|without|negative for|free of|absence of|rather than|instead of|nor|neither)\b")
_DENIES_BEFORE = re.compile(
    r"\b(?:not (?:seen|present|visible|identified|evident|noted)|absent|ruled out|isnt|arent|excluded|resolved)\b"
    r"|\b(?:is|are|appears?|looks?) (?:clear|normal|unremarkable)\b|\b(?:no|none|negative)$"
)
_AFFIRMS = re.compile(r"\b(?:is|are|was|were|there|shows?|has|have|seen|demonstrates?|with)\b")
_NORMAL = re.compile(r"\b(?:normal|unremarkable|clear|healthy)\b")
_DENIES_ALL = re.compile(
    r"\b(?:no|not|without|nothing|none|free of)\b.*\b(?:abnormal\w*|findings?|acute|disease|process|pathology)\b"
    r"|\b(?:no|not|without|none)\b.*\b(?:lesions?|devices?|tubes?|lines?|catheters?)\b|\b(?:nothing|none|no)$"
)


def is_sentence(item: str) -> bool:
    """Whether a piece of a list is a sentence: more than four words, or a word that lists do not have."""
    return len(item.split()) > _LONGEST_ITEM or _SENTENCE.search(item) is not None


def read_items(text: str, lexicon: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """Items that a text affirms, and those that it denies.

    Args:
        text: in lower case, without apostrophes and hyphens.
        lexicon: spelling → item; of two spellings at one place the longer one counts.
    """
    longest = sorted(lexicon, key=len, reverse=True)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, longest))})(?:e?s)?\b")
    affirmed, denied = set[str](), set[str]()
    for piece, affirms in _pieces(text.replace("opacities", "opacity")):
        (affirmed if affirms else denied).update(lexicon[match[1]] for match in pattern.finditer(piece))
    return affirmed, denied - affirmed


def denies_something(text: str) -> bool:
    """Whether any part of a text is a denial."""
    return _DENIES_AFTER.search(text) is not None or _DENIES_BEFORE.search(text) is not None


def denies_all(text: str) -> bool:
    """Whether a text says that nothing is there, or that all is normal."""
    words = " ".join(re.findall(r"\w+", text))
    return bool(_NORMAL.search(words) or _DENIES_ALL.search(words))


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Parts of a text, and whether each is affirmed; a denial reaches over commas until something is affirmed."""
    for sentence in re.split(r"[.;\n]|\b(?:but|however|although|except)\b", text):
        denied = False
        for piece in re.split(r",|\bor\b|\band\b", sentence):
            words = " ".join(re.findall(r"\w+", piece))
            if _DENIES_BEFORE.search(words):
                yield words, False
                continue
            match = _DENIES_AFTER.search(words)
            if denied and not match and _AFFIRMS.search(words):
                denied = False
            start = 0 if denied else match.start() if match else len(words)
            yield words[:start], True
            yield words[start:], False
            denied = denied or match is not None
