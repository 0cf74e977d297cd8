"""Two ways to spend less than the exact schedule in pixels, and what they cost in accuracy: adaptive curves, tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from cxr_faith.metrics.functional import effect_threshold
from cxr_faith.perturb.engine import TOKENS, Engine
from cxr_faith.pipeline.bench_engine import Rows, Turn, run_engine
from cxr_faith.pipeline.bench_scene import Scene
from cxr_faith.scoring import ADAPTIVE, RANDOM

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


def area_errors(exact: Rows, adaptive: Rows) -> dict[str, float]:
    """How far adaptive areas lie from the exact schedule's, as shares of the effect, beside what was stated.

    Random orders are left out: their mean over fewer orders differs by its Monte-Carlo error.
    """
    found, stated = [], []
    for question, rows in enumerate(adaptive):
        for name, row in rows.items():
            if name == RANDOM or "auc_error" not in row:
                continue
            true = exact[question][name]
            threshold = float(effect_threshold(torch.tensor(true["s_original"], dtype=torch.float64)))
            for area in ("deletion_auc_logit", "insertion_auc_logit"):
                found.append(abs(row[area] - true[area]) / max(abs(true["effect"]), threshold))
            stated.append(row["auc_error"])
    return {"largest": max(found), "stated": max(stated)}


def rank_agreement(pixels: Rows, tokens: Rows) -> list[float]:
    """Spearman correlation of the maps' srg in the two spaces, for each question."""
    return [_spearman(ours, theirs) for ours, theirs in zip(pixels, tokens, strict=True)]


def _spearman(ours: dict[str, dict[str, Any]], theirs: dict[str, dict[str, Any]]) -> float:
    names = [name for name in ours if name != RANDOM and "srg_logit" in ours[name] and "srg_logit" in theirs[name]]
    columns: Sequence[Any] = [np.array([rows[name]["srg_logit"] for name in names]) for rows in (ours, theirs)]
    return float(spearmanr(*columns).statistic)
