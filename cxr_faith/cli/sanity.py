"""`cxr-faith sanity`: do the maps depend on the model, the picture, the question and the answer?"""

from cxr_faith.cli.errors import usage_errors
from cxr_faith.cli.evaluate import read_run, run_command
from cxr_faith.cli.startup import quick_imports, quiet_lightning

DESCRIPTION = """Do the maps depend on the model, the picture, the question and the answer?

Compares the maps with those for a blank picture, another picture, no question
and the other answer, and with those of a model whose layers are made random
from the top down. Writes sanity.json into the run directory; a leaderboard
made afterwards (evaluate, report) marks the methods that failed. The samples,
at most --limit, are the first ones that are about several pictures.

examples:
  cxr-faith sanity --config demo
  cxr-faith sanity --config configs/mimic.yaml --samples 32
"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    given = read_run(run_command("sanity", DESCRIPTION, "cxr_faith.checks.sanity:SanityOptions"), arguments)
    with quick_imports():
        from cxr_faith.checks.sanity import SanityOptions, run_sanity
        from cxr_faith.checks.sanity_result import render_sanity
        from cxr_faith.cli.lightning_cli import EvaluateCLI
        from cxr_faith.report.terminal import show, show_notes, wide_console
        from cxr_faith.run.cautions import run_cautions

    quiet_lightning()
    console = wide_console()
    with usage_errors(ValueError, FileNotFoundError):
        cli = EvaluateCLI(given.arguments, SanityOptions)
        options = cli.made(SanityOptions).within(cli.options.limit)
        show_notes(console, run_cautions(cli.model, cli.datamodule))
        result = run_sanity(cli.model, cli.datamodule, cli.options.run_dir, options)
    show(console, render_sanity(result))
    return 0
