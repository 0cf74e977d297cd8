"""Writes a dossier as Markdown, as one HTML page, or as a Word file; all three hold the same text."""

import io
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from cxr_faith.printable import markdown_text
from cxr_faith.report.dossier.dossier import BLANK, Dossier, Statement
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
    return ["", *(["verdict"] if _judged(table) else []), *(column.title for column in table.columns), "place"]


def cells(table: Evidence) -> list[list[str]]:
    """The rows of a table as text."""
    judged = _judged(table)
    return [
        [row.name, *([row.verdict] if judged else []), *(figure.text for figure in row.figures), row.place]
        for row in table.rows
    ]


def _judged(table: Evidence) -> bool:
    return any(row.verdict for row in table.rows)


def origin(table: Evidence) -> str:
    """Where a table's figures are, and which value of its row each column is."""
    keys = ", ".join(f"{column.title} = {column.place}" for column in table.columns if column.place)
    return f"From {table.source}: {table.file}{f'; in each row {keys}' if keys else ''}."


def with_tables(said: Statement) -> str:
    """What a run says to an item, with the tables that have its figures."""
    numbers = f"({', '.join(f'table {number}' for number in said.tables)})"
    return " ".join(filter(None, (said.text, numbers)))


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
            for said in entry.statements:
                yield from (text(with_tables(said)), "")
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
    from docx.enum.section import WD_ORIENT
    from docx.oxml import OxmlElement
    from docx.shared import Mm, Pt, RGBColor

    document = Document()
    document.styles["Normal"].font.size = Pt(10)
    portrait = document.sections[0]
    portrait.page_width, portrait.page_height = Mm(210), Mm(297)
    document.add_heading(f"{TITLE}: {', '.join(dossier.runs)}", 0)
    document.add_paragraph(FOREWORD)
    for section in dossier.sections:
        document.add_heading(section.title, 1)
        document.add_paragraph(section.about)
        for entry in section.entries:
            document.add_heading(entry.name, 2)
            document.add_paragraph().add_run(entry.asks).font.color.rgb = RGBColor(0x55, 0x60, 0x6E)
            for said in entry.statements:
                document.add_paragraph(with_tables(said))
            for blank in entry.blanks:
                document.add_paragraph(style="List Bullet").add_run(blank).italic = True
    wide = document.add_section()  # the tables have up to eleven columns
    wide.orientation, wide.page_width, wide.page_height = WD_ORIENT.LANDSCAPE, Mm(297), Mm(210)
    wide.left_margin = wide.right_margin = Mm(15)
    document.add_heading("Figures", 1)
    for number, table in enumerate(dossier.tables, 1):
        document.add_heading(f"Table {number}. {table.title}", 2)
        lines = [head(table), *cells(table)]
        grid = document.add_table(len(lines), len(lines[0]), style="Light Grid Accent 1")
        grid.rows[0]._tr.get_or_add_trPr().append(OxmlElement("w:tblHeader"))  # on each page that the table is on
        for row, line in zip(grid.rows, lines, strict=True):
            for cell, written in zip(row.cells, line, strict=True):
                cell.text = written
                for run in cell.paragraphs[0].runs:
                    run.font.size = Pt(8)
        document.add_paragraph(" ".join(filter(None, (origin(table), table.note))))
    last = document.add_section()
    last.orientation, last.page_width, last.page_height = WD_ORIENT.PORTRAIT, Mm(210), Mm(297)
    document.add_heading("To be filled in", 1)
    for place, blank in dossier.blanks:
        document.add_paragraph(f"{place}: {blank}", style="List Number")
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()
