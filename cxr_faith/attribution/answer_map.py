"""A map from the model's own answers about bands of the picture; nothing but its answers is needed."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, MethodError
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.vlm.base import VLM, Target

ROWS = "band {number} of {count} equal horizontal bands of the image, counted from the top"
COLUMNS = "band {number} of {count} equal vertical bands of the image, counted from the left"


class AnswerMap(Method):
    """AnswerMap: p(yes) of questions about bands.

    For K bands, 2 K yes/no questions such as *Is there a nodule in band 1 of 3 equal horizontal bands …?* are asked
    about the intact picture. The map is the outer product of p(yes) of the row bands and of the column bands; maps of
    several K are multiplied. Where the model's answer is no, it is p(no). This is what the model says, not what it
    uses, and a model that cannot tell bands has no map: compare it with its ablation. It explains the question, so
    all tokens of an answer have the same map.

    Args:
        bands: the numbers of bands K; numbers without a common divisor give the finest map.
        question: the yes/no question without its question mark; None: the sample's own question.
    """

    can_ablate = True

    def __init__(self, bands: Sequence[int] = (3, 5), question: str | None = None) -> None:
        if not bands or min(bands) < 2:
            raise ValueError(f"bands must be numbers of at least 2, got {list(bands)}")
        self.bands, self.question = tuple(bands), question

    def check(self, vlm: VLM) -> None:
        """Refuse more bands than the map has rows or columns; see `Method.check`."""
        if max(self.bands) > min(vlm.grid):
            raise MethodError(f"answer_map: bands must be at most {min(vlm.grid)} on this model, got {max(self.bands)}")

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """One forward of the question for each band, on the picture's cache; see `Method.attribute`."""
        if vlm.pictures > 1:
            raise MethodError("answer_map asks about bands of one picture, and this question shows several")
        maps = []
        for index, one in enumerate(target):
            questions = self.questions(self.question or batch.prompts[index].question)
            sign = one.sign if one.kind == "margin" else 1
            margins = _ask(vlm, batch, index, questions, sign)
            shares = self.core(margins[None], [batch.image_ids[index]], batch.seed)[0].sigmoid()
            maps.append(product_map(shares, self.bands, vlm.grid))
        return Attribution(torch.stack(maps).float().to(vlm.device))

    def questions(self, question: str) -> list[str]:
        """Questions about the row bands, then about the column bands, of each number of bands."""
        stem = question.strip().rstrip("?").rstrip()
        return [
            f"{stem} in {band.format(number=number, count=count)}?"
            for count in self.bands
            for band in (ROWS, COLUMNS)
            for number in range(1, count + 1)
        ]


def _ask(vlm: VLM, batch: AttributionBatch, index: int, questions: Sequence[str], sign: int) -> Tensor:
    """Yes/no margins float64 [questions] about one intact picture, on the CPU."""
    plan, pixels = Plan(vlm.n_cells), batch.pixels[index]
    intact = np.ones((1, vlm.n_cells), bool)
    for question in range(len(questions)):
        plan.add(question, intact)
    targets = [Target("margin", sign=sign)] * len(questions)
    prompts = [vlm.prompt(question) for question in questions]
    scores = Engine(vlm, micro_batch=batch.micro_batch).run(pixels, pixels, plan, prompts, targets)
    return torch.cat([one.s for one in scores])


def product_map(shares: Tensor, bands: Sequence[int], grid: tuple[int, int]) -> Tensor:
    """The product over several numbers of bands of the outer product of row and column bands, [grid_h, grid_w].

    Args:
        shares: one for each row band, then one for each column band, of each number of bands.
        bands: the numbers of bands.
        grid: cells; a cell belongs to the band in which its middle lies.
    """
    result, parts = torch.ones(grid, dtype=shares.dtype), iter(shares.split([k for k in bands for _ in "rc"]))
    for count in bands:
        rows, columns = (next(parts)[((torch.arange(cells) + 0.5) * count / cells).long()] for cells in grid)
        result = result * rows[:, None] * columns
    return result
