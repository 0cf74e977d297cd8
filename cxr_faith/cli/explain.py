"""`cxr-faith explain`: one answer about one picture."""

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

DESCRIPTION = """Explain one answer about one picture.

IMAGE is a JPEG, PNG or DICOM file. Prints the answer with its margin; writes
an overlay and JSON, <picture>-<method>-<hash>.png and .json. The hash is of
the picture and of all that was asked: the same command writes the same files,
and any other one writes files of its own.

examples:
  cxr-faith explain chest.png --question "Is there a nodule?"
  cxr-faith explain chest.dcm --question "Is there a pleural effusion?" \\
      --model google/medgemma-4b-it
  cxr-faith explain chest.png --question "Where is the nodule?" \\
      --method integrated_gradients --evaluate true
  cxr-faith explain chest.png --question "Is there a nodule?" \\
      --method attention --method_options '{"layers": "deep"}'
  cxr-faith explain chest.png --question "What findings are there?" \\
      --keyword effusion
  cxr-faith explain chest.png --question "What findings are there?" \\
      --target tokens
  cxr-faith explain chest.png --question "Is there a nodule?" \\
      --clinical true --calibration runs/demo \\
      --paraphrases '["Can a nodule be seen?", "Does the film show a nodule?"]'
"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    methods = registry("cxr_faith.attribution", "METHODS")
    shown = sorted(name for name in methods if not name.startswith("oracle"))  # which needs a mask
    command = Command(
        "explain",
        DESCRIPTION,
        {"options": options_of("cxr_faith.explainer.explain:ExplainOptions")},
        usage="IMAGE --question TEXT [options]",
        positionals=("IMAGE",),
        tail=fill(f"methods: {', '.join(shown)}", WIDTH) + "\n",
    )
    given = command.read(arguments)
    image = given.positionals[0]
    check_picture(image)
    check_folder("--out", text_of(given.values, "out"))
    check_model(str(given.values.get("model", "bundled")))
    calibration = text_of(given.values, "calibration")
    if calibration is not None and not is_run(Path(calibration)):
        raise UsageError(f"--calibration {calibration}: no run directory")
    method = given.values.get("method", "chefer")
    if method not in methods:
        raise UsageError(f"--method: no method {method!r}{nearest(method, methods)}")
    with quick_imports():
        from cxr_faith.explainer.explain import ExplainOptions, explain

    options = typed(ExplainOptions, given, ("image",))
    with usage_errors(ValueError):
        explain(image, options)
    return 0
