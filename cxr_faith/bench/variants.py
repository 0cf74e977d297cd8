"""Two schedules that are cheaper than the exact one in pixels, and their accuracy: adaptive curves, tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from cxr_faith.bench.engine import run_engine
from cxr_faith.bench.results import AreaError
from cxr_faith.bench.scene import Scene
from cxr_faith.bench.turns import Rows, Turn
from cxr_faith.perturb.engine import TOKENS, Engine
from cxr_faith.protocol import ADAPTIVE
from cxr_faith.records.controls import RANDOM

VARIANTS: dict[str, dict[str, Any]] = {ADAPTIVE: {"steps": ADAPTIVE}, TOKENS: {"space": TOKENS}}


@dataclass
class Variant:
    """One turn of a variant.

    Attributes:
        alone: one question.
        whole: all questions.
        rows: record columns of all questions.
    """

    alone: Turn
    whole: Turn
    rows: Rows


def run_variant(scene: Scene, engine: Engine, name: str, question: int) -> Variant:
    """One question and all questions, for real, by the variant's protocol."""
    protocol = replace(scene.protocol, **VARIANTS[name])
    whole, rows = run_engine(scene, engine, range(len(scene.cases)), protocol)
    alone, _ = run_engine(scene, engine, [question], protocol)
    return Variant(alone, whole, rows)


def area_errors(exact: Rows, adaptive: Rows) -> AreaError | None:
    """How far adaptive areas lie from the exact schedule's, as shares of the effect, beside what was stated.

    Random orders are left out: their mean over fewer orders differs by its Monte-Carlo error. Answers whose effect is
    too small to be scored are left out too; None if there are no others.
    """
    errors, stated = [], []
    for question, rows in enumerate(adaptive):
        for name, row in rows.items():
            if name == RANDOM or row["status"] != "ok":
                continue
            true = exact[question][name]
            areas = zip(_areas(row), _areas(true), strict=True)
            errors += [abs(area - other) / true["effect"] for area, other in areas]
            stated.append(row["auc_error"])
    return AreaError(max(errors), max(stated)) if errors else None


def rank_agreement(pixels: Rows, tokens: Rows) -> list[float]:
    """Spearman correlation of the maps' srg in the two spaces, for each question."""
    return [_spearman(ours, theirs) for ours, theirs in zip(pixels, tokens, strict=True)]


def _spearman(ours: dict[str, dict[str, Any]], theirs: dict[str, dict[str, Any]]) -> float:
    there = [name for name in ours if ours[name].get("deletion_scores") and theirs[name].get("deletion_scores")]
    drawn = [name for name in there if name != RANDOM]
    columns: Sequence[Any] = [
        [insertion - deletion for deletion, insertion in (_areas(rows[name]) for name in drawn)]
        for rows in (ours, theirs)
    ]
    return float(spearmanr(*columns).statistic)


def _areas(row: dict[str, Any]) -> tuple[float, float]:
    """Areas under the deletion and insertion curves in units of the score, for any status of the answer."""
    x = np.array(row["k"]) / row["k"][-1]
    return float(np.trapezoid(row["deletion_scores"], x)), float(np.trapezoid(row["insertion_scores"], x))
