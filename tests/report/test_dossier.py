"""`cxr-faith dossier`: each figure equals the record it names, and what no run can know is a blank."""

import io
import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cxr_faith.__main__ import main
from cxr_faith.cli import dossier as command
from cxr_faith.printable import json_text
from cxr_faith.records import RecordWriter
from cxr_faith.report.compare_page import write_comparison
from cxr_faith.report.dossier.dossier import BLANK, Dossier, make_dossier
from cxr_faith.report.dossier.evidence import Column, Evidence, Figure, Row, Source
from cxr_faith.report.dossier.sentences import sentence
from cxr_faith.report.dossier.standards import STANDARDS
from cxr_faith.report.dossier.topics import TOPICS
from cxr_faith.report.dossier.write import FORMATS, cells, head, html, markdown, origin, titles, with_tables
from cxr_faith.report.results import write_results
from cxr_faith.summary.compare import compare
from cxr_faith.summary.verdict import verdict_lines, verdict_of
from tests.synthetic import make_rows

PRIVATE = "/home/" + "ann/models"
"""Where a model lies is nobody's business."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, the checks of one of them, their comparison, and what `plan` printed."""
    folder = tmp_path_factory.mktemp("dossier")
    for name in ("one", "two"):
        run_dir = folder / name
        run_dir.mkdir()
        RecordWriter(run_dir, rank=0, start=0).write(make_rows(16))
        model = {"source": f"{PRIVATE}/medgemma|4b", "revision": "", "hash": "abc123"}
        identity = {"model": {"dtype": "float32"}, "perturbation": {"steps": 12, "seed": 0}}
        provenance = {"model": model, "identity": identity, "versions": {"a/b~c": "1.0"}, "git_revision": None}
        (run_dir / "provenance.json").write_text(json.dumps(provenance))
        write_results(run_dir)
    method = {"control": False, "chance": 0.25, "interval": [0.5, 0.75], "failed": True}
    (folder / "one" / "sanity.json").write_text(json.dumps({"samples": 4, "methods": {"chefer": method}}))
    check = {"name": "model", "status": "warn", "figure": "0.5 of <b>it</b>", "advice": "=look"}
    (folder / "one" / "doctor.json").write_text(json.dumps({"checks": [check]}))
    write_comparison(compare([folder / "one", folder / "two"]), folder / "compared")
    (folder / "plan.txt").write_text("GPU-hours 12.5\n\npatients 40 for a difference of 0.02\n")
    return folder


@pytest.fixture(scope="module")
def dossier(folder: Path) -> Dossier:
    return make_dossier([folder / "one", folder / "two"], folder / "compared", folder / "plan.txt")


@cache
def parsed(file: Path) -> Any:
    return json.loads(file.read_text())


def value_at(file: Path, place: str) -> object:
    """A slow twin of the dossier's reading: JSON pointers as RFC 6901 has them."""
    if file.suffix == ".txt":
        return file.read_text().splitlines()[int(place.removeprefix("/line ")) - 1]
    value = parsed(file)
    for part in place[1:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def test_each_figure_equals_the_record_it_names(folder: Path, dossier: Dossier) -> None:
    figures = 0
    for table in dossier.tables:
        file = (folder if table.source == "plan" else folder / table.source) / table.file
        for row in table.rows:
            for column, figure in zip(table.columns, row.figures, strict=True):
                value = value_at(file, figure.place)
                assert figure.place == row.place + column.place and figure.value == value, figure
                assert figure.text == column.show(value), figure
                if isinstance(value, float) and figure.text.endswith("%"):
                    assert float(figure.text[:-1]) == pytest.approx(100 * value, abs=0.051)
                elif isinstance(value, float):
                    assert float(figure.text) == pytest.approx(value, rel=6e-3, abs=6e-4), figure
                figures += 1
    assert figures > 100
    assert {table.topic for table in dossier.tables} >= TOPICS.keys() - {"robustness", "groups", "localization"}
    assert {table.topic for table in dossier.tables} >= {"compared", "plan"}


def test_the_verdict_is_that_of_the_runs_boards(folder: Path, dossier: Dossier) -> None:
    run = make_dossier([folder / "two"])
    (table,) = [one for one in run.tables if one.topic == "explanations"]
    summary = write_results(folder / "two").summary
    assert table.note.endswith(" ".join(verdict_lines(summary.boards))) and summary.boards
    (failed,) = [one for one in dossier.tables if one.topic == "explanations" and one.source == "one"]
    assert "chefer" in failed.note and failed.note != table.note  # the sanity check of this run failed


def test_methods_stand_best_first_with_their_verdict(folder: Path, dossier: Dossier) -> None:
    (table,) = [one for one in dossier.tables if one.topic == "explanations" and one.source == "two"]
    board = write_results(folder / "two").summary.boards[0]
    assert [row.name for row in table.rows] == [row.method for row in board.ranked()]
    judged = {one.method: one.verdict for one in verdict_of(board).methods}
    assert {row.name: row.verdict for row in table.rows} == {
        row.method: judged.get(row.method, "control") for row in board.rows
    }
    place = head(table).index("verdict")
    assert [line[place] for line in cells(table)] == [row.verdict for row in table.rows]
    (differences,) = [one for one in dossier.tables if one.topic == "compared" and one.title.startswith("Paired")]
    means = [row.figures[1].value for row in differences.rows]
    assert means == sorted(means, reverse=True)
    (sanity,) = [one for one in dossier.tables if one.topic == "sanity"]
    assert [(row.name, row.verdict) for row in sanity.rows] == [("chefer", "failed")]


def test_the_text_of_each_item_is_made_from_its_tables(dossier: Dossier) -> None:
    said = {}
    for section in dossier.sections:
        for entry in section.entries:
            for one in entry.statements:
                assert one.text.endswith(".") and one.tables, (entry.name, one)
                shown = " ".join(
                    cell for number in one.tables for line in cells(dossier.tables[number - 1]) for cell in line
                )
                counts = {str(len(dossier.tables[number - 1].rows) - less) for number in one.tables for less in (0, 1)}
                notes = " ".join(dossier.tables[number - 1].note for number in one.tables)
                text = one.text.removeprefix("one: ").removeprefix("two: ")
                for number in re.findall(r"\d+\.?\d*", text):
                    assert number in shown or number in notes or number in counts or number == "0", (number, text)
                said[section.title, entry.name] = [*said.get((section.title, entry.name), []), one.text]
    assert said["CLAIM 2024", "Data sources and testing data"] == [
        "one: 16 questions about 4 patients were evaluated. 0 have no record and 2 could not be scored.",
        "two: 16 questions about 4 patients were evaluated. 0 have no record and 2 could not be scored.",
        "The plan says: GPU-hours 12.5; patients 40 for a difference of 0.02.",
    ]
    assert (
        "one: 1 of 1 methods failed: chefer. Their maps hardly depend on the model."
        in (said["CLAIM 2024", "Explainability or interpretability"])
    )
    alone = {entry.name: entry for section in dossier.sections for entry in section.entries if not entry.tables}
    assert "Reference standard" in alone and all(entry.blanks and not entry.statements for entry in alone.values())


def test_what_no_run_can_know_is_a_blank(folder: Path, dossier: Dossier) -> None:
    asked = {
        (f"{document.title}, {item.name}", blank)
        for document in STANDARDS
        for item in document.items
        for blank in item.blanks
    }
    blanks = dossier.blanks
    assert asked <= set(blanks) and len(asked) > 30
    lacking = {blank for _, blank in blanks} - {blank for _, blank in asked}
    assert "the sanity check, which cxr-faith sanity runs (not in two)" in lacking
    assert not any("(not in one)" in blank and "sanity" in blank for blank in lacking)
    assert not any("--compared" in blank or "--plan" in blank for blank in lacking)
    alone = make_dossier([folder / "two"])
    assert sum("--plan" in blank for _, blank in alone.blanks) == sum(
        "plan" in item.topics for document in STANDARDS for item in document.items
    )
    for section in dossier.sections:
        for entry in section.entries:
            assert entry.tables or entry.blanks, entry.name
            assert all(blank.startswith(BLANK) for blank in entry.blanks)
            assert all(1 <= number <= len(dossier.tables) for number in entry.tables)


def test_robustness_has_a_table_for_each_kind_of_change(tmp_path: Path) -> None:
    answers = [{"condition": "shift:2", "n": 4, "same": 0.5}, {"condition": "seed:1", "n": 3, "same": None}]
    maps = [{"condition": "shift:2", "method": "chefer", "spearman": 0.25}]
    content = {"conditions": {"answers": answers, "maps": maps}, "stability": None}
    (tmp_path / "summary.json").write_text(json.dumps(content))
    of_answers, of_maps = TOPICS["robustness"].collect(Source("run", tmp_path))
    assert cells(of_answers) == [
        ["shift:2", "4", "0.500", "/conditions/answers/0"],
        ["seed:1", "3", "–", "/conditions/answers/1"],
    ]
    assert cells(of_maps) == [["shift:2 · chefer", "0.250", "/conditions/maps/0"]]


def test_topics_of_the_items_are_known() -> None:
    known = {*TOPICS, "compared", "plan"}
    used = {topic for document in STANDARDS for item in document.items for topic in item.topics}
    assert used == known
    for document in STANDARDS:
        assert len({item.name for item in document.items}) == len(document.items)


def test_word_files_open_and_hold_every_figure_and_blank(dossier: Dossier) -> None:
    module = pytest.importorskip("docx")
    from cxr_faith.report.dossier.word import docx

    document = module.Document(io.BytesIO(docx(dossier)))
    about = document.core_properties
    assert (about.title, about.author, about.comments) == ("Audit dossier: one, two", "cxr_faith", "")
    assert 'w:instr="PAGE"' in document.sections[0].footer._element.xml
    assert all(section.footer.is_linked_to_previous for section in list(document.sections)[1:])
    assert len(document.tables) == len(dossier.tables)
    for grid, table in zip(document.tables, dossier.tables, strict=True):
        assert [[cell.text for cell in row.cells] for row in grid.rows][1:] == cells(table)
    sizes = [
        (section.page_width.mm > section.page_height.mm, round(section.page_width.mm)) for section in document.sections
    ]
    assert sizes == [(False, 210), (True, 297), (False, 210)]  # the tables are on landscape pages
    paragraphs = [paragraph.text for paragraph in document.paragraphs]
    for section in dossier.sections:
        assert all(with_tables(said) in paragraphs for entry in section.entries for said in entry.statements)
    assert all(f"{place}: {blank}" in paragraphs for place, blank in dossier.blanks)
    assert all(any(text.startswith(origin(table)) for text in paragraphs) for table in dossier.tables)
    italic = [p.text for p in document.paragraphs if p.runs and p.runs[0].italic]
    assert italic == [blank for section in dossier.sections for entry in section.entries for blank in entry.blanks]


def test_columns_of_a_word_table_have_room_for_their_words(dossier: Dossier) -> None:
    pytest.importorskip("docx")
    from cxr_faith.report.dossier.word import widths

    heads = ["", "verdict", *["in the mean", "coverage", "srg", "low", "high", "Δsrg center", "low", "high"], "place"]
    row = ["integrated_gradients/blurred", "no better than noise", *["+0.311"] * 8, "/boards/0/rows/6"]
    wide = widths([heads, row], 267)
    longest = [28, 7, *[6, 8, 6, 6, 6, 6, 6, 6], 16]
    assert sum(wide) == pytest.approx(267)
    assert all(width >= 1.9 * letters for width, letters in zip(wide, longest, strict=True))
    assert widths([["a", "b"]], 100) == pytest.approx([50, 50])
    long = widths([["x" * 300, "value"]], 267)  # a hash or an address: no page has room for it
    assert sum(long) == pytest.approx(267) and long[1] > 5
    for table in dossier.tables:
        assert sum(widths([head(table), *cells(table)], 267)) == pytest.approx(267)


def localization(*names: str) -> Evidence:
    columns = (Column("questions", "/n"), Column("pointing game", "/hits"), Column("low", "/low"))
    figures = (Figure(7, "7", "/n"), Figure(0.6, "60.0%", "/hits"), Figure(None, "–", "/low"))
    return Evidence(
        "localization", "", "one", "summary.json", columns, tuple(Row(name, "/0", figures) for name in names)
    )


def test_a_control_is_never_named_as_the_method_whose_maps_lie_on_the_finding() -> None:
    table = localization("oracle", "chefer/blurred", "gradient", "center")
    assert sentence("localization", [table]).startswith("The maps of gradient have their largest value")
    assert sentence("localization", [localization("oracle", "center")]) == ""


def test_a_run_without_masks_has_a_blank_for_localization_and_no_table(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "two", tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["localization"]
    for entry in summary["localization"]:
        entry |= {"n": 0, "pointing_game": None, "energy_inside": None, "iou_top_10": None}
    (run / "summary.json").write_text(json.dumps(summary))
    made = make_dossier([run])
    assert not any(table.topic == "localization" for table in made.tables)
    assert any("localization, which needs boxes or masks" in blank for _, blank in made.blanks)


def test_among_several_runs_each_title_of_a_table_names_its_run(folder: Path, dossier: Dossier) -> None:
    assert "Table 1. The model (one)" in titles(dossier) and "Table 2. The model (two)" in titles(dossier)
    assert titles(make_dossier([folder / "two"]))[0] == "Table 1. The model"
    for content in (html(dossier), markdown(dossier)):
        assert content.count(" (two)</h3>") + content.count(" (two)\n") >= sum(
            table.source == "two" for table in dossier.tables
        )


def test_columns_without_any_value_are_left_out() -> None:
    table = localization("gradient")
    assert head(table) == ["", "questions", "pointing game", "place"]
    assert cells(table) == [["gradient", "7", "60.0%", "/0"]]
    assert origin(table) == "From one: summary.json; in each row questions = /n, pointing game = /hits."


def test_markdown_and_html_hold_the_same_and_no_markup_of_others(dossier: Dossier) -> None:
    page, text = html(dossier), markdown(dossier)
    assert "<b>it</b>" not in page and "&lt;b&gt;it&lt;/b&gt;" in page and "<b>it</b>" not in text
    assert r"medgemma\|4b" in text and "medgemma|4b" in page
    assert page.count("<tr>") == sum(len(table.rows) + 1 for table in dossier.tables)
    assert page.count(BLANK) == text.count(BLANK) == len(dossier.blanks)
    assert "http" not in page.replace("http-equiv", "") and "default-src 'none'" in page
    for content in (page, text, json_text([cells(table) for table in dossier.tables])):
        assert PRIVATE not in content


def test_the_command_writes_each_format(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for ending in FORMATS:
        out = tmp_path / f"d.{ending}"
        assert main(["dossier", str(folder / "one"), "--out", str(out)]) == 0
        assert out.stat().st_size > 1000 and "blanks to be filled in" in capsys.readouterr().out
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    for words, message in (
        (["--out", "d.docx"], command.INSTALL),
        (["--out", "d.pdf"], "--out d.pdf: a dossier is written as .docx, .md or .html"),
        (
            ["--out", str(tmp_path / "e.md"), "--plan", str(tmp_path / "no.txt")],
            "no.txt: missing or empty; `cxr-faith plan`",
        ),
        (
            ["--out", str(tmp_path / "e.md"), "--compared", str(tmp_path)],
            "compare.json: missing or empty; `cxr-faith compare`",
        ),
    ):
        assert main(["dossier", str(folder / "one"), *words]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "e.md").exists()


def test_a_run_without_a_summary_is_named(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"summary\.json: missing; `cxr-faith report .*` writes it"):
        make_dossier([tmp_path])
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(ValueError, match=r"summary\.json: not JSON"):
        make_dossier([tmp_path])


def test_runs_of_one_name_are_told_apart(folder: Path, tmp_path: Path, dossier: Dossier) -> None:
    assert dossier.runs == ("one", "two")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "summary.json").write_bytes((folder / "one" / "summary.json").read_bytes())
    assert make_dossier([folder / "one", tmp_path / "one"]).runs == (f"{folder.name}/one", f"{tmp_path.name}/one")
