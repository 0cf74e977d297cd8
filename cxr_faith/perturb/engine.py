"""The engine: every distinct perturbed picture once, in full micro-batches, for all methods, curves and questions.

What the program does all day is forward passes on perturbed pictures. `Plan` collects the pictures that curves need
and merges equal ones (shared end points, orders that coincide, the baselines of an image's questions); `Engine` runs
them. A perturbed picture is encoded and prefilled once, then each question that needs it runs its suffix on the cache.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cxr_faith.perturb.road import Fill
from cxr_faith.perturb.substrate import compose
from cxr_faith.vlm.base import VLM, PictureScores, Prompt, Target
from cxr_faith.vlm.micro_batch import MicroBatch

PIXELS, TOKENS = "pixels", "tokens"
SPACES = (PIXELS, TOKENS)

CPU_BATCH = 16
"""With more, temporary tensors of a small model exceed 32 MB, which glibc gives back to the system each time: a page
fault for each 4 kB, and a tenth of the time."""


@dataclass
class Plan:
    """The distinct pictures that the curves of one image need.

    A picture is a bool mask over the N cells, True = original. Each is needed by one or more of the image's questions.
    """

    n_cells: int
    _index: dict[bytes, int] = field(default_factory=dict)
    _masks: list[np.ndarray] = field(default_factory=list)
    _asked: list[tuple[int, int]] = field(default_factory=list)

    def add(self, question: int, masks: np.ndarray) -> np.ndarray:
        """Ask for pictures.

        Args:
            question: index of the question that needs them.
            masks: bool [M, N].

        Returns:
            int64 [M]: where each picture's score will stand.
        """
        places = np.empty(len(masks), np.int64)
        for row, (mask, key) in enumerate(zip(masks, map(bytes, np.packbits(masks, axis=1)), strict=True)):
            place = self._index.setdefault(key, len(self._masks))
            if place == len(self._masks):
                self._masks.append(mask)
            self._asked.append((question, place))
            places[row] = place
        return places

    def __len__(self) -> int:
        """Number of distinct pictures."""
        return len(self._masks)

    @property
    def questions_asked(self) -> int:
        """Number of questions about pictures: suffix passes."""
        return len(set(self._asked))

    def groups(self, share: bool = True) -> list[tuple[tuple[int, ...], np.ndarray, np.ndarray]]:
        """(questions, places [M], masks [M, N]) for each set of questions that share pictures.

        Args:
            share: off, each question stands alone, with a picture as often as it was asked for.
        """
        places: dict[tuple[int, ...], list[int]] = {}
        if share:
            needed_by: list[set[int]] = [set() for _ in self._masks]
            for question, place in self._asked:
                needed_by[place].add(question)
            for place, questions in enumerate(needed_by):
                places.setdefault(tuple(sorted(questions)), []).append(place)
        else:
            for question, place in self._asked:
                places.setdefault((question,), []).append(place)
        return [(q, np.array(p), np.stack([self._masks[i] for i in p])) for q, p in places.items()]


class Engine:
    """Runs a plan on a model."""

    def __init__(self, vlm: VLM, softness: float = 0.0, micro_batch: int | None = None, share: bool = True) -> None:
        """Choose how pictures are composed and run.

        Args:
            vlm: the model.
            softness: σ in pixels of the masks' edges; 0 = hard cells.
            micro_batch: pictures a forward pass; halved for good when memory runs out. Default: 64, on a CPU 16.
            share: run a picture once for all curves and questions; off, once for each of their points. The scores
                are the same bits.
        """
        self.vlm, self.softness, self.share = vlm, softness, share
        self._micro_batch = MicroBatch(micro_batch or (CPU_BATCH if vlm.device.type == "cpu" else 64))

    @property
    def micro_batch(self) -> int:
        """Pictures a forward pass, after what memory has allowed so far."""
        return self._micro_batch.size

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
            targets: likewise.
            fill: makes the substrate of each mask, where it depends on the mask; `removed` is not used then
                (in the space of tokens it always is).
            space: `pixels`, or `tokens`: cells are changed among the image tokens of the two pictures, so that the
                tower sees these two alone. A token knows of the whole picture, so this is another question.

        Returns:
            For each question, scores [len(plan)] on the CPU; NaN where it did not ask.
        """
        device = original.device
        filled = torch.full((len(prompts), 3, len(plan)), torch.nan, dtype=torch.float64, device=device)
        groups = plan.groups(self.share)
        if not groups:
            return [PictureScores(*rows) for rows in filled.cpu()]
        with torch.no_grad():
            source = self._source(torch.stack([original, removed]), space, fill)
            # One copy for all groups: each waits for the work before it.
            keep, where = (
                torch.from_numpy(np.concatenate(parts)).to(device).split([len(places) for _, places, _ in groups])
                for parts in ([masks for *_, masks in groups], [places for _, places, _ in groups])
            )
            for (questions, *_), mine, there in zip(groups, keep, where, strict=True):
                self._run_group(source, mine, there, filled, [(q, prompts[q], targets[q]) for q in questions])
        return [PictureScores(*rows) for rows in filled.cpu()]

    def _run_group(
        self,
        source: Callable[[Tensor], Tensor],
        keep: Tensor,
        where: Tensor,
        filled: Tensor,
        questions: Sequence[tuple[int, Prompt, Target]],
    ) -> None:
        """Masks [M, N] that the same questions need, in micro-batches; scores go to `filled` [questions, 3, places]."""

        def work(start: int, stop: int) -> None:
            self._run_batch(source(keep[start:stop]), where[start:stop], filled, questions)

        self._micro_batch.run(len(keep), work)

    def _source(self, pair: Tensor, space: str, fill: Fill | None) -> Callable[[Tensor], Tensor]:
        """What gives image tokens [M, N, hidden] for masks [M, N]; work on the two pictures is done here, once."""
        vlm, grid = self.vlm, self.vlm.grid
        if space == TOKENS:
            intact, gone = vlm.encode(pair)
            return lambda keep: torch.where(keep[..., None], intact, gone)
        if fill is not None:
            return lambda keep: vlm.encode(compose(pair[0], fill(keep), keep, grid, self.softness))
        ends = vlm.embed(pair) if self.softness == 0 else None
        if ends is None:
            return lambda keep: vlm.encode(compose(pair[0], pair[1], keep, grid, self.softness))
        # Hard cells are whole patches: both pictures are cut into embeddings once, and a mask only selects.
        rows, columns = ends.shape[1] // grid[0], ends.shape[2] // grid[1]

        def select(keep: Tensor) -> Tensor:
            mask = keep.unflatten(1, grid).repeat_interleave(rows, 1).repeat_interleave(columns, 2)[..., None]
            return vlm.encode_embedded(torch.where(mask, ends[0], ends[1]))

        return select

    def _run_batch(
        self, tokens: Tensor, where: Tensor, filled: Tensor, questions: Sequence[tuple[int, Prompt, Target]]
    ) -> None:
        prefix = self.vlm.prefill(tokens)
        for question, prompt, target in questions:
            scores = self.vlm.score(prefix, prompt, target)
            filled[question][:, where] = torch.stack([scores.s, scores.probability, scores.standing])
