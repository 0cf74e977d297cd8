"""`cxr-faith prepare planted`: pairs of films and copies of them with a synthetic object."""

from pathlib import Path

from cxr_faith.cli.errors import usage_errors
from cxr_faith.cli.parser import Command
from cxr_faith.cli.prepare_check import MANIFEST, read_manifest
from cxr_faith.cli.prepared import print_prepared
from cxr_faith.cli.signatures import options_of
from cxr_faith.cli.startup import quick_imports
from cxr_faith.cli.typed import typed_values


def main(arguments: list[str]) -> int:
    """Run `prepare planted`; returns the exit status."""
    command = Command(
        "prepare planted",
        "Plant synthetic objects in copies of a manifest's films, blended in their gray\nscale, sharpness and noise, "
        "with exact masks, and write the manifest of these\npairs. What each pair differs by is known, for any model."
        + MANIFEST,
        {"options": options_of("cxr_faith.data.planting.pairs:PlantOptions")},
        usage="MANIFEST --out DIR [options]",
        positionals=("MANIFEST",),
    )
    given = read_manifest(command, arguments)
    with quick_imports():
        from cxr_faith.data.planting.pairs import PlantOptions, plant_pairs
        from cxr_faith.report.progress import progress_bar
        from cxr_faith.report.terminal import wide_console

    console = wide_console()
    (options,) = typed_values(given, {PlantOptions: set()}, ("MANIFEST",))
    with usage_errors(ValueError), progress_bar(console, "prepare planted") as progress:
        prepared = plant_pairs(Path(given.positionals[0]), PlantOptions(**options), progress)
    print_prepared(prepared, console)
    return 0
