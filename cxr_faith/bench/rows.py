"""The rows of the benchmark's table: each contestant with one question and with all."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from cxr_faith.bench.contest import Contest
from cxr_faith.bench.flops import stage_flops
from cxr_faith.bench.ratios import library_forwards
from cxr_faith.bench.results import BenchRow, Spread
from cxr_faith.bench.turns import Turn, exact_counts
from cxr_faith.bench.work import engine_flops, naive_flops, whole_forward_flops


def bench_rows(contest: Contest, several: bool, peak: float) -> Iterator[BenchRow]:
    """Rows of all contestants.

    Args:
        contest: what they did.
        several: all questions instead of one.
        peak: operations a second of the matmul peak.
    """
    scene = contest.scene
    questions = len(scene.cases) if several else 1

    def row(
        name: str,
        seconds: Sequence[float],
        flops: float,
        counts: Mapping[str, int],
        phases: Mapping[str, float] | None = None,
        curves_mfu: float | None = None,
    ) -> BenchRow:
        spread = Spread.of(seconds)
        speeds = (flops / 1e9, flops / spread.median / peak, 3600 / spread.median)
        return BenchRow(name, questions, spread, *speeds, counts, phases, curves_mfu, contest.peaks.get(name))

    naive = {stage: questions * count for stage, count in contest.naive[0].counts.items()}
    seconds = [questions * turn.total for turn in contest.naive]
    yield row("naive", seconds, naive_flops(scene, naive), naive, _phases(contest.naive, questions))
    for name, forward in contest.libraries.items():
        forwards = questions * library_forwards(scene, name)
        flops = forwards * whole_forward_flops(scene, 1)
        yield row(name, [forwards * each for each in forward], flops, {"forward": forwards})
    pictures, asked = exact_counts(scene, range(questions))
    yield _engine(contest, several, peak, pictures, asked, row)
    for name, variants in contest.variants.items():
        turns = [(variant.alone, variant.whole)[several] for variant in variants]
        counts = turns[0].counts
        yield row(name, [turn.total for turn in turns], engine_flops(scene, counts), counts, _phases(turns, 1))
    bare = [stages.total(pictures, asked) for stages in contest.bare]
    flops = stage_flops(scene.vlm, scene.cases[0].prompt).total(pictures, asked)
    yield row("floor", bare, flops, {"encode": pictures, "score": asked})


def _engine(
    contest: Contest, several: bool, peak: float, pictures: int, asked: int, row: Callable[..., BenchRow]
) -> BenchRow:
    scene, turns = contest.scene, [turn[several] for turn in contest.engine]
    counts, phases = turns[0].counts, _phases(turns, 1)
    of_curves = {"embed": 2, "encode": pictures, "prefill": pictures, "score": asked, "trace": 0, "backward": 0}
    curves_mfu = engine_flops(scene, of_curves) / phases["curves"] / peak
    seconds = [turn.total for turn in turns]
    return row("engine", seconds, engine_flops(scene, counts), counts, phases, curves_mfu)


def _phases(turns: Sequence[Turn], times: int) -> dict[str, float]:
    return {phase: times * float(np.median([turn.seconds[phase] for turn in turns])) for phase in turns[0].seconds}
