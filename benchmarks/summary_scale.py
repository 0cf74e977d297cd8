"""What a summary, a page, TensorBoard and a restart cost as records grow: `python benchmarks/summary_scale.py`.

Writes records under new ids (15 methods, two substrates, nine patients for ten samples, curves of 51 points, maps of
16 x 16 cells), then runs each step as a process of its own, one thread, and prints its processor time (user + system)
and its peak memory. `--rows 10000000` needs some 12 GB of disk. Nothing else should be running.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cxr_faith.printable import json_text
from cxr_faith.records import RECORD_SCHEMA
from cxr_faith.records.schema import to_table

ROOT = Path(__file__).resolve().parents[1]
METHODS = (
    *("random", "center", "random_map", "edges", "oracle", "attention", "attention/blurred", "rollout", "chefer"),
    *("gradient", "grad_x_input", "integrated_gradients", "tam", "occlusion", "rise"),
)
SUBSTRATES = ("blur:0.1", "mean")
FINDINGS = ("cardiomegaly", "consolidation", "edema", "effusion", "pneumothorax")
STEPS, GRID = 50, 16
SAMPLES = 500
"""Samples of a block; a block is one row group."""
BLOCKS_A_PART = 20
ROWS = (100_000, 300_000, 1_000_000)

DONE = "from cxr_faith.records import done_samples; done_samples(RUN)"
SUMMARY = "from cxr_faith.summary.summarize import write_summary; write_summary(RUN)"
PAGE = "from cxr_faith.report.html import write_report; write_report(RUN)"
TENSORBOARD = (
    "from pathlib import Path; from cxr_faith.summary.load import read_summary; "
    "from cxr_faith.run.tensorboard import write_tensorboard; "
    "write_tensorboard(Path(RUN), read_summary(Path(RUN)), show_images=False)"
)
VIEW = "from pathlib import Path; from cxr_faith.app.pages import Pages; pages = Pages(Path(RUN))"
FILTER = (
    f"{VIEW}; import time; begin = time.process_time(); "
    "pages.listing({'method': 'chefer', 'answered': 'wrong', 'low': '0.2', 'order': 'best'}); "
    "print(time.process_time() - begin)"
)
STAGES = {"done keys": DONE, "summary": SUMMARY, "page": PAGE, "summary and page": f"{SUMMARY}; {PAGE}"}
STAGES |= {"TensorBoard": TENSORBOARD, "view, first list": f"{VIEW}; pages.listing({{}})", "view, one filter": FILTER}


def write_run(folder: Path, rows: int, samples_a_block: int = SAMPLES) -> int:
    """Write the records and the provenance of a run with about this many rows; returns how many there are."""
    (folder / "records").mkdir(parents=True)
    per_sample = len(METHODS) * len(SUBSTRATES)
    blocks = max(1, round(rows / (samples_a_block * per_sample)))
    template, writer = _template(samples_a_block), None
    for number in range(blocks):
        if number % BLOCKS_A_PART == 0:
            if writer is not None:
                writer.close()
            path = folder / "records" / f"part-000-r00000-{number // BLOCKS_A_PART:06d}.parquet"
            writer = pq.ParquetWriter(path, RECORD_SCHEMA, compression="zstd", write_page_checksum=True)
        assert writer is not None
        writer.write_table(_renewed(template, number, samples_a_block))
    assert writer is not None
    writer.close()
    total = blocks * samples_a_block
    (folder / "provenance.json").write_text(json_text({"methods": METHODS, "samples_total": total}))
    return total * per_sample


def _template(samples: int) -> pa.Table:
    """One block of rows; ids, scores, curves and maps are renewed for each block."""
    rows = []
    for sample in range(samples):
        present, finding = sample % 2 == 0, FINDINGS[sample % len(FINDINGS)]
        said = "yes" if (sample % 10 < 7) == present else "no"
        row: dict[str, Any] = {
            **{"target": "answer", "space": "pixels", "condition": "none", "kind": "yes_no", "strategy": None},
            **{"question": f"Is there {finding}?", "question_group": finding, "variant": "0", "finding": finding},
            **{"study_id": "s", "image_path": "p.png", "split": "test", "sample_id": "s", "image_id": "i"},
            **{"reference": ["yes" if present else "no"], "present": present, "predicted": said, "generated": said},
            **{"answer_mismatch": False, "yes_no_mass": 0.98, "correct": (said == "yes") == present},
            **{"not_parsed": False, "grid_h": GRID, "grid_w": GRID, "forwards": 100, "backwards": 1, "seconds": 0.5},
        }
        rows += [row | {"substrate": where, "method": name} for where in SUBSTRATES for name in METHODS]
    return to_table(rows)


def _renewed(block: pa.Table, number: int, samples: int) -> pa.Table:
    """A copy of a block, as rows of other samples with other numbers."""
    rng, per_sample = np.random.default_rng(number), len(METHODS) * len(SUBSTRATES)
    n, cells = len(block), GRID * GRID
    sample = np.repeat(np.arange(samples) + number * samples, per_sample)
    method = np.tile(np.arange(len(METHODS)), n // len(METHODS))
    effect = np.repeat(np.round(rng.gamma(3.0, 3.0, samples) - 2.0, 3), per_sample)  # the same in a sample's rows
    status = np.where(effect > 0.5, "ok", np.where(effect < -0.5, "inverted", "degenerate"))
    ok, size = effect > 0.5, np.repeat(np.round(rng.gamma(2, 2, samples), 3), per_sample)
    margin = np.where(block["predicted"].to_numpy() == "yes", size, -size)
    srg = np.round(np.where(method > 0, 0.03 * method, 0.0) + 0.2 * rng.standard_normal(n) * (method > 0), 4)
    falling = np.sort(rng.integers(0, 64, (64, STEPS + 1)) / 64, axis=1)[:, ::-1][rng.integers(0, 64, n)]
    scores = np.round(falling * 64) / 8 - 2
    numbers = {
        **{"srg_logit": srg * effect, "s_original": scores[:, 0], "s_substrate": scores[:, 0] - effect},
        **{"margin": margin, "p_yes": 1 / (1 + np.exp(-margin)), "effect": effect, "clipped_share": 0.1 + 0 * srg},
        **{"deletion_auc_logit": effect * 0.4, "insertion_auc_logit": effect * (0.4 + srg), "tie_share": 0 * srg},
    }
    normalized = {
        **{"deletion_auc": 0.5 - srg / 2, "insertion_auc": 0.5 + srg / 2, "srg": srg, "random_z": srg * 9},
        **{
            "drop_10": srg / 2,
            "drop_20": srg,
            "drop_50": 0.5 + srg,
            "retained_50": 0.5 - srg,
            "random_p": 0.2 + 0 * srg,
        },
        **{f"gap_{name}_{base}": srg / 2 for name in ("deletion", "insertion") for base in ("random", "center")},
        **{"gap_srg_random": srg, "gap_srg_center": srg - 0.03, "random_p": 0.2 + 0 * srg},
        **{name: np.round(rng.random(n), 4) for name in ("pointing_game", "energy_inside", "auprc")},
    }
    columns: dict[str, pa.Array] = {
        "sample_id": pa.array([f"s{one:08d}" for one in sample]),
        "image_id": pa.array([f"i{one:08d}" for one in sample]),
        "patient_id": pa.array([f"p{one * 9 // 10:08d}" for one in sample]),
        "status": pa.array(status),
        "flat": pa.array(np.zeros(n, bool)),
        "k": _lists(np.tile(np.round(np.arange(STEPS + 1) * cells / STEPS).astype(np.int32), (n, 1)), method > 0),
        "map": _lists(np.round(rng.random((n, cells), np.float32), 2), method > 0),
        "order": _lists(rng.permuted(np.tile(np.arange(cells, dtype=np.int32), (n, 1)), axis=1), method > 0),
        **{name: pa.array(values) for name, values in numbers.items()},
        **{name: pa.array(values, mask=~ok) for name, values in normalized.items()},
        **{f"{side}_scores": _lists(scores) for side in ("deletion", "insertion")},
    }
    columns["k"] = _lists(np.tile(np.round(np.arange(STEPS + 1) * cells / STEPS).astype(np.int32), (n, 1)))
    for name, values in columns.items():
        at = RECORD_SCHEMA.get_field_index(name)
        block = block.set_column(at, RECORD_SCHEMA.field(at), values.cast(RECORD_SCHEMA.field(at).type))
    return block


def _lists(values: np.ndarray, there: np.ndarray | None = None) -> pa.Array:
    """Rows of a matrix as lists; null where `there` is false."""
    there = np.ones(len(values), bool) if there is None else there
    offsets = np.concatenate([[0], np.cumsum(np.where(there, values.shape[1], 0))]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, values[there].ravel(), mask=pa.array(~there))


def cost(run_dir: Path, code: str) -> tuple[float, float]:
    """Processor seconds (user + system) and peak MB of a process that runs a line of Python on a run.

    Code that measures a part of itself prints its seconds: these count then.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Not ru_maxrss: a process inherits its value from the process that started it.
    peak = "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    words = [sys.executable, "-c", f"RUN = {str(run_dir)!r}; {code}; {peak}"]
    one = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # threads that wait would count as work
    done = subprocess.run(words, cwd=ROOT, env=one, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    *own, kilobytes = done.stdout.split()
    return float(own[0]) if own else seconds, int(kilobytes) / 1000


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the runs one after the other, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--folder", type=Path, help="where records go for the time of the measurement")
    options = parser.parse_args(arguments)
    print(f"{'records':>10}  {'step':18}  {'processor s':>11}  {'peak MB':>7}")
    measured: dict[str, list[tuple[int, float]]] = {stage: [] for stage in options.stages}
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            count = write_run(Path(name) / "run", rows)
            for stage in options.stages:
                seconds, peak = cost(Path(name) / "run", STAGES[stage])
                measured[stage].append((count, seconds))
                print(f"{count:10,}  {stage:18}  {seconds:11.1f}  {peak:7,.0f}", flush=True)
    for stage, points in measured.items():
        if len(points) > 2:
            x, y = np.array(points, float).T
            print(f"{stage}: linear in the records, R² {np.corrcoef(x, y)[0, 1] ** 2:.4f}")


if __name__ == "__main__":
    main()
