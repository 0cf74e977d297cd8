"""How time and memory grow with the samples, and the speed-up of a second rank: `python benchmarks/scaling.py`.

Evaluates new phantoms on a short schedule with `cxr-faith evaluate`, alternately with one rank and with two, one thread
each, and prints medians. Nothing else should be running: two ranks need two idle cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lightning as L
import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
CALLBACK = "benchmarks.scaling.Clock"
MARKS = (10, 20, 50, 100, 200)
SCHEDULE = {"protocol.steps": "6", "protocol.random_orders": "4", "methods": "{attention: {}, gradient: {}}"}


class Clock(L.Callback):
    """Writes a line after each batch: samples so far, seconds since the first batch began, resident MB.

    Args:
        out: Path of the file, to which `.RANK` is appended.
    """

    def __init__(self, out: str) -> None:
        self.out, self.samples, self.begin = out, 0, 0.0

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.begin = time.perf_counter()

    def on_predict_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs, batch, *_) -> None:
        """Write a line."""
        self.samples += len(batch)
        status = Path("/proc/self/status").read_text()
        resident = int(status.split("VmRSS:")[1].split()[0]) / 1024
        with open(f"{self.out}.{trainer.global_rank}", "a") as file:
            file.write(json.dumps([self.samples, time.perf_counter() - self.begin, resident]) + "\n")


def evaluate(manifest: Path, ranks: int, folder: Path) -> list[np.ndarray]:
    """Run an evaluation; returns [batches, 3] of each rank: samples so far, seconds, resident MB."""
    folder.mkdir()
    schedule = [part for key, value in SCHEDULE.items() for part in (f"--model.{key}", value)]
    command = [sys.executable, "-m", "cxr_faith", "evaluate", "--config", str(ROOT / "configs/demo.yaml"), *schedule]
    command += ["--limit", str(MARKS[-1])]
    command += ["--trainer.devices", str(ranks), "--data.manifest", str(manifest), "--run_dir", str(folder / "run")]
    command += [f"--trainer.callbacks+={CALLBACK}", f"--trainer.callbacks.out={folder / 'clock'}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return [np.loadtxt(lines(folder / f"clock.{rank}")) for rank in range(ranks)]


def lines(path: Path) -> list[str]:
    """The file's JSON lists as whitespace-separated columns."""
    return [line.strip("[]\n").replace(",", " ") for line in path.read_text().splitlines()]


def main() -> None:
    """Draw the phantoms, run, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    alone, ratios = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw = [sys.executable, ROOT / "training/write_bundled_data.py", "--out", folder / "phantoms", "--seed", "3"]
        subprocess.run([*map(str, draw), "--patients", "160"], check=True, stdout=subprocess.DEVNULL)
        for turn in range(options.turns):
            manifest = folder / "phantoms/manifest.parquet"
            (one,), two = (evaluate(manifest, ranks, folder / f"turn{turn}-{ranks}") for ranks in (1, 2))
            alone.append(one)
            ratios.append(one[-1, 1] / max(rank[-1, 1] for rank in two))
    console, table = Console(width=100), Table(box=None, header_style="", pad_edge=False)
    for name in ("samples", "seconds", "MB"):
        table.add_column(name, justify="right")
    middle = np.median(alone, axis=0)
    for samples, seconds, resident in middle[np.searchsorted(middle[:, 0], MARKS)]:  # a batch may end after the mark
        table.add_row(f"{samples:.0f}", f"{seconds:.1f}", f"{resident:.0f}")
    console.print("one rank, one thread")
    console.print(table)
    samples, seconds = middle[middle[:, 0] >= MARKS[0], :2].T
    console.print(f"linear in the samples: R² {np.corrcoef(samples, seconds)[0, 1] ** 2:.4f}")
    console.print(f"2 ranks ÷ 1 rank: {np.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})")


if __name__ == "__main__":
    main()
