"""Would adaptive curves change a board? `python benchmarks/adaptive_board.py [--questions 300] [--out runs/adaptive]`.

Evaluates the bundled model on phantoms twice: with full curves of 51 points, and with `steps: adaptive`. The points of
adaptive curves are some of those of full curves, so the second run takes the score of every picture from the first one,
which keeps them below OUT/scores: only answers and maps are computed twice. Both are ordinary run directories, and the
same command goes on after a stop. Then prints gaps, intervals and rankings side by side, and whether `adaptive` may be
a default: no gap of the board of all samples moves by more than .005, and no significance changes on any board.

Exit status: that of `cxr-faith evaluate` where a run did not finish, else 0.
"""

import argparse
import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import yaml
from panel_data import write
from torch import Tensor

from cxr_faith.__main__ import main as cxr_faith
from cxr_faith.perturb.engine import PIXELS, Engine, Plan
from cxr_faith.perturb.road import Fill
from cxr_faith.protocol import ADAPTIVE
from cxr_faith.records import GAPS
from cxr_faith.storage.atomic import write_atomic
from cxr_faith.summary.board import Board
from cxr_faith.summary.board_row import BoardRow
from cxr_faith.summary.load import read_summary
from cxr_faith.summary.significance import TESTED
from cxr_faith.summary.summary import Summary
from cxr_faith.vlm import Prompt, Target
from cxr_faith.vlm.base import PictureScores

METHODS: dict[str, dict[str, object]] = {"attention": {}, "gradient": {}, "integrated_gradients": {"baseline": "mean"}}
RANDOM_ORDERS = 4
STEPS = 50
SEED = 6
MOST = 0.005
"""A gap may move by this much."""
LEVEL = 0.05

Known = dict[tuple[int, bytes], np.ndarray]
"""(question, packed mask) → its scores [columns]."""


class Scores:
    """Scores of perturbed pictures by picture, questions and mask, in files of a folder.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._run = folder, Engine.run
        self.asked = self.computed = 0
        """Pictures that a plan asked for, and those of them that the model ran."""

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While this lasts, an engine runs the pictures that no file holds, and keeps their scores."""
        with patch.object(Engine, "run", lambda engine, *given: self._scored(engine, *given)):
            yield

    def _scored(
        self,
        engine: Engine,
        original: Tensor,
        removed: Tensor,
        plan: Plan,
        prompts: Sequence[Prompt],
        targets: Sequence[Target],
        fill: Fill | None = None,
        space: str = PIXELS,
    ) -> list[PictureScores]:
        """What `Engine.run` gives."""
        pixels = b"".join(picture.cpu().numpy().tobytes() for picture in (original, removed))
        asked = repr((prompts, targets, space)).encode()
        path = self._folder / f"{hashlib.sha256(pixels + asked).hexdigest()}.npz"
        known, rest = _read(path), Plan(plan.n_cells)
        for question, _, mask in _pictures(plan):
            if (question, _key(mask)) not in known:
                rest.add(question, mask[None])
        if len(rest):
            scores = self._run(engine, original, removed, rest, prompts, targets, fill, space)
            columns = [torch.stack(one.columns).numpy() for one in scores]
            known |= {(question, _key(mask)): columns[question][:, place] for question, place, mask in _pictures(rest)}
            _write(path, known)
        self.asked, self.computed = self.asked + len(plan), self.computed + len(rest)
        result = torch.full((len(prompts), len(fields(PictureScores)), len(plan)), torch.nan, dtype=torch.float64)
        for question, place, mask in _pictures(plan):
            result[question, :, place] = torch.from_numpy(known[question, _key(mask)])
        return [PictureScores(*rows) for rows in result]


def _pictures(plan: Plan) -> Iterator[tuple[int, int, np.ndarray]]:
    """Each question's pictures: the question, the place in the plan, and the mask [N]."""
    for questions, places, masks in plan.groups():
        for question in questions:
            yield from ((question, int(place), mask) for place, mask in zip(places, masks, strict=True))


def _key(mask: np.ndarray) -> bytes:
    return bytes(np.packbits(mask))


def _read(path: Path) -> Known:
    if not path.exists():
        return {}
    with np.load(path) as stored:
        keys = zip(stored["question"].tolist(), map(bytes, stored["mask"]), strict=True)
        return dict(zip(keys, stored["scores"], strict=True))


def _write(path: Path, known: Known) -> None:
    content = io.BytesIO()
    masks = np.stack([np.frombuffer(mask, np.uint8) for _, mask in known])
    np.savez(content, question=[question for question, _ in known], mask=masks, scores=np.stack(list(known.values())))
    write_atomic(path, content.getvalue())


def evaluate(out: Path, manifest: Path, steps: int | str, scores: Scores) -> int:
    """One of the two runs, in OUT/full or OUT/adaptive; returns the exit status of `cxr-faith evaluate`."""
    name = "adaptive" if steps == ADAPTIVE else "full"
    protocol = {"steps": steps, "random_orders": RANDOM_ORDERS, "controls": "none"}
    config = {
        "trainer": {"accelerator": "cpu", "devices": 1},
        "model": {"methods": METHODS, "vlm": {"path": "bundled"}, "protocol": protocol},
        "data": {"manifest": str(manifest), "data_root": str(manifest.parent)},
    }
    file = out / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    with scores.kept():
        return cxr_faith(["evaluate", "--config", str(file), "--run_dir", str(out / name)])


def lines(full: Summary, adaptive: Summary) -> Iterator[str]:
    """The two boards of all samples side by side, and the verdict."""
    first, second = full.board(), adaptive.board()
    yield f"{first.n_samples} questions of {full.n_patients} patients; full curves first, then adaptive ones"
    order = _ranking(first)
    yield f"{'method':21}{'place':>7}  {'srg, full':23}  {'srg, adaptive':23}  {'to random':15}  to center"
    for name in order:
        pair = [board.row(name) for board in (first, second)]
        if None not in pair:
            places = f"{order.index(name) + 1} {_ranking(second).index(name) + 1}"
            srgs = "  ".join(f"{row.srg:7.4f} {_ends(row):15}" for row in pair if row is not None)
            gaps = ("gap_srg_random", "gap_srg_center")
            yield f"{name:21}{places:>7}  {srgs}  " + "  ".join(
                " ".join(_number(row.value(gap)) for row in pair if row is not None) for gap in gaps
            )
    moved, where = max(gap_moves(first, second), default=(0.0, "no gap"))
    changes = [change for pair in zip(full.boards, adaptive.boards, strict=True) for change in changed(*pair)]
    yield f"largest move of a gap: {moved:.4f} ({where}), allowed {MOST}"
    yield f"significances that change on {len(full.boards)} boards: {len(changes)}"
    yield from (f"  {change}" for change in changes)
    may = moved <= MOST and not changes
    yield f"steps: adaptive {'may' if may else 'may not'} be a default"


def _number(value: float | None) -> str:
    return f"{'–':>7}" if value is None else f"{value:7.4f}"


def _ends(row: BoardRow) -> str:
    ends = row.intervals["srg"].ends
    return "–" if ends is None else f"[{ends[0]:.3f}, {ends[1]:.3f}]"


def _ranking(board: Board) -> list[str]:
    """Methods with an srg, best first."""
    return [row.method for row in sorted(board.rows, key=lambda row: -(row.srg or 0.0)) if row.srg is not None]


def gap_moves(full: Board, adaptive: Board) -> Iterator[tuple[float, str]]:
    """How far each gap moves, and which one it is."""
    for row in full.rows:
        other = adaptive.row(row.method)
        for name in GAPS:
            values = row.value(name), None if other is None else other.value(name)
            if values[0] is not None and values[1] is not None:
                yield abs(values[0] - values[1]), f"{name} of {row.method}"


def changed(full: Board, adaptive: Board) -> Iterator[str]:
    """Tests whose p after Holm crosses .05: those of the methods' columns, and of their differences."""
    for row in full.rows:
        other = adaptive.row(row.method)
        for name in TESTED if other is not None else ():
            yield from _crossing(
                f"{full.slice}, {name} of {row.method}", *(one.intervals[name].p_holm for one in (row, other))
            )
    pairs = {(pair.a, pair.b): pair.p_holm for pair in adaptive.differences}
    for pair in full.differences:
        yield from _crossing(f"{full.slice}, {pair.a} and {pair.b}", pair.p_holm, pairs.get((pair.a, pair.b)))


def _crossing(what: str, p: float | None, other: float | None) -> Iterator[str]:
    if p is not None and other is not None and (p < LEVEL) != (other < LEVEL):
        yield f"{what}: p {p:.4f} with full curves, {other:.4f} with adaptive ones"


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the phantoms, run both, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/adaptive"))
    options = parser.parse_args(arguments)
    manifest = options.out / "phantoms" / "manifest.parquet"
    if not manifest.exists():
        write(manifest.parent, options.questions, SEED)
    scores = Scores(options.out / "scores")
    for steps in (STEPS, ADAPTIVE):
        scores.asked = scores.computed = 0
        status = evaluate(options.out, manifest, steps, scores)
        if status:
            return status
        print(f"steps {steps}: {scores.asked:,} pictures, {scores.computed:,} of them run now")
    print("\n".join(lines(*(read_summary(options.out / name) for name in ("full", "adaptive")))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
