"""The result of `sanity`, as `sanity.json` holds it and as a terminal shows it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table

from cxr_faith.report.formats import number

CHANGED = ("blank picture", "other picture", "no question")
"""Changes of the input that should change the map."""

SMALL_CHANGES = {
    "shift 2 px": "shift:2",
    "contrast +5 %": "contrast:1.05",
    "contrast -5 %": "contrast:0.95",
    "noise 2 %": "noise:0.02",
}
"""Changes of the picture that should change neither answer nor map: name → condition."""


@dataclass(frozen=True)
class Likeness:
    """How alike two sets of maps are, as means over the samples; None where no pair of maps can be compared.

    Attributes:
        spearman: rank correlation of the cells.
        ssim: structural similarity.
        top_overlap: share of the strongest cells that both maps have.
    """

    spearman: float | None = None
    ssim: float | None = None
    top_overlap: float | None = None


@dataclass(frozen=True)
class MethodSanity:
    """One method's maps against those of the trained model on the intact input.

    Attributes:
        control: whether the method is a control, which ignores the model by design and cannot fail.
        random_pairs: maps of different samples, for comparison.
        chance: .95 quantile of Spearman over all pairs of maps of different pictures; None if no pair can be compared.
        inputs: maps for each changed input.
        other_answer: maps of the other answer; None if no question is a yes/no question.
        cascade: maps after each stage that makes more of the model random, top down.
        interval: 95 % interval, over pictures, of the mean Spearman with all layers random.
        failed: whether that interval lies above `chance`; None if there is no interval or no pair.
    """

    control: bool
    random_pairs: Likeness
    chance: float | None
    inputs: Mapping[str, Likeness]
    other_answer: Likeness | None
    cascade: Mapping[str, Likeness]
    interval: tuple[float, float] | None
    failed: bool | None

    def to_dict(self) -> dict[str, Any]:
        """The method's part of `sanity.json`."""
        answer = {} if self.other_answer is None else {"other_answer": asdict(self.other_answer)}
        return {
            "control": self.control,
            "random_pairs": asdict(self.random_pairs),
            "chance": self.chance,
            "inputs": {change: asdict(likeness) for change, likeness in self.inputs.items()},
            **answer,
            "cascade": [{"stage": stage, **asdict(likeness)} for stage, likeness in self.cascade.items()],
            "interval": None if self.interval is None else list(self.interval),
            "failed": self.failed,
        }


@dataclass(frozen=True)
class SanityResult:
    """The result of `sanity`.

    Attributes:
        samples: number of samples that were explained.
        answers_kept: share of the answers that each changed input keeps.
        methods: method → its result.
    """

    samples: int
    answers_kept: Mapping[str, float]
    methods: Mapping[str, MethodSanity]

    def to_dict(self) -> dict[str, Any]:
        """What `sanity.json` holds."""
        return {
            "samples": self.samples,
            "inputs": {change: {"answers_kept": share} for change, share in self.answers_kept.items()},
            "methods": {name: method.to_dict() for name, method in self.methods.items()},
        }


def render_sanity(result: SanityResult) -> Table:
    """Spearman to the trained model's maps, one row for each method."""
    table = Table(box=box.SIMPLE_HEAD, title=f"sanity · {result.samples} samples · Spearman to the trained maps")
    stages = list(next(iter(result.methods.values())).cascade)
    # A terminal has no room for every layer; the file has them all.
    shown = [stages[index] for index in sorted({0, len(stages) // 2, len(stages) - 1})]
    table.add_column("method", no_wrap=True)
    for column in ("random pairs (.95)", *CHANGED, "small shifts, lowest", "other answer", *shown, "verdict"):
        table.add_column(column, justify="right", overflow="fold")
    for name, method in result.methods.items():
        small = min((method.inputs[change] for change in SMALL_CHANGES), key=lambda likeness: likeness.spearman or 0.0)
        inputs = [*(method.inputs[change] for change in CHANGED), small, method.other_answer or Likeness()]
        columns = [method.random_pairs, *inputs, *(method.cascade[stage] for stage in shown)]
        pairs, *others = [number(likeness.spearman) for likeness in columns]
        low, high = method.interval or (None, None)
        others[-1] += f" [{number(low)}, {number(high)}]" if method.interval else ""
        table.add_row(name, f"{pairs} ({number(method.chance)})", *others, _verdict(method))
    kept = ", ".join(f"{change} {share:.0%}" for change, share in result.answers_kept.items())
    table.caption = (
        f"answers kept: {kept}\nFAIL: with all layers random, the 95 % interval [over pictures] lies above the .95 "
        "quantile of pairs of different pictures"
    )
    return table


def _verdict(method: MethodSanity) -> str:
    if method.control:
        return "control"
    return {None: "not measured", True: "FAIL", False: "pass"}[method.failed]
