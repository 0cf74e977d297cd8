"""Tables that are small on disk and huge when they are read: each is refused in one line that names file and limit."""

import csv
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxr_faith.data.csv_files import csv_rows
from cxr_faith.data.json_files import json_entries, json_lines
from cxr_faith.data.sources.table_rows import TableRows
from cxr_faith.data.tables import number, read_json, read_table, text
from cxr_faith.data.tally import PrepareError
from tests.data.bombs import Case, costs_of, write_gz, write_sparse
from tests.data.layouts import save, write_csv

GIGABYTE = 2**30


def one_line(call: Callable[[], object]) -> str:
    with pytest.raises(PrepareError) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


def repeated(value: str, count: int) -> pa.DictionaryArray:
    """A column of one text, which Parquet stores once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8)), pa.array([value]))


def write_parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path, compression="zstd", store_schema=False)
    return path


def growing(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files by name, and what is said about them."""
    grows = "grows to more than 200 times its size"
    head = "image_path,question\n"
    rows = 12_000_000
    return {
        "rows.csv.gz": (write_gz(folder / "rows.csv.gz", head.encode(), b"a," + b"b" * 1021 + b"\n", 3000), grows),
        "line.csv.gz": (write_gz(folder / "line.csv.gz", head.encode(), b"0", 3000), "line 2 has more than 16,000,000"),
        "lines.jsonl.gz": (write_gz(folder / "lines.jsonl.gz", b"", b'{"question":"b"}', 3000), "more than 16,000,000"),
        "list.json.gz": (
            write_gz(folder / "list.json.gz", b"[", b'"' + b"b" * 1021 + b'",', 3000),
            "something other than rows",
        ),
        "text.json.gz": (write_gz(folder / "text.json.gz", b'["', b"0", 3000), "entry 1 has more than 16,000,000"),
        "nested.json.gz": (write_gz(folder / "nested.json.gz", b"[", b"[", 3000), "nested too deeply"),
        "line.json": (write_sparse(folder / "line.json", b'[{"a":"b"},', 3), "not valid JSON"),
        "line.csv": (write_sparse(folder / "line.csv", head.encode(), 3), "line 2 has more than 16,000,000"),
        "cell.parquet": (
            write_parquet(folder / "cell.parquet", image_path=repeated("a" * 10_000_000, 1000), question=["?"] * 1000),
            "column image_path: a text of more than 1,000,000 bytes",
        ),
        "rows.parquet": (
            write_parquet(folder / "rows.parquet", image_path=repeated("a", rows), question=repeated("b", rows)),
            "has more than 10,000,000 rows",
        ),
        "list.parquet": (
            write_parquet(
                folder / "list.parquet",
                image_path=["a"],
                question=["b"],
                answer=pa.ListArray.from_arrays(pa.array([0, rows], pa.int32()), repeated("c", rows)),
            ),
            "column answer: a list of more than 10,000 entries",
        ),
        "values.parquet": (
            write_parquet(
                folder / "values.parquet",
                image_path=["a"],
                question=["b"],
                answer=pa.ListArray.from_arrays(pa.array([0, 2 * rows], pa.int32()), repeated("c", 2 * rows)),
            ),
            "column answer: more than 20,000,000 values in a row group",
        ),
    }


def test_no_table_exhausts_the_memory(tmp_path: Path, slake: Path) -> None:
    """Tables, and files that are joined to a data set; each in a process of its own."""
    save(tmp_path / "root/a.png", 0)
    files = growing(tmp_path)
    cases: list[Case] = [("table", str(tmp_path / "root"), {"file": str(path)}) for path, _ in files.values()]
    text = write_gz(tmp_path / "marks.json.gz", b'{"a":"', b"0", 3000)
    nested = write_gz(tmp_path / "reports.json.gz", b"[", b"[", 3000)
    (slake / "imgs/xmlab1/detection.json").write_text("[" * 5_000_000)
    joined = (("chexlocalize", text, "entry 1 has more than 16,000,000"), ("padchest_gr", nested, "nested too deeply"))
    for option, path, said in joined:
        cases.append(("slake", str(slake), {option: str(path)}))
        files[path.name] = path, said
    for (name, (path, said)), cost in zip(files.items(), costs_of(cases), strict=True):
        assert not cost.crash, (name, cost)
        assert said in cost.message and str(path) in cost.message and "\n" not in cost.message, (name, cost)
        assert path.stat().st_blocks * 512 < 40e6 and cost.peak < 1.5 * GIGABYTE and cost.seconds < 40, (name, cost)
    [cost] = costs_of([("slake", str(slake), {})])
    assert not cost.crash and not cost.message, "a damaged file of boxes costs its boxes"


def test_large_true_tables_are_read_row_by_row(tmp_path: Path) -> None:
    """300,000 rows of 200 bytes, gzipped as published: a table of this kind must not come near a limit."""
    rng = np.random.default_rng(0)
    names = [f"{value:032x}" for value in rng.integers(0, 2**62, 300_000)]
    table = pd.DataFrame({"dicom_id": names, "study_id": rng.integers(5 * 10**7, 6 * 10**7, len(names))})
    table["PerformedProcedureStepDescription"], table["Rows"] = "CHEST (PORTABLE AP) " * 6, 3056
    path = tmp_path / "t.csv.gz"
    table.to_csv(path, index=False)
    again = read_table(path, ("dicom_id",), ("Rows",))
    assert list(again.columns) == ["dicom_id", "Rows"] and again["dicom_id"].tolist() == names
    assert set(again["Rows"]) == {"3056"}


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl"])
def test_small_files_and_windows(tmp_path: Path, ending: str) -> None:
    """Rows around the size of the reading window come out as they went in."""
    rng = np.random.default_rng(1)
    rows = [{"a": "x" * int(size), "b": 'quote " comma , line\n€'} for size in rng.integers(0, 3 * 2**20, 12)]
    path = tmp_path / f"t.{ending}"
    if ending == "csv":
        pd.DataFrame(rows).to_csv(path, index=False)
        expected = [{"a": row["a"] or None, "b": row["b"]} for row in rows]
    elif ending == "json":
        path.write_text(json.dumps(rows, indent=3), encoding="utf-8")
        expected = rows
    else:
        path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
        expected = rows
    table = TableRows(path)
    assert list(table) == expected == list(table) and table.count == 12 and list(table.columns) == ["a", "b"]


def test_json_entry_by_entry(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in ([1, 22, -3.5, "a", None, True, [[]], {"a": {}}], {"a": 1, "b": [2], "": None}, [], {}):
        path.write_text(json.dumps(content, indent=1))
        entries = json_entries(path, type(content))
        assert (dict(entries) if isinstance(content, dict) else [entry for _, entry in entries]) == content
    for wrong in (
        "[1 2]",
        "[1,]",
        "[,1]",
        "[1",
        '{"a" 1}',
        "{1: 2}",
        '{"a": 1,}',
        "[1] 2",
        "[1]]",
        "[tru]",
        '["\\x"]',
        "x",
    ):
        path.write_text(wrong)
        message = one_line(lambda wrong=wrong: read_json(path, dict if wrong.startswith("{") else list))
        assert str(path) in message and "not valid JSON" in message, wrong
    path.write_text("[" + "9" * 100_000 + ", NaN]")
    assert all(value != value for value in read_json(path, list)), "a number without end costs its row only"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'a,b\n1,"2\n3,4\n', "a quote in line 2 is never closed"),
        ("a,b\n1,2\n".encode("utf-16"), "not in UTF-8"),
        ("a,b\n1,é\n".encode("latin-1"), "not in UTF-8"),
        (b"", "it is empty"),
        (b"\n\n", "it is empty"),
        (b"a;b\n1;2\n", "lacks the column a; it has a;b"),
        (b"a\tb\n1\t2\n", r"lacks the column a; it has a\tb"),
        ("a,b\n1,2\n".encode("utf-16-le"), r"lacks the column a; it has a\x00"),
        (b"," * 20_000, "has more than 10,000 columns"),
    ],
)
def test_damaged_csv_files(tmp_path: Path, content: bytes, fault: str) -> None:
    for path, data in ((tmp_path / "t.csv", content), (tmp_path / "t.csv.gz", gzip.compress(content))):
        path.write_bytes(data)
        message = one_line(lambda path=path: read_table(path, ("a",)))
        assert fault in message and str(path) in message


def test_csv_as_pandas_reads_it(tmp_path: Path) -> None:
    content = '\ufeffa,b,b,\r\n1,"x, ""y""\nz",,nan\r\n\r\n2,5" tube,NaN,None,\r\n"3\n'
    (tmp_path / "t.csv").write_bytes(content.replace('"3\n', "3\n").encode())
    header, *rows = csv_rows(tmp_path / "t.csv")
    assert header == ["a", "b", "b.1", "Unnamed: 3"]
    assert rows == [["1", 'x, "y"\nz', None, None], ["2", '5" tube', None, "None"], ["3", None, None, None]]
    (tmp_path / "nul.csv").write_bytes(b"a,b\n1\0,2\n")
    assert list(csv_rows(tmp_path / "nul.csv"))[1] == ["1\0", "2"]
    rng = np.random.default_rng(2)
    words = np.array(["", "x", "a,b", 'q"q', "l\nl", "é", " s "])
    table = pd.DataFrame(words[rng.integers(0, len(words), (200, 5))], columns=list("abcde"))
    table["a"] = "1"
    table.to_csv(tmp_path / "r.csv", index=False, quoting=csv.QUOTE_MINIMAL)
    expected = pd.read_csv(tmp_path / "r.csv", dtype=str, keep_default_na=False, na_values=["", "nan", "NaN"])
    pd.testing.assert_frame_equal(read_table(tmp_path / "r.csv", ()), expected)


@pytest.mark.parametrize("cut", [0, 3, 8, 100, -1, -9])
def test_damaged_parquet_files(tmp_path: Path, cut: int) -> None:
    path = write_parquet(tmp_path / "t.parquet", image_path=["a.png"] * 50, question=[f"q{i}" for i in range(50)])
    path.write_bytes(path.read_bytes()[:cut])
    assert "not a readable Parquet file" in one_line(lambda: list(TableRows(path)))


def test_text_of_parquet_that_is_not_utf8_costs_its_row(tmp_path: Path, prepared: Callable) -> None:
    save(tmp_path / "root/a.png", 0)
    questions = pa.array([b"Is it?", b"\xff\xfe", b"\xed\xa0\x80"]).view(pa.string())
    path = write_parquet(tmp_path / "t.parquet", image_path=["a.png"] * 3, question=questions, answer=["yes"] * 3)
    rows, card = prepared("table", tmp_path / "root", file=str(path))
    assert list(rows) == ["t/0"] and card["drops"] == {"question: question is bytes that are no text": 2}


def test_formats_that_are_not_read(tmp_path: Path) -> None:
    for name in ("t.zip", "t.csv.zip", "t.parquet.gz", "t.xlsx", "t.csv.bz2", "t"):
        (tmp_path / name).write_bytes(b"PK\x03\x04")
        assert "expected .csv, .json, .jsonl or .parquet" in one_line(lambda name=name: TableRows(tmp_path / name))
    write_csv(tmp_path / "head.csv", "a,b")
    assert "holds no row" in one_line(lambda: TableRows(tmp_path / "head.csv"))
    (tmp_path / "t.jsonl").write_text("1\n2\n")
    assert "something other than rows" in one_line(lambda: TableRows(tmp_path / "t.jsonl"))
    assert one_line(lambda: list(json_lines(tmp_path / "gone.jsonl"))).endswith("gone.jsonl: file not found")


def test_cells_of_any_type() -> None:
    assert [text(value) for value in (None, float("nan"), [], {"a": 1}, 10**5000, " a ", b"a", 5, True)] == [
        *[None] * 5,
        *("a", "a", "5", "True"),
    ]
    assert [number(value) != number(value) for value in (10**400, None, "x", [1], {})] == [True] * 5


def test_lists_of_texts_in_many_row_groups(tmp_path: Path) -> None:
    """Texts in lists whose dictionaries differ between row groups, or end within one, are read as any other."""
    answers = [[f"answer {row % 7}", f"{row}" * 50] for row in range(6000)]
    table = pa.table({"image_path": ["a.png"] * 6000, "question": ["q"] * 6000, "answer": answers})
    for name, size, limit in (("groups", 1000, 2**20), ("pages", 6000, 2000)):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(table, path, row_group_size=size, dictionary_pagesize_limit=limit, data_page_size=1000)
        assert [row["answer"] for row in TableRows(path)] == answers, name


def test_no_folder_of_the_hub_source_exhausts_the_memory(tmp_path: Path) -> None:
    """The `datasets` library has no limits of its own."""
    head = b"image,question,answer\n"
    bombs = {
        "test.csv": lambda path: write_sparse(path, head, 3),
        "test.csv.gz": lambda path: write_gz(path, head, b"a," + b"b" * 1021 + b"\n", 3000),
        "test.json": lambda path: write_sparse(path, b'[{"image":"', 3),
        "test.jsonl": lambda path: write_sparse(path, b'{"image":"', 3),
        "test.parquet": lambda path: write_parquet(path, image=["a"] * 999, question=repeated("a" * 10**7, 999)),
        "test.arrow": lambda path: path.write_bytes(b"ARROW1\0\0" + b"\xff" * 1000),
    }
    cases: list[Case] = []
    for name, write in bombs.items():
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        write(folder / name)
        cases.append(("hub", str(tmp_path / f"root-{len(cases)}"), {"dataset": str(folder)}))
    for (_, _, options), cost in zip(cases, costs_of(cases), strict=True):
        assert not cost.crash and options["dataset"] in cost.message and "\n" not in cost.message, (options, cost)
        assert cost.peak < 1.5 * GIGABYTE and cost.seconds < 40, (options, cost)


def test_the_hub_source_leaves_files_alone_that_are_no_data(tmp_path: Path, prepared: Callable) -> None:
    save(tmp_path / "d/a.png", 0)
    write_csv(tmp_path / "d/test.csv", "image,question,answer", "a.png,Is it?,yes")
    (tmp_path / "d/notes.json").write_text('{\n "a":\n [1, 2\n')
    (tmp_path / "d/latin.csv.txt").write_bytes(b"\xe9")
    rows, _ = prepared("hub", tmp_path / "root", dataset=str(tmp_path / "d"))
    assert len(rows) == 1


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "json", "jsonl", "parquet"])
def test_a_table_that_is_no_file_does_not_block(tmp_path: Path, ending: str) -> None:
    os.mkfifo(tmp_path / f"pipe.{ending}")
    (tmp_path / f"zero.{ending}").symlink_to("/dev/zero")
    (tmp_path / f"folder.{ending}").mkdir()
    for name in ("pipe", "zero", "folder"):
        path = tmp_path / f"{name}.{ending}"
        assert str(path) in one_line(lambda path=path: TableRows(path))
