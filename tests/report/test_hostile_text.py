"""Names, questions and answers that hold escape sequences, markup or formulas reach no medium as such."""

import csv
import io
import json
import re
import sys
import unicodedata
from html import unescape
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from markdown_it import MarkdownIt
from rich.progress import Progress
from rich.table import Table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cxr_faith.__main__ import main
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.printable import csv_text, json_text, markdown_text, plain, printable
from cxr_faith.records import RecordWriter
from cxr_faith.report.terminal import PlainConsole
from tests.runs import CONFIG, run_here
from tests.synthetic import make_rows

ESCAPES = "\x1b]0;owned\x07\x1b[31m\x9b2J\r\u202e\u200b\u2066\u2028\x00"
MARKUP = "[bold]<b>`x`</b> [a](http://x) ![i](http://x/i.png) **b** | \\| =1+1"
HOSTILE = f"{ESCAPES}{MARKUP}"


def hidden(text: str) -> set[str]:
    """Characters of a text that a terminal or a page acts upon, or that nobody sees; line ends are none."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Is there a nodule? 結節 🫁 –", "Is there a nodule? 結節 🫁 –"),
        ("a\nb\tc\r\u2028d\u00a0e\u3000f", "a b c  d\u00a0e\u3000f"),
        ("\x1b[31m\x07\x7f\x9b", "\\x1b[31m\\x07\\x7f\\x9b"),
        ("\u202egnp\u200b\ufeff\u2066", "\\u202egnp\\u200b\\ufeff\\u2066"),
        ("a\u3164b\u115f\u1160\uffa0\u2800", "a\\u3164b\\u115f\\u1160\\uffa0\\u2800"),
        ("\U000e0041\udce9", "\\U000e0041\\udce9"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown and not hidden(printable(HOSTILE))


def test_json_is_escaped_and_reads_back_as_it_was() -> None:
    content = {"a\x9bb": [HOSTILE, 1.5, None, "結節 🫁 é"]}
    text = json_text(content)
    assert json.loads(text) == content and not hidden(text) and "結節 🫁 é" in text
    good = {"b": 1, "a": ["é", {"c": None}]}
    assert json_text(good, sort_keys=True) == json.dumps(good, indent=1, ensure_ascii=False, sort_keys=True)
    assert plain({HOSTILE: (HOSTILE, 2)}) == {printable(HOSTILE): [printable(HOSTILE), 2]}


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "' =1"),
        ("\r=1", "' =1"),
        ("-0.5", "-0.5"),
        ("+3", "+3"),
        (-7, "-7"),
        ("p10/s5 = left", "p10/s5 = left"),
        ("a\x1b[31m\nb", "a\\x1b[31m b"),
    ],
)
def test_a_spreadsheet_gets_no_formula(value: object, cell: str) -> None:
    assert csv_text(value) == cell


@pytest.mark.parametrize("text", [HOSTILE, "\\|", "# title", "* item", "_a_ __b__", "~~gone~~", "[x]: http://x"])
def test_markdown_shows_text_as_it_is(text: str) -> None:
    safe = markdown_text(text)
    assert not hidden(safe) and "<" not in safe.replace("<!-- -->", "")
    # No pipe, backtick, emphasis or middle of a link stands there without an odd number of backslashes before it.
    for special in re.finditer(r"\||`|\*(?=\S)|(?<!\w)_(?=\S)|~(?=~)|\](?=[(:\[])|^#", safe):
        before = safe[: special.start()]
        assert (len(before) - len(before.rstrip("\\"))) % 2 == 1, (safe, special)


ITEMS = ("- a", "+ a", "* a", "-", "1. a", "12) a", "[ ] a", "[x] a")
BLOCKS = ("---", "- - -", "***", "___", "===", "# a", "> a", ":--", "~~~", "    a")
INLINE = ("__a__", "___a___", "_a_", "(_a_)", "a _b_", "**a**", "~a~", "<b>a</b>", "<http://a.b>", "[a](b)", "![a](b)")


@pytest.mark.parametrize("text", [*ITEMS, *BLOCKS, *INLINE, HOSTILE, "snake_case__name", "-0.5", "1.5 a", "a\\"])
def test_a_markdown_reader_shows_text_as_it_is(text: str) -> None:
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    shown = " ".join(printable(text).split())
    for begin in ("", "- ", "a paragraph  \n"):
        html = reader.render(f"{begin}{markdown_text(text)}\n")
        line = re.sub(r"<(/?(p|ul|li)|br /|!-- --)>|\n", "", html)
        assert unescape(line) == f"{begin.strip('- ').rstrip()}{shown}"
    cell = reader.render(f"| a | b |\n|---|---|\n| {markdown_text(text)} | 1 |\n")
    assert re.findall("<td>(.*)</td>", cell.replace("<!-- -->", ""))[1:] == ["1"]
    assert unescape(re.findall("<td>(.*)</td>", cell.replace("<!-- -->", ""))[0]) == shown


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("see http://a.b", "see http<!-- -->://a.b"),
        ("HTTPS://a.b", "HTTPS<!-- -->://a.b"),
        ("www.a.b", "www<!-- -->.a.b"),
        ("a@b.c", "a@<!-- -->b.c"),
        ("mailto:a@b.c", "mailto:a@<!-- -->b.c"),
        ("@somebody", "@<!-- -->somebody"),
        ("a@1.de, drop @50", "a@<!-- -->1.de, drop @50"),
        ("1 @ 2, a://", "1 @ 2, a<!-- -->://"),
    ],
)
def test_github_makes_no_link_of_an_address(text: str, split: str) -> None:
    assert markdown_text(text) == split


def test_good_text_stays_in_markdown() -> None:
    text = "input_x_gradient* 0.51 [0.42, 0.60] · blur:0.1, p = 0.003 (n=3 of 7, 2 patients) †"
    assert markdown_text(text) == text


@pytest.mark.parametrize("terminal", [True, False])
def test_a_table_holds_no_markup_and_no_escape_sequence(terminal: bool) -> None:
    out = io.StringIO()
    console = PlainConsole(file=out, force_terminal=terminal, width=300, color_system=None)
    table = Table(title=HOSTILE, caption=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    console.print(HOSTILE)
    with Progress(console=console, disable=not terminal):
        print(HOSTILE, file=sys.stderr)  # on a terminal, rich sends it through the console
    shown = re.sub(r"\r?\x1b\[(2K|1A|\?25[lh])", "", out.getvalue())  # rich draws the bar anew
    assert not hidden(shown) and shown.count("[bold]<b>") == 5 + terminal and ":smile:" not in shown


def texts_of(folder: Path) -> str:
    """All texts of the event files in a folder, and all tags."""
    found = []
    for path in {file.parent for file in folder.rglob("events.out.tfevents.*")}:
        events = EventAccumulator(str(path), size_guidance={"tensors": 0}).Reload()
        tags = events.Tags()
        found += [tag for kind in tags.values() if isinstance(kind, list) for tag in kind]
        for tag in tags["tensors"]:
            if "text_summary" in tag:
                found += [text.decode() for event in events.Tensors(tag) for text in event.tensor_proto.string_val]
    return "\n".join(found)


def check_results(run_dir: Path) -> None:
    """No file of a run that people look at holds what a terminal or a page would act upon."""
    for name in ("summary.json", "summary.md", "report/index.html"):
        assert not hidden((run_dir / name).read_text(encoding="utf-8")), name
    page = (run_dir / "report" / "index.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert not hidden(json.dumps(data, ensure_ascii=False)) and "\\u001b" not in json.dumps(data)
    assert "<b>" not in page and "[a](http" not in (run_dir / "summary.md").read_text(encoding="utf-8")


def test_a_report_of_hostile_records(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "[bold]x[/bold] \x1b[31m"
    rows = make_rows()
    for row in rows:
        row["finding"] = row["finding"] and f"{row['finding']}{HOSTILE}"
        row |= {"sample_id": f"{row['sample_id']}{HOSTILE}", "question": HOSTILE, "generated": HOSTILE}
        row["reason"] = HOSTILE if row["status"] == "invalid" else row.get("reason")
    RecordWriter(run_dir, rank=0, start=0).write(rows)
    assert main(["report", str(run_dir)]) == 0
    out, err = capfd.readouterr()
    assert not hidden(out + err) and f"[bold]x[/bold] \\x1b[31m{'/report/index.html'}" in out
    check_results(run_dir)


@pytest.mark.slow
def test_a_run_of_hostile_samples(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Ids, questions, findings and a missing picture's name; a method that is named like markup."""
    folder, run_dir = tmp_path / "a[red]b", tmp_path / "run[/red]"
    folder.mkdir()
    frame: pd.DataFrame = pq.read_table(bundled_manifest()).slice(0, 4).to_pandas()
    schema = pq.read_schema(bundled_manifest())
    for name in ("sample_id", "question", "finding", "patient_id"):
        frame[name] = [f"{value}{HOSTILE}{number}" for number, value in enumerate(frame[name])]
    frame.loc[1, "image_path"] = f"{HOSTILE}.jpg".replace("/", "").replace("\x00", "")
    frame.loc[1, "image_id"] = HOSTILE
    pq.write_table(pa.Table.from_pandas(frame, schema), folder / "manifest.parquet")
    config = tmp_path / "config.yaml"
    text = CONFIG.format(steps=2, manifest=f"'{folder / 'manifest.parquet'}'", root=bundled_manifest().parent)
    config.write_text(text.replace("chefer: {}", "'[bold]mine[/bold]': {class: attention}"))
    status = run_here(config, run_dir, "--show_images", "true")
    out, err = capfd.readouterr()
    assert status == 0, err
    assert not hidden(out + err) and "[bold]mine[/bold]" in out and "run[/red]/records" in out
    check_results(run_dir)
    assert not hidden(texts_of(run_dir / "tensorboard"))


def test_prepare_writes_no_formula_and_no_escape_sequence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = pd.DataFrame(
        {
            "image_path": ["=cmd|x!A0.png", f"{ESCAPES}.png".replace("\x00", ""), "a[red].png"],
            "question": [HOSTILE.replace("\x00", "")] * 3,
            "answer": ["yes"] * 3,
            "sample_id": ["=1+1", "+2+2", "@SUM(1)"],
        }
    )
    table.to_json(tmp_path / "questions.json", orient="records")
    out = tmp_path / "[b]made"
    words = ["table", "--file", str(tmp_path / "questions.json"), "--root", str(tmp_path), "--out", str(out)]
    status = main(["prepare", *words])
    printed = "".join(capfd.readouterr())
    assert not hidden(printed) and ("[b]made" in printed or status == 2)
    if status == 0:
        for file in (*out.glob("*.json"), *out.glob("*.md"), *out.glob("*.csv")):
            assert not hidden(file.read_text(encoding="utf-8")), file
        with (out / "drops.csv").open(encoding="utf-8", newline="") as file:
            assert [cell for row in csv.reader(file) for cell in row if cell.startswith(("=", "+", "-", "@"))] == []
    main(["prepare", "check", str(out)])
    assert not hidden("".join(capfd.readouterr()))
