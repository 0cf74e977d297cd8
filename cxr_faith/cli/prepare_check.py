"""`cxr-faith prepare check`: open a manifest's pictures and masks and list the faults."""

from pathlib import Path

from cxr_faith.cli.errors import UsageError, usage_errors
from cxr_faith.cli.parser import Command, Given
from cxr_faith.cli.signatures import Option
from cxr_faith.cli.startup import quick_imports
from cxr_faith.storage.folders import moved_away

MANIFEST = "\n\nMANIFEST is a Parquet file, or a folder made by `cxr-faith prepare`.\n"
CHECK = Command(
    "prepare check",
    "Open a manifest's pictures and masks; list the faults, with exit status 1,\nand what prepare dropped." + MANIFEST,
    {
        "options": [
            Option("root", "str | None", "None", "data root; default: the one noted by `prepare`"),
            Option("images", "int | str", "200", "how many samples to open, or all"),
        ]
    },
    usage="MANIFEST [options]",
    positionals=("MANIFEST",),
)


def main(arguments: list[str]) -> int:
    """Run `prepare check`; returns the exit status."""
    given = read_manifest(CHECK, arguments)
    images = str(given.values.get("images", "200"))
    if images != "all" and not images.isdecimal():
        raise UsageError(f"--images must be a number or all, got {images!r}")
    if images != "all" and int(images) < 1:
        raise UsageError(f"--images must be at least 1 or all, got {images}")
    with quick_imports():
        from cxr_faith.data.check import check_manifest, drops_of
        from cxr_faith.report.progress import progress_bar
        from cxr_faith.report.terminal import print_line, wide_console

    console, root = wide_console(), given.values.get("root")
    with usage_errors(ValueError):
        chosen = None if images == "all" else int(images)
        state, faults = check_manifest(Path(given.positionals[0]), None if root is None else Path(root), chosen)
        with progress_bar(console, "check") as progress:
            for fault in faults:
                progress(state.done, state.chosen)
                if fault is not None:
                    print_line(console, f"{fault.sample_id}  {fault.error}")
    sizes = sorted(state.sizes)
    print_line(console, f"samples  {state.done} of {state.total} opened, {state.faults} with a fault")
    if sizes:
        several = f" to {_by(sizes[-1])} px, {len(sizes)} different" if len(sizes) > 1 else " px"
        print_line(console, f"sizes    {_by(sizes[0])}{several}")
    for title, counted in (("faults", state.reasons), ("dropped", drops_of(Path(given.positionals[0])))):
        for number, (reason, (count, example)) in enumerate(counted.items()):
            first = f", first {example}" if example else ""
            print_line(console, f"{'' if number else title:7}  {count}  {reason}{first}")
    return 1 if state.faults else 0


def read_manifest(command: Command, arguments: list[str]) -> Given:
    """Check the arguments of a command on a manifest.

    Raises:
        UsageError: a wrong argument, or the manifest does not exist.
    """
    given = command.read(arguments)
    if not Path(given.positionals[0]).exists():
        raise UsageError(f"{given.positionals[0]}: manifest not found{moved_away(Path(given.positionals[0]))}")
    return given


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"
