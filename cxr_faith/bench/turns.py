"""One run of a contestant, and how much work the full schedule is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cxr_faith.bench.scene import Scene
from cxr_faith.curves import plan_curves
from cxr_faith.perturb.engine import Plan
from cxr_faith.perturb.schedule import keep_masks, random_orders, schedule, stream

Rows = list[dict[str, dict[str, Any]]]
"""For each question, method → record columns."""


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
