"""Draws the phantoms of the panel: `python benchmarks/panel_data.py --out runs/panel/phantoms`.

One yes/no question for each phantom, about five findings in turn. Two of three phantoms show the finding, the others
another one, and every second picture has a side marker, so that marker, finding and answer are independent (exactly so
in every 30 phantoms). A phantom that shows the finding has a pair: the same picture without it. `manifest.parquet` has
all rows, `pairs.parquet` those with a pair.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxr_faith.data.sources.phantom import FINDINGS, SIZE, Phantom, sample_phantom
from cxr_faith.data.sources.phantom_files import write_samples
from cxr_faith.data.sources.phantom_questions import Question, phrasings


def draw(number: int, seed: int) -> tuple[Phantom, list[Question]]:
    """Phantom number `number` of a data set, and the question about it."""
    finding, present, marked = FINDINGS[number % 5], number % 3 != 2, number % 2 == 0
    other = FINDINGS[(number + 1 + number // 5 % 4) % 5]
    shown = {finding} if present and number % 4 else {other} | ({finding} if present else set())
    phantom = sample_phantom(f"q{number:03d}", seed, patient_id=f"p{number:03d}", findings=shown)
    phantom = replace(phantom, marker=(phantom.marker or "L") if marked else "")
    options = phrasings("presence", finding)
    return phantom, [replace(options[number % len(options)], answer="yes" if present else "no")]


def write(out: Path, patients: int, seed: int, size: tuple[int, int] = SIZE) -> Path:
    """Write the phantoms of one seed into a fresh folder; returns the manifest's path.

    Args:
        out: the folder; one that is there is replaced.
        patients: number of phantoms, each of a patient of its own.
        seed: of the phantoms; training, demo and `make methods` use others.
        size: height and width of the pictures.
    """
    shutil.rmtree(out, ignore_errors=True)
    manifest = write_samples(out, [draw(i, seed) for i in range(patients)], size, "test", pairs=True, markers=True)
    rows = pq.read_table(manifest)
    pq.write_table(rows.filter(pc.is_valid(rows.column("pair_path"))), out / "pairs.parquet")
    return manifest


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    print(write(args.out, args.patients, args.seed))


if __name__ == "__main__":
    main()
