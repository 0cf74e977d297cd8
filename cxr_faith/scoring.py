"""From maps to scores, for one picture: orders → plan → curves → scalars.

`Explainer.evaluate` and `predict_step` both run this code, so that a picture gets the same numbers on a laptop and on a
cluster.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxr_faith.cases import Case
from cxr_faith.curves import CaseOrders, later_curves, plan_curves
from cxr_faith.data.finding_boxes import LeftOut
from cxr_faith.metrics.baselines import baseline_gaps, random_summary, random_test
from cxr_faith.metrics.box_protocol import PLACE_COLUMNS, bounding_boxes, box_scores
from cxr_faith.metrics.functional import CURVE_COLUMNS, classify, curve_scalars, status_names
from cxr_faith.metrics.localization import localization_scores, pixels_inside, pointing_ceiling
from cxr_faith.perturb.adaptive import adaptive_curves
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.perturb.grounding import score_regions
from cxr_faith.perturb.orders import map_order, tie_share
from cxr_faith.perturb.schedule import random_orders, schedule, stream
from cxr_faith.perturb.sets import score_sets
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.perturb.whole_pictures import picture_effects
from cxr_faith.protocol import Protocol
from cxr_faith.records.controls import CENTER, RANDOM, READER
from cxr_faith.records.known import Baselines
from cxr_faith.records.schema import READER_COLUMNS
from cxr_faith.vlm.base import PictureScores

DEFINITIONS = 3
"""Version of what the scores and maps of a record mean; a run is not continued with others.

1: choice and open answers in mean log p. 2: in log-odds; flat maps score as random orders. 3: `smooth_grad` and
`igos_pp` draw other noise, on the device.
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
    baselines: Sequence[Baselines] | None = None,
) -> list[dict[str, Columns]]:
    """Curves and scalars of every map of every question about one picture, under one substrate.

    Args:
        engine: runs the pictures.
        pixels: the picture [3, H, W]; several pictures of a question lie one below the other.
        image_id: its id.
        cases: questions with a target, with their maps; all show the same pictures.
        substrate: what replaces removed cells.
        protocol: schedule, random orders and seed.
        pair: for the substrate `pair`, the picture without the finding [3, H, W].
        baselines: those of each case, if an earlier start has measured them. They and the ends of the curves are then
            not run again.

    Returns:
        for each case: name -> record columns, for every map, and without `baselines` for `center` and `random`.

    Raises:
        ValueError: the substrate is `pair`, and there is none.
    """
    engine = engine.showing(cases[0].pictures)
    n_cells, grid, pictures = engine.vlm.n_cells, engine.vlm.picture_grid, engine.vlm.pictures
    k = schedule(n_cells, protocol.finest(grid[0] * grid[1]))
    removed = substrate.apply(pixels[None], [image_id], protocol.seed, pictures)[0] if pair is None else pair
    fill = substrate.fill(pixels, image_id, protocol.seed, grid, pictures)
    prompts = [case.prompt for case in cases]
    targets = [target for case in cases if (target := case.target) is not None]

    def run(plan: Plan) -> list[PictureScores]:
        return engine.run(pixels, removed, plan, prompts, targets, fill, protocol.space)

    needs_center = baselines is None
    orders = [CaseOrders.of(case, grid, image_id, protocol.seed, needs_center, pictures) for case in cases]
    if baselines is not None:
        curves = later_curves(run, orders, k, protocol, [known.ends for known in baselines])
    elif protocol.adaptive:
        shuffled = random_orders(n_cells, protocol.random_orders, stream(protocol.seed, image_id, "orders"))
        own = [list(one.finite.values()) for one in orders]
        adaptive = adaptive_curves(run, own, shuffled, k, protocol.auc_error, protocol.random_error, engine.share)
        curves = [(one.scores, one.errors) for one in adaptive]
    else:
        plan, questions = plan_curves(grid, image_id, cases, protocol, pictures)
        curves = [(scores.at(question.places), None) for question, scores in zip(questions, run(plan), strict=True)]
    known: Sequence[Baselines | None] = baselines or [None] * len(cases)
    rows = [_columns(*parts) for parts in zip(cases, [k] * len(cases), orders, curves, known, strict=True)]
    for named, of_sets in zip(
        rows,
        score_sets(run, n_cells, [_sets(case, named) for case, named in zip(cases, rows, strict=True)]),
        strict=True,
    ):
        for name, columns in of_sets.items():
            named[name] |= columns
    if baselines is not None:  # what follows is in the records, in the row of the random orders
        return rows
    for named, grounded in zip(rows, score_regions(run, n_cells, [case.regions for case in cases]), strict=True):
        named[RANDOM] |= grounded
    if pictures > 1:
        for named, effects in zip(rows, picture_effects(run, n_cells, pictures, len(cases)), strict=True):
            named[RANDOM]["picture_effects"] = effects
    return rows


def _sets(case: Case, rows: dict[str, Columns]) -> dict[str, list[int]]:
    """Method → its set, for methods that give one: they rank its cells first."""
    sizes = {name: case.extras.get(name, {}).get("set_size") for name in case.maps}
    return {name: rows[name]["order"][:size] for name, size in sizes.items() if size and rows[name].get("order")}


def localize(case: Case, mask: Tensor | None, seed: int, n_boxes: int | None = None) -> dict[str, dict[str, float]]:
    """Localization columns of each map of a question, by name; empty without a mask of the finding.

    Args:
        case: with its maps.
        mask: bool [pictures * H, W] in model pixels.
        seed: the run's seed, for ties.
        n_boxes: number of boxes that the mask is the union of; None: the mask's own bounding boxes are taken.
    """
    if mask is None:
        return {}
    pixels, columns = mask.cpu().numpy(), dict[str, dict[str, float]]()
    boxed, n = bounding_boxes(pixels, pictures=case.pictures) if n_boxes is None else (pixels, n_boxes)
    for name, values in case.maps.items():
        order = map_order(values, seed, case.image_id, name)
        if order is not None:
            # The center map is minus a distance: read it as nearness, which is positive.
            shown = values - values.min() if name == CENTER else values
            columns[name] = localization_scores(shown, pixels, order) | box_scores(shown, boxed, n, case.pictures)
            columns[name]["pointing_ceiling"] = pointing_ceiling(pixels, values.shape)
    return columns


def localize_readers(case: Case, readers: Sequence[LeftOut], seed: int) -> Columns:
    """How well readers agree, by the scores of maps: the ceiling of a map. Columns of the random orders' row.

    A reader's map is the share of each cell that the reader's boxes cover; it is scored against the others' boxes. The
    columns are means over the readers.

    Args:
        case: with the cells of its finding.
        readers: two or more; empty: there are no columns.
        seed: the run's seed, for ties.
    """
    if not readers or case.finding_cells is None:
        return {}
    scores = []
    for number, reader in enumerate(readers):
        own, others = reader.own.cpu().numpy(), reader.others.cpu().numpy()
        inside, area = pixels_inside(own, tuple(case.finding_cells.shape))
        values = (inside / area).reshape(case.finding_cells.shape)
        order = map_order(values, seed, case.image_id, f"{READER}{number}")
        placed = localization_scores(values, others, order) | box_scores(values, others, reader.n_others, case.pictures)
        scores.append([placed[name] for name in PLACE_COLUMNS])
    means = np.mean(scores, axis=0).tolist()
    return {"reader_count": len(readers)} | dict(zip(READER_COLUMNS, means, strict=True))


def _columns(
    case: Case,
    k: np.ndarray,
    orders: CaseOrders,
    curves: tuple[PictureScores, np.ndarray | None],
    known: Baselines | None = None,
) -> dict[str, Columns]:
    """Record columns of one question from its curves.

    Args:
        case: the question.
        k: schedule [T + 1], in cells.
        orders: orders of its maps.
        curves: scores, each [maps + R, 2, T + 1], and the estimated error of each order's areas [maps + R] or None;
            without random orders if the baselines are known.
        known: the baselines.
    """
    (scores, errors), (s, probability, _, log_p) = curves, curves[0].columns
    valid = s.isfinite().all(-1).all(-1)
    status = classify(s[:, 0, 0], s[:, 0, -1], torch.full_like(valid, case.off_format), valid)
    scalars = _scalars(k, scores, status)
    n_maps, statuses = len(orders.finite), status_names(status)
    of_maps = {column: values[:n_maps] for column, values in scalars.items()}
    rows: dict[str, Columns] = {}
    if known is None:
        at = list(orders.finite).index(CENTER)
        center = {name: values[[at]] for name, values in of_maps.items()}
        random_row, random, srgs = _random_row(k, n_maps, scalars, center, curves, statuses)
        ends = [float(values[0, 0, at]) for values in scores.columns for at in (0, -1)]
        rows[RANDOM] = random_row | {"random_srgs": srgs[0].tolist(), "end_scores": ends}
    else:
        random, center = _tensors(known.random), _tensors(known.center)
        random_row, srgs = dict(known.random), torch.from_numpy(known.random_srgs)[None]
    z, p = random_test(of_maps["srg"], srgs.expand(n_maps, -1))
    of_maps |= baseline_gaps(of_maps, random, center) | {"random_z": z, "random_p": p}
    listed = {column: values.tolist() for column, values in of_maps.items()}
    for row, (name, order) in enumerate(orders.finite.items()):
        rows[name] = {column: values[row] for column, values in listed.items()} | {
            **_status(statuses[row]),
            "order": order.tolist(),
            "tie_share": tie_share(case.maps[name]) if name in case.maps else None,
            "flat": False,
            "auc_error": None if errors is None else float(errors[row]),
            **_curves(k, s[row], probability[row], log_p[row]),
        }
    if known is None:
        rows[CENTER] |= {f"gap_{metric}_center": None for metric in ("deletion", "insertion", "srg")}
    for name in orders.flat:
        rows[name] = _flat_columns(random_row, random, center, srgs)
    for name in orders.not_finite:
        rows[name] = {"status": "invalid", "reason": f"the map of {name} has values that are not finite"}
    return rows


def _scalars(k: np.ndarray, scores: PictureScores, status: Tensor) -> dict[str, Tensor]:
    """Scalars of curves [orders, 2, T + 1], each [orders]."""
    s, probability, standing, log_p = scores.columns
    return curve_scalars(
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


def _random_row(
    k: np.ndarray,
    n_maps: int,
    scalars: Mapping[str, Tensor],
    center: Mapping[str, Tensor],
    curves: tuple[PictureScores, np.ndarray | None],
    statuses: Sequence[str],
) -> tuple[Columns, dict[str, Tensor], Tensor]:
    """The record columns of the random orders, their means [1], and the srg of each [1, R]; see `_columns`."""
    shuffled = {column: values[n_maps:][None] for column, values in scalars.items()}
    random, (scores, errors) = random_summary(shuffled), curves
    row: Columns = {name: float(values[0]) for name, values in (random | baseline_gaps(random, None, center)).items()}
    # If one order could not be scored, the mean over all orders does not exist.
    row |= _status("invalid" if "invalid" in statuses[n_maps:] else statuses[-1]) | {
        "auc_error": None if errors is None else float(errors[n_maps:].mean()),
        **_curves(k, *(values[n_maps:].mean(0) for values in (scores.s, scores.probability, scores.columns[3]))),
    }
    return row, random, shuffled["srg"]


def _tensors(row: Mapping[str, Any]) -> dict[str, Tensor]:
    """Scalars of a record as tensors [1]; what is missing is NaN."""
    scalars = {name: math.nan if row[name] is None else row[name] for name in CURVE_COLUMNS}
    return {name: torch.tensor([value], dtype=torch.float64) for name, value in scalars.items()}


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
