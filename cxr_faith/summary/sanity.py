"""What `cxr-faith sanity` found, marked on the boards."""

import json
from dataclasses import replace
from pathlib import Path

from cxr_faith.storage.atomic import read_file
from cxr_faith.summary.summary import Summary


def with_sanity(summary: Summary, run_dir: Path) -> Summary:
    """The summary with `sanity_failed` in its rows, and a warning, if the run directory has a `sanity.json`.

    Raises:
        ValueError: the file is not what `cxr-faith sanity` writes.
    """
    path = run_dir / "sanity.json"
    if not path.exists():
        return summary
    try:
        methods = json.loads(read_file(path))["methods"]
        failed = [name for name, entry in methods.items() if entry["failed"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a result of `cxr-faith sanity` ({error})") from None
    boards = (
        replace(board, rows=tuple(replace(row, sanity_failed=row.method in failed) for row in board.rows))
        for board in summary.boards
    )
    said = f"Failed the sanity check (maps of a random model look alike): {', '.join(failed)}."
    return replace(summary, boards=tuple(boards), warnings=(*summary.warnings, said) if failed else summary.warnings)
