"""Refuses files and folders that do not exist, before any heavy library is loaded.

The messages are those of the code that opens the files later.
"""

from pathlib import Path

from cxr_faith.cli.errors import UsageError, usage_errors
from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.folder import ModelFolder, is_hub_id, read_json
from cxr_faith.vlm.quantized import check_library
from cxr_faith.vlm.weights import read_tensors


def check_model(path: str) -> None:
    """Refuse a model that is neither `bundled`, nor a hub id, nor a folder with undamaged config and weight files.

    Raises:
        UsageError: what is wrong with the folder.
    """
    if path != "bundled" and not is_hub_id(path):
        with usage_errors(ModelError):
            folder = ModelFolder.open(path)
            check_library(read_json(folder.files["config.json"]), path)
            read_tensors(folder)


def check_picture(path: str) -> None:
    """Refuse a picture that is no file.

    Raises:
        UsageError: it is a folder, or does not exist.
    """
    if Path(path).is_dir():
        raise UsageError(f"{path}: is a folder, not a picture")
    if not Path(path).is_file():
        raise UsageError(f"{path}: {'is not a file' if Path(path).exists() else 'file not found'}")


def check_folder(option: str, folder: str | None) -> None:
    """Refuse a folder for results whose name the libraries cannot write, or that cannot be made beside a file.

    Raises:
        UsageError: the name is not UTF-8, or a file has it, or has the name of a folder above it.
    """
    check_name(option, folder or "")
    path = Path(folder) if folder else None
    file = path and next((place for place in (path, *path.parents) if place.exists() and not place.is_dir()), None)
    if file:
        raise UsageError(f"{option} {folder}: {'it' if file == path else file} is a file, not a folder")


def check_name(option: str, path: str) -> None:
    """Refuse a name that is not UTF-8, such as one in Latin-1: pyarrow and TensorBoard take no other.

    Raises:
        UsageError: the name is not UTF-8.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{option} {path}: the name is not UTF-8; choose another one") from None


def check_report(run_dir: str) -> None:
    """Refuse a folder that `report` cannot work on; it can on an empty one.

    Raises:
        UsageError: there is no such folder, or it holds other things than a run.
    """
    check_name("RUN_DIR", run_dir)
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
