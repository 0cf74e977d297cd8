"""`cxr-faith export dicom`: the maps of a run as DICOM objects."""

from pathlib import Path

from cxr_faith.cli.errors import UsageError, usage_errors
from cxr_faith.cli.files import check_folder, check_report
from cxr_faith.cli.parser import Command
from cxr_faith.cli.signatures import Option
from cxr_faith.cli.startup import quick_imports

DESCRIPTION = """Write the maps of a run as DICOM objects of their films' studies: a Parametric
Map, a Segmentation of the first cells, a Structured Report and a Secondary
Capture for each map. Needs highdicom: pip install 'cxr-faith[dicom-out]'.

The objects repeat the films' patients and studies: they are as private as the
films. A map that is not to be believed says so in each object.

examples:
  cxr-faith export dicom runs/vindr --data_root datasets/vindr-cxr --out dicom
"""
OPTIONS = [
    Option("data_root", "str", None, "folder that the films' paths start from"),
    Option("out", "str", None, "folder for the objects, with a folder for each sample"),
    Option("method", "str | None", "None", "only the maps of this method; default: of all but the controls"),
]
SHOWN = 5
"""Samples without objects that are named."""

COMMAND = Command(
    "export",
    DESCRIPTION,
    {"options": OPTIONS},
    usage="dicom RUN_DIR --data_root D --out D [--method M]",
    positionals=("dicom", "RUN_DIR"),
)


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status: 1 where no map has its objects."""
    given = COMMAND.read(arguments)
    kind, run_dir = given.positionals
    root, out, method = (given.values.get(name) for name in ("data_root", "out", "method"))
    if kind != "dicom":
        raise UsageError(f"export {kind}: it writes dicom")
    check_report(run_dir)
    if not Path(str(root)).is_dir():
        raise UsageError(f"--data_root {root}: no such folder")
    check_folder("--out", str(out))
    with quick_imports():
        from cxr_faith.explainer.run_dicom import export_dicom
        from cxr_faith.report.terminal import print_line, wide_console

    with usage_errors(ValueError):
        exported = export_dicom(Path(run_dir), Path(str(root)), Path(str(out)), None if method is None else str(method))
    console = wide_console()
    for sample, reason in list(exported.left_out.items())[:SHOWN]:
        print_line(console, f"left out     {sample}: {reason}")
    if len(exported.left_out) > SHOWN:
        print_line(console, f"left out     {len(exported.left_out) - SHOWN} more samples")
    print_line(console, f"dicom        {out}: {exported.maps} maps, as private as the films; not for diagnosis")
    return 0 if exported.maps else 1
