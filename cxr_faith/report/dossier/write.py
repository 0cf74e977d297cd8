"""Writes a dossier as Markdown, as one HTML page, or as a Word file; all three hold the same text."""

import io
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from cxr_faith.printable import markdown_text
from cxr_faith.report.dossier.dossier import BLANK, Dossier
from cxr_faith.report.dossier.evidence import Evidence
from cxr_faith.report.templates import templates
from cxr_faith.storage.atomic import write_atomic

FORMATS = ("md", "html", "docx")
TITLE = "Audit dossier"
FOREWORD = (
    "The figures are read from the files of runs of cxr_faith; each row names its file and its place there, a JSON "
    f'pointer. What no run can know begins with "{BLANK.strip()}". The items are named and put in our words: read the '
    "documents themselves before you submit anything. Faithfulness says what the model's answer depends on, not "
    "whether it is right."
)


def write_dossier(dossier: Dossier, path: Path) -> None:
    """Write a dossier in the format of the path's ending.

    Raises:
        ValueError: the ending is none of `FORMATS`.
        OSError: the file could not be saved.
    """
    ending = path.suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise ValueError(f"{path}: a dossier is written as {', '.join(FORMATS)}")
    content = docx(dossier) if ending == "docx" else html(dossier) if ending == "html" else markdown(dossier)
    write_atomic(path, content)


def head(table: Evidence) -> list[str]:
    """The heads of a table's columns."""
    return ["", *(column.title for column in table.columns), "place"]


def cells(table: Evidence) -> list[list[str]]:
    """The rows of a table as text."""
    return [[row.name, *(figure.text for figure in row.figures), row.place] for row in table.rows]


def origin(table: Evidence) -> str:
    """Where a table's figures are, and which value of its row each column is."""
    keys = ", ".join(f"{column.title} = {column.place}" for column in table.columns if column.place)
    return f"From {table.source}: {table.file}{f'; in each row {keys}' if keys else ''}."


def evidence_line(numbers: tuple[int, ...]) -> str:
    """Which tables answer part of an item."""
    return f"From the runs: {', '.join(f'table {number}' for number in numbers)}." if numbers else ""


def markdown(dossier: Dossier) -> str:
    """The dossier as Markdown."""
    return "\n".join(_markdown(dossier)) + "\n"


def _markdown(dossier: Dossier) -> Iterator[str]:
    text = markdown_text
    yield from (f"# {TITLE}: {text(', '.join(dossier.runs))}", "", FOREWORD, "")
    for section in dossier.sections:
        yield from (f"## {section.title}", "", section.about, "")
        for entry in section.entries:
            yield from (f"### {entry.name}", "", entry.asks, "")
            if entry.tables:
                yield from (evidence_line(entry.tables), "")
            yield from (f"- {text(blank)}" for blank in entry.blanks)
            yield from ([""] if entry.blanks else [])
    yield from ("## Figures", "")
    for number, table in enumerate(dossier.tables, 1):
        yield from (f"### Table {number}. {text(table.title)}", "")
        lines = [head(table), ["---"] * len(head(table)), *([text(cell) for cell in row] for row in cells(table))]
        yield from (f"| {' | '.join(line)} |" for line in lines)
        yield from ("", text(origin(table)), "", *([text(table.note), ""] if table.note else []))
    yield from ("## To be filled in", "")
    yield from (f"{number}. {text(place)}: {text(blank)}" for number, (place, blank) in enumerate(dossier.blanks, 1))


def html(dossier: Dossier) -> str:
    """The dossier as one page that needs nothing from elsewhere."""
    css = files("cxr_faith.report").joinpath("page.css").read_text(encoding="utf-8")
    page = templates("cxr_faith.report.dossier").get_template("dossier.html.j2")
    return page.render(
        dossier=dossier,
        css=css,
        title=TITLE,
        foreword=FOREWORD,
        head=head,
        cells=cells,
        origin=origin,
    )


def docx(dossier: Dossier) -> bytes:
    """The dossier as a Word file, whose blanks are in italics."""
    from docx import Document  # the extra `docx`
    from docx.shared import Pt

    document = Document()
    document.styles["Normal"].font.size = Pt(10)
    document.add_heading(f"{TITLE}: {', '.join(dossier.runs)}", 0)
    document.add_paragraph(FOREWORD)
    for section in dossier.sections:
        document.add_heading(section.title, 1)
        document.add_paragraph(section.about)
        for entry in section.entries:
            document.add_heading(entry.name, 2)
            document.add_paragraph(" ".join(filter(None, (entry.asks, evidence_line(entry.tables)))))
            for blank in entry.blanks:
                document.add_paragraph(style="List Bullet").add_run(blank).italic = True
    document.add_heading("Figures", 1)
    for number, table in enumerate(dossier.tables, 1):
        document.add_heading(f"Table {number}. {table.title}", 2)
        lines = [head(table), *cells(table)]
        grid = document.add_table(len(lines), len(lines[0]), style="Light Grid Accent 1")
        for row, line in zip(grid.rows, lines, strict=True):
            for cell, written in zip(row.cells, line, strict=True):
                cell.text = written
                for run in cell.paragraphs[0].runs:
                    run.font.size = Pt(8)
        document.add_paragraph(" ".join(filter(None, (origin(table), table.note))))
    document.add_heading("To be filled in", 1)
    for place, blank in dossier.blanks:
        document.add_paragraph(f"{place}: {blank}", style="List Number")
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()
