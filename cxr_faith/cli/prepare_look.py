"""`cxr-faith prepare check` and `prepare bench`: a look at a manifest that is there."""

from pathlib import Path

from cxr_faith.cli.errors import UsageError, usage_errors
from cxr_faith.cli.parser import Command, Given, typed_values
from cxr_faith.cli.signatures import Option, options_of
from cxr_faith.cli.startup import quick_imports

MANIFEST = "\n\nMANIFEST is a Parquet file, or a folder made by `cxr-faith prepare`.\n"
CHECK = Command(
    "prepare check",
    "Open a manifest's pictures and masks and list the faults, with exit status 1." + MANIFEST,
    {
        "options": [
            Option("root", "str | None", "None", "data root; default: the one noted by `prepare`"),
            Option("images", "int | str", "200", "how many samples to open, or all"),
        ]
    },
    usage="MANIFEST [options]",
    positionals=("MANIFEST",),
)


def check(arguments: list[str]) -> int:
    """Run `prepare check`; returns the exit status."""
    given = _read(CHECK, arguments)
    images = str(given.values.get("images", "200"))
    if images != "all" and not images.isdecimal():
        raise UsageError(f"--images must be a number or all, got {images!r}")
    if images != "all" and int(images) < 1:
        raise UsageError(f"--images must be at least 1 or all, got {images}")
    with quick_imports():
        from cxr_faith.data.check import check_manifest
        from cxr_faith.report.progress import progress_bar
        from cxr_faith.report.terminal import wide_console

    console, root = wide_console(), given.values.get("root")
    with usage_errors(ValueError):
        chosen = None if images == "all" else int(images)
        state, faults = check_manifest(Path(given.positionals[0]), None if root is None else Path(root), chosen)
        with progress_bar(console, "check") as progress:
            for fault in faults:
                progress(state.done, state.chosen)
                if fault is not None:
                    line = f"{fault.sample_id}  {fault.error}"
                    console.print(line, soft_wrap=True, highlight=False, markup=False)
    sizes = sorted(state.sizes)
    console.print(f"samples  {state.done} of {state.total} opened, {state.faults} with a fault", highlight=False)
    if sizes:
        several = f" to {_by(sizes[-1])} px, {len(sizes)} different" if len(sizes) > 1 else " px"
        console.print(f"sizes    {_by(sizes[0])}{several}", highlight=False)
    return 1 if state.faults else 0


def bench(arguments: list[str]) -> int:
    """Run `prepare bench`; returns the exit status."""
    command = Command(
        "prepare bench",
        "Measure pictures per second from files, by their type, and from a cache of them." + MANIFEST,
        {"options": options_of("cxr_faith.bench.loader:loader_bench", skip=("manifest",))},
        usage="MANIFEST [options]",
        positionals=("MANIFEST",),
    )
    given = _read(command, arguments)
    with quick_imports():
        from cxr_faith.bench.loader import loader_bench, render_rates
        from cxr_faith.report.terminal import show, wide_console

    (options,) = typed_values(given, {loader_bench: {"manifest"}}, ("MANIFEST",))
    with usage_errors(ValueError):
        rates = loader_bench(given.positionals[0], **options)
    show(wide_console(), render_rates(rates, options["size"], options["workers"]))
    return 0


def _read(command: Command, arguments: list[str]) -> Given:
    given = command.read(arguments)
    if not Path(given.positionals[0]).exists():
        raise UsageError(f"{given.positionals[0]}: manifest not found")
    return given


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"
