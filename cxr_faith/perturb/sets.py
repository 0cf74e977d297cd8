"""Sets of cells scored as sets: does the answer change without the set, and does the set alone keep it?"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cxr_faith.perturb.engine import Plan
from cxr_faith.vlm.base import PictureScores

Run = Callable[[Plan], list[PictureScores]]
Sets = Mapping[str, npt.ArrayLike]
"""Method → numbers of the cells in its set."""


def score_sets(run: Run, n_cells: int, sets: Sequence[Sets]) -> list[dict[str, dict[str, bool | None]]]:
    """Two pictures for each set: the intact one without it, and the substrate with it alone.

    Args:
        run: scores a plan of one image's pictures, for each question.
        n_cells: number of cells of the grid.
        sets: for each question, the sets of its methods.

    Returns:
        for each question, method → `set_removal_flips` (the answer changes without the set) and `set_keeps` (it stands
        with the set alone); None where a score is not finite.
    """
    plan, places = Plan(n_cells), list[dict[str, npt.NDArray[np.int64]]]()
    for question, named in enumerate(sets):
        members = {name: np.isin(np.arange(n_cells), np.asarray(cells, np.int64)) for name, cells in named.items()}
        places.append({name: plan.add(question, np.stack([~inside, inside])) for name, inside in members.items()})
    if not any(places):
        return [{} for _ in sets]
    scores = run(plan)
    return [
        {name: _columns(scores[question].standing[at].tolist()) for name, at in named.items()}
        for question, named in enumerate(places)
    ]


def _columns(standing: Sequence[float]) -> dict[str, bool | None]:
    removed, alone = standing
    return {
        "set_removal_flips": removed < 0 if np.isfinite(removed) else None,
        "set_keeps": alone >= 0 if np.isfinite(alone) else None,
    }
