"""Refuses files and folders that do not exist, before any heavy library is loaded.

The messages are those of the code that opens the files later.
"""

from pathlib import Path

from cxr_faith.cli.errors import UsageError


def check_model(path: str) -> None:
    """Refuse a model that is neither `bundled`, nor a folder, nor written as a hub id, `owner/name`.

    Raises:
        UsageError: there is no such folder.
    """
    is_hub_id = path.count("/") == 1 and not path.startswith((".", "/", "~"))
    if path != "bundled" and not is_hub_id and not Path(path).exists():
        raise UsageError(f"no model folder {path}: give an existing one or a hub id such as google/medgemma-4b-it")


def check_picture(path: str) -> None:
    """Refuse a picture that is no file.

    Raises:
        UsageError: it is a folder, or does not exist.
    """
    if Path(path).is_dir():
        raise UsageError(f"{path}: is a folder, not a picture")
    if not Path(path).is_file():
        raise UsageError(f"{path}: file not found")


def check_report(run_dir: str) -> None:
    """Refuse a folder that `report` cannot work on; it can on an empty one.

    Raises:
        UsageError: there is no such folder, or it holds other things than a run.
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such run directory; run `cxr-faith evaluate` first")
    if any(folder.iterdir()) and not is_run(folder):
        raise UsageError(
            f"{folder}: not a run directory, it has neither records nor provenance.json; run `cxr-faith evaluate` first"
        )


def is_run(folder: Path) -> bool:
    """Whether a run has begun in a folder."""
    return any((folder / name).exists() for name in ("records", "provenance.json"))
