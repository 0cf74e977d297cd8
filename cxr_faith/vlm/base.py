"""What a vision-language model must offer so that its answers can be explained and scored.

The stages are separate: `encode` and `prefill` depend on the picture alone, so their results serve every question
about it, and `score` adds a question. Only `trace` is differentiable and shows attention probabilities.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from cxr_faith.data.sample import Turn
from cxr_faith.vlm.counts import Counts
from cxr_faith.vlm.errors import ModelError as ModelError
from cxr_faith.vlm.errors import PromptError as PromptError
from cxr_faith.vlm.layout import Layout
from cxr_faith.vlm.picture_stage import PictureStage
from cxr_faith.vlm.question import PictureScores as PictureScores
from cxr_faith.vlm.question import Prompt as Prompt
from cxr_faith.vlm.question import Reply as Reply
from cxr_faith.vlm.question import Target as Target

if TYPE_CHECKING:
    from cxr_faith.vlm.prefix_cache import Prefix

Observer = Callable[[int, Tensor], None]
"""Called as `observer(layer, values)` for each decoder layer: attention probabilities float32 [batch, heads, sequence,
sequence], or the layer's output [batch, sequence, hidden]."""


@dataclass(eq=False)
class VLM(PictureStage):
    """A vision-language model that reads a picture as tokens before the question.

    Attributes:
        grid: (grid_h, grid_w) cells of a map, which divide the picture; `layout` says where image tokens lie on them.
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

    shares_prefix: ClassVar[bool] = True
    """Whether image tokens do not see the question, so that a picture's cache serves every question about it."""

    @property
    def looks_ahead(self) -> bool:
        """Whether image tokens attend to later image tokens, too."""
        return False

    @cached_property
    def key_layers(self) -> tuple[int, ...]:
        """For each decoder layer, the one whose keys and values it reads: itself, or an earlier one."""
        return tuple(range(len(self.layer_types)))

    @property
    def n_cells(self) -> int:
        """Number of cells of a map, grid_h * grid_w."""
        return self.grid[0] * self.grid[1]

    @cached_property
    def layout(self) -> Layout:
        """Where each image token lies; here each cell is one token."""
        return Layout.of_grid(self.grid)

    @property
    def pictures(self) -> int:
        """Number of pictures that it is shown with a question; they lie one below the other, see `sheets`."""
        return len(self.layout.grids)

    @property
    def picture_grid(self) -> tuple[int, int]:
        """(grid_h, grid_w) cells of one picture."""
        return self.grid[0] // self.pictures, self.grid[1]

    def showing(self, pictures: int) -> "VLM":
        """The same model, shown this many pictures a question.

        Its `grid`, `image_size` and `layout` are those of a sheet of pictures; weights and counts are shared.

        Raises:
            ModelError: it takes no such number.
        """
        if pictures != self.pictures:
            raise ModelError(f"this model is shown {self.pictures} picture a question, not {pictures}")
        return self

    def hidden_size(self, tokens: Tensor) -> int:
        """Channels of the decoder's hidden states; image tokens may hold several parts of that size."""
        return tokens.shape[-1]

    def on_cells(self, values: Tensor) -> Tensor:
        """Values of image tokens [..., tokens] as maps [..., grid_h, grid_w]; see `Layout.to_cells`."""
        maps: Tensor = self.layout.to_cells(values).unflatten(-1, self.grid)
        return maps

    @abstractmethod
    def to(self, device: torch.device | str) -> "VLM":
        """Move the model; returns itself."""

    @abstractmethod
    def prefill(self, tokens: Tensor) -> "Prefix":
        """Image tokens [batch, tokens, hidden] to the decoder's cache up to the end of the image."""

    @abstractmethod
    def prompt(self, question: str, options: int = 0, turns: tuple[Turn, ...] = ()) -> Prompt:
        """Tokenize a question with the chat template.

        Args:
            question: as asked; it lists its options with letters.
            options: number of its options, the letter of one of which is the answer; 0: it has none.
            turns: the earlier turns of the conversation.

        Raises:
            PromptError: the question with its turns is too long, or spells a control token; or the tokenizer splits the
                letter of an option; or the chat template takes no earlier turns.
            ModelError: the chat template fails, changes the question, or does not give one BOS token and one image.
        """

    @abstractmethod
    def answer(self, prefix: "Prefix", prompt: Prompt, max_new_tokens: int) -> Reply:
        """Greedy answer for a prefix of one picture, or of copies of it."""

    @abstractmethod
    def score(self, prefix: "Prefix", prompt: Prompt, target: Target) -> PictureScores:
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
            tokens: image tokens [batch, tokens, hidden]; gradients flow to them.
            prompts: one for each picture, of equal length.
            targets: one for each prompt, of equal kind and with the same scored tokens.
            observer: gets every decoder layer's attention probabilities, which are part of the graph.
            states: gets every decoder layer's output, before the final norm, which is part of the graph.

        Returns:
            float32 [batch, n]: the signed margin or a letter's margin (n = 1), or the log-odds of each scored token.
            Their mean over n is s.
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
