"""The command line: `cxr-faith COMMAND`, also `python -m cxr_faith COMMAND`.

Exit status: 0 done, 2 a usage or config error (one line on stderr), 75 stopped on request with work left, 130 stopped
by Ctrl-C, 1 anything else.
"""

import importlib
import os
import sys
from collections.abc import Sequence

from cxr_faith.cli.errors import USAGE_STATUS, UsageError, nearest, print_error
from cxr_faith.cli.help import USAGE
from cxr_faith.storage.disk import UNWRITABLE, disk_line

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
        if error.errno not in UNWRITABLE and error.filename is None:
            raise
        print_error(disk_line(error))
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
