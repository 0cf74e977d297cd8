"""The bar of a run on a terminal of 80 columns."""

import io
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from cxr_faith.run.callbacks import RunProgress


@pytest.mark.parametrize(("ranks", "samples", "speed"), [(1, 8, 12), (8, 40_000, 950), (64, 1_005_000, 12_345)])
def test_the_bar_of_a_run_fits_80_columns(ranks: int, samples: int, speed: int) -> None:
    shown = io.StringIO()
    progress = RunProgress(Console(file=shown, width=80, force_terminal=True, color_system=None))
    loader = SimpleNamespace(dataset=range(samples))
    progress.on_predict_start(cast(Any, SimpleNamespace(world_size=ranks, predict_dataloaders=loader)), cast(Any, None))
    progress._bar.update(progress._task, completed=samples // 2, speed=speed)
    progress._bar.refresh()
    progress._bar.stop()
    lines = [re.sub(r"\x1b\[[?0-9]*\w", "", line) for line in re.split(r"[\r\n]+", shown.getvalue())]
    last = [line for line in lines if line.strip()][-1]
    assert f"{samples // 2}/{samples} {speed} forwards/s 0:00:0" in last and "ETA" in last
    assert all(len(line) <= 80 and "…" not in line for line in lines)
