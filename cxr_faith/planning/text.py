"""A plan as lines for the terminal."""

import shlex
from collections.abc import Iterator, Sequence
from datetime import timedelta

from cxr_faith.planning.plan import FILES_A_RANK, LONGEST_JOB, RunPlan

WIDTH = 50


def plan_lines(plan: RunPlan, adaptive: bool, arguments: Sequence[str]) -> Iterator[str]:
    """The lines of a plan.

    Args:
        plan: the plan.
        adaptive: whether curves stop at a stated error, so that passes are at most those counted.
        arguments: those of the run: `slurm/eval.sh` takes the first config by itself.
    """
    yield from _counts(plan, adaptive)
    yield from _costs(plan)
    yield from _patients(plan)
    yield from _command(plan, arguments)


def _counts(plan: RunPlan, adaptive: bool) -> Iterator[str]:
    work = plan.work
    exact = work.known == 1 and not plan.maps.sets and not plan.lacking
    yield f"passes, {'exact' if exact else 'expected' if work.known else 'at most'}"
    for name, value in (
        ("samples", work.samples),
        ("images", work.images),
        ("patients", work.patients),
        ("forwards for answers", work.answers),
        ("forwards for maps", work.maps),
        ("forwards for curves", work.curves),
        ("forwards for image use", work.use),
        ("forwards", work.forwards),
        ("backwards for maps", work.backwards),
        ("distinct perturbed pictures", work.pictures),
    ):
        yield _row(name, f"{value:,}")
    if 0 < work.known < 1:
        yield f"  {work.known:.0%} of the samples have maps in the pilot; the others are taken to be like them"
    if not work.known:
        yield "  maps that agree share pictures, and answers that cannot be explained need none"
    if plan.lacking:
        yield f"  not in the pilot, so that their curves count at most: {', '.join(plan.lacking)}"
    if adaptive:
        yield "  adaptive curves stop before that; a pilot tells by how much"
    for name in plan.maps.unknown:
        yield f"  {name}: its passes are not known without a pilot that has it, and are left out"
    if not plan.same_grid:
        yield f"  passes of maps are those of {plan.maps.cells} cells; occlusion and greedy take more on a larger grid"


def _costs(plan: RunPlan) -> Iterator[str]:
    seconds, gpus, pilot = plan.seconds, plan.options.gpus, plan.pilot
    unit = "GPU" if pilot is None or pilot.gpu else "rank"
    source = "computed, not measured" if pilot is None else f"at the pace of {pilot.run_dir}"
    yield f"\ntime, {source}"
    if seconds is None:
        yield "  not known: operations are counted for Gemma 3 alone; give --pilot RUN"
    else:
        ends = f" [{_hours(seconds.low)}, {_hours(seconds.high)}]" if seconds.high > seconds.expected else ""
        yield _row(f"{unit}-hours{' [95 %]' if ends else ''}", f"{_hours(seconds.expected)}{ends}")
        wall = seconds.expected / gpus + seconds.overhead
        yield _row(f"hours on {gpus} of them, with loading" if gpus > 1 else "hours, with loading", _hours(wall))
        if pilot is None:
            yield f"  assumed: {plan.options.peak:,.0f} TFLOP/s, of which {plan.options.share:.0%} are reached"
        elif not ends:
            yield "  no interval: the pilot had a single batch"
    yield "\nmemory and disk"
    if plan.memory is not None:
        what = f"memory of a {unit}, GB" if unit == "GPU" else "memory of a rank, GB"
        yield _row(what, f"{plan.memory / 1e9:.2f}")
    yield _row("records", f"{plan.work.rows:,}")
    yield _row("records, GB", f"{plan.work.rows * plan.row_bytes / 1e9:.2f}")
    yield _row("files of records while it runs, at most", f"{FILES_A_RANK * gpus:,}")
    yield _row("files of records at the end", f"{gpus:,}")


def _patients(plan: RunPlan) -> Iterator[str]:
    yield f"\npatients for a difference of {plan.options.difference:g} in srg, 80 % power, two-sided at .05"
    if not plan.needs:
        yield "  not known: give a --pilot with two methods and ten patients or more"
        return
    for name, need in (("middle", plan.needs[len(plan.needs) // 2]), ("most", plan.needs[-1])):
        yield _row(f"{name} of {len(plan.needs)} pairs ({' and '.join(need.pair)})", f"{need.patients:,}")
    yield _row("patients of this run", f"{plan.work.patients:,}")


def _command(plan: RunPlan, arguments: Sequence[str]) -> Iterator[str]:
    limit = plan.job_seconds
    if limit is None:
        return
    gpus, hours = plan.options.gpus, f"{int(limit // 3600):02d}:{int(limit % 3600 // 60):02d}:00"
    array = [f"--array=0-{gpus - 1}"] if gpus > 1 else []
    config, *rest = arguments
    words = ["sbatch", *array, f"--time={hours}", "slurm/eval.sh", config.removeprefix("--config="), *rest]
    yield f"\n{shlex.join(words)}"
    if limit == LONGEST_JOB:
        yield f"  longer than {timedelta(seconds=limit)}: a job goes back into the queue at its limit and resumes"


def _row(name: str, value: str) -> str:
    return f"  {name:<{WIDTH}} {value:>20}"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    if hours < 0.01:
        return "under 0.01"
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
