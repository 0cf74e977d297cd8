"""Whole runs for tests: a few samples of the bundled phantoms, two cheap methods, the shortest schedule."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxr_faith.__main__ import main
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.records import read_records
from cxr_faith.run.stop import StopRequest

ROOT = Path(__file__).parents[1]
SAMPLES = 7
# What differs between two runs by its nature.
VOLATILE = ["seconds", "peak_memory"]

CONFIG = """
trainer: {{accelerator: cpu, devices: 1}}
model:
  methods: {{chefer: {{}}, random_map: {{}}}}
  protocol: {{steps: {steps}, random_orders: 2, max_new_tokens: 4, controls: none}}
data: {{manifest: {manifest}, data_root: {root}, batch_size: 1}}
"""


def cheap_options(sae: str) -> dict[str, dict[str, Any]]:
    """Options with which a method takes no time.

    Args:
        sae: folder of an autoencoder for the random model.
    """
    return {
        "integrated_gradients": {"steps": 2},
        "occlusion": {"window": 1},
        "rise": {"masks": 6},
        "smooth_grad": {"copies": 3},
        "igos_pp": {"iterations": 1, "path_steps": 1},
        "sae": {"path": sae},
        "greedy": {"cells": 2},
        "eagle": {"regions": 4, "budget": 14},
        "multi_scale": {"tolerance": 0.5},
        "attention_sink_masked": {"factor": 1.1},
        "answer_map": {"bands": [2]},
        "counterfactual": {"cells": 2},
    }


def write_config(folder: Path, samples: int = SAMPLES, steps: int = 2) -> Path:
    """A manifest of `samples` questions, each about another picture, and a config; more steps make batches longer."""
    table = pq.read_table(bundled_manifest())
    images, rows = set(), []
    for row, image in enumerate(table.column("image_id").to_pylist()):
        if image not in images and len(rows) < samples:
            images.add(image)
            rows.append(row)
    pq.write_table(table.take(pa.array(rows)), folder / "manifest.parquet")
    file = folder / "config.yaml"
    file.write_text(CONFIG.format(steps=steps, manifest=folder / "manifest.parquet", root=bundled_manifest().parent))
    return file


def environment() -> dict[str, str]:
    """Variables for a process of its own, also when the tests run inside a Slurm job."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return kept | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def command(config: Path, run_dir: Path, *arguments: str) -> list[str]:
    """The command line of `evaluate`."""
    start = [sys.executable, "-m", "cxr_faith", "evaluate"]
    return [*start, "--config", str(config), "--run_dir", str(run_dir), *arguments]


def ranks(count: int) -> list[str]:
    """Options for `count` processes."""
    return ["--trainer.devices", str(count), "--trainer.strategy", "ddp"]


def start(config: Path, run_dir: Path, *arguments: str) -> "subprocess.Popen[str]":
    """`evaluate` in a new process, left running."""
    out, words = subprocess.PIPE, command(config, run_dir, *arguments)
    return subprocess.Popen(words, env=environment(), cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, text=True)


def run_here(config: Path, run_dir: Path, *arguments: str) -> int:
    """`evaluate` with one rank in this process, which has the libraries loaded; returns the exit status.

    Signals keep their meaning: the tests' own process must be easy to end.
    """
    with patch("cxr_faith.run.stop.listening", lambda: nullcontext(StopRequest())):
        return main(command(config, run_dir, *arguments)[3:])


def wait_for(
    condition: Callable[[], object], process: "subprocess.Popen[str] | None" = None, seconds: float = 300
) -> None:
    """Wait until something holds; a process that ends before is a failure."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """Processes that a process has started, and those in turn."""
    pids = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields["PPid"]) == pid:
            pids += [int(status.parent.name), *children(int(status.parent.name))]
    return pids


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parts(run_dir: Path) -> list[Path]:
    """The files of records."""
    return sorted((run_dir / "records").glob("part-*.parquet"))


def records(run_dir: Path) -> pd.DataFrame:
    """Records without what is volatile."""
    return read_records(run_dir).drop(columns=VOLATILE)


def assert_same(run_dir: Path, reference: Path) -> None:
    """The same records, value by value, the same summary, byte by byte, and the same torchmetrics within 1e-12."""
    pd.testing.assert_frame_equal(records(run_dir), records(reference), check_exact=True)
    for name in ("summary.json", "summary.md"):
        assert (run_dir / name).read_bytes() == (reference / name).read_bytes(), name
    # Sums of the torchmetrics run in another order.
    measured, expected = (json.loads((run / "metrics.json").read_text()) for run in (run_dir, reference))
    pd.testing.assert_frame_equal(
        pd.DataFrame(measured.pop("rows")), pd.DataFrame(expected.pop("rows")), check_exact=False, rtol=0, atol=1e-12
    )
    assert measured == expected


def uninterrupted(config: Path, run_dir: Path) -> Path:
    """Run directory of a whole run of a small config on one rank."""
    assert run_here(config, run_dir) == 0
    frame = records(run_dir)
    assert frame["sample_id"].nunique() == SAMPLES and frame["status"].eq("ok").any()
    return run_dir


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a small run."""
    return write_config(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def reference(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of an uninterrupted run on one rank."""
    return uninterrupted(small, tmp_path_factory.mktemp("reference") / "run")


WITHOUT_USE = ("--model.protocol.image_use", "false")
"""Options of a run in which no sample depends on the picture of another one, as image use does."""


@pytest.fixture(scope="session")
def reference_without_use(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`reference` of a run that does not measure image use."""
    run_dir = tmp_path_factory.mktemp("without_use") / "run"
    assert run_here(small, run_dir, *WITHOUT_USE) == 0
    return run_dir
