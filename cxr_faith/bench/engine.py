"""The contestants' turns: the engine's and the usual recipe's work on a scene, all of it or a sample of each kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxr_faith.attribution import build_methods
from cxr_faith.bench.floor import wall
from cxr_faith.bench.naive import Naive
from cxr_faith.bench.scene import METHODS, SAMPLED_IG_STEPS, Scene
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.perturb.schedule import keep_masks, random_orders, schedule, stream
from cxr_faith.protocol import Protocol
from cxr_faith.records.controls import RANDOM
from cxr_faith.scoring import plan_curves, score_image

SAMPLE = 8
"""Points of a sampled curve of the usual recipe: with three repeats, some twenty."""

Rows = list[dict[str, dict[str, Any]]]


@dataclass
class Turn:
    """One run of a contestant.

    Attributes:
        seconds: phase -> seconds; phases are answers, maps and curves.
        counts: stage -> pictures that passed it, or would have.
        difference: how far, at worst, a point of a curve lies from the engine's; for the usual recipe.
    """

    seconds: dict[str, float]
    counts: dict[str, int]
    difference: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds.values())


def exact_counts(scene: Scene, questions: Sequence[int]) -> tuple[int, int]:
    """(distinct pictures, questions asked about them) of the full schedule."""
    plan, _ = plan_curves(scene.vlm.grid, scene.image_id, [scene.cases[q] for q in questions], scene.protocol)
    return len(plan), plan.questions_asked


def run_engine(
    scene: Scene, engine: Engine, questions: Sequence[int], protocol: Protocol | None = None
) -> tuple[Turn, Rows]:
    """Answers, maps and curves of some questions, for real, by the scene's protocol or another."""
    device, before, kept = scene.vlm.device, scene.vlm.counts.snapshot(), list[Any]()
    seconds = {"answers": wall(device, lambda: kept.append(scene.answer(questions)))}
    cases = kept[0]
    seconds["maps"] = wall(device, lambda: scene.explain(cases, scene.methods))
    args = (engine, scene.pixels, scene.image_id, cases, scene.substrate, protocol or scene.protocol)
    seconds["curves"] = wall(device, lambda: kept.append(score_image(*args)))
    spent = {stage: value - getattr(before, stage) for stage, value in vars(scene.vlm.counts).items()}
    return Turn(seconds, spent), kept[1]


def sample_engine(scene: Scene, engine: Engine) -> dict[int, Turn]:
    """Times of some pictures of each kind, multiplied by the exact counts, for one and for three questions."""
    device, plan = scene.vlm.device, Plan(scene.vlm.n_cells)
    sample = scene.preset.sample
    masks = np.random.default_rng(0).random((sample, scene.vlm.n_cells)) < 0.5
    for question in range(len(scene.cases)):
        plan.add(question, masks)
    one = Plan(scene.vlm.n_cells)
    one.add(0, masks)
    removed = scene.substrate.apply(scene.pixels[None], [scene.image_id], scene.protocol.seed)[0]
    prompts, targets = [c.prompt for c in scene.cases], [c.target for c in scene.cases if c.target is not None]
    answers = wall(device, lambda: scene.answer([0]))
    maps = _sampled_maps(scene)
    run = [
        wall(device, partial(engine.run, scene.pixels, removed, asked_of, prompts[:count], targets[:count]))
        for asked_of, count in ((one, 1), (plan, len(prompts)))
    ]
    asking = max(0.0, (run[1] - run[0]) / (sample * (len(prompts) - 1)))
    picture = run[0] / sample - asking
    turns = {}
    for count in (1, len(prompts)):
        pictures, asked = exact_counts(scene, range(count))
        seconds = {"answers": count * answers, "maps": count * maps, "curves": pictures * picture + asked * asking}
        turns[count] = Turn(seconds, _engine_counts(scene, pictures, asked, count))
    return turns


def _sampled_maps(scene: Scene) -> float:
    """Seconds of one question's maps: those of short paths, and the other steps by what one more step takes."""
    spent, methods = [], dict(scene.methods)
    for steps in SAMPLED_IG_STEPS:
        methods |= build_methods({"integrated_gradients": {"steps": steps}})
        case = scene.answer([0])
        spent.append(wall(scene.vlm.device, partial(scene.explain, case, dict(methods))))
    return _to_all_steps(scene, spent)


def _to_all_steps(scene: Scene, spent: Sequence[float]) -> float:
    short, long = SAMPLED_IG_STEPS
    step = max(0.0, (spent[1] - spent[0]) / (long - short))
    return spent[0] + (scene.preset.ig_steps - short) * step


def _engine_counts(scene: Scene, pictures: int, asked: int, questions: int) -> dict[str, int]:
    """What the engine's turn runs, from the maps' own counts."""
    missing = scene.preset.ig_steps - SAMPLED_IG_STEPS[0]
    costs = [case.costs for case in scene.cases[:questions]]
    trace = sum(int(cost[name]["forwards"] or 0) for cost in costs for name in METHODS) + questions * missing
    backward = sum(int(cost[name]["backwards"] or 0) for cost in costs for name in METHODS) + questions * missing
    stages = {"embed": 2, "encode": pictures, "prefill": pictures, "score": asked}
    return stages | {"trace": trace, "backward": backward}


def run_naive(scene: Scene, naive: Naive, question: int, rows: Rows) -> Turn:
    """Answer, maps and every curve of one question, for real, compared with the engine's rows."""
    prompt, sign = scene.cases[question].prompt, _sign(scene, question)
    device, k = scene.vlm.device, schedule(scene.vlm.n_cells, scene.protocol.finest(scene.vlm.n_cells))
    rng = stream(scene.protocol.seed, scene.image_id, "orders")
    shuffled = random_orders(scene.vlm.n_cells, scene.protocol.random_orders, rng)
    named = {name: np.array(row["order"]) for name, row in rows[question].items() if name != RANDOM}
    found: dict[tuple[str, str], list[NDArray[np.float64]]] = {}

    def curves() -> None:
        for mode in ("deletion", "insertion"):
            for name, order in [*named.items(), *((RANDOM, order) for order in shuffled)]:
                found.setdefault((name, mode), []).append(naive.curve(prompt, sign, order, k, mode))

    before = vars(naive.counts).copy()
    with naive.eager():
        seconds = {"answers": wall(device, lambda: naive.answer(prompt))}
        seconds["maps"] = wall(device, lambda: naive.maps(prompt, sign, scene.preset.ig_steps))
        seconds["curves"] = wall(device, curves)
    difference = max(
        float(np.abs(np.mean(scores, axis=0) - rows[question][name][f"{mode}_scores"]).max())
        for (name, mode), scores in found.items()
    )
    return Turn(seconds, {key: value - before[key] for key, value in vars(naive.counts).items()}, difference)


def sample_naive(scene: Scene, engine: Engine, naive: Naive, question: int) -> Turn:
    """Times of some forwards and attributions of one question, multiplied by the exact counts."""
    prompt, sign, preset = scene.cases[question].prompt, _sign(scene, question), scene.preset
    device, n_cells = scene.vlm.device, scene.vlm.n_cells
    k = schedule(n_cells, SAMPLE)[1:]
    order, scores = np.random.default_rng(question).permutation(n_cells), list[Any]()
    with naive.eager():
        blur = wall(device, naive.blurred)
        points = wall(device, lambda: scores.append(naive.curve(prompt, sign, order, k, "deletion"))) - blur
        maps = [wall(device, partial(naive.maps, prompt, sign, s)) for s in SAMPLED_IG_STEPS]
    plan = Plan(n_cells)
    places = plan.add(0, keep_masks(order, k, "deletion"))
    removed = scene.substrate.apply(scene.pixels[None], [scene.image_id], scene.protocol.seed)[0]
    target = scene.cases[question].target
    assert target is not None
    ours = engine.run(scene.pixels, removed, plan, [prompt], [target])[0].s[torch.from_numpy(places)].numpy()
    curves = 2 * (len(METHODS) + 1 + scene.protocol.random_orders)
    seconds = {
        "answers": points / SAMPLE,
        "maps": _to_all_steps(scene, maps),
        "curves": curves * (blur + (preset.steps + 1) * points / SAMPLE),
    }
    passes, backwards = 5 + preset.ig_steps, 3 + preset.ig_steps
    counts = {"forward": 1 + curves * (preset.steps + 1), "encode": 2, "trace": passes, "backward": backwards}
    return Turn(seconds, counts, float(np.abs(scores[0] - ours).max()))


def _sign(scene: Scene, question: int) -> int:
    target = scene.cases[question].target
    assert target is not None and target.kind == "margin"
    return target.sign


def deletion_pictures(scene: Scene) -> int:
    """Distinct pictures of all deletion curves alone, of all questions."""
    plan, k = Plan(scene.vlm.n_cells), schedule(scene.vlm.n_cells, scene.protocol.finest(scene.vlm.n_cells))
    _, questions = plan_curves(scene.vlm.grid, scene.image_id, scene.cases, scene.protocol)
    rng = stream(scene.protocol.seed, scene.image_id, "orders")
    shuffled = random_orders(plan.n_cells, scene.protocol.random_orders, rng)
    for number, question in enumerate(questions):
        for order in (*question.orders.finite.values(), *shuffled):
            plan.add(number, keep_masks(order, k, "deletion"))
    return len(plan)
