"""Where `--config NAME` finds its file: a path that exists, or a config that ships with the package."""

from pathlib import Path

from cxr_faith.cli.errors import UsageError, nearest


def shipped_configs() -> dict[str, Path]:
    """Name → file of the configs that ship: `demo`, `trainer/ddp`, ….

    They lie in the installed package, or beside the package in a checkout.
    """
    package = Path(__file__).parents[1]
    folder = next((place for place in (package / "configs", package.parent / "configs") if place.is_dir()), None)
    files = sorted(folder.rglob("*.yaml")) if folder else []
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files if folder}


def find_config(name: str) -> Path:
    """The file that `--config NAME` means: an existing file first, else the shipped config of that name.

    Raises:
        UsageError: neither exists; the message lists the shipped names.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_configs()
    if name in shipped:
        return shipped[name]
    near = nearest(name, shipped)
    raise UsageError(
        f"--config {name}: file not found, and no shipped config has this name{near} (there are {', '.join(shipped)})"
    )
