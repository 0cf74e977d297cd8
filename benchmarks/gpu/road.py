"""ROAD on the device against scipy's direct solver: `python benchmarks/gpu/road.py OUT.json [--dry]`."""

import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import spsolve

from cxr_faith.bench.timing import peak_memory, wall
from cxr_faith.perturb.road import impute
from tests.perturb.test_road import on_pixels, textured
from tests.reference import road as twin

GRID = (16, 16)


def measure(side: int, masks: int, device: torch.device) -> dict[str, Any]:
    """Time a picture, memory and error of a batch of masks on a picture of three different channels."""
    pixels = textured(side, side)
    counts = np.linspace(1, 250, masks).astype(int)
    keeps = np.stack([np.random.default_rng(i).permutation(256) < count for i, count in enumerate(counts)])
    keep, there = torch.from_numpy(keeps).to(device), pixels.to(device)
    solved = impute(there, keep, GRID)
    with peak_memory(device) as peak:
        color, gray = (wall(device, lambda planes=planes: impute(planes, keep, GRID)) for planes in (there, there[:1]))
    one = masks // 2
    gone = ~on_pixels(keeps[one], GRID, (side, side))
    begin = perf_counter()
    spsolve(*twin.equations(pixels.numpy(), gone))
    direct = perf_counter() - begin
    return {
        "ms": 1e3 * color / masks,
        "gray_ms": 1e3 * gray / masks,
        "spsolve_ms": 1e3 * direct,
        "times_faster": direct * masks / color,
        "peak_gb": None if peak.value is None else peak.value / 1e9,
        "worst_error": float(np.abs(solved[one].cpu().numpy() - twin.impute(pixels.numpy(), gone)).max()),
    }


def main() -> None:
    """Measure, print and write."""
    dry = "--dry" in sys.argv
    device = torch.device("cpu" if dry else "cuda")
    result = {side: measure(side, masks, device) for side, masks in ([(64, 2)] if dry else [(448, 64), (896, 64)])}
    Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for side, values in result.items():
        print(f"{side} px: {values}")


if __name__ == "__main__":
    main()
