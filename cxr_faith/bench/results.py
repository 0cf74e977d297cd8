"""What the benchmark measured, as its JSON file holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cxr_faith.bench.flops import Stages


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of a value over the turns.

    Attributes:
        median: the median.
        min: the smallest value.
        max: the largest value.
    """

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of one or more values."""
        return cls(float(np.median(values)), float(np.min(values)), float(np.max(values)))


@dataclass(frozen=True)
class BenchRow:
    """One contestant at one number of questions.

    Attributes:
        name: the contestant.
        questions: number of questions about the picture.
        seconds: time of a turn.
        gflop: floating-point operations of a turn, in 10⁹.
        mfu: share of the matmul peak that a turn reaches.
        studies_per_hour: turns in an hour.
        counts: stage → pictures that pass it in a turn.
        phases: phase → median seconds; None where phases are not timed.
        curves_mfu: share of the matmul peak while curves run; None for all but the engine.
        peak_memory: highest memory in bytes; None where it cannot be measured.
    """

    name: str
    questions: int
    seconds: Spread
    gflop: float
    mfu: float
    studies_per_hour: float
    counts: Mapping[str, int]
    phases: Mapping[str, float] | None
    curves_mfu: float | None
    peak_memory: int | None

    def to_dict(self) -> dict[str, Any]:
        """The row in the JSON file, without what was not timed."""
        values = asdict(self)
        return {name: value for name, value in values.items() if value is not None or name == "peak_memory"}


@dataclass(frozen=True)
class Machine:
    """The hardware and the versions that the numbers belong to.

    Attributes:
        device: name of the GPU or of the processor.
        cores: cores of the processor.
        threads: threads that PyTorch uses.
        dtype: number format of the model.
        parameters: number of the model's parameters.
        torch: version of PyTorch.
        transformers: version of transformers.
    """

    device: str
    cores: int | None
    threads: int
    dtype: str
    parameters: int
    torch: str
    transformers: str


@dataclass(frozen=True)
class Schedule:
    """What every contestant has to do.

    Attributes:
        steps: points of a curve after the first.
        random_orders: orders of the random baseline.
        methods: methods whose maps are made and scored.
        ig_steps: points of the path of integrated gradients.
        cells: cells of the picture.
        repeats: turns of each contestant.
    """

    steps: int | str
    random_orders: int
    methods: Sequence[str]
    ig_steps: int
    cells: int
    repeats: int


@dataclass(frozen=True)
class Agreement:
    """How far the engine's curves are from the usual recipe's.

    Attributes:
        difference: largest difference of a point, in logits.
        tolerance: largest difference that is allowed.
    """

    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the curves agree."""
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class AreaError:
    """How far adaptive areas are from the exact schedule's, as shares of the effect.

    Attributes:
        largest: the largest difference.
        stated: the largest error that the adaptive schedule stated.
    """

    largest: float
    stated: float


@dataclass(frozen=True)
class Variants:
    """Accuracy of the two cheaper schedules.

    Attributes:
        auc_error: error of adaptive areas; None if no answer could be scored.
        spearman: rank correlation of the maps' srg between tokens and pixels, over the questions.
    """

    auc_error: AreaError | None
    spearman: Spread

    def to_dict(self) -> dict[str, Any]:
        """The part of the JSON file."""
        return {
            "auc_error": {} if self.auc_error is None else asdict(self.auc_error),
            "spearman": asdict(self.spearman),
        }


@dataclass(frozen=True)
class BenchResult:
    """Everything that was measured.

    Attributes:
        machine: hardware and versions.
        exact: whether every forward was run; else a few of each kind were timed.
        schedule: the job.
        matmul_peak_gflops: best speed of large matrix products, 10⁹ operations a second.
        rows: contestants, first for one question, then for all.
        ratios: title → quotient of two contestants within each turn.
        bare_ms: milliseconds per picture of each bare stage.
        weights_bytes: size of the model's weights.
        map_peaks: method → highest memory of its maps in bytes; None where it cannot be measured.
        left_out: why a library's row is missing.
        variants: accuracy of the cheaper schedules; None where forwards were sampled.
        agreement: engine and usual recipe.
    """

    machine: Machine
    exact: bool
    schedule: Schedule
    matmul_peak_gflops: float
    rows: Sequence[BenchRow]
    ratios: Mapping[str, Spread]
    bare_ms: Stages
    weights_bytes: int
    map_peaks: Mapping[str, float | None]
    left_out: Sequence[str]
    variants: Variants | None
    agreement: Agreement

    def to_dict(self) -> dict[str, Any]:
        """What the JSON file holds, but for the preset's name."""
        return {
            "machine": asdict(self.machine),
            "exact": self.exact,
            "schedule": asdict(self.schedule),
            "matmul_peak_gflops": self.matmul_peak_gflops,
            "rows": [row.to_dict() for row in self.rows],
            "ratios": {title: asdict(ratio) for title, ratio in self.ratios.items()},
            "bare_ms": asdict(self.bare_ms),
            "memory": {"weights": self.weights_bytes, "maps": dict(self.map_peaks)},
            "left_out": list(self.left_out),
            "variants": {} if self.variants is None else self.variants.to_dict(),
            "agreement": {**asdict(self.agreement), "passed": self.agreement.passed},
        }
