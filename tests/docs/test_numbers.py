"""The documents' numbers are those that a command printed or prints.

Other tests hold the README's leaderboard (tests/test_demo.py) and what gradient methods keep in memory
(tests/attribution/test_memory.py).
"""

import io
import json
import re
import runpy
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from cxr_faith.__main__ import main
from cxr_faith.bench.families import FamilyRow, family_table
from cxr_faith.bench.results import Agreement, Spread
from cxr_faith.bench.table import render
from cxr_faith.vlm.families import FAMILIES
from cxr_faith.vlm.vocabulary import ANATOMY, FINDINGS, GROUPS, NOTHING
from tests.docs.documents import ROOT, blocks, command_lines, document, section

METHOD_TABLES = (
    ("methods.txt", "integrated_gradients*           0.897"),
    ("methods.txt", "torchmetrics over all ranks · mean"),
    ("methods.txt", "Does a method's idea matter?"),
    ("methods.txt", "Are the explaining sets"),
    ("greedy.txt", "greedy/blurred"),
    ("methods_own_order.txt", "integrated_gradients*       0.926"),
    ("igos_pp.txt", "igos_8x2"),
)
"""Files of the benchmarks, and a line that names their table in the page of the methods."""


def stripped(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def test_tables_of_results_are_those_of_the_benchmarks() -> None:
    shown = blocks(document("docs/methods.md"), "text")
    for name, title in METHOD_TABLES:
        printed = stripped((ROOT / "benchmarks" / name).read_text(encoding="utf-8"))
        (table,) = [stripped(block) for block in shown if title in block]
        start = printed.index(table[0])
        assert printed[start : start + len(table)] == table, title
    scaling = (ROOT / "benchmarks" / "scaling.txt").read_text(encoding="utf-8")
    (printed,) = [block for block in blocks(document("docs/speed.md"), "text") if "linear in the samples" in block]
    assert [line.split() for line in printed.splitlines()] == [line.split() for line in scaling.strip().splitlines()]


def test_tables_of_the_panel_are_those_that_were_printed() -> None:
    printed = (ROOT / "benchmarks" / "panel.txt").read_text(encoding="utf-8")
    page = section(document("docs/panel.md"), "Results")
    shown = blocks(page, "text")
    assert len(shown) >= 8 and all(table.strip() + "\n" in printed for table in shown)
    words = re.sub("```text.*?```", "", page, flags=re.DOTALL)
    numbers = {f"0{number}" for number in re.findall(r"(?<![\d`-])\.\d+", words)} - {"0.773"}  # of the training's log
    assert len(numbers) > 10 and all(number in printed for number in numbers), numbers


def test_scores_in_the_readme_and_the_methods_page_are_those_of_the_benchmark() -> None:
    lines = (ROOT / "benchmarks" / "methods.txt").read_text(encoding="utf-8").splitlines()
    srg = {line.split()[0].rstrip("*"): line.split()[1] for line in lines if "[" in line and "%" in line}
    rows = [line for line in section(document("README.md"), "Which method to choose").splitlines() if "srg" in line]
    assert len(rows) == 5
    for row in rows:
        methods = [name for name in re.findall(r"`(\w+)`", row) if name in srg]
        shown = re.findall(r"\b\d\.\d{3}\b", row)
        assert set(shown) <= {*(srg[name] for name in methods), srg["oracle"]}
        assert {srg[name] for name in methods} <= set(shown), row


def test_verdicts_on_methods_name_every_method_with_its_score() -> None:
    lines = (ROOT / "benchmarks" / "methods.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if "[" in line and "%" in line and "[95" not in line]
    srg = {row[0].rstrip("*‡"): row[1] for row in rows}
    baselines = {"random_map", "center", "edges", "oracle"}
    shown = {}
    for row in document("docs/methods.md").split("| method | srg | verdict |")[1].split("\n\n")[0].splitlines()[2:]:
        names, scores, verdict = (cell.strip() for cell in row.strip("|").split("|"))
        shown |= dict(zip(re.findall(r"`(\w+)`", names), scores.split(", "), strict=True))
        assert verdict
    assert shown == {
        name: score.replace("0.", ".").replace("-", "−")
        for name, score in srg.items()
        if name not in baselines and "/" not in name
    }


def test_the_budget_is_what_the_script_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = blocks(document("docs/budget.md"), "text")
    monkeypatch.setattr("sys.argv", ["budget.py"])
    runpy.run_path(str(ROOT / "benchmarks" / "budget.py"), run_name="__main__")
    assert capsys.readouterr().out.split() == block.split()


@pytest.mark.parametrize("name", ["intervals", "adaptive", "adaptive_board"])
def test_simulated_tables_are_those_that_were_printed(name: str) -> None:
    printed = (ROOT / "benchmarks" / f"{name}.txt").read_text(encoding="utf-8")
    assert printed in blocks(document("docs/numbers.md"), "text")
    assert f"`python benchmarks/{name}.py`" in document("docs/numbers.md")


def test_the_words_by_which_answers_are_read_are_those_of_the_code() -> None:
    text = document("docs/answers.md")
    known = {"Options": GROUPS.values(), "Findings and devices": [FINDINGS], "Places": [ANATOMY]}
    for heading, tables in known.items():
        rows = [line for line in section(text, heading).splitlines() if line.startswith("| ")][1:]
        expected = {item: ", ".join(others) or "–" for table in tables for item, others in table.items()}
        assert dict(row.strip("| ").split(" | ") for row in rows) == expected, heading
    named = re.findall('"([^"]+)"', " ".join(section(text, "Answers that name nothing").split()))
    assert named == [answer for answer in NOTHING if answer]


class Values(SimpleNamespace):
    """Values of a JSON object by attribute; the file leaves out what was not measured."""

    def __getattr__(self, name: str) -> None:
        return None


def values_of(content: object, name: str = "") -> object:
    """Content of a benchmark's file as `BenchResult` has it, as far as its table reads it."""
    if isinstance(content, list):
        return [values_of(value) for value in content]
    if not isinstance(content, dict):
        return content
    values = {key: values_of(value, key) for key, value in content.items()}
    if name in ("counts", "ratios"):
        return values
    if name == "agreement":
        return Agreement(content["difference"], content["tolerance"])
    return Values(**values) if values else None


def test_tables_of_speed_are_those_of_the_benchmarks_files() -> None:
    tables = blocks(document("docs/speed.md"), "text")
    for preset, table in zip(("tiny", "small"), tables, strict=False):
        result = values_of(json.loads((ROOT / "benchmarks" / f"{preset}.json").read_text(encoding="utf-8")))
        output = io.StringIO()
        render(preset, result, Console(file=output, width=130))
        assert [line.split() for line in table.splitlines()] == [
            line.split() for line in output.getvalue().splitlines()
        ]


def test_the_table_of_families_is_that_of_the_benchmarks_file() -> None:
    (table,) = [block for block in blocks(document("docs/speed.md"), "text") if "engine ÷ floor at most" in block]
    content = json.loads((ROOT / "benchmarks" / "families.json").read_text(encoding="utf-8"))
    spreads = ("engine", "floor", "ratio")
    rows = [FamilyRow(**row | {name: Spread(**row[name]) for name in spreads}) for row in content["rows"]]
    output = io.StringIO()
    Console(file=output, width=130).print(family_table("", rows))
    printed = [line.split() for line in output.getvalue().splitlines() if line.strip()]
    assert [line.split() for line in table.splitlines()][1 : len(printed) + 1] == printed
    assert {row.family for row in rows} == {*FAMILIES} and all(row.ratio.median <= 1.10 for row in rows)


@pytest.mark.slow
def test_an_audit_prints_what_its_page_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers may differ in their last digits: other processors add in another order."""
    page = document("docs/tutorials/one-film.md")
    commands = [line for line in command_lines(page) if "phantom" in line]
    for command, shown in zip(commands, blocks(page, "text"), strict=True):
        name, image, *words = shlex.split(command)[1:]
        assert main([name, str(ROOT / image), *words, "--out", str(tmp_path)]) == 0
        printed = capsys.readouterr().out
        printed = printed[printed.index("answer ") : printed.index("figure ")]
        numbers = [[float(text) for text in re.findall(r"[-+]?\d+\.\d+", block)] for block in (printed, shown)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.003)
        assert re.sub(r"[-+]?\d+\.\d+", "#", printed) == re.sub(r"[-+]?\d+\.\d+", "#", shown)
