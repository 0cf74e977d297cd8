"""What the monitor reported during a run, as the run directory holds it."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

from cxr_faith.storage.atomic import read_file


@dataclass(frozen=True)
class Alert:
    """One thing that looks wrong."""

    kind: str
    """Name of the threshold that was passed."""
    method: str | None
    """The method concerned; None for the whole run."""
    value: float
    """The value that passed the threshold."""
    samples: int
    """Samples that the rank had done by then."""
    message: str
    """One line for people."""


def read_alerts(run_dir: Path) -> list[Alert]:
    """All alerts of a run, rank by rank in the order in which they came; a line that was cut off is left out."""
    names = [one.name for one in fields(Alert)]
    alerts = []
    for file in sorted((run_dir / "alerts").glob("rank-*.jsonl")):
        for line in read_file(file).decode(errors="replace").splitlines():
            try:
                values = json.loads(line)
            except ValueError:  # the process was killed, or the disk was full
                continue
            alerts.append(Alert(**{name: values[name] for name in names}))
    return alerts


def alert_notes(run_dir: Path) -> list[str]:
    """One sentence for each kind of alert and method: the first alert, and how often it came again."""
    groups: dict[tuple[str, str | None], list[Alert]] = {}
    for alert in read_alerts(run_dir):
        groups.setdefault((alert.kind, alert.method), []).append(alert)
    notes = []
    for alerts in groups.values():
        more = len(alerts) - 1
        again = f", and {more} more time{'s' * (more > 1)}" if more else ""
        notes.append(f"Monitor, after {alerts[0].samples} samples of a rank{again}: {alerts[0].message}.")
    return notes
