"""A question put to a model, its answer, the score that is fixed on it, and the scores of pictures."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cxr_faith.data.sample import Turn
from cxr_faith.vlm.reasoning import Reasoning


@dataclass(frozen=True)
class Prompt:
    """A tokenized question. Its prefix ends with the last image token and is the same for every question.

    Attributes:
        question: as asked, without the prompt template.
        prefix_ids: token ids up to and including the last image token.
        suffix_ids: token ids from there to the start of the answer.
        image_start: position of the first image token.
        thought: what the model thought before its answer, as part of the suffix; empty: the thought is still to come;
            None: it does not think.
        letters: token ids that mean each option's letter; empty for a question without options.
        later_starts: position of the first image token of each further picture.
        turns: the earlier turns of the conversation, as part of the suffix.
    """

    question: str
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    image_start: int
    thought: str | None = None
    letters: tuple[tuple[int, ...], ...] = ()
    later_starts: tuple[int, ...] = ()
    turns: tuple[Turn, ...] = ()

    @property
    def image_starts(self) -> tuple[int, ...]:
        """Position of the first image token of each picture."""
        return (self.image_start, *self.later_starts)

    @property
    def ids(self) -> tuple[int, ...]:
        """All token ids."""
        return self.prefix_ids + self.suffix_ids

    @property
    def length(self) -> int:
        """Number of tokens before the answer."""
        return len(self.ids)


@dataclass(frozen=True)
class Target:
    """The score s that is explained and evaluated. It is fixed on the intact picture.

    Attributes:
        kind: `margin` (yes/no question: logsumexp of the yes logits minus logsumexp of the no logits), `letter` (margin
            of the chosen option's letter over the best other one) or `tokens` (log-odds of generated tokens, teacher
            forced).
        name: how records spell it: `answer`, `first` or the token index.
        sign: +1 if the model answered yes on the intact picture, else -1; margins only.
        answer_ids: the generated answer, token by token.
        scored: 0-based indices into `answer_ids` of the tokens whose log-odds are averaged.
        letters: token ids that mean each option's letter; `letter` only.
        chosen: place of the option that the model chose on the intact picture; `letter` only.
    """

    kind: Literal["margin", "letter", "tokens"]
    name: str = "answer"
    sign: int = 1
    answer_ids: tuple[int, ...] = ()
    scored: tuple[int, ...] = (0,)
    letters: tuple[tuple[int, ...], ...] = ()
    chosen: int = 0

    @property
    def forced_ids(self) -> tuple[int, ...]:
        """Answer tokens to feed before the last scored token can be read."""
        return self.answer_ids[: max(self.scored)] if self.kind == "tokens" else ()

    def alone(self, index: int) -> "Target":
        """The same answer, with the token at this index as the target."""
        return replace(self, name=str(index), scored=(index,))

    def read_positions(self, prompt: Prompt) -> list[int]:
        """Absolute positions p-1 at which each scored token (standing at p) is read."""
        return [prompt.length - 1 + index for index in self.scored]


@dataclass(frozen=True)
class PictureScores:
    """Scores of pictures under one question, each float64 [batch].

    Attributes:
        s: the score, in logits: the margin, or the mean over tokens of the token's log-odds.
        probability: sigmoid(s), the softmax over the letters, or the mean over tokens of the token's probability.
        standing: negative where the answer has changed: s, or the smallest margin of a token's logit over the best
            other logit.
        log_p: logarithm of the probability in nats; for tokens the mean of each token's log-probability; None where it
            is not known.
    """

    s: Tensor
    probability: Tensor
    standing: Tensor
    log_p: Tensor | None = None

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """All scores in the order of the fields, NaN for a `log_p` that is None."""
        log_p = torch.full_like(self.s, torch.nan) if self.log_p is None else self.log_p
        return (self.s, self.probability, self.standing, log_p)

    def at(self, places: npt.NDArray[np.int64]) -> "PictureScores":
        """The scores at these indices, in the shape of `places`."""
        index = torch.from_numpy(places)
        return PictureScores(*(values[index] for values in self.columns))


@dataclass(frozen=True)
class Reply:
    """The model's own answer to one question on one picture.

    Attributes:
        token_ids: greedy tokens, without the end-of-turn token.
        content: 0-based indices of the tokens that are not special.
        text: decoded answer without special tokens.
        margin: yes/no margin of the first step, in logits.
        yes_no_mass: p(yes) + p(no) at the first step.
        opens_yes_no: whether the first token is one of the yes or no ids.
        opens_thought: marks of the thought that it opens with, in place of an answer.
        prompt: the question with the thought that the model had before this answer; None: the prompt as it was given.
        option_probs: softmax over the letters of the options at the first step; empty for a question without options.
        option_mass: probability of all these letters together at the first step.
    """

    token_ids: tuple[int, ...]
    content: tuple[int, ...]
    text: str
    margin: float
    yes_no_mass: float
    opens_yes_no: bool
    opens_thought: Reasoning | None = None
    prompt: Prompt | None = None
    option_probs: tuple[float, ...] = ()
    option_mass: float = 0.0

    @property
    def chosen(self) -> int:
        """Place of the option whose letter is the most probable one."""
        return self.option_probs.index(max(self.option_probs))
