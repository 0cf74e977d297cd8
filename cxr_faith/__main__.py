"""The command line: `cxr-faith COMMAND`, also `python -m cxr_faith COMMAND`.

Exit status: 0 done, 2 a usage or config error (one line on stderr), 75 stopped on request with work left, 1 anything
else.
"""

import errno
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxr_faith.run.stop import StopRequest

USAGE = """usage: cxr-faith COMMAND [options]

Which explanations of chest X-ray vision-language models to believe, measured.

commands:
  evaluate --config FILE [overrides] [--run_dir D] [--limit N]
                            explain and score a data set's answers
  explain IMAGE --question Q [--method M] [--model P] [--out D]
                            explain one answer about one picture
  report RUN_DIR            summary and report again, from a run's records
  prepare SOURCE --root R --out MANIFEST
                            from a published data set to a manifest
  prepare check MANIFEST    open a manifest's pictures and list the faults
  doctor --config FILE      check model, data and machine before a benchmark
  sanity --config FILE      do the maps depend on model, picture and question?
  bench [--preset NAME]     speed beside the usual recipe and the floor
  fit-sae --config FILE     train a sparse autoencoder for the method sae

examples:
  cxr-faith evaluate --config configs/demo.yaml
  cxr-faith explain chest.png --question "Is there a nodule?" --method chefer
  cxr-faith report runs/demo
  cxr-faith prepare vindr-cxr --root datasets/vindr-cxr --out manifests/vindr

`cxr-faith COMMAND --help` tells more. Exit status: 0 done, 2 usage or config
error, 75 stopped on request (the same command resumes), 1 anything else.
"""


REPORT_HELP = """Summary and report again, from a run's records.

Works on a run that is still going. Writes summary.json, summary.md and
report/index.html into the run directory and prints the leaderboard.

examples:
  cxr-faith report runs/demo
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from cxr_faith import __version__

        print(f"cxr-faith {__version__}")
        return 0
    commands: dict[str, Callable[[list[str]], int]] = {
        "evaluate": _evaluate,
        "explain": _explain,
        "report": _report,
        "prepare": _prepare,
        "doctor": _doctor,
        "sanity": _sanity,
        "bench": _bench,
        "fit-sae": _fit_sae,
    }
    if arguments[0] not in commands:
        from difflib import get_close_matches

        near = get_close_matches(arguments[0], commands, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(commands)}"
        return _usage_error(f"no command {arguments[0]!r}{hint}")
    try:
        return commands[arguments[0]](arguments[1:])
    except UsageError as error:
        return _usage_error(str(error))


UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
RETRY = "nothing that was written is lost: see to the disk, then run the same command again"


class UsageError(Exception):
    """What the user asked for cannot be done; the message is one line."""


def _usage_error(message: str) -> int:
    print(f"cxr-faith: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _unwritable(error: OSError) -> int:
    """Say in one line that the disk did not take the results; other faults go on."""
    if error.errno not in UNWRITABLE:
        raise error
    place = f"{error.filename}: " if error.filename else ""
    print(f"cxr-faith: error: {place}{error.strerror}; {RETRY}", file=sys.stderr)
    return 1


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import without the garbage collector, which would go through all modules again and again: a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _quiet() -> None:
    import logging
    import warnings

    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # between lightning and torch
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # not wanted everywhere it exists
    for name in ("lightning.pytorch", "lightning.fabric"):  # tips, what hardware was looked for, who is which rank
        logging.getLogger(name).setLevel(logging.WARNING)


def _evaluate(arguments: list[str]) -> int:
    from cxr_faith.run.stop import listening

    with listening() as request:  # first of all, since the other imports take seconds
        return _evaluate_until(request, arguments)


def _evaluate_until(request: "StopRequest", arguments: list[str]) -> int:
    with quick_imports():
        from cxr_faith.attribution.base import MethodError
        from cxr_faith.cli.evaluate import EvaluateCLI
        from cxr_faith.run.evaluate import check, evaluate
        from cxr_faith.run.lock import RunDirectoryInUseError
        from cxr_faith.run.stop import EX_TEMPFAIL, StoppedError

    _quiet()
    try:
        cli = EvaluateCLI(arguments)
        identity = check(cli.model, cli.datamodule, cli.options)
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
    config, rank = cli.resolved_config(), cli.trainer.global_rank
    try:
        evaluate(cli.model, cli.datamodule, cli.trainer, cli.options, config, identity, request)
    except (RunDirectoryInUseError, MethodError) as error:
        raise UsageError(str(error)) from error
    except StoppedError as stop:
        if rank:
            # The status is rank 0's: whoever watches over the ranks would take another's for a crash and kill the rest.
            sys.stdout.flush()
            os._exit(0)
        print(f"cxr-faith: {stop}", file=sys.stderr)
        return EX_TEMPFAIL
    except OSError as error:
        return _unwritable(error)
    return 0


def _explain(arguments: list[str]) -> int:
    with quick_imports():
        from cxr_faith.cli.evaluate import CommandParser, RawHelp
        from cxr_faith.explainer.explain import EXPLAIN_HELP, ExplainOptions, explain

    parser = CommandParser(
        prog="cxr-faith explain", description=EXPLAIN_HELP, formatter_class=RawHelp, allow_abbrev=False
    )
    parser.add_argument("image", type=str, help="JPEG, PNG or DICOM file")
    parser.add_class_arguments(ExplainOptions)
    parsed = parser.parse_args(arguments)
    image = parsed.pop("image")
    try:
        explain(image, ExplainOptions(**vars(parsed)))
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        return _unwritable(error)
    return 0


def _doctor(arguments: list[str]) -> int:
    with quick_imports():
        from cxr_faith.checks.doctor import failed, render_doctor, run_doctor
        from cxr_faith.cli.checks import DoctorCLI
        from cxr_faith.report.terminal import show, wide_console

    _quiet()
    try:
        cli = DoctorCLI(arguments)
        checks = run_doctor(cli.model, cli.datamodule, cli.options.run_dir, cli.doctor)
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        return _unwritable(error)
    show(wide_console(), render_doctor(checks))
    return 1 if failed(checks) else 0


def _sanity(arguments: list[str]) -> int:
    with quick_imports():
        from cxr_faith.checks.sanity import render_sanity, run_sanity
        from cxr_faith.cli.checks import SanityCLI
        from cxr_faith.report.terminal import show, wide_console

    _quiet()
    try:
        cli = SanityCLI(arguments)
        result = run_sanity(cli.model, cli.datamodule, cli.options.run_dir, cli.sanity)
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        return _unwritable(error)
    show(wide_console(), render_sanity(result))
    return 0


def _report(arguments: list[str]) -> int:
    with quick_imports():
        from cxr_faith.cli.evaluate import CommandParser, RawHelp
        from cxr_faith.report.html import write_report
        from cxr_faith.report.terminal import show_summary, wide_console
        from cxr_faith.summary.summarize import write_summary

    parser = CommandParser(
        prog="cxr-faith report", description=REPORT_HELP, formatter_class=RawHelp, allow_abbrev=False
    )
    parser.add_argument("run_dir", type=str, help="run directory of `cxr-faith evaluate`")
    run_dir = parser.parse_args(arguments).run_dir
    try:
        summary = write_summary(run_dir)
        page = write_report(run_dir)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        return _unwritable(error)
    console = wide_console()
    show_summary(console, summary, run_dir)
    console.print(f"report       {page}", soft_wrap=True, highlight=False)
    return 0


def _prepare(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        from cxr_faith.cli.prepare import PREPARE_HELP

        print(PREPARE_HELP, end="")
        return 0 if arguments else 2
    from cxr_faith.cli.prepare import run

    try:
        return run(arguments[0], arguments[1:])
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        return _unwritable(error)


def _bench(arguments: list[str]) -> int:
    with quick_imports():
        from cxr_faith.bench.bench import BENCH_HELP, BenchOptions, Disagreement, bench
        from cxr_faith.cli.evaluate import CommandParser, RawHelp

    parser = CommandParser(prog="cxr-faith bench", description=BENCH_HELP, formatter_class=RawHelp, allow_abbrev=False)
    parser.add_class_arguments(BenchOptions)
    try:
        bench(BenchOptions(**vars(parser.parse_args(arguments))))
    except ValueError as error:
        raise UsageError(str(error)) from error
    except Disagreement as error:
        print(f"cxr-faith: error: {error}", file=sys.stderr)
        return 1
    return 0


def _fit_sae(arguments: list[str]) -> int:
    with quick_imports():
        from cxr_faith.attribution.sae_training import FIT_SAE_HELP, FitSaeOptions, fit_sae
        from cxr_faith.cli.evaluate import CommandParser, RawHelp

    _quiet()
    parser = CommandParser(
        prog="cxr-faith fit-sae", description=FIT_SAE_HELP, formatter_class=RawHelp, allow_abbrev=False
    )
    parser.add_argument("-c", "--config", action="config", help="YAML file with these options")
    parser.add_class_arguments(FitSaeOptions)
    parsed = parser.parse_args(arguments)
    parsed.pop("config", None)
    try:
        fit_sae(FitSaeOptions(**vars(parsed)))
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        return _unwritable(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
