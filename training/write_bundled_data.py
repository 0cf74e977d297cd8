"""Write the small held-out data set that ships with the package, or another one like it.

    python training/write_bundled_data.py --out cxr_faith/data/bundled/phantom
    python training/write_bundled_data.py --out runs/phantoms --seed 3 --patients 32

Deterministic; takes a few seconds. 40 patients give 64 yes/no samples (about 70 % of the findings asked for are
present, evenly over five findings) and eight choice and open ones; the number of questions is proportional to the
number of patients. No training picture uses seeds 2 and 3.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np

from cxr_faith.data.sources.phantom import FINDINGS, Phantom, questions, sample_phantom
from cxr_faith.data.sources.phantom_files import write_samples
from cxr_faith.data.sources.phantom_questions import Question

SIZE = (256, 288)
OTHER_TOPICS = ("side", "where", "list", "side", "where", "list", "side", "where")


def draw_phantoms(seed: int, patients: int) -> list[Phantom]:
    """One study per patient and a second one for the first fifth; findings appear equally often, in turn."""
    phantoms = []
    for i in range(patients + patients // 5):
        patient = f"p{i % patients:03d}"
        study = f"{patient}-s{i // patients}"
        wanted = {FINDINGS[i % 5], FINDINGS[(i // 5 + i) % 5]} if i % 3 else {FINDINGS[i % 5]}
        phantoms.append(sample_phantom(f"{study}-i0", seed, patient, study, sorted(wanted)))
    return phantoms


def choose(phantoms: list[Phantom], seed: int, patients: int) -> list[list[Question]]:
    """Choose each phantom's questions: balanced over findings, with 70 % present."""
    rng = np.random.default_rng(seed)
    chosen: list[list[Question]] = [[] for _ in phantoms]
    present, absent = round(patients * 9 / 40), round(patients * 4 / 40)
    need = {(f, word): present if word == "yes" else absent for f in FINDINGS for word in ("yes", "no")}
    need["pleural effusion", "no"] = absent - 1
    order = sorted(range(len(phantoms)), key=lambda i: phantoms[i].image_id)
    for _ in range(3):
        for i in order:
            options = [q for q in questions(phantoms[i]) if q.kind == "yes_no"]
            taken = {q.finding for q in chosen[i]}
            options = [q for q in options if q.finding not in taken and need[str(q.finding), q.answer] > 0]
            # One in four asks about a side, the others about presence anywhere.
            plain = "side_presence" if rng.random() < 0.25 else "presence"
            options = [q for q in options if q.topic == plain] or options
            if options:
                most = max(need[str(q.finding), q.answer] for q in options)
                options = [q for q in options if need[str(q.finding), q.answer] == most]
                question = options[rng.integers(len(options))]
                need[str(question.finding), question.answer] -= 1
                chosen[i].append(question)
    for topic, start in zip(OTHER_TOPICS, range(0, len(phantoms), len(phantoms) // len(OTHER_TOPICS)), strict=False):
        for i in range(start, len(phantoms)):
            options = [q for q in questions(phantoms[i]) if q.topic == topic]
            if options:
                chosen[i].append(options[rng.integers(len(options))])
                break
    return chosen


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--patients", type=int, default=40, help="at least 10")
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    phantoms = draw_phantoms(args.seed, args.patients)
    asked = [(p, q) for p, q in zip(phantoms, choose(phantoms, args.seed, args.patients), strict=True) if q]
    print(write_samples(args.out, asked, SIZE, split="test"))


if __name__ == "__main__":
    main()
