"""From maps to scores, for one picture: orders → plan → curves → scalars.

`Explainer.evaluate` and the pipeline's `predict_step` both run it, so that one picture on a laptop and a thousand on a
cluster give the same numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxr_faith.cases import Case
from cxr_faith.metrics.functional import (
    baseline_gaps,
    classify,
    curve_scalars,
    random_summary,
    random_test,
    status_names,
)
from cxr_faith.metrics.localization import localization_scores
from cxr_faith.perturb.adaptive import adaptive_curves
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.perturb.schedule import keep_masks, random_orders, saliency_order, schedule, stream
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.records.controls import CENTER, RANDOM
from cxr_faith.vlm.base import PictureScores


def score_image(
    engine: Engine, pixels: Tensor, image_id: str, cases: Sequence[Case], substrate: Substrate, protocol: Protocol
) -> list[dict[str, dict[str, Any]]]:
    """Curves and scalars of every map of every question about one picture, under one substrate.

    Args:
        engine: runs the pictures.
        pixels: the picture [3, H, W].
        image_id: its id.
        cases: questions with a target, with their maps.
        substrate: what stands for removed cells.
        protocol: schedule, random orders and seed.

    Returns:
        For each case: name -> record columns, for every map, `center` and `random`.
    """
    n_cells = engine.vlm.n_cells
    k = schedule(n_cells, protocol.finest(n_cells))
    removed = substrate.apply(pixels[None], [image_id], protocol.seed)[0]
    fill = substrate.fill(pixels, image_id, protocol.seed, engine.vlm.grid)
    prompts = [case.prompt for case in cases]
    targets = [target for case in cases if (target := case.target) is not None]

    def run(plan: Plan) -> list[PictureScores]:
        return engine.run(pixels, removed, plan, prompts, targets, fill, protocol.space)

    if protocol.adaptive:
        mine = [case_orders(engine.vlm.grid, image_id, case, protocol) for case in cases]
        shuffled = random_orders(n_cells, protocol.random_orders, stream(protocol.seed, image_id, "orders"))
        own = [list(finite.values()) for _, finite in mine]
        allowed = protocol.auc_error, protocol.random_error
        found = adaptive_curves(run, own, shuffled, k, *allowed, engine.share)
        together = zip(cases, mine, found, strict=True)
        return [_columns(case, k, *orders, curves.scores, curves.errors) for case, orders, curves in together]
    plan, asked = plan_curves(engine.vlm.grid, image_id, cases, protocol)
    scored = zip(cases, asked, run(plan), strict=True)
    return [_columns(case, k, orders, finite, scores.at(places)) for case, (orders, finite, places), scores in scored]


def case_orders(
    grid: tuple[int, int], image_id: str, case: Case, protocol: Protocol
) -> tuple[dict[str, np.ndarray | None], dict[str, np.ndarray]]:
    """Orders of a question's maps and of the center, None for a map that is not finite; and those of the others."""
    orders = {name: map_order(values, protocol.seed, image_id, name) for name, values in case.maps.items()}
    orders[CENTER] = center_order(grid, protocol.seed, image_id)
    return orders, {name: order for name, order in orders.items() if order is not None}


Asked = tuple[dict[str, np.ndarray | None], dict[str, np.ndarray], np.ndarray]
"""One question's orders by name, those of finite maps, and the places [orders + R, 2, T + 1] of their pictures."""


def plan_curves(
    grid: tuple[int, int], image_id: str, cases: Sequence[Case], protocol: Protocol
) -> tuple[Plan, list[Asked]]:
    """The distinct pictures of all curves of an image's questions; the baselines' are shared by the questions."""
    n_cells = grid[0] * grid[1]
    k, plan, asked = schedule(n_cells, protocol.finest(n_cells)), Plan(n_cells), list[Asked]()
    shuffled = random_orders(n_cells, protocol.random_orders, stream(protocol.seed, image_id, "orders"))
    for question, case in enumerate(cases):
        orders, finite = case_orders(grid, image_id, case, protocol)
        # By the mirror identity the reversed order of a pair needs the same pictures: the plan merges them.
        places = [_add_curves(plan, question, order, k) for order in (*finite.values(), *shuffled)]
        asked.append((orders, finite, np.stack(places)))
    return plan, asked


def map_order(values: np.ndarray, seed: int, image_id: str, method: str) -> np.ndarray | None:
    """Cells of a map [gH, gW], most salient first; seeded ties; None for a map that is not finite."""
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
    """Localization columns of each map of a question, by name; nothing without a mask of the finding.

    Args:
        case: with its maps.
        mask: bool [H, W] in model pixels.
        seed: the run's seed, for ties.
    """
    if mask is None:
        return {}
    pixels, found = mask.cpu().numpy(), {}
    for name, values in case.maps.items():
        order = map_order(values, seed, case.image_id, name)
        if order is not None:
            # The center map is minus a distance: read it as nearness, which is positive.
            found[name] = localization_scores(values - values.min() if name == CENTER else values, pixels, order)
    return found


def _add_curves(plan: Plan, question: int, order: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Places [2, T + 1] of an order's deletion and insertion pictures."""
    return np.stack([plan.add(question, keep_masks(order, k, mode)) for mode in ("deletion", "insertion")])


def _columns(
    case: Case,
    k: np.ndarray,
    orders: Mapping[str, np.ndarray | None],
    finite: Mapping[str, np.ndarray],
    curves: PictureScores,
    errors: np.ndarray | None = None,
) -> dict[str, dict[str, Any]]:
    """Record columns of one question from its curves, each [maps + R, 2, T + 1], and the errors of their areas."""
    s, probability, standing = curves.s, curves.probability, curves.standing
    valid = s.isfinite().all(-1).all(-1)
    status = classify(s[:, 0, 0], s[:, 0, -1], torch.full_like(valid, case.off_format), valid)
    scalars = curve_scalars(
        torch.from_numpy(k / k[-1]),
        *(s[:, 0], s[:, 1]),
        *(probability[:, 0], probability[:, 1]),
        *(standing[:, 0], standing[:, 1]),
        status=status,
    )
    n_maps, names, rows = len(finite), list(finite), dict[str, dict[str, Any]]()

    shuffled = {name: values[n_maps:][None] for name, values in scalars.items()}
    random = random_summary(shuffled)
    named = {name: values[:n_maps] for name, values in scalars.items()}
    center = {name: values[[names.index(CENTER)]] for name, values in named.items()}
    z, p = random_test(named["srg"], shuffled["srg"].expand(n_maps, -1))
    named |= baseline_gaps(named, random, center) | {"random_z": z, "random_p": p}
    listed = {name: values.tolist() for name, values in named.items()}
    statuses = status_names(status)
    for row, name in enumerate(names):
        gaps = {f"gap_{metric}_center": None for metric in ("deletion", "insertion", "srg")} if name == CENTER else {}
        rows[name] = (
            {column: values[row] for column, values in listed.items()}
            | gaps
            | {
                "status": statuses[row],
                "order": finite[name].tolist(),
                "tie_share": tie_share(case.maps[name]) if name in case.maps else None,
                "auc_error": None if errors is None else float(errors[row]),
                **_curves(k, s[row], probability[row]),
            }
        )
    means = random | baseline_gaps(random, None, center)
    rows[RANDOM] = {name: float(values[0]) for name, values in means.items()} | {
        # One order that could not be scored spoils the mean over all of them.
        "status": statuses[-1] if bool(valid[n_maps:].all()) else "invalid",
        "auc_error": None if errors is None else float(errors[n_maps:].mean()),
        **_curves(k, s[n_maps:].mean(0), probability[n_maps:].mean(0)),
    }
    for name in orders.keys() - finite.keys():
        rows[name] = {"status": "invalid", "reason": f"the map of {name} has values that are not finite"}
    return rows


def _curves(k: np.ndarray, s: Tensor, probability: Tensor) -> dict[str, list[float]]:
    return {
        "k": k.tolist(),
        "deletion_scores": s[0].tolist(),
        "insertion_scores": s[1].tolist(),
        "deletion_probs": probability[0].tolist(),
        "insertion_probs": probability[1].tolist(),
    }


def tie_share(values: np.ndarray) -> float:
    """Share of a map's cells whose value another cell has too."""
    _, counts = np.unique(values, return_counts=True)
    return float(counts[counts > 1].sum() / values.size)
