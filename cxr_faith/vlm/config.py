"""Which model answers the questions, and how they are put to it: section `vlm` of a config. Imports nothing heavy."""

import filecmp
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.folder import CONFIG, inside, read_json
from cxr_faith.vlm.reasoning import Reasoning

MAX_QUESTION_TOKENS = 1024
MAX_REASONING_TOKENS = 1024
FASTER = ("fused_norm", "padded_heads")
"""Kernels that can be switched on, see `cxr_faith.vlm.kernels`."""
LARGEST_LIMIT = 131_072
"""Positions that the largest models of the family have."""
PLAIN_TEMPLATE = "{question}"
INSTRUCTION_TEMPLATE = "{question} Answer with yes or no where that is possible, otherwise in a few words."
"""Without this request, instruction models open with a phrase, and the first token says nothing about yes or no."""
OPTION_TEMPLATE = "{question}\nAnswer with the letter of the right option."
"""What a question with options gets in its place."""


def bundled_model() -> Path:
    """Folder of the small Gemma-3 that ships with the package (its README.md is the model card)."""
    return Path(__file__).parent / "bundled"


def default_template(source: str | Path) -> str:
    """How a question is put to a model that no prompt template is stated for.

    The bundled model, and those that training makes with its tokenizer, learned plain questions. A checkpoint of
    another family states what it learned as `prompt_template` of its `config.json`. All others are taken for
    instruction models, which are asked for yes or no.

    Args:
        source: folder or hub id.
    """
    try:
        stated = read_json(inside(Path(source), CONFIG)).get("prompt_template")
    except (OSError, ModelError):  # a hub id, or a folder that is refused once it is read
        stated = None
    if isinstance(stated, str) and "{question}" in stated:
        return stated
    own, other = bundled_model() / "tokenizer.json", Path(source) / "tokenizer.json"
    plain = other.is_file() and filecmp.cmp(own, other, shallow=False)
    return PLAIN_TEMPLATE if plain else INSTRUCTION_TEMPLATE


def check_faster(names: Collection[str]) -> tuple[str, ...]:
    """The kernels that are switched on, each once and in the order of `FASTER`.

    Raises:
        ValueError: no kernel has that name.
    """
    for name in names:
        if name not in FASTER:
            raise ValueError(f"vlm.faster must name {' or '.join(FASTER)}, got {name!r}")
    return tuple(name for name in FASTER if name in names)


@dataclass(frozen=True)
class PromptOptions:
    """How questions are put to a model.

    Attributes:
        template: text around the question; contains `{question}`.
        max_question_tokens: longest question, template included.
        system: text of the system role, before the picture; empty: none.
        answer_prefix: text after the turn mark (and after a thought), with which every answer begins; it is part of
            the prompt.
        reasoning: marks of the thought that the model has before it answers.
        max_reasoning_tokens: longest thought.
    """

    template: str = PLAIN_TEMPLATE
    max_question_tokens: int = MAX_QUESTION_TOKENS
    system: str = ""
    answer_prefix: str = ""
    reasoning: Reasoning = Reasoning()
    max_reasoning_tokens: int = MAX_REASONING_TOKENS

    def __post_init__(self) -> None:
        """Check what can be checked without the model."""
        fixed = {"system": self.system, "answer_prefix": self.answer_prefix}
        fixed |= {"reasoning.open": self.reasoning.open, "reasoning.close": self.reasoning.close}
        for name, text in {"prompt_template": self.template, **fixed}.items():
            if not isinstance(text, str):
                raise ValueError(f"vlm.{name} must be text, got {text!r}")
        for name, text in fixed.items():
            if r"\n" in text:
                raise ValueError(f"vlm.{name} has a backslash and an n: a shell writes a line break as $'…\\n…'")
        if "{question}" not in self.template:
            raise ValueError(f"vlm.prompt_template must contain '{{question}}', got {self.template!r}")
        for name in ("max_question_tokens", "max_reasoning_tokens"):
            if not 1 <= getattr(self, name) <= LARGEST_LIMIT:
                raise ValueError(f"vlm.{name} must be from 1 to {LARGEST_LIMIT}, got {getattr(self, name)}")

    def template_for(self, options: int) -> str:
        """Text around a question with this number of options; 0: a question without options."""
        return OPTION_TEMPLATE if options and self.template == INSTRUCTION_TEMPLATE else self.template

    def identity(self) -> dict[str, str]:
        """What a run's numbers depend on; options that are not used are left out."""
        used = {"prompt_template": self.template, "max_question_tokens": str(self.max_question_tokens)}
        used |= {name: getattr(self, name) for name in ("system", "answer_prefix") if getattr(self, name)}
        if self.reasoning.on:
            used["reasoning"] = f"{self.reasoning.open}…{self.reasoning.close}"
            used["max_reasoning_tokens"] = str(self.max_reasoning_tokens)
        return used


@dataclass(frozen=True)
class ModelConfig:
    """Which model answers the questions.

    Attributes:
        path: folder or hub id of a model; `bundled` is the small one that ships.
        revision: branch, tag or commit of a hub id; default: main.
        dtype: default: bfloat16 on a GPU, else float32.
        prompt_template: how a question is put to the model; contains `{question}`. Default: asks for yes or no, or
            a few words, and for the letter of one of the options; the bundled model gets the question alone.
        max_question_tokens: longest question; prompt template included.
        system: text of the system role, before the picture; empty: none.
        answer_prefix: text with which every answer begins; it stands after the turn mark, such as an empty thought.
        reasoning: let the model think first: the marks around its thought. The thought is stored and then held fixed
            as part of the prompt; the answer after it is explained.
        max_reasoning_tokens: longest thought; a longer one is closed there.
        image_size: height and width at which pictures are read; in pixels, for a family that takes several sizes.
            Default: the family's own.
        faster: kernels fused_norm and padded_heads; meant for a GPU, they round differently, see
            `cxr_faith.vlm.kernels`. Default: none.
    """

    path: str = "bundled"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    prompt_template: str | None = None
    max_question_tokens: int = MAX_QUESTION_TOKENS
    system: str = ""
    answer_prefix: str = ""
    reasoning: Reasoning = Reasoning()
    max_reasoning_tokens: int = MAX_REASONING_TOKENS
    image_size: tuple[int, int] | None = None
    faster: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what can be checked without the model."""
        if self.dtype not in (None, "float32", "bfloat16"):
            raise ValueError(f"vlm.dtype must be float32 or bfloat16, got {self.dtype!r}")
        object.__setattr__(self, "faster", check_faster(self.faster))
        self._prompts(PLAIN_TEMPLATE if self.prompt_template is None else self.prompt_template)

    @property
    def source(self) -> str:
        """Folder or hub id."""
        return str(bundled_model()) if self.path == "bundled" else self.path

    @property
    def prompts(self) -> PromptOptions:
        """How questions are put to this model, with the default template where none is stated."""
        template = default_template(self.source) if self.prompt_template is None else self.prompt_template
        return self._prompts(template)

    def _prompts(self, template: str) -> PromptOptions:
        own = (self.max_question_tokens, self.system, self.answer_prefix, self.reasoning, self.max_reasoning_tokens)
        return PromptOptions(template, *own)
