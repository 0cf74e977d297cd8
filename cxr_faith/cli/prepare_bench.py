"""`cxr-faith prepare bench`: pictures per second, from files and from a cache of them."""

from cxr_faith.cli.errors import usage_errors
from cxr_faith.cli.parser import Command
from cxr_faith.cli.prepare_check import MANIFEST, read_manifest
from cxr_faith.cli.signatures import options_of
from cxr_faith.cli.startup import quick_imports
from cxr_faith.cli.typed import typed_values


def main(arguments: list[str]) -> int:
    """Run `prepare bench`; returns the exit status."""
    command = Command(
        "prepare bench",
        "Measure pictures per second from files, by their type, and from a cache of them." + MANIFEST,
        {"options": options_of("cxr_faith.bench.loader:loader_bench", skip=("manifest",))},
        usage="MANIFEST [options]",
        positionals=("MANIFEST",),
    )
    given = read_manifest(command, arguments)
    with quick_imports():
        from cxr_faith.bench.loader import loader_bench, render_rates
        from cxr_faith.report.terminal import show, wide_console

    (options,) = typed_values(given, {loader_bench: {"manifest"}}, ("MANIFEST",))
    with usage_errors(ValueError):
        rates = loader_bench(given.positionals[0], **options)
    show(wide_console(), render_rates(rates, options["size"], options["workers"]))
    return 0
