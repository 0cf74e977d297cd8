"""`cxr-faith prepare masks`: lung, heart and mediastinum masks by a segmentation model."""

from pathlib import Path

from cxr_faith.cli.errors import usage_errors
from cxr_faith.cli.parser import Command
from cxr_faith.cli.prepare_check import MANIFEST, read_manifest
from cxr_faith.cli.signatures import Option
from cxr_faith.cli.startup import quick_imports

MASKS = Command(
    "prepare masks",
    "Write masks of lungs, heart and mediastinum of a manifest's pictures, for\n`prepare SOURCE --masks OUT`. A second "
    "run goes on where the first one stopped.\nThe weights are yours to download; nothing is downloaded here."
    + MANIFEST,
    {
        "options": [
            Option("out", "str", None, "folder of the masks, OUT/<label>/<image_id>.png"),
            Option("segmenter", "str", "torchxrayvision", "model: torchxrayvision (pip install 'cxr-faith[segment]')"),
            Option("weights", "str | None", "None", "folder with the file of weights; default: that of the library"),
            Option("root", "str | None", "None", "data root; default: the one noted by `prepare`"),
            Option("device", "str", "cpu", "where the model runs, such as cuda"),
        ]
    },
    usage="MANIFEST --out DIR [options]",
    positionals=("MANIFEST",),
)


def main(arguments: list[str]) -> int:
    """Run `prepare masks`; returns the exit status."""
    given = read_manifest(MASKS, arguments)
    with quick_imports():
        from cxr_faith.data.segmentation import write_organ_masks
        from cxr_faith.data.segmenters import segmenter
        from cxr_faith.report.progress import progress_bar
        from cxr_faith.report.terminal import print_line, wide_console

    values, console = given.values, wide_console()
    weights, root = (None if values.get(name) is None else Path(values[name]) for name in ("weights", "root"))
    manifest, out = Path(given.positionals[0]), Path(values["out"])
    with usage_errors(ValueError):
        segment = segmenter(values.get("segmenter", "torchxrayvision"), weights, values.get("device", "cpu"))
        with progress_bar(console, "prepare masks") as progress:
            done = write_organ_masks(manifest, out, segment, root, progress)
    for name, fault in done.faults.items():
        print_line(console, f"{name}  {fault}")
    print_line(
        console,
        f"pictures  {done.pictures}: {done.written} written, {done.there} there, {len(done.faults)} with a fault",
    )
    print_line(console, f"masks     {out}")
    return 1 if done.faults else 0
