"""What a vision-language model must offer so that its answers can be explained and scored.

The stages are separate: `encode` and `prefill` depend on the picture alone, so their results serve every question
about it, and `score` adds a question. Only `trace` is differentiable and shows attention probabilities.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cxr_faith.vlm.counts import Counts
from cxr_faith.vlm.errors import ModelError as ModelError
from cxr_faith.vlm.errors import PromptError as PromptError
from cxr_faith.vlm.reasoning import Reasoning

if TYPE_CHECKING:
    from cxr_faith.vlm.prefix_cache import PrefixCache

Observer = Callable[[int, Tensor], None]
"""Called as `observer(layer, values)` for each decoder layer: attention probabilities float32 [batch, heads, sequence,
sequence], or the layer's output [batch, sequence, hidden]."""


@dataclass(frozen=True)
class Prompt:
    """A tokenized question. Its prefix ends with the last image token and is the same for every question.

    Attributes:
        question: as asked, without the prompt template.
        prefix_ids: token ids up to and including the last image token.
        suffix_ids: token ids from there to the start of the answer.
        image_start: position of the first image token.
        thought: what the model thought before its answer, which is then part of the suffix; None: it did not think.
    """

    question: str
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    image_start: int
    thought: str | None = None

    @property
    def length(self) -> int:
        """Number of tokens before the answer."""
        return len(self.prefix_ids) + len(self.suffix_ids)


@dataclass(frozen=True)
class Target:
    """The score s that is explained and evaluated. It is fixed on the intact picture.

    Attributes:
        kind: `margin` (yes/no question: logsumexp of the yes logits minus logsumexp of the no logits) or `tokens`
            (log-odds of generated tokens, teacher forced).
        name: how records spell it: `answer`, `first` or the token index.
        sign: +1 if the model answered yes on the intact picture, else -1; margins only.
        answer_ids: the generated answer, token by token.
        scored: 0-based indices into `answer_ids` of the tokens whose log-odds are averaged.
    """

    kind: Literal["margin", "tokens"]
    name: str = "answer"
    sign: int = 1
    answer_ids: tuple[int, ...] = ()
    scored: tuple[int, ...] = (0,)

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
        probability: sigmoid(s), or the mean over tokens of the token's probability.
        standing: negative where the answer has changed: s, or the smallest margin of a token's logit over the best
            other logit.
        log_p: logarithm of the probability in nats: log sigmoid(s), or the mean over tokens of the token's
            log-probability; None where it is not known.
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
    """

    token_ids: tuple[int, ...]
    content: tuple[int, ...]
    text: str
    margin: float
    yes_no_mass: float
    opens_yes_no: bool
    opens_thought: Reasoning | None = None
    prompt: Prompt | None = None


@dataclass(eq=False)
class VLM(ABC):
    """A vision-language model that reads a picture as a grid of tokens before the question.

    Attributes:
        grid: (grid_h, grid_w) cells of a map; each is one image token.
        image_size: (H, W) of the model's input in pixels.
        layer_types: `full_attention` or `sliding_attention` for each decoder layer.
        yes_ids: token ids that mean yes.
        no_ids: token ids that mean no.
        device: where its weights are.
        counts: work done so far.
        special_ids: token ids that carry no text, such as turn and image markers.
    """

    grid: tuple[int, int]
    image_size: tuple[int, int]
    layer_types: tuple[str, ...]
    yes_ids: tuple[int, ...]
    no_ids: tuple[int, ...]
    device: torch.device
    counts: Counts = field(default_factory=Counts)
    special_ids: frozenset[int] = frozenset()

    @property
    def n_cells(self) -> int:
        """Number of cells of a map, grid_h * grid_w."""
        return self.grid[0] * self.grid[1]

    @abstractmethod
    def to(self, device: torch.device | str) -> "VLM":
        """Move the model; returns itself."""

    @abstractmethod
    def normalize(self, images: Tensor) -> Tensor:
        """Pictures uint8 [batch, 3, H, W] to the float32 pixel values that the model gets."""

    @abstractmethod
    def denormalize(self, pixels: Tensor) -> Tensor:
        """The inverse of `normalize`, rounded to uint8."""

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixel values [batch, 3, H, W] to projected image tokens [batch, N, hidden]."""

    def embed(self, pixels: Tensor) -> Tensor | None:
        """Patch embeddings [batch, rows, columns, channels], each computed from its own patch alone.

        A cell is a block of whole patches, so a picture whose cells come from two others can be composed from the
        embeddings of these two.

        Returns:
            None for a model without this stage.
        """
        return None

    def encode_embedded(self, embedded: Tensor) -> Tensor:
        """What `encode` gives, from what `embed` gives."""
        raise NotImplementedError(f"{type(self).__name__} has no patch embeddings")

    def tower_stream(self, pixels: Tensor, layer: int) -> Tensor:
        """The residual stream of the vision tower after a layer.

        Args:
            pixels: pixel values [batch, 3, H, W].
            layer: 0-based index of the tower's layer.

        Returns:
            [batch, patches, width], patches row by row over a square grid.

        Raises:
            ModelError: no such layer, or the tower cannot be observed.
        """
        raise ModelError("the vision tower of this model cannot be observed")

    def encode_stream(self, stream: Tensor, layer: int) -> Tensor:
        """What `encode` gives, from what `tower_stream` gives."""
        raise ModelError("the vision tower of this model cannot be observed")

    def tower_identity(self) -> str:
        """Hash of the vision tower's weights, the same in float32 and bfloat16.

        Raises:
            ModelError: the tower cannot be observed.
        """
        raise ModelError("the vision tower of this model cannot be observed")

    @abstractmethod
    def prefill(self, tokens: Tensor) -> "PrefixCache":
        """Image tokens [batch, N, hidden] to the decoder's cache up to the end of the image."""

    @abstractmethod
    def prompt(self, question: str) -> Prompt:
        """Tokenize a question with the chat template.

        Raises:
            PromptError: the question is too long, or spells a control token.
            ModelError: the chat template fails or changes the question, or does not give one BOS token and one block
                of image tokens.
        """

    @abstractmethod
    def answer(self, prefix: "PrefixCache", prompt: Prompt, max_new_tokens: int) -> Reply:
        """Greedy answer for a prefix of one picture, or of copies of it."""

    @abstractmethod
    def score(self, prefix: "PrefixCache", prompt: Prompt, target: Target) -> PictureScores:
        """Scores of every picture of a prefix under one question."""

    @abstractmethod
    def trace(
        self,
        tokens: Tensor,
        prompts: Sequence[Prompt],
        targets: Sequence[Target],
        observer: Observer | None = None,
        states: Observer | None = None,
    ) -> Tensor:
        """Differentiable token scores of full sequences, without the cache.

        Args:
            tokens: image tokens [batch, N, hidden]; gradients flow to them.
            prompts: one for each picture, of equal length.
            targets: one for each prompt, of equal kind and with the same scored tokens.
            observer: gets every decoder layer's attention probabilities, which are part of the graph.
            states: gets every decoder layer's output, before the final norm, which is part of the graph.

        Returns:
            float32 [batch, n]: the signed margin (n = 1), or the log-odds of each scored token. Their mean over n is
            s.
        """

    @abstractmethod
    def token_logits(self, states: Tensor, token_ids: Tensor) -> Tensor:
        """Logits that the model's head computes from hidden states, for some tokens only.

        Args:
            states: output of the last decoder layer [batch, positions, hidden], before the final norm.
            token_ids: int64 [batch, tokens].

        Returns:
            float32 [batch, positions, tokens].
        """

    @abstractmethod
    def decode(self, token_ids: Sequence[int]) -> list[str]:
        """Each token as text."""

    @abstractmethod
    def identity(self) -> dict[str, str]:
        """What identifies this model in a run's fingerprint: source, revision, hash of the weights, dtype."""
