"""`cxr-faith dossier`: what runs say to the documents that reviewers and regulators ask for."""

from importlib.util import find_spec
from pathlib import Path

from cxr_faith.cli.errors import UsageError, usage_errors
from cxr_faith.cli.files import check_folder, check_report
from cxr_faith.cli.parser import Command
from cxr_faith.cli.signatures import Option
from cxr_faith.cli.startup import quick_imports
from cxr_faith.cli.values import text_of

DESCRIPTION = """Write an audit dossier from runs: what they say to the items of CLAIM 2024 on
evaluation and explanations, a model card's evaluation, the EU AI Act (Annex IV
(2) and (3), Article 13), and the principles of FDA, Health Canada and MHRA on
transparency.

Each figure names its run, file and place. What no run can know is a blank
that begins with "To be filled in:"; nothing is made up. The checks of doctor
and sanity are read from the run directories.

RUN is a run directory of `cxr-faith evaluate`.

examples:
  cxr-faith dossier runs/demo --out dossier.html
  cxr-faith dossier runs/medgemma runs/gemma --compared runs/compared \\
      --plan plan.txt --out dossier.docx
"""
COMMAND = Command(
    "dossier",
    DESCRIPTION,
    {
        "options": [
            Option("out", "str", None, "the file; its ending says the format: .docx, .md or .html"),
            Option("compared", "str | None", "None", "folder of `cxr-faith compare` for these runs."),
            Option("plan", "str | None", "None", "file with what `cxr-faith plan` printed."),
        ]
    },
    usage="RUN ... --out FILE",
    positionals=("RUN",),
    more=True,
)
INSTALL = "a .docx file needs python-docx: pip install 'cxr-faith[docx]'; .html and .md need nothing more"


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    given = COMMAND.read(arguments)
    runs, out = given.positionals, Path(str(given.values["out"]))
    compared, plan = (text_of(given.values, key) for key in ("compared", "plan"))
    for run in runs:
        check_report(run)
    check_folder("--out", str(out.parent))
    if len(set(runs)) < len(runs):
        raise UsageError("the same run was given twice")
    if out.suffix.lower() not in (".docx", ".md", ".html"):
        raise UsageError(f"--out {out}: a dossier is written as .docx, .md or .html")
    if out.suffix.lower() == ".docx" and find_spec("docx") is None:
        raise UsageError(INSTALL)
    with quick_imports():
        from cxr_faith.printable import printable
        from cxr_faith.report.dossier.dossier import make_dossier
        from cxr_faith.report.dossier.write import write_dossier

    with usage_errors(ValueError, FileNotFoundError):
        dossier = make_dossier(runs, Path(compared) if compared else None, Path(plan) if plan else None)
    write_dossier(dossier, out)
    figures = sum(len(row.figures) for table in dossier.tables for row in table.rows)
    print(f"dossier      {printable(str(out))}")
    print(f"figures      {figures} in {len(dossier.tables)} tables; {len(dossier.blanks)} blanks to be filled in")
    return 0
