"""A wrong value in a row costs that row, with its reason; a wrong file is one line; no text of the data ends a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cxr_faith.__main__ import main
from cxr_faith.data import tally as tallying
from cxr_faith.data.boxes import MAX_BOXES, from_rle, limited
from cxr_faith.data.items import ManifestDataset
from cxr_faith.data.manifest import ManifestError, open_manifest
from cxr_faith.data.masks import mask_path
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.data.prepare import PrepareOptions, prepare
from cxr_faith.data.sample import MANIFEST_SCHEMA, Box, Sample
from cxr_faith.data.tally import Tally
from tests.data.layouts import save, write_json
from tests.runs import CONFIG, records, run_here

COUNT = 6


def write_manifest_of(folder: Path, **columns: Any) -> Path:
    """A manifest of good rows about one picture, with some columns replaced: a list, or an Arrow array of any type."""
    save(folder / "a.png", 0, height=8, width=8)
    samples = [Sample(f"s{row}", image_id="a", image_path="a.png", question="Is it?") for row in range(COUNT)]
    table = pa.Table.from_pylist([sample.to_row() for sample in samples], schema=MANIFEST_SCHEMA)
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    path = folder / "manifest.parquet"
    pq.write_table(table, path)
    return path


def errors(path: Path) -> list[str | None]:
    """What the data set of `evaluate` says about each row."""
    data = CXRVQADataModule(str(path))
    data.image_size = (8, 8)
    return [item.error for batch in data.loader() for item in batch]


NAN, INFINITE = float("nan"), float("inf")
GOOD = {"label": "a", "x1": 1.0, "y1": 1.0, "x2": 2.0, "y2": 2.0}


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("height", ["8", "abc", "8", None, "", "8"], {1: "no whole number", 4: "no whole number"}),
        (
            "height",
            pa.array([8, 2**40, 8, -1, 0, 8]),
            {1: "no whole number", 3: "the manifest says", 4: "manifest says"},
        ),
        ("height", pa.array([8.0, NAN, 8.5, None, INFINITE, 8.0], from_pandas=False), {2: "no whole", 4: "no whole"}),
        (
            "question",
            pa.array([b"q", b"\xff", b"\xed\xa0\x80", b"q", b"q", b"q"]).view(pa.string()),
            {1: "UTF-8", 2: "UTF-8"},
        ),
        (
            "question",
            ["q", None, "", "q" * 100_001, "q\0\x1b[31m", "q"],
            {1: "missing", 2: "missing", 3: "more than 100000"},
        ),
        ("image_path", ["a.png", None, "../a.png", "/etc/passwd", "a\0.png", "a" * 5000], {1: "missing", 2: "outside"}),
        ("kind", ["open", "verify", "yes_no", None, "", "open"], {1: "unknown kind", 4: "unknown kind"}),
        ("answer", [["a"], [None], [], None, ["b", None], ["c"]], {1: "entry without text", 4: "entry without text"}),
        ("boxes", [[GOOD], [None], [], None, [GOOD | {"x1": NAN}], [GOOD | {"x2": 1.0}]], {1: "finite", 4: "finite"}),
        ("boxes", [[GOOD | {"x2": INFINITE}], [GOOD | {"x1": None}], *[[GOOD]] * 4], {0: "finite", 1: "finite"}),
        (
            "boxes",
            [[{name: "x" if name == "y1" else str(value) for name, value in GOOD.items()}], *[[]] * 5],
            {0: "right"},
        ),
        (
            "anatomy_masks",
            [[], [None], [{"label": "a", "path": None}], [], [], []],
            {1: "without label", 2: "without label"},
        ),
        ("anatomy_masks", [[{"label": "a", "path": "gone.png"}], *[[]] * 5], {0: "file not found"}),
        (
            "finding_mask_path",
            [None, "a\0", "x" * 5000, "..", "~", "C:\\a.png"],
            {1: "usable", 2: "", 3: "", 4: "not found", 5: "not found"},
        ),
    ],
)
def test_a_wrong_value_in_a_manifest_costs_its_sample(tmp_path: Path, column: str, values: Any, said: dict) -> None:
    path = write_manifest_of(tmp_path, **{column: values})
    if column == "image_path":  # one image id names one picture
        path = write_manifest_of(tmp_path, image_path=values, image_id=[f"i{row}" for row in range(COUNT)])
    found = errors(path)
    assert len(found) == COUNT
    for row, error in enumerate(found):
        if row in said:
            assert error is not None and said[row] in error and "\n" not in error, (row, error)
    if column not in ("image_path", "finding_mask_path", "boxes"):
        assert {row for row, error in enumerate(found) if error} == set(said)
    assert found[0] is None or 0 in said


@pytest.mark.parametrize(
    ("column", "values", "fault"),
    [
        ("height", ["a"] * COUNT, "manifest column height is string, expected int32"),
        ("question", [1.5] * COUNT, "manifest column question is double, expected string"),
        ("boxes", [1] * COUNT, "manifest column boxes is int64"),
        ("answer", ["yes"] * COUNT, "manifest column answer is string"),
        ("sample_id", ["a", "b", "a", "c", "d", "e"], "sample_id is not unique"),
    ],
)
def test_a_wrong_column_of_a_manifest_is_one_line(tmp_path: Path, column: str, values: Any, fault: str) -> None:
    with pytest.raises(ManifestError, match=fault) as refused:
        open_manifest(write_manifest_of(tmp_path, **{column: values}))
    assert "\n" not in str(refused.value) and "manifest.parquet" in str(refused.value)


def test_a_row_without_an_id_is_called_after_its_place(tmp_path: Path) -> None:
    path = write_manifest_of(tmp_path, sample_id=["a", None, "row-3", None, "row-1", "row-1-x"])
    assert open_manifest(path)["sample_id"][:] == ["a", "row-1-x-x", "row-3", "row-3-x", "row-1", "row-1-x"]
    assert errors(path) == [None, "sample_id is missing", None, "sample_id is missing", None, None]
    (tmp_path / "m").mkdir()
    for part in range(2):  # the place counts through all files of a folder
        path = write_manifest_of(tmp_path, sample_id=[f"{part}{row}" if row else None for row in range(COUNT)])
        path.rename(tmp_path / f"m/part-{part}.parquet")
    assert [name for name in open_manifest(tmp_path / "m")["sample_id"] if "row" in name] == ["row-0", "row-6"]
    assert set(errors(write_manifest_of(tmp_path, sample_id=pa.nulls(COUNT)))) == {"sample_id is missing"}


def test_a_manifest_that_would_fill_the_disk_or_the_memory_is_refused(tmp_path: Path) -> None:
    many = pa.DictionaryArray.from_arrays(pa.array([0] * COUNT), pa.array(["q" * 2_000_000]))
    with pytest.raises(ManifestError, match="column question: a text of more than 1,000,000 bytes"):
        open_manifest(write_manifest_of(tmp_path, question=many))
    path = write_manifest_of(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ManifestError, match="not a readable Parquet file"):
        open_manifest(path)


HOSTILE = (
    "\ud800",
    "\x1b[31m",
    "line\nbreak",
    "a/b",
    "i" * 5000,
    "nul\0",
    "[bold]x[/bold]",
    "<b>",
    "../up",
    "~",
    "é\u202e",
)


def test_hostile_ids_and_texts_survive_from_prepare_to_the_records(tmp_path: Path) -> None:
    """Every id of the list, with the same in question and answer, from a table to a finished run."""
    rows = []
    for position, name in enumerate(HOSTILE):
        save(tmp_path / f"root/p{position}.png", position, height=48, width=48)
        own = {"image_id": name, "sample_id": f"{name}#{position}", "patient_id": name, "finding": name, "side": name}
        texts = {"question": f"Is there {name}?", "answer": f"a {name}", "question_group": name, "strategy": name}
        rows.append({"image_path": f"p{position}.png", "kind": "open", "boxes": [[1, 1, 9, 9]], **own, **texts})
    write_json(tmp_path / "t.json", rows)
    masks = tmp_path / "masks/lung"
    masks.mkdir(parents=True)
    Image.new("L", (48, 48), 255).save(masks / "a.png")
    write_json(tmp_path / "marks.json", {"i" * 5000: {"i" * 5000: {"size": [48, 48], "counts": [0, 48 * 48]}}})
    out = tmp_path / "m"
    options = PrepareOptions(
        str(tmp_path / "root"), str(out), masks=str(masks.parent), chexlocalize=str(tmp_path / "marks.json")
    )
    prepared = prepare("table", options, file=str(tmp_path / "t.json"))
    assert prepared.questions == len(HOSTILE) and prepared.masks == 1
    assert prepared.changed["texts with characters that no file can hold, replaced by �"] == 1
    names = [name.replace("\ud800", "\ufffd") for name in HOSTILE]
    assert open_manifest(out)["image_id"][:] == names

    config, run = tmp_path / "c.yaml", tmp_path / "run"
    config.write_text(CONFIG.format(steps=2, manifest=out, root=tmp_path / "root"))
    assert run_here(config, run) == 0
    table = records(run)
    assert set(table["image_id"]) == set(names) and "ok" in set(table["status"])
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary and (run / "report/index.html").is_file() and main(["report", str(run)]) == 0


def test_masks_of_long_ids_have_short_names(tmp_path: Path) -> None:
    names = {mask_path("é" * 300, "x" * size).rpartition("/")[2] for size in (300, 301, 5000)}
    assert len(names) == 3 and all(len(name.encode()) < 255 for name in names)
    assert mask_path("lung", "a") == "masks/lung/a.png"


def test_drops_beyond_the_list_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallying, "MAX_LISTED", 10)
    tally = Tally()
    for row in range(25):
        tally.drop("row", f"\ud800{row}" + "y" * 10_000, "reason", 10**5000)
    assert tally.reasons == {"row: reason": 25} and len(tally.drops) == 10
    assert all(len(drop.name) == 1000 and drop.name[0] == "?" and drop.detail == "int" for drop in tally.drops)


def test_no_mask_and_no_pile_of_boxes_takes_for_ever() -> None:
    with pytest.raises(ValueError, match="more than 64 bits"):
        from_rle({"size": [100, 100], "counts": "o" * 10_000_000})
    tally, boxes = Tally(), [Box("a", 0, 0, 1, row + 1.0) for row in range(MAX_BOXES + 3)]
    assert list(limited(boxes, "i", tally)) == boxes[:MAX_BOXES]
    assert tally.reasons == {f"box: image has more than {MAX_BOXES} boxes": 3}


def test_paths_that_lead_nowhere_or_elsewhere(tmp_path: Path, prepared: Callable) -> None:
    save(tmp_path / "root/a.png", 0)
    save(tmp_path / "secret.png", 1)
    (tmp_path / "root/link.png").symlink_to(tmp_path / "secret.png")
    paths = ["a.png", "..", "../secret.png", str(tmp_path / "secret.png"), "link.png", "a\0.png", "a\n.png", "x" * 5000]
    paths += ["~/a.png", "C:\\a.png", "root\\a.png", ".", "/", "a.png/b", {"bytes": "x"}, ["a.png"], 5, True, 10**400]
    rows = [{"image_path": path, "image_id": f"i{place}", "question": "Is it?"} for place, path in enumerate(paths)]
    by_id, card = prepared("table", tmp_path / "root", file=str(write_json(tmp_path / "t.json", rows)))
    usable = [place for place, path in enumerate(paths) if path in ("a.png", ["a.png"])]
    assert list(by_id) == [f"t/{place}" for place in usable] and len(usable) == 2
    assert sum(count for reason, count in card["drops"].items() if reason.startswith("question")) == len(paths) - 2


def test_the_data_set_of_evaluate_never_raises(tmp_path: Path) -> None:
    table = open_manifest(write_manifest_of(tmp_path, height=["8", "x", "8", "8", "8", "8"]))
    assert "fault" in table.column_names and len(table) == COUNT
    dataset = ManifestDataset(table, list(range(COUNT)), tmp_path, (8, 8), 0.0)  # type: ignore[arg-type]
    assert [dataset[row].error is None for row in range(COUNT)] == [True, False, True, True, True, True]
    assert open_manifest(write_manifest_of(tmp_path)).column_names == MANIFEST_SCHEMA.names


def test_prepare_check_shows_reasons_in_full_and_ids_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = [[GOOD | {"x1": NAN}], [], [GOOD | {"x1": INFINITE}], [], [], []]
    paths = ["a.png"] * 3 + ["no: a.png"] * 2 + ["a.png"]
    path = write_manifest_of(tmp_path, boxes=boxes, image_path=paths, image_id=["a", "b", "c", "d", "d", "e"])
    assert main(["prepare", "check", str(path)]) == 1
    said = capsys.readouterr().out
    assert "2  box 'a' has a corner that is not finite: (nan, 1.0, 2.0, 2.0), first s0" in said
    assert "2  file not found, first s3" in said
    rows = [{"sample_id": name, "image_path": "a.png", "question": q} for name, q in (("=1+1", ""), ("b", "Is it?"))]
    table = write_json(tmp_path / "t.json", rows)
    prepare("table", PrepareOptions(str(tmp_path), str(tmp_path / "m")), file=str(table))
    main(["prepare", "check", str(tmp_path / "m")])
    assert "question: question is missing, first =1+1" in capsys.readouterr().out


def test_prepare_check_reports_counts_and_an_example_of_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "root/a.png", 0)
    row = {"image_path": "a.png", "question": "Is it?", "answer": "yes"}
    wrong = [{"answer": {"x": 1}}, {"answer": {"x": 1}}, {"question": ["a", "b"]}, {"image_path": "gone.png"}]
    rows = [row, *(row | change for change in wrong), row | {"sample_id": "\x1b[31mred", "finding_mask_path": "a.png"}]
    path = write_json(tmp_path / "t.json", rows)
    prepare("table", PrepareOptions(str(tmp_path / "root"), str(tmp_path / "m")), file=str(path))
    assert main(["prepare", "check", str(tmp_path / "m")]) == 0
    said = capsys.readouterr().out
    assert "2  question: answer is a mapping without answer, text, value or label, first t/1" in said
    assert "1  question: question is a list of 2, first t/3" in said and "file not found, first t/4" in said
    (tmp_path / "root/a.png").unlink()
    assert main(["prepare", "check", str(tmp_path / "m")]) == 1
    said = capsys.readouterr().out
    assert "2  file not found, first t/0" in said and "\x1b" not in said
    bad = write_manifest_of(tmp_path, height=["8", "x", "y", "8", "8", "8"])
    assert main(["prepare", "check", str(bad)]) == 1
    assert (
        "2  manifest column height holds a value that is no whole number of 32 bits, first s1"
        in capsys.readouterr().out
    )
    (tmp_path / "m/card.json").write_text("[]")
    assert main(["prepare", "check", str(tmp_path / "m")]) == 2
    assert f"{tmp_path / 'm/card.json'}: is damaged" in capsys.readouterr().err
