"""The engine: runs every distinct perturbed picture once, in full micro-batches, for all methods and questions.

Forward passes on perturbed pictures take most of a run's time. `Plan` collects the pictures that the curves need and
merges equal ones (shared end points, equal orders, the baselines of an image's questions); `Engine` runs them. A
perturbed picture is encoded and prefilled once, then each question that needs it runs its suffix on the cache.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from cxr_faith.perturb.road import Fill
from cxr_faith.perturb.sheet import sheet_source
from cxr_faith.perturb.substrate import compose
from cxr_faith.vlm.base import VLM, PictureScores, Prompt, Target
from cxr_faith.vlm.micro_batch import MicroBatch

PIXELS, TOKENS = "pixels", "tokens"
SPACES = (PIXELS, TOKENS)

T = TypeVar("T")


@dataclass
class Plan:
    """The distinct pictures that the curves of one image need.

    A picture is a bool mask over the N cells, True = original. One or more of the image's questions need it.

    Attributes:
        n_cells: N.
    """

    n_cells: int
    _index: dict[bytes, int] = field(default_factory=dict)
    _masks: list[np.ndarray] = field(default_factory=list)
    _requests: list[tuple[int, int]] = field(default_factory=list)

    def add(self, question: int, masks: np.ndarray) -> np.ndarray:
        """Add the pictures that a question needs.

        Args:
            question: index of the question that needs them.
            masks: bool [M, N].

        Returns:
            int64 [M]: index of each picture's score in the results of `Engine.run`.
        """
        places = np.empty(len(masks), np.int64)
        for row, (mask, key) in enumerate(zip(masks, map(bytes, np.packbits(masks, axis=1)), strict=True)):
            place = self._index.setdefault(key, len(self._masks))
            if place == len(self._masks):
                self._masks.append(mask)
            self._requests.append((question, place))
            places[row] = place
        return places

    def __len__(self) -> int:
        """Number of distinct pictures."""
        return len(self._masks)

    @property
    def questions_asked(self) -> int:
        """Number of distinct (question, picture) pairs: suffix passes."""
        return len(set(self._requests))

    def groups(self, share: bool = True) -> list[tuple[tuple[int, ...], np.ndarray, np.ndarray]]:
        """(questions, places [M], masks [M, N]) for each set of questions that need the same pictures.

        Args:
            share: off, each question gets its own group, with a picture as often as it was added.
        """
        places: dict[tuple[int, ...], list[int]] = {}
        if share:
            needed_by: list[set[int]] = [set() for _ in self._masks]
            for question, place in self._requests:
                needed_by[place].add(question)
            for place, questions in enumerate(needed_by):
                places.setdefault(tuple(sorted(questions)), []).append(place)
        else:
            for question, place in self._requests:
                places.setdefault((question,), []).append(place)
        return [(q, np.array(p), np.stack([self._masks[i] for i in p])) for q, p in places.items()]


class Engine:
    """Runs plans on a model.

    Args:
        vlm: the model.
        softness: σ in pixels of the masks' edges; 0 = hard cells.
        micro_batch: pictures in a forward pass, fewer when memory runs out; see `MicroBatch.of` for the default.
        share: run a picture once for all curves and questions; off, once for each of their points, with the same bits.
    """

    def __init__(
        self, vlm: VLM, softness: float = 0.0, micro_batch: int | MicroBatch | None = None, share: bool = True
    ) -> None:
        self.vlm, self.softness, self.share = vlm, softness, share
        self.batches = micro_batch if isinstance(micro_batch, MicroBatch) else MicroBatch.of(vlm.device, micro_batch)

    def showing(self, pictures: int) -> "Engine":
        """An engine for questions that show several pictures, one below the other; micro-batches are shared."""
        if pictures == self.vlm.pictures:
            return self
        return Engine(self.vlm.showing(pictures), self.softness, self.batches, self.share)

    @property
    def micro_batch(self) -> int:
        """Pictures in a forward pass; smaller than at first if memory has run out."""
        return self.batches.size

    def whole_pass(self, work: Callable[[int], T]) -> T:
        """What `work(rows)` gives about one picture, repeated to the rows of a micro-batch; see `MicroBatch.padded`.

        So an answer is rounded as the scores are. With fewer rows when memory runs out.
        """
        results: list[T] = []
        self.batches.run(1, lambda *_: results.append(work(self.batches.rows(1))))
        return results[0]

    def run(
        self,
        original: Tensor,
        removed: Tensor,
        plan: Plan,
        prompts: Sequence[Prompt],
        targets: Sequence[Target],
        fill: Fill | None = None,
        space: str = PIXELS,
    ) -> list[PictureScores]:
        """Score every picture of a plan under every question that needs it.

        Args:
            original: pixel values [3, H, W].
            removed: the substrate picture [3, H, W].
            plan: the pictures.
            prompts: one for each question of the image.
            targets: one for each question of the image.
            fill: makes the substrate of each mask, for substrates that depend on it; in pixels it replaces `removed`.
            space: `pixels`, or `tokens`: cells are exchanged among the image tokens of the two pictures, so the tower
                runs on these two alone. A token depends on the whole picture, so the result means something else.

        Returns:
            for each question, scores [len(plan)] on the CPU; NaN for pictures that it does not need.
        """
        device = original.device
        filled = torch.full(
            (len(prompts), len(fields(PictureScores)), len(plan)), torch.nan, dtype=torch.float64, device=device
        )
        groups = plan.groups(self.share)
        if not groups:
            return [PictureScores(*rows) for rows in filled.cpu()]
        with torch.no_grad():
            source = self._source(torch.stack([original, removed]), space, fill)
            # One copy for all groups: each copy waits for the work before it.
            keep, places = (
                torch.from_numpy(np.concatenate(parts)).to(device).split([len(masks) for *_, masks in groups])
                for parts in ([masks for *_, masks in groups], [places for _, places, _ in groups])
            )
            for (questions, *_), masks, at in zip(groups, keep, places, strict=True):
                self._run_group(source, masks, at, filled, [(q, prompts[q], targets[q]) for q in questions])
        return [PictureScores(*rows) for rows in filled.cpu()]

    def _run_group(
        self,
        source: Callable[[Tensor], Tensor],
        keep: Tensor,
        places: Tensor,
        filled: Tensor,
        questions: Sequence[tuple[int, Prompt, Target]],
    ) -> None:
        """Run masks [M, N] for the questions that need them; write scores to `filled` [questions, columns, places]."""

        def work(start: int, stop: int) -> None:
            masks, padding = keep[start:stop], self.batches.rows(stop - start) - (stop - start)
            if padding:
                masks = torch.cat([masks, masks[:1].expand(padding, -1)])
            self._run_batch(source(masks), places[start:stop], filled, questions)
            self.vlm.counts.padding += padding * len(questions)

        self.batches.run(len(keep), work)

    def _source(self, pair: Tensor, space: str, fill: Fill | None) -> Callable[[Tensor], Tensor]:
        """A function from masks [M, N] to image tokens [M, N, hidden]; the two pictures are processed here, once."""
        vlm, grid = self.vlm, self.vlm.grid
        if space == TOKENS:
            intact, substrate = vlm.encode(pair)
            return lambda keep: torch.where(vlm.layout.kept_tokens(keep)[..., None], intact, substrate)
        if vlm.pictures > 1:
            return sheet_source(vlm, pair, fill, self.softness)
        if fill is not None:
            return lambda keep: vlm.encode(compose(pair[0], fill(keep), keep, grid, self.softness))
        ends = vlm.embed(pair) if self.softness == 0 else None
        if ends is None:
            return lambda keep: vlm.encode(compose(pair[0], pair[1], keep, grid, self.softness))
        # Hard cells are whole patches: both pictures are embedded once, and a mask selects among the embeddings.
        rows, columns = ends.shape[1] // grid[0], ends.shape[2] // grid[1]

        def select(keep: Tensor) -> Tensor:
            mask = keep.unflatten(1, grid).repeat_interleave(rows, 1).repeat_interleave(columns, 2)[..., None]
            return vlm.encode_embedded(torch.where(mask, ends[0], ends[1]))

        return select

    def _run_batch(
        self, tokens: Tensor, places: Tensor, filled: Tensor, questions: Sequence[tuple[int, Prompt, Target]]
    ) -> None:
        prefix = self.vlm.prefill(tokens)
        for question, prompt, target in questions:
            scores = self.vlm.score(prefix, prompt, target)
            filled[question][:, places] = torch.stack(scores.columns)[:, : len(places)]
