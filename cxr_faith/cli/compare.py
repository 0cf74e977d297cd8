"""`cxr-faith compare`: runs side by side on the samples that all of them share."""

from cxr_faith.cli.errors import UsageError, usage_errors
from cxr_faith.cli.files import check_folder, check_report
from cxr_faith.cli.parser import Command
from cxr_faith.cli.signatures import Option
from cxr_faith.cli.startup import quick_imports

DESCRIPTION = """Compare runs on the samples that all of them share: two models, revisions,
prompt templates or substrates.

Samples are joined by id, question and picture; what is not shared is counted.
Writes index.html and compare.json into --out, and prints the verdict on each
run, srg by method and run, and the paired differences.

RUN is a run directory of `cxr-faith evaluate`.

examples:
  cxr-faith compare runs/medgemma runs/gemma --out runs/compared
"""
COMMAND = Command(
    "compare",
    DESCRIPTION,
    {
        "options": [
            Option("out", "str", None, "folder for the page and the JSON"),
            Option("names", "str | None", "None", "names of the runs, with commas between; default: their folders'"),
        ]
    },
    usage="RUN RUN ... --out DIR",
    positionals=("RUN", "RUN"),
    more=True,
)


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    given = COMMAND.read(arguments)
    runs, out, names = given.positionals, str(given.values["out"]), given.values.get("names")
    for run in runs:
        check_report(run)
    check_folder("--out", out)
    if len(set(runs)) < len(runs):
        raise UsageError("the same run was given twice")
    with quick_imports():
        from cxr_faith.report.compare_page import write_comparison
        from cxr_faith.report.terminal import print_line, show_comparison, wide_console
        from cxr_faith.summary.compare import compare

    with usage_errors(ValueError):
        comparison = compare(runs, None if names is None else [name.strip() for name in str(names).split(",")])
    page = write_comparison(comparison, out)
    console = wide_console()
    show_comparison(console, comparison)
    print_line(console, f"page         {page}")
    return 0
