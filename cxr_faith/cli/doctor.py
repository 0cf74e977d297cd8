"""`cxr-faith doctor`: check model, data and machine before a benchmark."""

from cxr_faith.cli.errors import usage_errors
from cxr_faith.cli.evaluate import read_run, run_command
from cxr_faith.cli.startup import quick_imports, quiet_lightning

DESCRIPTION = """Check a model, its data and this machine before a benchmark.

The first samples go all the way from picture to score. Each line of the result
is pass, warn or fail, with the figure and what to do; doctor.json in the run
directory holds the same. Exit status 1 if a check fails.

examples:
  cxr-faith doctor --config demo
  cxr-faith doctor --config configs/mimic.yaml --samples 16
"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    given = read_run(run_command("doctor", DESCRIPTION, "cxr_faith.checks.doctor:DoctorOptions"), arguments)
    with quick_imports():
        from cxr_faith.checks.checklist import failed, render_doctor
        from cxr_faith.checks.doctor import DoctorOptions, run_doctor
        from cxr_faith.cli.lightning_cli import EvaluateCLI
        from cxr_faith.report.terminal import show, wide_console

    quiet_lightning()
    with usage_errors(ValueError, FileNotFoundError):
        cli = EvaluateCLI(given.arguments, DoctorOptions)
        cli.datamodule.limit = cli.options.limit
        options = cli.made(DoctorOptions)
        checks = run_doctor(cli.model, cli.datamodule, cli.options.run_dir, options, cli.accelerator)
    show(wide_console(), render_doctor(checks))
    return 1 if failed(checks) else 0
