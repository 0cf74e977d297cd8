"""Notes each start of a run and its end in `history.jsonl` of the run directory (`report.history` reads it)."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path

from cxr_faith.report.history import FILE
from cxr_faith.run.pace import Pace
from cxr_faith.storage.atomic import append


class Start:
    """One start of a run; it is noted when this is made."""

    def __init__(self, run_dir: Path, command: str) -> None:
        """Note the date and the command.

        Raises:
            OSError: the file cannot be written.
        """
        self._run_dir, self._begin = run_dir, time.monotonic()
        self._note({"started": datetime.now(UTC).isoformat(timespec="seconds"), "command": command})

    def end(self, pace: Pace) -> None:
        """Note how long it took, and the pace of the first rank; a start that is killed has no such line."""
        self._note({"seconds": round(time.monotonic() - self._begin, 1), "pace": pace.to_dict()})

    def _note(self, entry: dict[str, object]) -> None:
        append(self._run_dir / FILE, json.dumps(entry) + "\n")
