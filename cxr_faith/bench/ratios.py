"""Quotients of the contestants' times."""

from dataclasses import replace

from cxr_faith.bench.contest import Contest
from cxr_faith.bench.libraries import library_steps
from cxr_faith.bench.presets import METHODS
from cxr_faith.bench.results import Spread
from cxr_faith.bench.scene import Scene
from cxr_faith.bench.turns import deletion_pictures, exact_counts


def ratios(contest: Contest) -> dict[str, Spread]:
    """Quotients within each repeat, as median, smallest and largest."""
    scene, count = contest.scene, len(contest.scene.cases)
    result = {}
    for label, index, questions in (("one question", 0, 1), (f"{count} questions", 1, count)):
        pairs = list(zip(contest.naive, (turn[index] for turn in contest.engine), contest.bare, strict=True))
        counts = exact_counts(scene, range(questions))
        result[f"naive ÷ engine, {label}"] = Spread.of([questions * n.total / e.total for n, e, _ in pairs])
        for name, variants in contest.variants.items():
            ours = [(variant.alone, variant.whole)[index].total for variant in variants]
            usual = [questions * turn.total for turn in contest.naive]
            result[f"naive ÷ {name}, {label}"] = Spread.of([n / o for n, o in zip(usual, ours, strict=True)])
        result[f"engine ÷ floor, {label}"] = Spread.of([e.seconds["curves"] / b.total(*counts) for _, e, b in pairs])
    for name, forward in contest.libraries.items():
        share = _library_share(scene, name)
        job = count * library_forwards(scene, name)
        ours = [share * whole.seconds["curves"] for _, whole in contest.engine]
        result[f"{name} ÷ engine, {count} questions"] = Spread.of(
            [job * f / o for f, o in zip(forward, ours, strict=True)]
        )
    return result


def _library_share(scene: Scene, name: str) -> float:
    """Share of the engine's pictures in the job that a library can do: its number of steps, Quantus deletion alone."""
    questions, cells = range(len(scene.cases)), scene.vlm.n_cells
    steps = library_steps(cells, scene.protocol.finest(cells))
    job = replace(scene, protocol=replace(scene.protocol, steps=steps))
    pictures = deletion_pictures(job) if name == "quantus" else exact_counts(job, questions)[0]
    return pictures / exact_counts(scene, questions)[0]


def library_forwards(scene: Scene, name: str) -> int:
    """Forwards of a library for the curves of one question: those of the maps, the random orders and the center."""
    steps = library_steps(scene.vlm.n_cells, scene.protocol.finest(scene.vlm.n_cells))
    return (len(METHODS) + 1 + scene.protocol.random_orders) * (2 * steps if name == "torchcam" else steps)
