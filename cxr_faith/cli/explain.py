"""`cxr-faith explain`: one answer about one picture, or about several."""

from pathlib import Path
from textwrap import fill

from cxr_faith.cli.errors import UsageError, nearest, usage_errors
from cxr_faith.cli.files import check_folder, check_model, check_picture, is_run
from cxr_faith.cli.help import WIDTH
from cxr_faith.cli.parser import Command
from cxr_faith.cli.signatures import options_of, registry
from cxr_faith.cli.startup import quick_imports
from cxr_faith.cli.typed import typed
from cxr_faith.cli.values import text_of

DESCRIPTION = """Explain one answer about one picture, or about several.

IMAGE is a JPEG, PNG or DICOM file. With --prior, the model is shown an earlier
study before it; with --slices in place of IMAGE, slices of a CT or MRI series.
Each picture gets its map, its share of the whole map, and what the answer loses
without it. Prints the answer with its margin; writes
a figure and JSON, <picture>-<method>-<hash>.png and .json. The figure shows the
picture, the map, the picture without the map's first cells with what the model
says of it, and the curves against random orders. The hash is of the picture and
of all that was asked: the same command writes the same files, and any other one
writes files of its own.

examples:
  cxr-faith explain chest.png --question "Is there a nodule?"
  cxr-faith explain chest.dcm --question "Is there a pleural effusion?" \\
      --model google/medgemma-4b-it
  cxr-faith explain chest.png --question "Where is the nodule?" \\
      --method integrated_gradients --evaluate true
  cxr-faith explain chest.png --question "Is there a nodule?" \\
      --methods chefer,attention,grad_x_input --evaluate true
  cxr-faith explain chest.png --question "Is there a nodule?" \\
      --film true --gif true --format pdf
  cxr-faith explain chest.png --question "Is there a nodule?" \\
      --method attention --method_options '{"layers": "deep"}'
  cxr-faith explain chest.png --question "What findings are there?" \\
      --keyword effusion
  cxr-faith explain chest.png --question "What findings are there?" \\
      --target tokens
  cxr-faith explain chest.png --prior older.png \\
      --question "Is the nodule larger than before?"
  cxr-faith explain copy.png --pair film.png --question "Is there a nodule?" \\
      --method counterfactual --evaluate true --substrate pair
  cxr-faith explain --slices ct/series-2 --n_slices 6 --window 40,400 \\
      --question "Is there free fluid?" --model google/medgemma-1.5-4b-it
  cxr-faith explain chest.png --question "Is there a nodule?" \\
      --clinical true --calibration runs/demo \\
      --paraphrases '["Can a nodule be seen?", "Does the film show a nodule?"]'
"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    methods = registry("cxr_faith.attribution", "METHODS")
    # Those need a mask of the finding, or the samples of a manifest.
    shown = sorted(name for name in methods if name != "file" and not name.startswith("oracle"))
    of_series = any(word.partition("=")[0] == "--slices" for word in arguments)
    command = Command(
        "explain",
        DESCRIPTION,
        {"options": options_of("cxr_faith.explainer.options:ExplainOptions")},
        usage="IMAGE --question TEXT [options]",
        positionals=() if of_series else ("IMAGE",),
        tail=fill(f"methods: {', '.join(shown)}", WIDTH) + "\n",
    )
    given = command.read(arguments)
    image = given.positionals[0] if given.positionals else None
    prior, pair, slices = (text_of(given.values, name) for name in ("prior", "pair", "slices"))
    for picture in (image, prior, pair):
        if picture is not None:
            check_picture(picture)
    if slices is not None and not Path(slices).is_dir():
        raise UsageError(f"--slices {slices}: no such folder")
    check_folder("--out", text_of(given.values, "out"))
    check_model(str(given.values.get("model", "bundled")))
    calibration = text_of(given.values, "calibration")
    if calibration is not None and not is_run(Path(calibration)):
        raise UsageError(f"--calibration {calibration}: no run directory")
    several = text_of(given.values, "methods")
    option, names = (
        ("method", [given.values.get("method", "chefer")]) if several is None else ("methods", several.split(","))
    )
    for name in map(str.strip, names):
        if name not in methods:
            raise UsageError(f"--{option}: no method {name!r}{nearest(name, methods)}")
    with quick_imports():
        from cxr_faith.explainer.explain import explain
        from cxr_faith.explainer.options import ExplainOptions
        from cxr_faith.vlm.reasoning import ThoughtError, thought_flags

    options = typed(ExplainOptions, given, () if image is None else ("image",))
    with usage_errors(ValueError):
        try:
            explain(image, options)
        except ThoughtError as error:
            raise UsageError(thought_flags(error.marks)) from error
    return 0
