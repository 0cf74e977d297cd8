"""The one chain from pictures to scores: answers → maps → orders → plan → curves → scalars.

`Explainer.evaluate` and the pipeline's `predict_step` both run it, so that one picture on a laptop and a thousand on a
cluster give the same numbers.
"""

import time
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from cxr_faith.attribution import Attribution, AttributionBatch, Method
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
from cxr_faith.vlm.answers import OFF_FORMAT_MASS, OPEN, YES_NO, AnswerError, make_target, question_kind
from cxr_faith.vlm.base import VLM, Prompt, PromptError, Reply, Scores, Target

RANDOM, CENTER = "random", "center"
BLURRED = "/blurred"
"""Ends the name of a method's blurred control: its map smoothed by a Gaussian of σ = 1 cell."""

NO_REPLY = Reply((), (), "", float("nan"), float("nan"), False)
"""Stands for the answer to a question that could not be asked."""


@dataclass
class Case:
    """One question about one picture, from the model's answer to the maps.

    Attributes:
        prompt: the tokenized question.
        image_id: seeds everything random.
        kind: `yes_no`, `choice` or `open`.
        reply: the model's answer on the intact picture.
        target: the score s; None if there is nothing to explain, and `reason` says why.
        finding_cells: float [gH, gW], share of each cell under the finding; None without a mask.
        maps: name -> float32 [gH, gW] on the CPU.
        extras: name -> what the method says beside its map.
        sequences: name -> float32 [sequence], relevance of every position, for methods that rate the text too.
        costs: name -> forwards, backwards, seconds, peak_memory of one map; what several methods share counts for the
            first of them.
    """

    prompt: Prompt
    image_id: str
    kind: str
    reply: Reply
    target: Target | None
    reason: str | None = None
    finding_cells: Tensor | None = None
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    extras: dict[str, dict[str, Any]] = field(default_factory=dict)
    sequences: dict[str, np.ndarray] = field(default_factory=dict)
    costs: dict[str, dict[str, float | None]] = field(default_factory=dict)

    @property
    def off_format(self) -> bool:
        """A yes/no question whose first step puts less than half of its mass on yes and no."""
        return self.kind == YES_NO and self.reply.yes_no_mass < OFF_FORMAT_MASS


def read_answers(
    vlm: VLM,
    pixels: Tensor,
    image_id: str,
    questions: Sequence[str],
    kinds: Sequence[str | None],
    protocol: Protocol,
    finding_cells: Sequence[Tensor | None] | None = None,
) -> list[Case]:
    """The model's own answers to all questions about one picture, and the targets they fix.

    Args:
        vlm: the model.
        pixels: pixel values [3, H, W].
        image_id: the picture's id.
        questions: as asked.
        kinds: as stated, or None.
        protocol: for the target and the length of answers.
        finding_cells: one for each question, or None.
    """
    cases: list[Case] = []
    with torch.no_grad():
        prefix = vlm.prefill(vlm.encode(pixels[None]))
        for index, question in enumerate(questions):
            cells = finding_cells[index] if finding_cells is not None else None
            try:
                prompt = vlm.prompt(question)
            except PromptError as error:
                nothing = Prompt(question, (), (), 0)
                cases.append(Case(nothing, image_id, kinds[index] or OPEN, NO_REPLY, None, str(error), cells))
                continue
            reply = vlm.answer(prefix, prompt, protocol.max_new_tokens)
            kind, target, reason = question_kind(kinds[index], reply), None, None
            try:
                target = make_target(vlm, prompt, reply, kind, protocol.target)
            except AnswerError as error:
                reason = str(error)
            if not np.isfinite(reply.margin):
                target, reason = None, "the model's logits are not finite on the intact picture"
            cases.append(Case(prompt, image_id, kind, reply, target, reason, cells))
    return cases


def compute_maps(
    vlm: VLM,
    methods: Mapping[str, Method],
    pixels: Sequence[Tensor],
    cases: Sequence[Case],
    seed: int,
    only_in_format: bool = True,
    blurred: Collection[str] = (),
    share: bool = True,
) -> None:
    """Fill in the maps of cases that have a target.

    One case at a time: a backward pass rounds a sample otherwise in another batch, and two cells whose values differ
    in the last bit only would change places with the number of ranks.

    Args:
        vlm: the model.
        methods: name -> method.
        pixels: the picture [3, H, W] of each case.
        cases: what to explain.
        seed: the run's seed.
        only_in_format: leave out yes/no questions whose answer is mostly neither: their maps are not scored.
        blurred: names of the maps of which there is to be a blurred copy too.
        share: methods that need the same tokens or the same gradient of a case get it from the first of them; off,
            each computes its own, and the maps are the same bits.
    """
    for picture, case in zip(pixels, cases, strict=True):
        if case.target is None or (only_in_format and case.off_format):
            continue
        shared: dict[Hashable, tuple[Tensor, Tensor]] | None = {} if share else None
        for name, method in methods.items():
            # A mask is the whole evidence of a finding's presence; where it is, hangs on the body around it too.
            if not method.needs_mask or (case.finding_cells is not None and case.kind == YES_NO):
                _apply(vlm, name, method, _batch(method, picture, case, seed, shared), case, case.target)
        there = [name for name in blurred if name in case.maps]
        case.maps |= {name + BLURRED: gaussian_filter(case.maps[name], sigma=1.0) for name in there}


def compute_token_maps(vlm: VLM, name: str, method: Method, picture: Tensor, case: Case, seed: int) -> list[Case]:
    """A case with its own target and map for each content token of the answer, one forward where the method can.

    Args:
        vlm: the model.
        name: of the method.
        method: the method.
        picture: pixel values [3, H, W].
        case: an answered question.
        seed: the run's seed.

    Raises:
        AnswerError: the answer is empty.
    """
    whole = make_target(vlm, case.prompt, case.reply, OPEN, "answer")
    with _one_thread(vlm.device):
        results = method.attribute_tokens(vlm, _batch(method, picture, case, seed), [whole])
    cases = []
    for index, result in zip(whole.scored, results, strict=True):
        target = replace(whole, name=str(index), scored=(index,))
        cases.append(replace(case, target=target, maps={}, extras={}, sequences={}, costs={}))
        _keep(cases[-1], name, result)
    return cases


def _batch(
    method: Method,
    picture: Tensor,
    case: Case,
    seed: int,
    shared: dict[Hashable, tuple[Tensor, Tensor]] | None = None,
) -> AttributionBatch:
    cells = case.finding_cells[None] if method.needs_mask and case.finding_cells is not None else None
    return AttributionBatch(picture[None], [case.prompt], [case.image_id], seed, cells, shared)


def _keep(case: Case, name: str, result: Attribution) -> None:
    case.maps[name] = result.maps[0].float().cpu().numpy()
    case.extras[name] = {key: values[0] for key, values in result.extras.items()}
    if result.sequences is not None:
        case.sequences[name] = result.sequences[0].float().cpu().numpy()


def _apply(vlm: VLM, name: str, method: Method, batch: AttributionBatch, case: Case, target: Target) -> None:
    on_gpu = vlm.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(vlm.device)
    before, begin = vlm.counts.snapshot(), time.perf_counter()
    with _one_thread(vlm.device):
        result = method.attribute(vlm, batch, [target])
    _keep(case, name, result)
    spent = time.perf_counter() - begin
    case.costs[name] = {
        "forwards": vlm.counts.trace + vlm.counts.score - before.trace - before.score,
        "backwards": vlm.counts.backward - before.backward,
        "seconds": spent,
        "peak_memory": torch.cuda.max_memory_allocated(vlm.device) if on_gpu else None,
    }


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """On a CPU, one thread: a backward pass is rounded by the number of threads, a forward pass is not.

    Ranks share a machine's cores, so the number of threads changes with the number of ranks, and maps must not.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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

    def run(plan: Plan) -> list[Scores]:
        return engine.run(pixels, removed, plan, prompts, targets, fill, protocol.space)

    if protocol.adaptive:
        mine = [case_orders(engine.vlm.grid, image_id, case, protocol) for case in cases]
        shuffled = random_orders(n_cells, protocol.random_orders, stream(protocol.seed, image_id, "orders"))
        own = [list(finite.values()) for _, finite in mine]
        found = adaptive_curves(run, own, shuffled, k, protocol.auc_error, protocol.random_error)
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
    curves: Scores,
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
