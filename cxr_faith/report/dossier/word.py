"""Writes a dossier as a Word file: text in portrait, tables in landscape, page numbers, blanks in italics."""

import io
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

from docx import Document  # the extra `docx`
from docx.enum.section import WD_ORIENT
from docx.enum.text import WD_ALIGN_PARAGRAPH
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.shared import Mm, Pt, RGBColor

from cxr_faith.report.dossier.dossier import Dossier
from cxr_faith.report.dossier.evidence import Evidence
from cxr_faith.report.dossier.write import FOREWORD, TITLE, cells, head, origin, titles, with_tables

if TYPE_CHECKING:
    from docx.document import Document as Word
    from docx.section import Section as Pages
    from docx.text.paragraph import Paragraph

_SHORT, _LONG, _EDGE = 210, 297, 15  # mm of A4 and of the margins beside the tables
_LETTER, _PADDING = 1.9, 4.0  # mm: the width of a letter of 8 points, with room to spare; both sides of a cell


def docx(dossier: Dossier) -> bytes:
    """The dossier as a Word file."""
    document = Document()
    document.styles["Normal"].font.size = Pt(10)
    about = document.core_properties
    about.title, about.author, about.comments = f"{TITLE}: {', '.join(dossier.runs)}", "cxr_faith", ""
    _turn(document.sections[0], wide=False)
    _number_pages(document.sections[0])
    document.add_heading(about.title, 0)
    document.add_paragraph(FOREWORD)
    _write_items(document, dossier)
    _turn(document.add_section(), wide=True)
    document.add_heading("Figures", 1)
    for title, table in zip(titles(dossier), dossier.tables, strict=True):
        document.add_heading(title, 2)
        _write_table(document, table)
        document.add_paragraph(" ".join(filter(None, (origin(table), table.note))))
    _turn(document.add_section(), wide=False)
    document.add_heading("To be filled in", 1)
    for place, blank in dossier.blanks:
        document.add_paragraph(f"{place}: {blank}", style="List Number")
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def _write_items(document: "Word", dossier: Dossier) -> None:
    """Write each document's items, with what the runs say to them and the blanks."""
    for section in dossier.sections:
        document.add_heading(section.title, 1)
        _with_next(document.add_paragraph(section.about))
        for entry in section.entries:
            document.add_heading(entry.name, 2)
            asks = _with_next(document.add_paragraph())
            asks.add_run(entry.asks).font.color.rgb = RGBColor(0x55, 0x60, 0x6E)
            for said in entry.statements:
                document.add_paragraph(with_tables(said))
            for blank in entry.blanks:
                document.add_paragraph(style="List Bullet").add_run(blank).italic = True


def _write_table(document: "Word", table: Evidence) -> None:
    """Write a table whose columns are as wide as their text needs; its last row stays with the line below it."""
    lines = [head(table), *cells(table)]
    grid = document.add_table(len(lines), len(lines[0]), style="Light Grid Accent 1")
    grid.autofit = False
    sizes = [Mm(width) for width in widths(lines, _LONG - 2 * _EDGE)]
    for column, size in zip(grid.columns, sizes, strict=True):
        column.width = size
    grid.rows[0]._tr.get_or_add_trPr().append(OxmlElement("w:tblHeader"))  # on each page that the table is on
    for row, line in zip(grid.rows, lines, strict=True):
        row._tr.get_or_add_trPr().append(OxmlElement("w:cantSplit"))
        for cell, written, size in zip(row.cells, line, sizes, strict=True):
            cell.text, cell.width = written, size
            for run in cell.paragraphs[0].runs:
                run.font.size = Pt(8)
    for cell in chain(*(row.cells for row in (grid.rows[0], grid.rows[-1]))):
        _with_next(cell.paragraphs[0])


def widths(lines: Sequence[Sequence[str]], whole: float) -> list[float]:
    """The widths of a table's columns in mm, which together are `whole`.

    A column gets the room of its longest word, and a share of what is left that grows with the rest of its longest
    cell. If there is no room for all words, all columns shrink alike.
    """
    columns = list(zip(*lines, strict=True))
    least = [_LETTER * max(len(word) for text in column for word in [*text.split(), ""]) for column in columns]
    full = [_LETTER * max(map(len, column)) for column in columns]
    least, full = ([width + _PADDING for width in each] for each in (least, full))
    left = whole - sum(least)
    if left < 0:
        return [width * whole / sum(least) for width in least]
    wanted = [most - width for most, width in zip(full, least, strict=True)]
    if sum(wanted) > left:
        return [width + left * more / sum(wanted) for width, more in zip(least, wanted, strict=True)]
    return [width + (left - sum(wanted)) * width / sum(full) for width in full]


def _with_next(paragraph: "Paragraph") -> "Paragraph":
    """Keep a paragraph on the page of what follows it."""
    paragraph.paragraph_format.keep_with_next = True
    return paragraph


def _turn(pages: "Pages", wide: bool) -> None:
    """Make the pages of a section A4, portrait or landscape."""
    pages.orientation = WD_ORIENT.LANDSCAPE if wide else WD_ORIENT.PORTRAIT
    pages.page_width, pages.page_height = (Mm(_LONG), Mm(_SHORT)) if wide else (Mm(_SHORT), Mm(_LONG))
    pages.left_margin = pages.right_margin = Mm(_EDGE if wide else 25)


def _number_pages(pages: "Pages") -> None:
    """Write the number of each page at its lower edge, in this section and those after it."""
    field = OxmlElement("w:fldSimple")
    field.set(qn("w:instr"), "PAGE")
    pages.footer.paragraphs[0].alignment = WD_ALIGN_PARAGRAPH.CENTER
    pages.footer.paragraphs[0]._p.append(field)
