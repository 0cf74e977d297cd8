"""The command line: `cxr-faith COMMAND`, also `python -m cxr_faith COMMAND`.

Exit status: 0 done, 2 a usage or config error (one line on stderr), 75 stopped on request with work left, 130 stopped
by Ctrl-C, 1 anything else.
"""

import importlib
import os
import sys
from collections.abc import Sequence

from cxr_faith.cli.errors import UNWRITABLE, USAGE_STATUS, UsageError, nearest, print_error, unwritable

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
  cxr-faith evaluate --config demo
  cxr-faith explain chest.png --question "Is there a nodule?" --method chefer
  cxr-faith report runs/demo
  cxr-faith prepare vindr-cxr --root datasets/vindr-cxr --out manifests/vindr

`cxr-faith COMMAND --help` explains a command. Exit status: 0 done, 2 usage or
config error, 75 stopped on request (the same command resumes), 130 stopped by
Ctrl-C, 1 anything else.
"""
COMMANDS = {
    "evaluate": "evaluate",
    "explain": "explain",
    "report": "report",
    "prepare": "prepare",
    "doctor": "doctor",
    "sanity": "sanity",
    "bench": "bench",
    "fit-sae": "fit_sae",
}
"""Command → module of `cxr_faith.cli`, loaded when the command is run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return status
    except UsageError as error:
        print_error(str(error))
        return USAGE_STATUS
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print_error(unwritable(error))
        return 1
    except KeyboardInterrupt as stop:
        print_error(str(stop) or "interrupted")
        return 128 + 2


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else USAGE_STATUS
    if arguments[0] == "--version":
        from cxr_faith import __version__

        print(f"cxr-faith {__version__}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        hint = nearest(command, COMMANDS) or f"; there are {', '.join(COMMANDS)}"
        raise UsageError(f"no command {command!r}{hint}")
    status: int = importlib.import_module(f"cxr_faith.cli.{COMMANDS[command]}").main(rest)
    return status


if __name__ == "__main__":
    sys.exit(main())
