"""Letters that the usual font lacks: drawn with another font of this machine, else written in Latin letters.

Questions and answers may hold Chinese, Arabic or emoji. DejaVu Sans, which comes with matplotlib, has none of these,
and matplotlib draws a letter that no font has as an empty box.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

USUAL = "DejaVu Sans"
_WIDE_FONTS = re.compile(
    r"CJK|Noto Sans (SC|TC|JP|KR|HK)|Source Han Sans|WenQuanYi|Droid Sans Fallback|IPAGothic|IPAexGothic|TakaoGothic"
    r"|Nanum|UnDotum|PingFang|Hiragino|Heiti|Microsoft YaHei|Meiryo|Malgun|SimHei|Arial Unicode|Noto Sans Arabic"
    r"|Noto Sans Devanagari|Noto Sans Thai|Symbola|Noto Emoji|Segoe UI (Symbol|Emoji)|Unifont"
)
"""Families that hold what the usual font lacks; fonts of colored pictures, which matplotlib cannot draw, are none."""
_LETTER = re.compile(r"(?:HIRAGANA|KATAKANA|HANGUL|DEVANAGARI) (?:LETTER|SYLLABLE|VOWEL SIGN) (?:SMALL )?(.+)")
"""Names of letters that say how the letter sounds."""
_REPEATED = re.compile(r"(\[\w+ text\]|\[\?\])( ?\1)+")
"""What stands for a letter, several times in a row."""
_JOINERS = re.compile("[\u200d\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]")
"""Invisible parts of an emoji, and its skin colors."""


def readable(text: str, held: frozenset[int] | None = None) -> str:
    """The text without a letter that this machine cannot draw.

    Such a letter is written as its sound where Unicode names it ("か" is "ka"), and an emoji as its name (":lungs:").
    Any other letters in a row are named by their script: "[CJK text]".

    Args:
        text: in one line.
        held: code points that can be drawn; default: those of the usual font and of the fonts of `families`.
    """
    if text.isascii():
        return text
    held = _held() if held is None else held
    if all(ord(letter) in held for letter in text):
        return text
    written = "".join(letter if ord(letter) in held else _spelled(letter) for letter in _JOINERS.sub("", text))
    return _REPEATED.sub(r"\1", written)


def width(text: str) -> int:
    """Width of a text in Latin letters: Chinese and other wide letters count twice."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def draw_all_letters(figure: Figure) -> Figure:
    """Let every text of a figure be drawn in full; returns the figure."""
    for artist in figure.findobj(Text):
        assert isinstance(artist, Text)
        if not artist.get_text().isascii():
            artist.set_text("\n".join(map(readable, artist.get_text().split("\n"))))
            artist.set_fontfamily(list(families()))
    return figure


@cache
def families() -> Sequence[str]:
    """Fonts in the order in which they are tried; the first of those that have a letter draws it."""
    names = {entry.name for entry in font_manager.fontManager.ttflist}
    return (USUAL, *sorted(name for name in names if _WIDE_FONTS.search(name) and "Color" not in name))


@cache
def _held() -> frozenset[int]:
    """Code points that one of the fonts has."""
    paths = {font_manager.findfont(name, fallback_to_default=False) for name in families()}
    return frozenset(code for path in paths for code in FT2Font(path).get_charmap())


def _spelled(letter: str) -> str:
    plain = unicodedata.normalize("NFKD", letter)
    if plain.isascii():  # a fullwidth letter, a ligature
        return plain
    name = unicodedata.name(letter, "")
    sound = _LETTER.match(name)
    if sound:
        return sound[1].lower().replace(" ", "")
    if name and unicodedata.category(letter).startswith("S"):
        return f":{name.lower().replace(' ', '_')}:"
    script = name.split()[0] if name else ""
    return f"[{script if script == 'CJK' else script.title()} text]" if script else "[?]"
