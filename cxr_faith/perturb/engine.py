"""The engine: every distinct perturbed picture once, in full micro-batches, for all methods, curves and questions.

What the program does all day is forward passes on perturbed pictures. `Plan` collects the pictures that curves need
and merges equal ones (shared end points, orders that coincide, the baselines of an image's questions); `Engine` runs
them. A perturbed picture is encoded and prefilled once, then each question that needs it runs its suffix on the cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cxr_faith.perturb.road import Fill
from cxr_faith.perturb.substrate import compose
from cxr_faith.vlm.base import VLM, Prompt, Scores, Target


@dataclass
class Plan:
    """The distinct pictures that the curves of one image need.

    A picture is a bool mask over the N cells, True = original. Each is needed by one or more of the image's questions.
    """

    n_cells: int
    _index: dict[bytes, int] = field(default_factory=dict)
    _masks: list[np.ndarray] = field(default_factory=list)
    _needed_by: list[set[int]] = field(default_factory=list)

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
                self._needed_by.append(set())
            self._needed_by[place].add(question)
            places[row] = place
        return places

    def __len__(self) -> int:
        """Number of distinct pictures."""
        return len(self._masks)

    def groups(self) -> list[tuple[tuple[int, ...], np.ndarray, np.ndarray]]:
        """(questions, places [M], masks [M, N]) for each set of questions that share pictures."""
        places: dict[tuple[int, ...], list[int]] = {}
        for place, questions in enumerate(self._needed_by):
            places.setdefault(tuple(sorted(questions)), []).append(place)
        return [(q, np.array(p), np.stack([self._masks[i] for i in p])) for q, p in places.items()]


class Engine:
    """Runs a plan on a model."""

    def __init__(self, vlm: VLM, softness: float = 0.0, micro_batch: int = 64) -> None:
        """Choose how pictures are composed and run.

        Args:
            vlm: the model.
            softness: σ in pixels of the masks' edges; 0 = hard cells.
            micro_batch: pictures a forward pass; halved for good when memory runs out.
        """
        self.vlm, self.softness, self.micro_batch = vlm, softness, micro_batch

    def run(
        self,
        original: Tensor,
        removed: Tensor,
        plan: Plan,
        prompts: Sequence[Prompt],
        targets: Sequence[Target],
        fill: Fill | None = None,
    ) -> list[Scores]:
        """Score every picture of a plan under every question that needs it.

        Args:
            original: pixel values [3, H, W].
            removed: the substrate picture [3, H, W].
            plan: the pictures.
            prompts: one for each question of the image.
            targets: likewise.
            fill: makes the substrate of each mask, where it depends on the mask; `removed` is not used then.

        Returns:
            For each question, scores [len(plan)] on the CPU; NaN where it did not ask.
        """
        device = original.device
        filled = torch.full((len(prompts), 3, len(plan)), torch.nan, dtype=torch.float64, device=device)
        with torch.no_grad():
            for questions, places, masks in plan.groups():
                keep, where = torch.from_numpy(masks).to(device), torch.from_numpy(places).to(device)
                start = 0
                while start < len(keep):
                    size, out_of_memory = self.micro_batch, False
                    try:
                        kept = keep[start : start + size]
                        instead = removed if fill is None else fill(kept)
                        self._run_batch(
                            compose(original, instead, kept, self.vlm.grid, self.softness),
                            where[start : start + size],
                            filled,
                            [(question, prompts[question], targets[question]) for question in questions],
                        )
                    except RuntimeError as error:
                        if not self._can_shrink(error):
                            raise
                        out_of_memory = True
                    if out_of_memory:
                        # Out here, since the error's traceback keeps the batch's tensors alive.
                        self._shrink()
                    else:
                        start += size
        return [Scores(*rows) for rows in filled.cpu()]

    def _run_batch(
        self, pixels: Tensor, where: Tensor, filled: Tensor, questions: Sequence[tuple[int, Prompt, Target]]
    ) -> None:
        prefix = self.vlm.prefill(self.vlm.encode(pixels))
        for question, prompt, target in questions:
            scores = self.vlm.score(prefix, prompt, target)
            filled[question][:, where] = torch.stack([scores.s, scores.probability, scores.standing])

    def _can_shrink(self, error: RuntimeError) -> bool:
        """Whether memory ran out and a smaller micro-batch may help."""
        out_of_memory = isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
        return out_of_memory and self.micro_batch > 1

    def _shrink(self) -> None:
        """Halve the micro-batch and give the memory of the failed one back."""
        self.micro_batch //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
