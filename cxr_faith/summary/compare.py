"""Runs side by side, on the samples that all of them share: scores, verdicts, paired differences and rankings."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy.stats import kendalltau

from cxr_faith.records.controls import is_control
from cxr_faith.summary.board import Board
from cxr_faith.summary.columns import FEWEST, rounded
from cxr_faith.summary.compare_differences import RunDifference, run_differences, shared_slices
from cxr_faith.summary.compare_join import Joined, RunRecords, aligned, join, open_run
from cxr_faith.summary.result import Result
from cxr_faith.summary.sanity import with_sanity
from cxr_faith.summary.summarize import summarize
from cxr_faith.summary.summary import Summary
from cxr_faith.summary.verdict import verdict_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ComparedRun(Result):
    """One run of a comparison."""

    name: str
    """What tables and figures call it."""
    model: str
    """The model, as the run's config names it, with the commit of a hub id; empty if unknown."""
    data: str
    """The manifest; empty if unknown."""
    substrate: str
    """The run's substrate that is compared."""
    target: str
    """The target that is compared."""
    space: str
    """The space that is compared."""
    n_samples: int
    """Samples of the run."""
    n_not_shared: int
    """Those that another run lacks."""
    n_other_question: int
    """Those whose question is another one in another run."""
    n_other_picture: int
    """Those whose picture is another one in another run."""
    accuracy: float | None
    """Share of right answers, over the shared samples."""
    ece: float | None
    """Expected calibration error of p(yes) there."""
    coverage: float | None
    """Share of the shared samples that all methods of the run could score."""
    has_effect: float | None
    """Share of the shared questions whose score falls without the picture: the answer has an effect to explain."""
    uses_image: float | None
    """Share of the shared answers that use their picture; None where that was not measured."""
    ignores_image: float | None
    """Share of the shared answers that ignore their picture."""


@dataclass(frozen=True)
class ComparedScore(Result):
    """One method of one run on the shared samples of one slice."""

    slice: str
    """Which samples, as in `Board.slice`."""
    run: str
    """Name of the run."""
    method: str
    """Name of the method."""
    n: int
    """Samples in the mean."""
    n_patients: int
    """Their patients."""
    srg: float | None
    """Mean srg, weighted by the effect."""
    srg_low: float | None
    """Lower end of its interval."""
    srg_high: float | None
    """Upper end of its interval."""
    gap_srg_center: float | None
    """Gap to the center prior."""
    gap_low: float | None
    """Lower end of its interval."""
    gap_high: float | None
    """Upper end of its interval."""
    verdict: str | None
    """A key of `verdict.VERDICTS`; None for baselines and controls."""


@dataclass(frozen=True)
class Ranking(Result):
    """Whether two runs rank the methods alike; baselines and controls are left out."""

    slice: str
    """Which samples, as in `Board.slice`."""
    a: str
    """Name of the first run."""
    b: str
    """Name of the second run."""
    n_methods: int
    """Methods with an srg in both."""
    kendall_tau: float | None
    """Kendall's τ-b of the methods' srg; None under three methods."""


@dataclass(frozen=True)
class Comparison(Result):
    """Runs side by side on the samples that they share."""

    runs: tuple[ComparedRun, ...]
    """The runs, in the order given."""
    n_shared: int
    """Samples that are compared: all runs have them, with the same question and picture."""
    n_patients: int
    """Their patients."""
    n_unknown_picture: int
    """Shared samples whose picture's hash is missing in a run: they were joined by id and question."""
    scores: tuple[ComparedScore, ...]
    """Each method of each run, slice by slice."""
    verdicts: Mapping[str, tuple[str, ...]]
    """Name of a run → the three sentences of its verdict on the shared samples."""
    differences: tuple[RunDifference, ...]
    """Paired differences between runs, for each method that two runs have, and for their answers."""
    rankings: tuple[Ranking, ...]
    """Each pair of runs in each slice."""
    warnings: tuple[str, ...]
    """What a reader should know before the numbers, one sentence each."""

    @property
    def slices(self) -> list[str]:
        """Names of the slices, all samples first."""
        return list(dict.fromkeys(one.slice for one in self.scores))

    def to_frame(self) -> "pd.DataFrame":
        """One row per slice, run and method, with the columns of `ComparedScore`."""
        import pandas as pd

        return pd.DataFrame([one.to_dict() for one in self.scores])


def compare(runs: Sequence[str | Path], names: Sequence[str] | None = None) -> Comparison:
    """Compare runs on the samples that all of them have, joined by id, question and the picture's hash.

    Each run is compared in its first setting, or in the first one of the first run that all runs have.

    Args:
        runs: run directories, at least two.
        names: what to call them; default: the names of the folders.

    Raises:
        ValueError: fewer than two runs, a directory that is none, a run without records or of a newer version, names
            that are not unique, or runs without a shared sample; one line.
    """
    if len(runs) < 2:
        raise ValueError("compare needs at least two run directories")
    opened = aligned([open_run(Path(run)) for run in runs])
    called = _names(opened, names)
    joined = join([one.records for one in opened])
    if not joined.shared:
        raise ValueError(f"{' and '.join(called)} share no sample: {joined.reason}")
    frames = [one.records[one.records["sample_id"].isin(joined.shared)].reset_index(drop=True) for one in opened]
    slices = shared_slices(frames)
    summaries = [
        with_sanity(summarize(frame, one.methods, pieces=()), one.run_dir)
        for frame, one in zip(frames, opened, strict=True)
    ]
    boards = [{board.slice: board for board in summary.boards} for summary in summaries]
    return Comparison(
        runs=tuple(
            _run(name, one, summary, joined, place)
            for place, (name, one, summary) in enumerate(zip(called, opened, summaries, strict=True))
        ),
        n_shared=len(joined.shared),
        n_patients=summaries[0].n_patients,
        n_unknown_picture=joined.n_unknown_picture,
        scores=tuple(
            score
            for slice in slices
            for name, mine in zip(called, boards, strict=True)
            for score in _scores(name, mine[slice])
        ),
        verdicts={name: verdict_of(mine["all"]).sentences for name, mine in zip(called, boards, strict=True)},
        differences=tuple(run_differences(called, frames, slices)),
        rankings=tuple(_rankings(called, boards, slices)),
        warnings=tuple(_warnings(called, opened, joined)),
    )


def _names(opened: Sequence[RunRecords], names: Sequence[str] | None) -> list[str]:
    called = [one.run_dir.absolute().name for one in opened] if names is None else list(names)
    if len(set(called)) < len(called) and names is None:
        called = [str(one.run_dir) for one in opened]
    if len(called) != len(opened) or len(set(called)) < len(called):
        raise ValueError(f"compare needs one name for each run, all different: got {', '.join(called)}")
    return called


def _run(name: str, run: RunRecords, summary: Summary, joined: Joined, place: int) -> ComparedRun:
    board, lost = summary.board(), joined.lost[place]
    answers = next(one for one in summary.answers if one.slice == "all")
    share, use = verdict_of(board).no_effect, summary.image_use
    return ComparedRun(
        name=name,
        model=run.model,
        data=run.data,
        **board.setting._asdict(),
        n_samples=run.n_samples,
        n_not_shared=lost.not_there,
        n_other_question=lost.other_question,
        n_other_picture=lost.other_picture,
        accuracy=answers.accuracy,
        ece=summary.calibration.ece,
        coverage=board.n_common / board.n_samples,
        has_effect=None if share is None else 1 - share,
        uses_image=None if use is None else use.whole.uses,
        ignores_image=None if use is None else use.whole.ignores.share,
    )


def _scores(name: str, board: Board) -> Iterator[ComparedScore]:
    verdict = verdict_of(board)
    for row in board.ranked():
        ends, gaps = row.intervals["srg"].ends, row.intervals["gap_srg_center"].ends
        yield ComparedScore(
            slice=board.slice,
            run=name,
            method=row.method,
            n=row.n_common,
            n_patients=row.intervals["srg"].clusters,
            srg=row.srg,
            srg_low=None if ends is None else ends[0],
            srg_high=None if ends is None else ends[1],
            gap_srg_center=row.gap_srg_center,
            gap_low=None if gaps is None else gaps[0],
            gap_high=None if gaps is None else gaps[1],
            verdict=verdict.of(row.method),
        )


def _rankings(names: Sequence[str], boards: Sequence[Mapping[str, Board]], slices: Iterable[str]) -> Iterator[Ranking]:
    for slice in slices:
        for (a, left), (b, right) in combinations(zip(names, boards, strict=True), 2):
            means = [{row.method: row.srg for row in one[slice].rows if row.srg is not None} for one in (left, right)]
            shared = [name for name in means[0] if name in means[1] and not is_control(name)]
            tau = None
            if len(shared) >= FEWEST:
                tau = rounded(kendalltau(*([mean[name] for name in shared] for mean in means)).statistic)
            yield Ranking(slice, a, b, len(shared), tau)


def _warnings(names: Sequence[str], opened: Sequence[RunRecords], joined: Joined) -> Iterator[str]:
    for name, run in zip(names, opened, strict=True):
        total = run.n_samples if run.samples_total is None else run.samples_total
        if (complete := run.n_samples - run.unfinished) < total:
            yield f"Partial: {name} has {complete} of {total} samples{' with all rows' if run.unfinished else ''}."
        yield from (f"{name}: {caution}" for caution in run.cautions)
    settings = {name: run.settings[0] for name, run in zip(names, opened, strict=True)}
    if len(set(settings.values())) > 1:
        said = "; ".join(f"{name}: {', '.join(setting)}" for name, setting in settings.items())
        yield f"The runs are compared in different settings ({said})."
    yield from _differing("The protocols differ in", [run.protocol for run in opened])
    yield from _differing("The models are loaded or asked differently in", [run.asked for run in opened])
    options = [run.options for run in opened]
    for method in sorted(set(options[0]).intersection(*options[1:])):
        yield from _differing(f"{method} has other options in each run:", [one[method] for one in options])
    if joined.n_unknown_picture:
        some = f"{joined.n_unknown_picture} of {len(joined.shared)} shared samples"
        yield f"{some} lack the hash of their picture in a run: they were joined by id and question."


def _differing(words: str, parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A sentence for each key whose value is not the same in all runs, with the values; none if a part is unknown."""
    for key in sorted({key for one in parts for key in one}) if all(parts) else ():
        values = [repr(one[key]) if key in one else "not given" for one in parts]
        if len(set(values)) > 1:
            yield f"{words} {key}: {', '.join(values)}."
