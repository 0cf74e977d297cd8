"""When a run was computed, for how long, and by which command, as its directory holds it.

These facts stand beside the summary, not in it: two runs of one config write the same summary, byte for byte.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cxr_faith.storage.atomic import read_file

FILE = "history.jsonl"
"""In a run directory: a line for each start of the run, and one for each start that came to an end of its own."""


@dataclass(frozen=True)
class History:
    """The starts of a run."""

    first: str
    """When the first one began, e.g. "2026-03-01T09:30:00+00:00"."""
    command: str
    """The command of the last one; empty for a run that a program began."""
    starts: int
    """How many there were; each shard of an array is one."""
    ended: int
    """Those that ended on their own, done or stopped on request; the others were killed, or still run."""
    seconds: float
    """Seconds from begin to end, over those that ended."""

    @property
    def text(self) -> str:
        """Date and duration in words."""
        parts = [datetime.fromisoformat(self.first).strftime("%Y-%m-%d %H:%M UTC")]
        if self.ended:
            parts.append(f"{'over ' * (self.ended < self.starts)}{_duration(self.seconds)}")
        return ", ".join([*parts, *([f"{self.starts} starts"] if self.starts > 1 else [])])


def read_history(run_dir: Path) -> History | None:
    """The starts of a run; None for a directory without them. A line that was cut off is left out."""
    entries = read_entries(run_dir)
    starts = [entry for entry in entries if "started" in entry]
    if not starts:
        return None
    ends = [float(entry["seconds"]) for entry in entries if "seconds" in entry]
    first, last = str(starts[0]["started"]), str(starts[-1].get("command") or "")
    return History(first, last, len(starts), len(ends), sum(ends))


def read_entries(run_dir: Path) -> list[Mapping[str, Any]]:
    """The lines of `history.jsonl`; a line that was cut off is left out."""
    path = run_dir / FILE
    lines = read_file(path).decode(errors="replace").splitlines() if path.exists() else []
    return [entry for line in lines if (entry := _entry(line)) is not None]


def _entry(line: str) -> Mapping[str, Any] | None:
    try:
        entry = json.loads(line)
        if "started" in entry:
            datetime.fromisoformat(entry["started"])
        return {**entry, **({"seconds": float(entry["seconds"])} if "seconds" in entry else {})}
    except (ValueError, TypeError):  # the process was killed, or the disk was full
        return None


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
