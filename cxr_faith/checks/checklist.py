"""One line of `doctor`'s list, and the list as a file and as a table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

Status = Literal["pass", "warn", "fail"]
TOO_FEW = "too few samples of the right kind: give --samples a larger number"


@dataclass(frozen=True)
class Check:
    """One line of the list.

    Attributes:
        name: what was checked.
        status: `fail`: do not trust a benchmark with it; `warn`: know about it.
        figure: what was measured.
        advice: what to do about it; empty for a pass.
    """

    name: str
    status: Status
    figure: str
    advice: str = ""


def graded(
    name: str, value: float, good: bool, fair: bool, advice: str, unit: str = "", missing: str = TOO_FEW
) -> Check:
    """A check of a number.

    Args:
        name: what was checked.
        value: the number; NaN: it could not be measured, which is a warning.
        good: whether it is a pass.
        fair: whether it is a warning rather than a fail.
        advice: what to do unless it is a pass.
        unit: written after the number.
        missing: what to do where it could not be measured.
    """
    if not np.isfinite(value):
        return Check(name, "warn", "not measured", missing)
    return judged(name, good, f"{value:.3g}{unit}", advice, fair)


def judged(name: str, good: bool, figure: str, advice: str, fair: bool = False) -> Check:
    """A check with a figure in words: pass if good, warn if fair, else fail."""
    return Check(name, "pass", figure) if good else Check(name, "warn" if fair else "fail", figure, advice)


def failed(checks: Sequence[Check]) -> bool:
    """Whether any check failed."""
    return any(check.status == "fail" for check in checks)


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """What `doctor.json` holds."""
    return {"ok": not failed(checks), "checks": [asdict(check) for check in checks]}


def render_doctor(checks: Sequence[Check]) -> Table:
    """The list for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, title="doctor", title_justify="left")
    for column in ("check", "", "figure", "what to do"):
        table.add_column(column, overflow="fold")
    color = {"pass": "green", "warn": "yellow", "fail": "bold red"}
    for check in checks:
        table.add_row(check.name, Text(check.status, style=color[check.status]), check.figure, check.advice)
    return table
