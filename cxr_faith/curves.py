"""Which pictures the curves of an image's questions need: orders of the maps and baselines, as one plan."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cxr_faith.cases import Case
from cxr_faith.perturb.adaptive import run_adaptive
from cxr_faith.perturb.engine import Plan
from cxr_faith.perturb.orders import center_order, is_flat, map_order
from cxr_faith.perturb.schedule import keep_masks, random_orders, schedule, stream
from cxr_faith.protocol import Protocol
from cxr_faith.records.controls import CENTER
from cxr_faith.vlm.base import PictureScores

Run = Callable[[Plan], list[PictureScores]]


@dataclass(frozen=True)
class CaseOrders:
    """Orders of the cells for one question, by the name of the map; `center` is among them.

    Attributes:
        finite: name → permutation of the cells, most salient first.
        flat: names of the maps whose cells are all equal: they say nothing, so no order of theirs is scored.
        not_finite: names of the maps that hold NaN or infinity, and have no order.
    """

    finite: dict[str, np.ndarray]
    flat: tuple[str, ...]
    not_finite: tuple[str, ...]

    @classmethod
    def of(
        cls, case: Case, grid: tuple[int, int], image_id: str, seed: int, center: bool = True, pictures: int = 1
    ) -> "CaseOrders":
        """Orders of a question's maps and, unless it is known already, of the center; see `center_order`."""
        flat = tuple(name for name, values in case.maps.items() if name != CENTER and is_flat(values))
        shown = {name: values for name, values in case.maps.items() if name not in flat}
        orders = {name: map_order(values, seed, image_id, name) for name, values in shown.items()}
        if center:
            orders[CENTER] = center_order(grid, seed, image_id, pictures)
        finite = {name: order for name, order in orders.items() if order is not None}
        return cls(finite, flat, tuple(name for name in orders if name not in finite))


@dataclass(frozen=True)
class QuestionPlan:
    """Where the curves of one question find their pictures in the plan of an image.

    Attributes:
        orders: orders of the question's maps.
        places: numbers of the pictures of the deletion and insertion curves [finite maps + R, 2, T + 1]; the R random
            orders come last.
    """

    orders: CaseOrders
    places: np.ndarray


def plan_curves(
    grid: tuple[int, int], image_id: str, cases: Sequence[Case], protocol: Protocol, pictures: int = 1
) -> tuple[Plan, list[QuestionPlan]]:
    """The distinct pictures of all curves of an image's questions; questions share those of the baselines.

    Args:
        grid: (grid_h, grid_w) of a picture.
        image_id: seeds the orders.
        cases: the questions, with their maps.
        protocol: schedule, random orders and seed.
        pictures: number of pictures that each question shows, all of this grid.
    """
    n_cells, steps = pictures * grid[0] * grid[1], protocol.finest(grid[0] * grid[1])
    k, plan, questions = schedule(n_cells, steps), Plan(n_cells), list[QuestionPlan]()
    shuffled = random_orders(n_cells, protocol.random_orders, stream(protocol.seed, image_id, "orders"))
    for number, case in enumerate(cases):
        orders = CaseOrders.of(case, grid, image_id, protocol.seed, pictures=pictures)
        # By the mirror identity the reversed order of a pair needs the same pictures: the plan merges them.
        places = [_add_curves(plan, number, order, k) for order in (*orders.finite.values(), *shuffled)]
        questions.append(QuestionPlan(orders, np.stack(places)))
    return plan, questions


def later_curves(
    run: Run, orders: Sequence[CaseOrders], k: np.ndarray, protocol: Protocol, ends: Sequence[np.ndarray]
) -> list[tuple[PictureScores, np.ndarray | None]]:
    """Curves of the maps alone, with known scores of the intact picture and of the one without any cell.

    Args:
        run: scores a plan of one image's pictures, for each question.
        orders: orders of each question's maps.
        k: schedule [T + 1], in cells.
        protocol: whether curves are adaptive.
        ends: `Baselines.ends` of each question.

    Returns:
        for each question, scores [maps, 2, T + 1], and with adaptive curves the estimated errors of their areas [maps].
    """
    own = [list(one.finite.values()) for one in orders]
    if protocol.adaptive:
        return [(one.scores, one.errors) for one in run_adaptive(run, own, k, protocol.auc_error, ends)]
    plan, places = Plan(int(k[-1])), list[list[np.ndarray]]()
    for number, listed in enumerate(own):
        places.append([_add_curves(plan, number, order, k[1:-1]) for order in listed])
    curves = list[tuple[PictureScores, np.ndarray | None]]()
    for scores, at, both in zip(run(plan), places, ends, strict=True):
        inner = scores.at(np.stack(at) if at else np.empty((0, 2, len(k) - 2), np.int64))
        columns = []
        for values, (original, removed) in zip(inner.columns, both.tolist(), strict=True):
            curve = torch.empty((len(values), 2, len(k)), dtype=torch.float64)
            curve[..., 1:-1] = values
            curve[:, 0, 0] = curve[:, 1, -1] = original
            curve[:, 0, -1] = curve[:, 1, 0] = removed
            columns.append(curve)
        curves.append((PictureScores(*columns), None))
    return curves


def _add_curves(plan: Plan, question: int, order: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Places [2, T + 1] of an order's deletion and insertion pictures."""
    return np.stack([plan.add(question, keep_masks(order, k, mode)) for mode in ("deletion", "insertion")])
