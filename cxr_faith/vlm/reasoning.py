"""Models that think before they answer: the marks around a thought, and how to see that an answer opens one.

Imports nothing heavy.
"""

import functools
import json
import logging
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reasoning:
    """The marks around a model's thought. Without a closing mark, the model answers at once.

    Attributes:
        open: text that opens a thought; such as `<unused94>thought` and a line break. Empty if the chat template
            writes it.
        close: text that ends a thought; such as `<unused95>`. The answer follows.
    """

    open: str = ""
    close: str = ""

    def __post_init__(self) -> None:
        """Refuse marks that cannot tell a thought from an answer."""
        if self.open and not self.close:
            raise ValueError("vlm.reasoning.close must say what ends a thought, such as <unused95>")

    @property
    def on(self) -> bool:
        """Whether the model thinks first."""
        return bool(self.close)

    @property
    def nothing(self) -> str:
        """A thought without content."""
        return self.open + self.close


_MARKS = (
    Reasoning("<unused94>thought\n", "<unused95>"),  # MedGemma 1.5 and 27B
    Reasoning("<|channel>thought\n", "<channel|>"),  # Gemma 4
    Reasoning("<think>\n\n", "</think>\n\n"),  # Qwen and models trained from it
    Reasoning("<thinking>\n", "</thinking>\n"),
    Reasoning("<thought>\n", "</thought>\n"),
    Reasoning("<reasoning>\n", "</reasoning>\n"),
    Reasoning("[THINK]", "[/THINK]"),  # Mistral
)
_ENDS = (">", "]")
OPENS = "the answer opens a thought"
"""How messages and records begin that say so."""


def opened_thought(text: str) -> Reasoning | None:
    """The marks of the thought that an answer opens with; None if it opens with none.

    Args:
        text: the start of the answer, special tokens included.
    """
    start = text.lstrip()
    return next((marks for marks in _MARKS if start.startswith(_first_mark(marks.open))), None)


def _first_mark(text: str) -> str:
    """The opening mark without the words after it, which an answer of few tokens lacks."""
    return text[: min(text.index(end) for end in _ENDS if end in text) + 1]


def thought_advice(marks: Reasoning) -> str:
    """One line for people whose model thinks where an answer is expected."""
    opening, closing, nothing = (json.dumps(text) for text in (marks.open.strip(), marks.close.strip(), marks.nothing))
    return (
        f"{OPENS} ({_first_mark(marks.open)}) and says neither yes nor no: set vlm.answer_prefix: {nothing} "
        f"(an empty thought), or vlm.reasoning: {{open: {opening}, close: {closing}}} (the model thinks first)"
    )


@functools.cache  # once a process
def warn_of_thoughts(marks: Reasoning | None) -> None:
    """Log the advice for marks that answers open with; None: they open with none."""
    if marks is not None:
        logger.warning("%s", thought_advice(marks))


def thought_flags(marks: Reasoning) -> str:
    """The same line with the options of `explain`, quoted for a shell."""
    nothing = marks.nothing.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    thought = json.dumps({"open": marks.open.strip(), "close": marks.close.strip()})
    return (
        f"{OPENS} ({_first_mark(marks.open)}) and says neither yes nor no: give --answer_prefix $'{nothing}' "
        f"(an empty thought), or --reasoning '{thought}' (the model thinks first)"
    )


class ThoughtError(ValueError):
    """The answer opens a thought, and there is nothing to explain.

    Attributes:
        marks: those of the thought.
    """

    def __init__(self, marks: Reasoning) -> None:
        super().__init__(thought_advice(marks))
        self.marks = marks
