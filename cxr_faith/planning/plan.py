"""The plan of a run: counts from its config and data, times and sizes from a pilot or from the model's shape."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import t as student

from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.planning.maps import MapPasses, count_maps
from cxr_faith.planning.operations import Shape
from cxr_faith.planning.options import PlanOptions
from cxr_faith.planning.passes import CurveCounter, image_groups
from cxr_faith.planning.pilot import Pilot, read_pilot
from cxr_faith.planning.power import Need, needs
from cxr_faith.planning.work import Work, count_work
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.vlm.loading import peek

ROW_BYTES, ROW_CELLS = 2_843, 144
"""Bytes of a record and cells of its map in a run of the demo with the full schedule (`benchmarks/budget.py`)."""
FILES_A_RANK = 100
"""A rank never has more files of records than this while it runs, and one when it is done."""
LONGEST_JOB = 24 * 3600.0
"""Seconds that `slurm/eval.sh` asks for; a longer run goes back into the queue."""
SPARE = 1.25
"""The time limit of a job is this many times the upper end of the estimate."""


@dataclass(frozen=True)
class Seconds:
    """Time of one GPU, or of one rank on a CPU, for the whole run."""

    expected: float
    """The estimate."""
    low: float
    """Lower end of its 95 % interval; the estimate itself where there is none."""
    high: float
    """Upper end."""
    overhead: float
    """Seconds of each job beside that: loading before the first batch, and what follows the last one."""


@dataclass(frozen=True)
class RunPlan:
    """What a run will take.

    Attributes:
        work: its passes.
        maps: passes of the maps of one question.
        seconds: time of one GPU; None where neither a pilot nor the model's shape tells it.
        memory: bytes of one GPU, or of one rank on a CPU; None: not known.
        row_bytes: bytes of a record.
        needs: patients that the pairs of methods need, fewest first; empty without a pilot of ten patients.
        pilot: the pilot; None: there is none.
        options: of the plan.
        same_grid: whether passes of maps were counted on a grid of the model's size.
        lacking: names of maps that the pilot does not have.
    """

    work: Work
    maps: MapPasses
    seconds: Seconds | None
    memory: int | None
    row_bytes: float
    needs: list[Need]
    pilot: Pilot | None
    options: PlanOptions
    same_grid: bool
    lacking: Sequence[str] = ()

    @property
    def job_seconds(self) -> float | None:
        """Time limit of one job, rounded up to ten minutes; at most a day, after which it goes on in the queue."""
        if self.seconds is None:
            return None
        needed = SPARE * (self.seconds.high / self.options.gpus + self.seconds.overhead)
        return min(600 * math.ceil(needed / 600), LONGEST_JOB)


def make_plan(module: FaithfulnessModule, data: CXRVQADataModule, options: PlanOptions) -> RunPlan:
    """Plan a run; no weights are read but those of the bundled model, which counts the passes of maps.

    Args:
        module: the checked configuration.
        data: its samples; their pictures are not read.
        options: the pilot, and what is asked.

    Raises:
        ValueError: the schedule does not fit the model, the data cannot be used, or the pilot is of no use; one line.
    """
    module.check_model()
    config, protocol = module.model_config, module.protocol
    grid, data.image_size = peek(config.source, config.revision, config.image_size)
    data.cache = None  # it would be made
    if not data.samples_total:
        raise ValueError(f"{data.manifest} has no sample")
    pilot = None if options.pilot is None else read_pilot(Path(options.pilot), module)
    maps, cells = count_maps(module.method_set), grid[0] * grid[1]
    same_grid = maps.cells == cells
    if pilot is not None:
        maps = maps.measured({name: cost for name, cost in pilot.costs.items() if name in module.method_set.methods})
    known, use = ({}, {}) if pilot is None or protocol.adaptive else (pilot.known, pilot.use)
    lacking: Sequence[str] = () if pilot is None else _lacking(pilot, module)
    work = count_work(image_groups(data), CurveCounter(grid, module.method_set, protocol, lacking), maps, known, use)
    if pilot is not None:
        seconds, memory, row_bytes = _paced(pilot, work, protocol.adaptive), pilot.pace.memory, pilot.row_bytes
        needed = needs(pilot.records, module.method_set.explaining, options.difference)
        return RunPlan(work, maps, seconds, memory, row_bytes, needed, pilot, options, same_grid, lacking)
    shape, row_bytes = Shape(config, cells), ROW_BYTES * cells / ROW_CELLS
    if not shape.counted:
        return RunPlan(work, maps, None, None, row_bytes, [], None, options, same_grid)
    computed = shape.operations(work) / (options.peak * 1e12 * options.share)
    seconds = Seconds(computed, computed, computed, 0.0)
    return RunPlan(work, maps, seconds, shape.memory(module.micro_batch), row_bytes, [], None, options, same_grid)


def _lacking(pilot: Pilot, module: FaithfulnessModule) -> list[str]:
    """Names of maps that the pilot does not have; with adaptive curves, whose passes it alone tells, it must."""
    lacks = pilot.lacks(module.method_set, module.protocol.conditions)
    if lacks and module.protocol.adaptive:
        said = f"--pilot {pilot.run_dir}: lacks {', '.join(lacks)} of the config"
        raise ValueError(f"{said}: passes of adaptive curves are those of a pilot that has all of it")
    return [name for name in module.method_set.names if name in lacks]


def _paced(pilot: Pilot, work: Work, adaptive: bool) -> Seconds:
    """Time at the pilot's rate; adaptive curves take as many passes a sample as they took in the pilot."""
    pace = pilot.pace
    forwards = work.samples * pace.forwards / pace.samples if adaptive else work.forwards
    expected = forwards * pace.rate
    margin = 0.0 if pace.batches < 2 else float(student.ppf(0.975, pace.batches - 1)) * pace.rate_error * forwards
    return Seconds(expected, max(expected - margin, 0.0), expected + margin, pilot.overhead)
