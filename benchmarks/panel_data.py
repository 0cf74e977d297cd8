"""Draws the phantoms of the panel: `python benchmarks/panel_data.py --out runs/panel/phantoms`.

One yes/no question for each phantom, about five findings in turn. Two of three phantoms show the finding, the others
another one, and every second picture has a side marker, so that marker, finding and answer are independent (exactly so
in every 30 phantoms). A phantom that shows the finding has a pair: the same picture without it. `manifest.parquet` has
all rows, `pairs.parquet` those with a pair. With `--both`, every phantom shows the finding and has a marker.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxr_faith.data.sources.phantom import FINDINGS, SIZE, Phantom, sample_phantom
from cxr_faith.data.sources.phantom_files import write_samples
from cxr_faith.data.sources.phantom_questions import Question, phrasings


def is_present(number: int) -> bool:
    """Whether phantom number `number` shows the finding that is asked about."""
    return number % 3 != 2


def is_marked(number: int) -> bool:
    """Whether phantom number `number` has a side marker."""
    return number % 2 == 0


def draw(number: int, seed: int) -> tuple[Phantom, list[Question]]:
    """Phantom number `number` of a data set, and the question about it."""
    finding, present, marked = FINDINGS[number % 5], is_present(number), is_marked(number)
    other = FINDINGS[(number + 1 + number // 5 % 4) % 5]
    shown = {finding} if present and number % 4 else {other} | ({finding} if present else set())
    phantom = sample_phantom(f"q{number:03d}", seed, patient_id=f"p{number:03d}", findings=shown)
    phantom = replace(phantom, marker=(phantom.marker or "L") if marked else "")
    options = phrasings("presence", finding)
    return phantom, [replace(options[number % len(options)], answer="yes" if present else "no")]


def write(out: Path, patients: int, seed: int, size: tuple[int, int] = SIZE, both: bool = False) -> Path:
    """Write the phantoms of one seed into a fresh folder; returns the manifest's path.

    Args:
        out: the folder; one that is there is replaced.
        patients: number of phantoms, each of a patient of its own.
        seed: of the phantoms; training, demo and `make methods` use others.
        size: height and width of the pictures.
        both: only phantoms that show the finding and have a marker.
    """
    shutil.rmtree(out, ignore_errors=True)
    numbers = islice((i for i in count() if not both or (is_present(i) and is_marked(i))), patients)
    manifest = write_samples(out, [draw(i, seed) for i in numbers], size, "test", pairs=True, markers=True)
    rows = pq.read_table(manifest)
    pq.write_table(rows.filter(pc.is_valid(rows.column("pair_path"))), out / "pairs.parquet")
    return manifest


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--both", action="store_true", help="only phantoms that show the finding and have a marker")
    args = parser.parse_args()
    print(write(args.out, args.patients, args.seed, both=args.both))


if __name__ == "__main__":
    main()
