"""Does a GPU compute what a CPU computes? `python benchmarks/gpu/agree.py OUT.json [--dry]`.

Evaluates the bundled model with every method, on the CPU in float32 and on the GPU in float32 and bfloat16, each again
as it was and in other micro-batches, and compares the records. `--dry` stays on the CPU, with one method.
"""

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_faith.__main__ import main as cxr_faith
from cxr_faith.records import KEY, read_records

FOLDER = Path(__file__).parent
CURVES = ("deletion_scores", "insertion_scores")
OTHER_BATCH = "22"
DRY = ["--trainer.accelerator", "cpu", "--model.methods", "{chefer: {}}", "--model.protocol.substrates", "[blur:0.1]"]


def records(folder: Path, dry: bool, accelerator: str, dtype: str, *more: str) -> pd.DataFrame:
    """Records of a run of the command line, sorted by their key."""
    configs = (FOLDER / "agree.yaml", FOLDER.parents[1] / "configs" / "trainer" / "ddp.yaml")
    words = ["evaluate", *(word for config in configs for word in ("--config", str(config)))]
    words += ["--trainer.devices", "1", "--trainer.accelerator", accelerator, "--model.vlm.dtype", dtype]
    words += ["--limit", "1" if dry else "3", "--run_dir", str(folder), *more, *(DRY if dry else [])]
    if status := cxr_faith(words):
        raise SystemExit(status)
    return read_records(folder).sort_values(list(KEY)).reset_index(drop=True)


def compare(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    """Worst differences, as a share of the largest value of a map or curve, and how many rows tell another status.

    Returns:
        `maps` and `curves`: method → difference; `curves`: over all methods; `statuses` and `answers`: rows that
        differ; `same_bits`: whether all of these are equal to the bit.
    """
    if not ours[list(KEY)].equals(theirs[list(KEY)]):
        raise ValueError("the runs have other rows")
    maps = {
        str(method): worst(rows["map"], theirs["map"][rows.index]) for method, rows in ours.groupby("method", sort=True)
    }
    curves = {column: worst(ours[column], theirs[column]) for column in CURVES}
    gaps = [*maps.values(), *curves.values()]
    return {
        "maps": {name: gap for name, gap in maps.items() if gap is not None},
        "curves": curves,
        "statuses": int((ours["status"] != theirs["status"]).sum()),
        "answers": int((ours["generated"] != theirs["generated"]).sum()),
        "same_bits": all(gap == 0 for gap in gaps if gap is not None),
    }


def worst(ours: Iterable[Any], theirs: Iterable[Any]) -> float | None:
    """Largest difference of two columns of arrays, each as a share of its largest value; None without arrays."""
    pairs = [(np.asarray(x, float), np.asarray(y, float)) for x, y in zip(ours, theirs, strict=True) if _both(x, y)]
    return max((float(np.abs(x - y).max() / max(1e-12, np.abs(y).max())) for x, y in pairs), default=None)


def _both(*values: Any) -> bool:
    return all(value is not None and np.ndim(value) > 0 and len(value) > 0 for value in values)


def main() -> None:
    """Run, compare, print and write."""
    out, dry = Path(sys.argv[1]), "--dry" in sys.argv
    with tempfile.TemporaryDirectory() as name:
        folder, other = Path(name), ("--model.micro_batch", OTHER_BATCH)
        cpu = records(folder / "cpu", dry, "cpu", "float32")
        if dry:
            result = {"float32_micro_batch_22": compare(records(folder / "22", dry, "cpu", "float32", *other), cpu)}
        else:
            single = records(folder / "single", dry, "gpu", "float32")
            half = records(folder / "half", dry, "gpu", "bfloat16")
            again = records(folder / "again", dry, "gpu", "float32")
            single_22 = records(folder / "single22", dry, "gpu", "float32", *other)
            half_22 = records(folder / "half22", dry, "gpu", "bfloat16", *other)
            result = {
                "cpu_to_gpu_float32": compare(single, cpu),
                "cpu_to_gpu_bfloat16": compare(half, cpu),
                "float32_again": compare(again, single),
                "float32_micro_batch_22": compare(single_22, single),
                "bfloat16_micro_batch_22": compare(half_22, half),
            }
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for comparison, values in result.items():
        print(f"{comparison}: {values}", flush=True)


if __name__ == "__main__":
    main()
