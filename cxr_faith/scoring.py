"""From maps to scores, for one picture: orders → plan → curves → scalars.

`Explainer.evaluate` and `predict_step` both run this code, so that a picture gets the same numbers on a laptop and on a
cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxr_faith.cases import Case
from cxr_faith.metrics.baselines import baseline_gaps, random_summary, random_test
from cxr_faith.metrics.functional import classify, curve_scalars, status_names
from cxr_faith.metrics.localization import localization_scores, pointing_ceiling
from cxr_faith.perturb.adaptive import adaptive_curves
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.perturb.schedule import keep_masks, random_orders, saliency_order, schedule, stream
from cxr_faith.perturb.sets import score_sets
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.records.controls import CENTER, RANDOM
from cxr_faith.vlm.base import PictureScores

DEFINITIONS = 2
"""Version of what the scores of a record mean; a run is not continued with scores of another meaning.

1: choice and open answers in mean log p. 2: in log-odds; flat maps score as random orders.
"""

Columns = dict[str, Any]
"""Columns of a record by name."""


def score_image(
    engine: Engine,
    pixels: Tensor,
    image_id: str,
    cases: Sequence[Case],
    substrate: Substrate,
    protocol: Protocol,
    pair: Tensor | None = None,
) -> list[dict[str, Columns]]:
    """Curves and scalars of every map of every question about one picture, under one substrate.

    Args:
        engine: runs the pictures.
        pixels: the picture [3, H, W].
        image_id: its id.
        cases: questions with a target, with their maps.
        substrate: what replaces removed cells.
        protocol: schedule, random orders and seed.
        pair: for the substrate `pair`, the picture without the finding [3, H, W].

    Returns:
        for each case: name -> record columns, for every map, `center` and `random`.

    Raises:
        ValueError: the substrate is `pair`, and there is none.
    """
    n_cells = engine.vlm.n_cells
    k = schedule(n_cells, protocol.finest(n_cells))
    removed = substrate.apply(pixels[None], [image_id], protocol.seed)[0] if pair is None else pair
    fill = substrate.fill(pixels, image_id, protocol.seed, engine.vlm.grid)
    prompts = [case.prompt for case in cases]
    targets = [target for case in cases if (target := case.target) is not None]

    def run(plan: Plan) -> list[PictureScores]:
        return engine.run(pixels, removed, plan, prompts, targets, fill, protocol.space)

    if protocol.adaptive:
        orders = [CaseOrders.of(case, engine.vlm.grid, image_id, protocol.seed) for case in cases]
        shuffled = random_orders(n_cells, protocol.random_orders, stream(protocol.seed, image_id, "orders"))
        own = [list(one.finite.values()) for one in orders]
        curves = adaptive_curves(run, own, shuffled, k, protocol.auc_error, protocol.random_error, engine.share)
        scored = zip(cases, orders, curves, strict=True)
        rows = [_columns(case, k, one, curve.scores, curve.errors) for case, one, curve in scored]
    else:
        plan, questions = plan_curves(engine.vlm.grid, image_id, cases, protocol)
        results = zip(cases, questions, run(plan), strict=True)
        rows = [_columns(case, k, question.orders, scores.at(question.places)) for case, question, scores in results]
    for named, of_sets in zip(
        rows,
        score_sets(run, n_cells, [_sets(case, named) for case, named in zip(cases, rows, strict=True)]),
        strict=True,
    ):
        for name, columns in of_sets.items():
            named[name] |= columns
    return rows


def _sets(case: Case, rows: dict[str, Columns]) -> dict[str, list[int]]:
    """Method → its set, for methods that give one: they rank its cells first."""
    sizes = {name: case.extras.get(name, {}).get("set_size") for name in case.maps}
    return {name: rows[name]["order"][:size] for name, size in sizes.items() if size and rows[name].get("order")}


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
    def of(cls, case: Case, grid: tuple[int, int], image_id: str, seed: int) -> "CaseOrders":
        """Orders of a question's maps and of the center."""
        flat = tuple(name for name, values in case.maps.items() if name != CENTER and is_flat(values))
        shown = {name: values for name, values in case.maps.items() if name not in flat}
        orders = {name: map_order(values, seed, image_id, name) for name, values in shown.items()}
        orders[CENTER] = center_order(grid, seed, image_id)
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
    grid: tuple[int, int], image_id: str, cases: Sequence[Case], protocol: Protocol
) -> tuple[Plan, list[QuestionPlan]]:
    """The distinct pictures of all curves of an image's questions; questions share those of the baselines."""
    n_cells = grid[0] * grid[1]
    k, plan, questions = schedule(n_cells, protocol.finest(n_cells)), Plan(n_cells), list[QuestionPlan]()
    shuffled = random_orders(n_cells, protocol.random_orders, stream(protocol.seed, image_id, "orders"))
    for number, case in enumerate(cases):
        orders = CaseOrders.of(case, grid, image_id, protocol.seed)
        # By the mirror identity the reversed order of a pair needs the same pictures: the plan merges them.
        places = [_add_curves(plan, number, order, k) for order in (*orders.finite.values(), *shuffled)]
        questions.append(QuestionPlan(orders, np.stack(places)))
    return plan, questions


def map_order(values: np.ndarray, seed: int, image_id: str, method: str) -> np.ndarray | None:
    """Cells of a map [grid_h, grid_w], most salient first; seeded ties; None for a map that is not finite."""
    if not np.isfinite(values).all():
        return None
    ties = stream(seed, image_id, CENTER) if method == CENTER else stream(seed, image_id, "ties", method)
    return saliency_order(values.ravel(), ties.permutation(values.size))


def center_order(grid: tuple[int, int], seed: int, image_id: str) -> np.ndarray:
    """The center baseline: cells by distance to the middle of the grid, seeded ties."""
    rows, columns = np.indices(grid, dtype=np.float64)
    middle = ((grid[0] - 1) / 2, (grid[1] - 1) / 2)
    order = map_order(-np.hypot(rows - middle[0], columns - middle[1]), seed, image_id, CENTER)
    assert order is not None
    return order


def localize(case: Case, mask: Tensor | None, seed: int) -> dict[str, dict[str, float]]:
    """Localization columns of each map of a question, by name; empty without a mask of the finding.

    Args:
        case: with its maps.
        mask: bool [H, W] in model pixels.
        seed: the run's seed, for ties.
    """
    if mask is None:
        return {}
    pixels, columns = mask.cpu().numpy(), dict[str, dict[str, float]]()
    for name, values in case.maps.items():
        order = map_order(values, seed, case.image_id, name)
        if order is not None:
            # The center map is minus a distance: read it as nearness, which is positive.
            columns[name] = localization_scores(values - values.min() if name == CENTER else values, pixels, order)
            columns[name]["pointing_ceiling"] = pointing_ceiling(pixels, values.shape)
    return columns


def _add_curves(plan: Plan, question: int, order: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Places [2, T + 1] of an order's deletion and insertion pictures."""
    return np.stack([plan.add(question, keep_masks(order, k, mode)) for mode in ("deletion", "insertion")])


def _columns(
    case: Case, k: np.ndarray, orders: CaseOrders, curves: PictureScores, errors: np.ndarray | None = None
) -> dict[str, Columns]:
    """Record columns of one question from its curves.

    Args:
        case: the question.
        k: schedule [T + 1], in cells.
        orders: orders of its maps.
        curves: scores, each [maps + R, 2, T + 1].
        errors: estimated error of each order's areas [maps + R], with adaptive curves.
    """
    s, probability, standing, log_p = curves.columns
    valid = s.isfinite().all(-1).all(-1)
    status = classify(s[:, 0, 0], s[:, 0, -1], torch.full_like(valid, case.off_format), valid)
    scalars = curve_scalars(
        torch.from_numpy(k / k[-1]),
        s[:, 0],
        s[:, 1],
        probability[:, 0],
        probability[:, 1],
        standing[:, 0],
        standing[:, 1],
        status=status,
        deletion_log_p=log_p[:, 0],
        insertion_log_p=log_p[:, 1],
    )
    names, n_maps = list(orders.finite), len(orders.finite)

    shuffled = {column: values[n_maps:][None] for column, values in scalars.items()}
    random = random_summary(shuffled)
    of_maps = {column: values[:n_maps] for column, values in scalars.items()}
    center = {column: values[[names.index(CENTER)]] for column, values in of_maps.items()}
    z, p = random_test(of_maps["srg"], shuffled["srg"].expand(n_maps, -1))
    of_maps |= baseline_gaps(of_maps, random, center) | {"random_z": z, "random_p": p}
    listed, statuses = {column: values.tolist() for column, values in of_maps.items()}, status_names(status)
    rows: dict[str, Columns] = {}
    for row, (name, order) in enumerate(orders.finite.items()):
        rows[name] = {column: values[row] for column, values in listed.items()} | {
            **_status(statuses[row]),
            "order": order.tolist(),
            "tie_share": tie_share(case.maps[name]) if name in case.maps else None,
            "flat": False,
            "auc_error": None if errors is None else float(errors[row]),
            **_curves(k, s[row], probability[row], log_p[row]),
        }
    rows[CENTER] |= {f"gap_{metric}_center": None for metric in ("deletion", "insertion", "srg")}
    of_random = random | baseline_gaps(random, None, center)
    rows[RANDOM] = {column: float(values[0]) for column, values in of_random.items()} | {
        # If one order could not be scored, the mean over all orders does not exist.
        **_status(statuses[-1] if bool(valid[n_maps:].all()) else "invalid"),
        "auc_error": None if errors is None else float(errors[n_maps:].mean()),
        **_curves(k, *(values[n_maps:].mean(0) for values in (s, probability, log_p))),
    }
    for name in orders.flat:
        rows[name] = _flat_columns(rows[RANDOM], random, center, shuffled["srg"])
    for name in orders.not_finite:
        rows[name] = {"status": "invalid", "reason": f"the map of {name} has values that are not finite"}
    return rows


def _status(status: str) -> Columns:
    """The status of a row, and why it could not be scored."""
    if status != "invalid":
        return {"status": status}
    return {"status": status, "reason": "the model's scores of perturbed pictures are not finite"}


def _flat_columns(
    random_row: Columns, random: dict[str, Tensor], center: dict[str, Tensor], srg_random: Tensor
) -> Columns:
    """Columns of a flat map: those of the random baseline, and its own gaps, 0 to random."""
    of_random = {name: value for name, value in random_row.items() if not name.endswith(("_std", "_mc_error"))}
    z, p = random_test(random["srg"], srg_random)
    own = baseline_gaps(random, random, center) | {"random_z": z, "random_p": p}
    status = "flat" if random_row["status"] == "ok" else random_row["status"]
    known = {"status": status, "flat": True, "tie_share": 1.0}
    return of_random | {name: float(value[0]) for name, value in own.items()} | known


def _curves(k: np.ndarray, s: Tensor, probability: Tensor, log_p: Tensor) -> dict[str, list[float] | None]:
    has_log_p = not bool(log_p.isnan().all())
    return {
        "k": k.tolist(),
        "deletion_scores": s[0].tolist(),
        "insertion_scores": s[1].tolist(),
        "deletion_probs": probability[0].tolist(),
        "insertion_probs": probability[1].tolist(),
        "deletion_log_p": log_p[0].tolist() if has_log_p else None,
        "insertion_log_p": log_p[1].tolist() if has_log_p else None,
    }


def is_flat(values: np.ndarray) -> bool:
    """Whether all cells of a map are equal, so that it ranks nothing."""
    return bool(np.isfinite(values).all() and values.min() == values.max())


def tie_share(values: np.ndarray) -> float:
    """Share of a map's cells whose value another cell has too."""
    _, counts = np.unique(values, return_counts=True)
    return float(counts[counts > 1].sum() / values.size)
