"""Synthetic records: six methods on forty samples of ten patients, with every status and names that break tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cxr_faith.metrics.baselines import baseline_gaps
from cxr_faith.metrics.functional import classify, curve_scalars, status_names
from cxr_faith.records import RecordWriter

METHODS = ("chefer", "attention", "integrated_gradients", "random_map", "center", "oracle")
QUALITY = {"oracle": 3.0, "chefer": 2.0, "integrated_gradients": 1.6, "attention": 1.3, "center": 1.1}
STEPS, CELLS = 8, 144
X = np.round(np.arange(STEPS + 1) * CELLS / STEPS) / CELLS
NASTY = "Is there a <script>alert('x')</script> & a $nodule$ | or *not*?"


def _sample(index: int) -> dict[str, Any]:
    """Even samples show their finding; 3 is invalid, 5 is off_format, other absent ones inverted or degenerate."""
    present = index % 2 == 0
    return {
        "sample_id": f"s{index:02d}",
        "image_id": f"i{index // 2:02d}",
        "patient_id": f"p{index // 4:02d}",
        "question": NASTY if index == 0 else "Is there a nodule?",
        "kind": "yes_no",
        "reference": ["yes" if present else "no"],
        "finding": "nodule" if index % 4 < 2 else "<b>effusion</b>",
        "present": present,
        "predicted": "yes" if present or index == 7 else "no",
        "correct": index != 7,
        "p_yes": 0.9 if present else 0.1,
        "yes_no_mass": 0.3 if index == 5 else 0.99,
        "answer_mismatch": index == 9,
    }


def _scores(index: int, power: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    present = index % 2 == 0
    substrate = -4.0 - index / 10 if present else (6.0 if index % 4 == 1 else 3.1)
    original = 5.0 + index / 20 if present else 3.0
    wobble = 0.05 * rng.standard_normal((2, STEPS + 1)) * (X > 0) * (X < 1)
    deletion = substrate + (original - substrate) * ((1 - X) ** power + wobble[0])
    insertion = substrate + (original - substrate) * (1 - (1 - X) ** power + wobble[1])
    return deletion, insertion


def _row(index: int, method: str, scores: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    deletion, insertion = (torch.from_numpy(curve)[None] for curve in scores)
    off_format, valid = torch.tensor([index == 5]), torch.tensor([index != 3])
    status = classify(deletion[:, 0], deletion[:, -1], off_format, valid)
    x = torch.from_numpy(X)
    probs = deletion.sigmoid(), insertion.sigmoid()
    scalars = curve_scalars(x, deletion, insertion, *probs, deletion, insertion, status)
    row = _sample(index) | {name: float(value) for name, value in scalars.items()}
    row |= {"method": method, "substrate": "blur:0.1", "target": "answer", "space": "pixels", "condition": "none"}
    row |= {"status": status_names(status)[0], "own_substrate": method == "integrated_gradients", "tie_share": 0.0}
    if index == 3:
        return row | {"reason": "i01.png: truncated <JPEG>", "predicted": None, "correct": None, "p_yes": None}
    row |= {"deletion_scores": scores[0], "insertion_scores": scores[1], "k": (X * CELLS).astype(np.int64)}
    return row | {"margin": float(deletion[0, 0]), "seconds": 0.1 * index, "grid_h": 12, "grid_w": 12}


def make_rows(samples: int = 40) -> list[dict[str, Any]]:
    rows = []
    for index in range(samples):
        rng = np.random.default_rng(index)
        curve = _scores(index, 1.0, rng)[0]
        random = _row(index, "random", (curve, curve[::-1].copy()))
        center = _row(index, "center", _scores(index, QUALITY["center"], rng))
        for method in METHODS:
            if method == "oracle" and index % 2:
                continue  # no mask, no row
            row = center if method == "center" else _row(index, method, _scores(index, QUALITY.get(method, 1.0), rng))
            scores = ("deletion_auc", "insertion_auc", "srg")
            columns = [{name: torch.tensor([of[name]]) for name in scores} for of in (row, random, center)]
            gaps = {name: float(value) for name, value in baseline_gaps(*columns).items()}
            if method == "center":
                gaps = {name: value for name, value in gaps.items() if not name.endswith("center")}
            rows.append(row | gaps | {"random_z": row["srg"] / 0.1, "map": rng.random((12, 12), np.float32)})
        rows.append(random)
    return rows


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    return make_rows()


@pytest.fixture
def run_dir(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    RecordWriter(tmp_path, rank=0, start=0).write(rows)
    return tmp_path
