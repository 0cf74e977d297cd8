"""Watches the numbers of a run and raises alerts while it is still going.

Each rank looks at its own last samples. It logs an alert once, writes it to `alerts/rank-<r>.jsonl` of the run
directory and shows it in TensorBoard as text; it raises the same alert again only if the reason was gone in between.
The report lists the alerts of all ranks among its warnings.
"""

import json
import logging
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from cxr_faith.metrics.agreement import spearman
from cxr_faith.metrics.functional import MEASURED
from cxr_faith.perturb.condition import NONE
from cxr_faith.printable import markdown_text
from cxr_faith.records.controls import is_control
from cxr_faith.report.alerts import Alert
from cxr_faith.run.event_file import event_file
from cxr_faith.run.live import FOLDER
from cxr_faith.storage.atomic import append, own_folder

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
_DENSE = 0.1  # of a map's range


@dataclass(frozen=True)
class Thresholds:
    """When the monitor raises an alert; shares are between 0 and 1.

    Attributes:
        window: number of samples to look at, the last ones of each rank.
        deletion_auc: the mean deletion AUC of a method is above this: removing its first cells changes little.
        dense_share: the maps of a method have more than this share of their cells above a tenth of their range.
        agreement: the mean Spearman correlation between the maps of the methods is below this.
        auc_spread: the standard deviation of the deletion AUC of a method is below this: all samples score alike.
        invalid_share: more than this share of rows is invalid.
        coverage_drop: coverage fell by more than this since the first window.
        throughput_share: samples per second are below this share of those of the first window.
    """

    window: int = 100
    deletion_auc: float = 0.8
    dense_share: float = 0.7
    agreement: float = 0.2
    auc_spread: float = 1e-3
    invalid_share: float = 0.05
    coverage_drop: float = 0.2
    throughput_share: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a window that is too small."""
        if self.window < 2:
            raise ValueError(f"monitor.window must be at least 2 samples, got {self.window}")


class Watch:
    """The last samples of one rank, and what is wrong with them."""

    def __init__(self, thresholds: Thresholds) -> None:
        self.thresholds = thresholds
        self.samples = 0
        self._rows: deque[list[Row]] = deque(maxlen=thresholds.window)
        self._agreement: deque[float] = deque(maxlen=thresholds.window)
        self._seconds: deque[float] = deque(maxlen=thresholds.window)
        self._first: tuple[float, float] | None = None  # coverage, samples a second
        self._standing: set[tuple[str, str | None]] = set()

    def add(self, rows: Sequence[Row], seconds: float) -> list[Alert]:
        """Add a batch; returns the alerts that are new.

        Args:
            rows: its records.
            seconds: how long it took.
        """
        by_sample: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if row.get("condition", NONE) == NONE:
                by_sample[row["sample_id"]].append(row)
        for members in by_sample.values():
            self.samples += 1
            self._rows.append(members)
            self._agreement.append(_agreement(members))
            self._seconds.append(seconds / len(by_sample))
        if len(self._rows) < self.thresholds.window:
            return []
        alerts = list(self._alerts())
        before, self._standing = self._standing, {(alert.kind, alert.method) for alert in alerts}
        return [alert for alert in alerts if (alert.kind, alert.method) not in before]

    def _alerts(self) -> Iterator[Alert]:
        limits, rows = self.thresholds, [row for members in self._rows for row in members]
        by_method: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if not is_control(row["method"]):
                by_method[row["method"]].append(row)
        for method, mine in by_method.items():
            yield from self._method_alerts(method, mine)
        agreement = _mean(self._agreement)
        if agreement < limits.agreement:
            yield self._alert("agreement", None, agreement, "the maps of the methods hardly agree (Spearman)")
        invalid = float(np.mean([row["status"] == "invalid" for row in rows]))
        if invalid > limits.invalid_share:
            yield self._alert("invalid_share", None, invalid, "of the rows are invalid; see their reason")
        coverage = float(np.mean([row["status"] in MEASURED for row in rows]))
        speed = len(self._seconds) / max(sum(self._seconds), 1e-9)
        self._first = self._first or (coverage, speed)
        if coverage < self._first[0] - limits.coverage_drop:
            yield self._alert("coverage_drop", None, coverage, f"coverage; it was {self._first[0]:.2f} at first")
        if speed < self._first[1] * limits.throughput_share:
            yield self._alert("throughput_share", None, speed, f"samples a second; {self._first[1]:.2f} at first")

    def _method_alerts(self, method: str, rows: Sequence[Row]) -> Iterator[Alert]:
        limits = self.thresholds
        aucs = np.array([row["deletion_auc"] for row in rows if row["status"] == "ok"], dtype=np.float64)
        if len(aucs) >= 2:
            if aucs.mean() > limits.deletion_auc:
                yield self._alert(
                    "deletion_auc", method, aucs.mean(), "mean deletion AUC: its first cells matter little"
                )
            if aucs.std(ddof=1) < limits.auc_spread:
                yield self._alert("auc_spread", method, aucs.std(ddof=1), "spread of the AUC: all samples score alike")
        dense = _mean([_dense_share(np.asarray(row["map"])) for row in rows if row.get("map") is not None])
        if dense > limits.dense_share:
            yield self._alert("dense_share", method, dense, "of the cells are above a tenth of the map's range")

    def _alert(self, kind: str, method: str | None, value: float, text: str) -> Alert:
        subject = f"{method}: " if method else ""
        message = f"{subject}{value:.3g} {text} ({kind}, last {self.thresholds.window} samples)"
        return Alert(kind, method, float(value), self.samples, message)


class Monitor(L.Callback):
    """Passes every batch to a `Watch` and publishes its alerts."""

    def __init__(self, run_dir: Path, thresholds: Thresholds) -> None:
        """Watch one rank.

        Args:
            run_dir: the run directory, where alerts go.
            thresholds: when to raise an alert.
        """
        self.run_dir, self.watch = run_dir, Watch(thresholds)
        self._begin = time.monotonic()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock. It runs from the end of one batch to the end of the next, so that it includes slow disks."""
        self._begin = time.monotonic()

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Check the records of a batch."""
        now = time.monotonic()
        begin, self._begin = self._begin, now
        alerts = self.watch.add(outputs, now - begin)
        for alert in alerts:
            logger.warning("monitor: %s", alert.message)
        if alerts:
            self._publish(alerts, f"rank-{trainer.global_rank}")

    def _publish(self, alerts: Sequence[Alert], rank: str) -> None:
        """Save the alerts of one batch, in one event file: TensorBoard orders files by name, so "10" before "9"."""
        try:
            lines = "".join(json.dumps(asdict(alert)) + "\n" for alert in alerts)
            append(own_folder(self.run_dir, "alerts") / f"{rank}.jsonl", lines)
            with event_file(self.run_dir, FOLDER, f"alerts-{rank}") as board:
                for alert in alerts:
                    board.add_text(f"alerts/{alert.kind}", markdown_text(alert.message), alert.samples)
        except OSError as error:  # no reason to end the run: the alerts stand in the log
            logger.warning("%d alerts could not be saved: %s", len(alerts), error)


def _agreement(rows: Sequence[Row]) -> float:
    """Mean Spearman between the maps of one sample's methods; NaN with fewer than two."""
    maps = {
        row["method"]: np.asarray(row["map"], dtype=np.float64).ravel()
        for row in rows
        if row.get("map") is not None and not is_control(row["method"])
    }
    if len(maps) < 2:
        return float("nan")
    stacked = np.stack(list(maps.values()))[:, None]
    first, second = np.triu_indices(len(stacked), 1)
    return _mean(spearman(stacked[first], stacked[second]))


def _dense_share(values: np.ndarray) -> float:
    low, high = values.min(), values.max()
    return float((values - low > _DENSE * (high - low)).mean()) if high > low else float("nan")


def _mean(values: Any) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
