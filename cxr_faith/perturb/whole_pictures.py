"""What an answer loses without a whole picture, where a question shows several."""

from collections.abc import Callable

import numpy as np

from cxr_faith.perturb.engine import Plan
from cxr_faith.vlm.base import PictureScores

Run = Callable[[Plan], list[PictureScores]]


def picture_effects(run: Run, n_cells: int, pictures: int, questions: int) -> list[list[float]]:
    """s(all pictures) - s(one of them from the substrate), for each picture of each question, in logits.

    Args:
        run: scores a plan of one sheet's pictures, for each question.
        n_cells: number of cells of the sheet.
        pictures: number of pictures on it, of equal grids.
        questions: number of questions.
    """
    owners = np.arange(n_cells) * pictures // n_cells
    masks = np.concatenate([np.ones((1, n_cells), bool), owners != np.arange(pictures)[:, None]])
    plan = Plan(n_cells)
    places = [plan.add(question, masks) for question in range(questions)]
    effects: list[list[float]] = []
    for scores, at in zip(run(plan), places, strict=True):
        s = scores.s[at]
        effects.append((s[0] - s[1:]).tolist())
    return effects
