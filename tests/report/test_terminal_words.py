"""Sentences in a terminal break between words and keep their indent; in a file each is one line."""

import io

import pytest

from cxr_faith.report.head import Head
from cxr_faith.report.terminal import PlainConsole, show_head

SENTENCE = (
    "Believe integrated_gradients, attention and chefer here: clearly better than the center prior (Δsrg ≥ +0.37)."
)
NOTE = "Not run for this directory: cxr-faith doctor (are model, data and machine fit?), cxr-faith sanity."


@pytest.mark.parametrize("is_terminal", [True, False])
def test_sentences_break_between_words(is_terminal: bool) -> None:
    head = Head(facts=(("model", "bundled"),), times=(), verdict=(SENTENCE, "No more."), warnings=(NOTE,))
    console = PlainConsole(file=io.StringIO(), width=60, force_terminal=is_terminal, color_system=None)
    show_head(console, head)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "model        bundled"
    if is_terminal:
        assert len(lines) > 6 and all(len(line) <= 60 for line in lines)
        assert [line[:13].strip() for line in lines if line[:13].strip()] == ["model", "verdict", "note"]
        assert " ".join(line[13:] for line in lines) == f"bundled {SENTENCE} No more. {NOTE}"
    else:
        assert [line[13:] for line in lines] == ["bundled", SENTENCE, "No more.", NOTE]
