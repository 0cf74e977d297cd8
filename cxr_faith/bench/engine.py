"""The engine's turns: answers, maps and curves of some questions, all of it or a sample of each kind of work."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from cxr_faith.attribution import build_methods
from cxr_faith.bench.presets import SAMPLED_IG_STEPS
from cxr_faith.bench.scene import Scene
from cxr_faith.bench.timing import wall
from cxr_faith.bench.turns import Rows, Turn, exact_counts
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.protocol import Protocol
from cxr_faith.scoring import score_image
from cxr_faith.vlm.counts import Counts


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
    return to_all_steps(scene, spent)


def to_all_steps(scene: Scene, spent: Sequence[float]) -> float:
    """Seconds of the whole path, from those of the two sampled lengths."""
    short, long = SAMPLED_IG_STEPS
    step = max(0.0, (spent[1] - spent[0]) / (long - short))
    return spent[0] + (scene.preset.ig_steps - short) * step


def _engine_counts(scene: Scene, pictures: int, asked: int, questions: int) -> dict[str, int]:
    """What the engine's turn runs, from the maps' own counts."""
    missing = scene.preset.ig_steps - SAMPLED_IG_STEPS[0]
    spent = sum(scene.map_counts[:questions], Counts())
    trace = spent.trace + spent.score + questions * missing
    backward = spent.backward + questions * missing
    stages = {"embed": 2, "encode": pictures, "prefill": pictures, "score": asked}
    return stages | {"trace": trace, "backward": backward}
