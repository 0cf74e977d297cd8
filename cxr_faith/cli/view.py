"""`cxr-faith view`: every sample of a run in a browser, served on this machine alone."""

from pathlib import Path

from cxr_faith.cli.errors import UsageError, usage_errors
from cxr_faith.cli.files import check_report
from cxr_faith.cli.parser import Command
from cxr_faith.cli.signatures import Option
from cxr_faith.cli.startup import quick_imports

DESCRIPTION = """Look through every sample of a run in a browser: filter, page, previous and
next, maps and curves.

Serves pages on 127.0.0.1 behind an address that holds a random token, until
Ctrl-C. Reads the run and writes nothing. Pictures are opened only with
--data_root.

RUN_DIR is the run directory of `cxr-faith evaluate`.

examples:
  cxr-faith view runs/demo
  cxr-faith view runs/mimic --data_root datasets/mimic-cxr-jpg --port 8765
"""
OPTIONS = [
    Option("data_root", "str | None", "None", "folder that the pictures' paths start from; without it none is shown."),
    Option("port", "int", "0", "port to serve on; 0 takes a free one."),
]
COMMAND = Command("view", DESCRIPTION, {"options": OPTIONS}, usage="RUN_DIR [--data_root D]", positionals=("RUN_DIR",))


def main(arguments: list[str]) -> int:
    """Run the command until it is stopped; returns its exit status."""
    given = COMMAND.read(arguments)
    run_dir, root, port = given.positionals[0], given.values.get("data_root"), int(str(given.values.get("port", 0)))
    check_report(run_dir)
    if root is not None and not Path(str(root)).is_dir():
        raise UsageError(f"--data_root {root}: no such folder")
    if not 0 <= port < 2**16:
        raise UsageError(f"--port {port}: must be between 0 and 65535")
    with quick_imports():
        from cxr_faith.app.pages import Pages
        from cxr_faith.app.server import Viewer

    with usage_errors(ValueError):
        pages = Pages(Path(run_dir), None if root is None else Path(str(root)))
    try:
        viewer = Viewer(pages, port)
    except OSError as error:
        raise UsageError(f"--port {port}: {error.strerror}") from error
    with viewer:
        print(f"view         {viewer.address}\nCtrl-C ends it.", flush=True)
        viewer.serve_forever()
    return 0
