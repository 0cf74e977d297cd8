"""The usual recipe's turns: one question, all of it or a sample of each kind of work."""

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxr_faith.bench.engine import to_all_steps
from cxr_faith.bench.naive import Naive
from cxr_faith.bench.presets import METHODS, SAMPLED_IG_STEPS
from cxr_faith.bench.scene import Scene
from cxr_faith.bench.timing import wall
from cxr_faith.bench.turns import Rows, Turn
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.perturb.schedule import keep_masks, random_orders, schedule, stream
from cxr_faith.records.controls import RANDOM

SAMPLE = 8
"""Points of a sampled curve; with three repeats, some twenty."""


def run_naive(scene: Scene, naive: Naive, question: int, rows: Rows) -> Turn:
    """Answer, maps and every curve of one question, for real, compared with the engine's rows."""
    prompt, sign = scene.cases[question].prompt, _sign(scene, question)
    device, k = scene.vlm.device, schedule(scene.vlm.n_cells, scene.protocol.finest(scene.vlm.n_cells))
    rng = stream(scene.protocol.seed, scene.image_id, "orders")
    shuffled = random_orders(scene.vlm.n_cells, scene.protocol.random_orders, rng)
    named = {name: np.array(row["order"]) for name, row in rows[question].items() if name != RANDOM}
    curves_of: dict[tuple[str, str], list[NDArray[np.float64]]] = {}

    def curves() -> None:
        for mode in ("deletion", "insertion"):
            for name, order in [*named.items(), *((RANDOM, order) for order in shuffled)]:
                curves_of.setdefault((name, mode), []).append(naive.curve(prompt, sign, order, k, mode))

    before = vars(naive.counts).copy()
    with naive.eager():
        seconds = {"answers": wall(device, lambda: naive.answer(prompt))}
        seconds["maps"] = wall(device, lambda: naive.maps(prompt, sign, scene.preset.ig_steps))
        seconds["curves"] = wall(device, curves)
    difference = max(
        float(np.abs(np.mean(scores, axis=0) - rows[question][name][f"{mode}_scores"]).max())
        for (name, mode), scores in curves_of.items()
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
        "maps": to_all_steps(scene, maps),
        "curves": curves * (blur + (preset.steps + 1) * points / SAMPLE),
    }
    passes, backwards = 5 + preset.ig_steps, 3 + preset.ig_steps
    counts = {"forward": 1 + curves * (preset.steps + 1), "encode": 2, "trace": passes, "backward": backwards}
    return Turn(seconds, counts, float(np.abs(scores[0] - ours).max()))


def _sign(scene: Scene, question: int) -> int:
    target = scene.cases[question].target
    assert target is not None and target.kind == "margin"
    return target.sign
