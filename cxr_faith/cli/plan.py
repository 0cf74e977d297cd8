"""`cxr-faith plan`: what a run will cost, before it starts."""

from cxr_faith.cli.errors import usage_errors
from cxr_faith.cli.evaluate import read_run, run_command
from cxr_faith.cli.files import check_report
from cxr_faith.cli.startup import quick_imports, quiet_lightning
from cxr_faith.cli.values import text_of

OPTIONS = "cxr_faith.planning.options:PlanOptions"
DESCRIPTION = """Say what a run will take: passes, GPU-hours, memory, disk, an sbatch line,
and how many patients a difference needs.

The data's rows are counted, its pictures are not read. With --pilot, a run of
the same model on some samples, times are measured ones with an interval;
without, they follow from the model's shape and a stated peak (Gemma 3).

examples:
  cxr-faith plan --config configs/mimic.yaml --gpus 8
  cxr-faith evaluate --config demo --limit 50 --run_dir runs/pilot
  cxr-faith plan --config demo --pilot runs/pilot --difference 0.02
"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    given = read_run(run_command("plan", DESCRIPTION, OPTIONS), arguments)
    pilot = text_of(given.values, "pilot")
    if pilot is not None and "print_config" not in given.values:
        check_report(pilot)
    with quick_imports():
        from cxr_faith.cli.lightning_cli import EvaluateCLI
        from cxr_faith.planning.options import PlanOptions
        from cxr_faith.planning.plan import make_plan
        from cxr_faith.planning.text import plan_lines

    quiet_lightning()
    with usage_errors(ValueError, FileNotFoundError):
        cli = EvaluateCLI(given.arguments, PlanOptions)
        data, module = cli.datamodule, cli.model
        data.limit, data.cache_dir = cli.options.limit, cli.options.run_dir / "cache"
        plan = make_plan(module, data, cli.made(PlanOptions))
    own = {"pilot", "difference", "gpus", "peak", "share"}
    words = [word for word in given.arguments if word.removeprefix("--").partition("=")[0] not in own]
    print(*plan_lines(plan, module.protocol.adaptive, words), sep="\n")
    return 0
