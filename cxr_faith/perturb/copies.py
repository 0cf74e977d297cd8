"""Copies of a question over which the spread of a map is measured: of its picture, its seed or its words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from cxr_faith.data.sheets import apart, together
from cxr_faith.perturb.condition import Condition
from cxr_faith.perturb.schedule import stream
from cxr_faith.perturb.substrate import Substrate

Source = Literal["noise", "mask", "seed", "paraphrase"]
"""What differs between the copies."""
PARAPHRASE: Source = "paraphrase"
QUESTION = "{question}"
"""Stands for the question in another wording of it."""
_REMOVED = Substrate.parse("blur:0.1")


@dataclass(frozen=True)
class Copies:
    """How the uncertainty of maps is measured: the section `protocol.uncertainty` of a config.

    Attributes:
        copies: copies of each map, two or more; each costs as much as the map. Of paraphrases, as many as there are, up
            to this number.
        source: `noise`: Gaussian noise on the picture, one field for all channels; `mask`: a random share of the cells
            is blurred (`blur:0.1`), others in each copy; `seed`: the picture as it is and another seed, which tells how
            much a method with random masks or noise of its own varies; `paraphrase`: other wordings of the question,
            the map of the question itself among them.
        size: standard deviation of the noise as a share of the picture's, or the share of the cells that is blurred.
        wordings: for `paraphrase`, other wordings of every question, in which `{question}` stands for it. Default: the
            other questions about the picture with the same `question_group` in the manifest.
    """

    copies: int = 8
    source: Source = "noise"
    size: float = 0.1
    wordings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check each value."""
        if self.copies < 2:
            raise ValueError(f"uncertainty.copies must be at least 2, got {self.copies}")
        if self.source not in get_args(Source):
            raise ValueError(f"uncertainty.source must be one of {', '.join(get_args(Source))}, got {self.source!r}")
        if not 0 < self.size < 1:
            raise ValueError(f"uncertainty.size is a share of the deviation or the cells, in (0, 1), got {self.size}")
        if self.wordings and self.source != PARAPHRASE:
            raise ValueError(f"uncertainty.wordings are for the source {PARAPHRASE}, got {self.source}")
        if not all(text.strip() for text in self.wordings):
            raise ValueError("uncertainty.wordings has an entry without text")

    def worded(self, question: str, others: Sequence[str] = ()) -> list[str]:
        """Other wordings of a question, each once; empty unless the source is `paraphrase`.

        Args:
            question: the question.
            others: its paraphrases in the manifest, which count where the config has no wordings.
        """
        if self.source != PARAPHRASE:
            return []
        texts = [text.replace(QUESTION, question) for text in self.wordings] or others
        return [text for text in dict.fromkeys(texts) if text != question][: self.copies]

    def of(
        self, pixels: Tensor, image_ids: Sequence[str], seed: int, grid: tuple[int, int]
    ) -> Iterator[tuple[Tensor, int]]:
        """Each copy of a picture, and the seed under which its map is made; none for paraphrases.

        Args:
            pixels: [3, H, W] in model input space; several pictures of a question lie one below the other.
            image_ids: one for each picture.
            seed: the run's seed.
            grid: cells of a picture, (grid_h, grid_w).
        """
        for number in range(1, self.copies + 1) if self.source != PARAPHRASE else ():
            if self.source == "seed":
                yield pixels, seed + number
            elif self.source == "mask":
                yield self._masked(pixels, image_ids, seed + number, grid), seed
            else:
                yield Condition("noise", self.size).apply_each(pixels, image_ids, seed + number), seed

    def _masked(self, pixels: Tensor, image_ids: Sequence[str], seed: int, grid: tuple[int, int]) -> Tensor:
        """The picture with `size` of the cells of each of its pictures blurred, one at least."""
        parts, cells = apart(pixels[None], len(image_ids)), grid[0] * grid[1]
        masks = torch.zeros(len(image_ids), cells, dtype=torch.bool)
        for mask, image_id in zip(masks, image_ids, strict=True):
            drawn = stream(seed, image_id, "copies").permutation(cells)[: max(1, round(self.size * cells))]
            mask[torch.from_numpy(drawn)] = True
        rows, columns = parts.shape[-2] // grid[0], parts.shape[-1] // grid[1]
        gone = masks.unflatten(1, grid).repeat_interleave(rows, 1).repeat_interleave(columns, 2)[:, None]
        blurred = apart(_REMOVED.apply(pixels[None], image_ids[:1], seed, len(image_ids)), len(image_ids))
        return together(torch.where(gone.to(parts.device), blurred, parts), len(image_ids))[0]
