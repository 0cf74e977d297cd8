"""No letter of a title is drawn as an empty box, whatever fonts this machine has."""

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure

from cxr_faith.report.figures import overlay, wrapped
from cxr_faith.report.letters import draw_all_letters, readable, width

LATIN = frozenset(range(32, 0x17F)) | {ord(letter) for letter in "Δ≥→“”"}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Is there a nodule?", "Is there a nodule?"),
        ("Über Δ ≥ 2 → “x”", "Über Δ ≥ 2 → “x”"),
        ("胸 X", "[CJK text] X"),
        ("胸部 X線", "[CJK text] X[CJK text]"),
        ("かな カタ", "kana kata"),
        ("폐 결절", "pye gyeoljeol"),
        ("ｆｕｌｌ ﬁne", "full fine"),
        ("🫁 lungs 👍🏽", ":lungs: lungs :thumbs_up_sign:"),
        ("правое легкое, да", "[Cyrillic text], [Cyrillic text]"),
        ("\U000e0041\ue000", "[Tag text][?]"),
    ],
)
def test_letters_that_no_font_has_are_written_in_latin(text: str, written: str) -> None:
    assert readable(text, LATIN) == written


def test_every_title_is_drawn_without_a_missing_glyph() -> None:
    picture, title = np.zeros((40, 60), np.uint8), "胸部に結節 🫁 폐 결절 عقدة легкое ➜"
    figure = overlay(picture, np.eye(4), title)
    strange = Figure()
    strange.text(0.1, 0.5, title)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for one in (figure, draw_all_letters(strange)):
            one.canvas.draw()


def test_wide_letters_count_twice() -> None:
    assert (width("ab"), width("胸部")) == (2, 4)
    assert all(width(line) <= 20 for line in wrapped("nodule " * 9 + "x" * 50, 20 * 9 / 130))
    assert wrapped("a" * 70, 20 * 9 / 130)[-1].endswith("…")
