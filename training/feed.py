"""Training batches: pictures with cells removed, their questions, and where their lesions are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from architecture import GRID, IMAGE_SIZE
from lessons import (
    Lesson,
    chest_lessons,
    graded_lesson,
    lesion_cells,
    marker_lessons,
    shape_lessons,
    yes_no_question,
)
from numpy.typing import NDArray
from packing import Pack, Packer
from pool import FILE_SIZE, Chunk, cell_shares
from regimes import Cycle
from removal import (
    LESION_ORDERED,
    SUBSTRATE_SHARES,
    SUBSTRATES,
    blur_matrix,
    draw_kept,
    few_or_many,
    keep_most,
    remove,
)
from torch import Tensor

from cxr_faith.data.sources.phantom_questions import SIDED, SIDES
from cxr_faith.data.sources.phantom_render import MARKER, marker_mask

CHANNELS = [*(f"{f}/{s}" for f in SIDED for s in SIDES), "cardiomegaly"]
SHAPE_SHARE = 0.12
OWN_ROOM = 40
TRUTH_ORDERED = 0.35
Orders = Callable[[Tensor, Tensor, Pack, np.random.Generator], NDArray[np.float64]]


class Feed:
    """Endless training batches from a pool of pictures.

    Args:
        chests: rendered chest pictures.
        shapes: rendered color and shape pictures.
        packer: packs the questions.
        batch: pictures per batch.
    """

    def __init__(self, chests: list[Chunk], shapes: list[Chunk], packer: Packer, batch: int) -> None:
        self.images = np.concatenate([c.images for c in chests])
        self.areas = [a for c in chests for a in c.areas]
        self.specs = [s for c in chests for s in c.specs]
        self.shape_images = np.concatenate([c.images for c in shapes])
        self.shape_areas = [a for c in shapes for a in c.areas]
        self.shape_specs = [s for c in shapes for s in c.specs]
        self.packer, self.batch = packer, batch
        self.blur = blur_matrix()
        has = np.array([bool(spec.marker) for spec in self.specs])
        self.with_marker, self.without_marker = np.flatnonzero(has), np.flatnonzero(~has)

    def start(self, cycle: Cycle, seed: Sequence[int]) -> None:
        """Set what the next batch holds, and the seed of everything that is drawn for it."""
        self.cycle = cycle
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(int(self.rng.integers(2**62)))

    def _next_chest(self) -> int:
        return int(self.rng.integers(len(self.specs)))

    def _marked(self) -> tuple[int, np.ndarray, list[Lesson]]:
        """A picture, with a marker half of the time, the cells it keeps, and questions that the marker answers."""
        among = self.with_marker if self.rng.random() < 0.5 else self.without_marker
        i = int(among[self.rng.integers(len(among))])
        area = cell_shares(marker_mask(self.specs[i], FILE_SIZE))
        kept = self._kept({MARKER: area} if self.specs[i].marker and self.rng.random() < 0.5 else self.areas[i])
        return i, kept, marker_lessons(area, kept, self.rng)

    def _kept(self, areas: dict[str, np.ndarray]) -> np.ndarray:
        """Cells to keep, sometimes ordered around a lesion of this picture or, as a decoy, of another one."""
        names = [name for name in areas if name != "heart"]
        if not names or self.rng.random() < 0.25:
            areas = self.areas[self.rng.integers(len(self.areas))]
            names = list(areas)
        ordered = LESION_ORDERED * (2 if self.cycle.graded else 1)
        return draw_kept(self.rng, areas[names[self.rng.integers(len(names))]], ordered, self.cycle.intact)

    def _own(self, order: Orders) -> tuple[list[int], list[NDArray[np.bool_]], list[Lesson]]:
        """Half a batch: pictures, the cells each keeps in the model's or the true order, and a question about each."""
        pictures = [self._next_chest() for _ in range(self.batch // 2)]
        questions = [yes_no_question(self.specs[i], self.rng) for i in pictures]
        pixels = torch.from_numpy(self.images[pictures]).float()[:, None].expand(-1, 3, -1, -1) / 127.5 - 1.0
        pack = self.packer.pack([[(q.text, "yes", 1.0)] for q in questions], OWN_ROOM)
        fields = order(pixels, self.blur @ pixels @ self.blur.T, pack, self.rng)
        kept, lessons = [], []
        for i, question, own in zip(pictures, questions, fields, strict=True):
            first_in, truth = self.rng.random() < 0.5, lesion_cells(question, self.areas[i])
            by_truth = truth is not None and self.rng.random() < TRUTH_ORDERED
            field = truth + 0.01 * self.rng.random((GRID, GRID)) if by_truth and truth is not None else own
            kept.append(keep_most(field if first_in else -field, few_or_many(self.rng, first_in)))
            lessons.append(graded_lesson(question, self.specs[i], self.areas[i], kept[-1]))
        return pictures, kept, lessons

    def draw(self, order: Orders | None = None) -> tuple[Tensor, Pack, Tensor, Tensor]:
        """A batch: pixels in model space, questions, dense targets [batch, N, channels] and their weight [batch].

        `order` ranks the cells of intact pictures; if it is given, half of the batch loses cells in that order.
        """
        pixels = np.empty((self.batch, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        kept = np.empty((self.batch, GRID, GRID), bool)
        dense = np.zeros((self.batch, GRID, GRID, len(CHANNELS)), np.float32)
        is_chest = self.rng.random(self.batch) >= SHAPE_SHARE
        kinds = self.rng.choice(len(SUBSTRATES), self.batch, p=SUBSTRATE_SHARES)
        own = self._own(order) if order else ([], [], [])
        is_chest[: len(own[0])] = True
        kinds[: len(own[0])] = SUBSTRATES.index("blur")
        lessons: list[list[Lesson]] = []
        for b in range(self.batch):
            if is_chest[b] and self.cycle.marker:
                i, kept[b], asked = self._marked()
                pixels[b] = self.images[i][..., None]
                lessons.append(asked)
            elif is_chest[b]:
                i = own[0][b] if b < len(own[0]) else self._next_chest()
                pixels[b] = self.images[i][..., None]
                kept[b] = own[1][b] if b < len(own[0]) else self._kept(self.areas[i])
                for c, name in enumerate(CHANNELS):
                    if name in self.areas[i]:
                        dense[b, ..., c] = self.areas[i][name] * kept[b]
                cycle = self.cycle
                asked = chest_lessons(self.specs[i], self.areas[i], kept[b], self.rng, cycle.sides, cycle.graded)
                lessons.append([own[2][b], *asked] if b < len(own[0]) else asked)
            else:
                i = int(self.rng.integers(len(self.shape_specs)))
                pixels[b] = self.shape_images[i]
                kept[b] = self._kept(self.shape_areas[i])
                lessons.append(shape_lessons(self.shape_specs[i], self.shape_areas[i], kept[b], self.rng))
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        x = remove(x, torch.from_numpy(kept), kinds, self.blur, self.generator)
        return x, self.packer.pack(lessons), torch.from_numpy(dense).flatten(1, 2), torch.from_numpy(is_chest).float()
