"""What the monitor of a run had to say, as it stands in the run directory."""

import json
from pathlib import Path
from typing import Any


def read_alerts(run_dir: Path) -> list[dict[str, Any]]:
    """All alerts of a run, by rank, in the order in which they came; a line that was cut off is left out."""
    files = sorted((run_dir / "alerts").glob("rank-*.jsonl"))
    found = []
    for line in (line for file in files for line in file.read_text(encoding="utf-8").splitlines()):
        try:
            found.append(json.loads(line))
        except ValueError:  # the process was killed, or the disk was full
            continue
    return found


def alert_notes(run_dir: Path) -> list[str]:
    """One sentence for each thing that the monitor spoke up about: the first time, and how often it came again."""
    groups: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for alert in read_alerts(run_dir):
        groups.setdefault((alert["kind"], alert["method"]), []).append(alert)
    notes = []
    for alerts in groups.values():
        again = f", and {len(alerts) - 1} more times" if len(alerts) > 1 else ""
        notes.append(f"Monitor, after {alerts[0]['samples']} samples of a rank{again}: {alerts[0]['message']}.")
    return notes
