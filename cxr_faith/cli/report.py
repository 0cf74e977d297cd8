"""`cxr-faith report`: summary and report again, from a run's records."""

from cxr_faith.cli.errors import UsageError, usage_errors
from cxr_faith.cli.files import check_report
from cxr_faith.cli.parser import Command
from cxr_faith.cli.signatures import Option
from cxr_faith.cli.startup import quick_imports
from cxr_faith.cli.values import text_of

DESCRIPTION = """Make summary and report again, from a run's records.

Works on a run that is still going. Writes summary.json, summary.md and
report/index.html into the run directory and prints the leaderboard.

RUN_DIR is the run directory of `cxr-faith evaluate`.

examples:
  cxr-faith report runs/demo
  cxr-faith report runs/demo --methods chefer,gradient
"""
METHODS = Option("methods", "str", "None", "only these methods, by name, with the baselines random and center.")
COMMAND = Command(
    "report", DESCRIPTION, {"options": [METHODS]}, usage="RUN_DIR [--methods A,B]", positionals=("RUN_DIR",)
)


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    given = COMMAND.read(arguments)
    run_dir = given.positionals[0]
    methods = [name.strip() for name in (text_of(given.values, "methods") or "").split(",") if name.strip()]
    if "methods" in given.values and not methods:
        raise UsageError("--methods: name one or more methods, such as chefer,gradient")
    check_report(run_dir)
    with quick_imports():
        from cxr_faith.report.results import write_results
        from cxr_faith.report.terminal import print_line, show_summary, wide_console

    with usage_errors(ValueError):
        results = write_results(run_dir, methods)
    console = wide_console()
    show_summary(console, results.summary, run_dir)
    print_line(console, f"report       {results.page}")
    return 0
