"""Writes a dossier as Markdown, as one HTML page, or as a Word file; all three hold the same text."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from cxr_faith.printable import markdown_text
from cxr_faith.report.dossier.dossier import BLANK, Dossier, Statement
from cxr_faith.report.dossier.evidence import Column, Evidence
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
    if ending == "docx":
        from cxr_faith.report.dossier.word import docx  # needs the extra

        write_atomic(path, docx(dossier))
    else:
        write_atomic(path, html(dossier) if ending == "html" else markdown(dossier))


def titles(dossier: Dossier) -> list[str]:
    """The numbered titles of the tables; among several runs each names its own."""
    several = len(dossier.runs) > 1
    return [
        f"Table {number}. {table.title}{f' ({table.source})' if several else ''}"
        for number, table in enumerate(dossier.tables, 1)
    ]


def head(table: Evidence) -> list[str]:
    """The heads of a table's columns."""
    return ["", *(["verdict"] if _judged(table) else []), *(column.title for column, _ in _filled(table)), "place"]


def cells(table: Evidence) -> list[list[str]]:
    """The rows of a table as text, without columns that no row has a value in."""
    judged, filled = _judged(table), [number for _, number in _filled(table)]
    return [
        [row.name, *([row.verdict] if judged else []), *(row.figures[number].text for number in filled), row.place]
        for row in table.rows
    ]


def _filled(table: Evidence) -> list[tuple[Column, int]]:
    """The columns in which a row has a value, with their numbers."""
    values = [[row.figures[number].value for row in table.rows] for number in range(len(table.columns))]
    some = [any(value is not None and value != "" for value in column) for column in values]
    return [(column, number) for number, column in enumerate(table.columns) if some[number]]


def _judged(table: Evidence) -> bool:
    return any(row.verdict for row in table.rows)


def origin(table: Evidence) -> str:
    """Where a table's figures are, and which value of its row each column is."""
    keys = ", ".join(f"{column.title} = {column.place}" for column, _ in _filled(table) if column.place)
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
    for title, table in zip(titles(dossier), dossier.tables, strict=True):
        yield from (f"### {text(title)}", "")
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
        titles=titles(dossier),
        head=head,
        cells=cells,
        origin=origin,
    )
