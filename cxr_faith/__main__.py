"""The command line: `cxr-faith COMMAND`, also `python -m cxr_faith COMMAND`.

Exit status: 0 done, 2 a usage or config error (one line on stderr), 75 stopped on request with work left, 130 stopped
by Ctrl-C, 141 nobody reads what a command prints, 1 anything else.
"""

import os
import sys

COMMANDS = {
    "evaluate": "evaluate",
    "explain": "explain",
    "report": "report",
    "compare": "compare",
    "view": "view",
    "app": "app",
    "dossier": "dossier",
    "export": "export",
    "prepare": "prepare",
    "plan": "plan",
    "doctor": "doctor",
    "sanity": "sanity",
    "bench": "bench",
    "fit-sae": "fit_sae",
}
"""Command → module of `cxr_faith.cli`, loaded when the command is run."""
_ONLY_PRINT = ("-h", "--help", "help", "--version", "--help_trainer", "--print_config")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status.

    Args:
        argv: the words after the program's name; default: those of this process, which then belongs to the command.
    """
    from cxr_faith.cli import begin

    if argv is None:
        begin.handle_ctrl_c()  # first of all, so this file imports nothing that Python has not loaded already
    from cxr_faith.cli import encoding, interrupt, streams  # quick to load

    if argv is None:
        encoding.use_utf8()
    arguments = list(sys.argv[1:] if argv is None else argv)
    streams.guard(patient=not _only_prints(arguments))  # first: a closed stream's number must not go to another file
    with interrupt.handled(begin.interrupted(arguments), for_good=argv is None) as ctrl_c:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers obeys it too, while it loads weights
        try:
            return _guarded(arguments)
        except BaseException:  # libraries turn the exit of a Ctrl-C into errors of their own
            if ctrl_c.pressed:
                return interrupt.STATUS
            raise


def _guarded(arguments: list[str]) -> int:
    """Run a command; errors that a user can mend are one line on stderr."""
    from cxr_faith.cli.errors import USAGE_STATUS, UsageError, print_error
    from cxr_faith.cli.streams import STDOUT
    from cxr_faith.storage.disk import UNWRITABLE, disk_line

    try:
        try:
            status = _run(arguments)
        finally:
            sys.stdout.flush()
        return status
    except UsageError as error:
        print_error(str(error))
        return USAGE_STATUS
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        return 128 + 13
    except OSError as error:
        if error.errno not in UNWRITABLE and error.filename is None:
            raise
        is_stream = error.filename == STDOUT
        print_error(f"{STDOUT}: {error.strerror}" if is_stream else disk_line(error))
        return 1
    except KeyboardInterrupt as stop:
        print_error(str(stop) or "interrupted")
        return 128 + 2


def _only_prints(arguments: list[str]) -> bool:
    """Whether a command is of no use once nobody reads what it prints."""
    names = {word.partition("=")[0] for word in arguments}
    looks = arguments[:1] == ["prepare"] and arguments[1:2] in (["check"], ["bench"])
    return not arguments or looks or bool(names & {*_ONLY_PRINT})


def _run(arguments: list[str]) -> int:
    import importlib

    from cxr_faith.cli.errors import USAGE_STATUS, UsageError, nearest
    from cxr_faith.cli.help import USAGE

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
