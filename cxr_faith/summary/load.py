"""A run directory opened for reading: its summary, records, provenance and config."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from cxr_faith.perturb.condition import NONE
from cxr_faith.records import Shown, read_records
from cxr_faith.storage.atomic import read_file
from cxr_faith.summary.summary import OldSummaryError, Summary

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """A run directory; each file is read when it is first asked for.

    Examples:
        >>> run = load_run("runs/demo")  # doctest: +SKIP
        >>> run.summary.board("present").to_frame()[["method", "srg", "srg_low", "srg_high"]]  # doctest: +SKIP
    """

    run_dir: Path
    """The directory that `cxr-faith evaluate` wrote."""

    @cached_property
    def summary(self) -> Summary:
        """The numbers of `summary.json`.

        Raises:
            FileNotFoundError: the run has no summary yet.
            ValueError: the file is not JSON, or of another version; one line that says what to do.
        """
        return read_summary(self.run_dir)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What `provenance.json` says about the model, the data, the versions and the machine; empty without it."""
        return read_provenance(self.run_dir)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, `config.yaml`; empty without it.

        Raises:
            ValueError: the file is not a YAML mapping.
        """
        import yaml

        path = self.run_dir / "config.yaml"
        if not path.exists():
            return {}
        try:
            config = yaml.safe_load(read_file(path).decode())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
        if not isinstance(config, dict):
            raise ValueError(f"{path}: expected a YAML mapping")
        return config

    def records(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The records of all ranks and starts, one row per sample and method, sorted by key.

        Args:
            columns: only these columns and the key; default all.

        Raises:
            ValueError: a column that no record has.
        """
        return while_it_runs(lambda: read_records(self.run_dir, columns))


def load_run(run_dir: str | Path) -> Run:
    """Open a run directory.

    Raises:
        ValueError: there is no such directory, or no run has begun in it.
    """
    run = Run(Path(run_dir))
    if not any((run.run_dir / name).exists() for name in ("summary.json", "provenance.json", "records")):
        raise ValueError(no_run(run.run_dir))
    return run


def no_run(run_dir: Path) -> str:
    """The error message for a directory that is not a run directory."""
    return f"{run_dir}: not a run directory, it has neither records nor provenance.json; run `cxr-faith evaluate` first"


def read_summary(run_dir: Path) -> Summary:
    """`summary.json` of a run directory.

    Raises:
        FileNotFoundError: the run has no summary yet.
        OldSummaryError: an older version wrote it; one line that says what to do.
        ValueError: the file is not JSON, or of a newer version; the same.
    """
    path = run_dir / "summary.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing; `cxr-faith report {run_dir}` writes it")
    try:
        return Summary.from_dict(_json_object(path))
    except ValueError as error:
        kind = OldSummaryError if isinstance(error, OldSummaryError) else ValueError
        raise kind(f"{path}: {str(error).removeprefix(f'{path}: ').replace('RUN_DIR', str(run_dir))}") from None


def known_summary(run_dir: Path) -> Summary | None:
    """`summary.json`, for readers that can do without: None where there is none, or where an older version wrote it.

    Raises:
        ValueError: the file is not JSON, or of a newer version; one line that says what to do.
    """
    try:
        return read_summary(run_dir)
    except (FileNotFoundError, OldSummaryError):
        return None


def shown_in(summary: Summary) -> Shown:
    """The rows that the boards of a summary cover, of the pictures as they are."""
    scored: dict[str, dict[str, None]] = {}
    for board in summary.boards:
        scored.setdefault(board.substrate, {}).update(dict.fromkeys(row.method for row in board.rows))
    return Shown(scored, (NONE,), {})


def read_provenance(run_dir: Path) -> dict[str, Any]:
    """`provenance.json` of a run directory; empty if there is none.

    Raises:
        ValueError: the file is not a JSON object.
    """
    path = run_dir / "provenance.json"
    return _json_object(path) if path.exists() else {}


def while_it_runs(read: Callable[[], T]) -> T:
    """Read records; read again if a run that is going on merged parts in between."""
    for _ in range(2):
        try:
            return read()
        except FileNotFoundError:
            continue
    return read()


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_file(path))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return value
