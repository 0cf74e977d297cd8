"""Which model answers the questions: the section `vlm` of a config. Imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MAX_QUESTION_TOKENS = 1024
LARGEST_LIMIT = 131_072
"""Positions that the largest models of the family have."""


def bundled_model() -> Path:
    """Folder of the small Gemma-3 that ships with the package (its README.md is the model card)."""
    return Path(__file__).parent / "bundled"


@dataclass(frozen=True)
class ModelConfig:
    """Which model answers the questions.

    Attributes:
        path: folder or hub id of a Gemma-3 with a vision tower; `bundled` is the small one that ships.
        revision: hub revision.
        dtype: default: bfloat16 on a GPU, float32 on a CPU.
        prompt_template: how a question is put to the model; contains `{question}`.
        max_question_tokens: longest question, prompt template included.
    """

    path: str = "bundled"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    prompt_template: str = "{question}"
    max_question_tokens: int = MAX_QUESTION_TOKENS

    def __post_init__(self) -> None:
        """Check what can be checked without the model."""
        if self.dtype not in (None, "float32", "bfloat16"):
            raise ValueError(f"vlm.dtype must be float32 or bfloat16, got {self.dtype!r}")
        if "{question}" not in self.prompt_template:
            raise ValueError("vlm.prompt_template must contain '{question}'")
        if not 1 <= self.max_question_tokens <= LARGEST_LIMIT:
            raise ValueError(
                f"vlm.max_question_tokens must be from 1 to {LARGEST_LIMIT}, got {self.max_question_tokens}"
            )

    @property
    def source(self) -> str:
        """Folder or hub id."""
        return str(bundled_model()) if self.path == "bundled" else self.path
