"""Answers and questions in every form that data sets give them: one rule for all sources."""

import csv
import datetime
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_faith.data.answers import AnswerColumn, UnreadableError, read_question, read_reference
from cxr_faith.data.literals import read_literal
from cxr_faith.data.sources.hub import hub
from cxr_faith.data.tally import Tally
from tests.data.layouts import save, write_csv, write_json

NAN = float("nan")
VOTES = [{"answer": word, "answer_confidence": "maybe"} for word in ("no", *["yes"] * 8, "no")]


PRINTED = (
    "Counter({'yes': 9, 'no': 1})",
    "OrderedDict([('answer', 'yes')])",
    "defaultdict(<class 'list'>, {'answer': ['yes']})",
    "np.str_('yes')",
    "Timestamp('2020-01-01')",
    "datetime.date(2020, 1, 1)",
    "Series([], dtype: object)",
)


@pytest.mark.parametrize(
    ("value", "question", "kind", "answers"),
    [
        (True, "What?", "yes_no", ("yes",)),
        (np.bool_(False), "What?", "yes_no", ("no",)),
        ("True", "What?", "yes_no", ("yes",)),
        (1, "Is there a nodule?", "yes_no", ("yes",)),
        (0.0, "does it show edema?", "yes_no", ("no",)),
        ("0", "Are there nodules?", "yes_no", ("no",)),
        (1, "How many nodules?", None, ("1",)),
        (2, "Is there a nodule?", None, ("2",)),
        (2.5, "How wide?", None, ("2.5",)),
        (Decimal("1.50"), "How wide?", None, ("1.50",)),
        ("Yes.", "Q", "yes_no", ("yes",)),
        ("YES!", "Q", "yes_no", ("yes",)),
        (" no ", "Q", "yes_no", ("no",)),
        ('"Yes"', "Q", "yes_no", ("yes",)),
        (b"yes", "Q", "yes_no", ("yes",)),
        ("b'yes'", "Q", "yes_no", ("yes",)),
        *(
            (text, "Q", "yes_no", ("yes",))
            for text in ("Yes。", "ＹＥＳ", "\u200byes\ufeff", "**yes**", "“yes”", "`yes`")
        ),
        *((text.encode(), "Q", "yes_no", ("no",)) for text in ("No", "\ufeffNo.\n")),
        (bytearray(b"yes"), "Q", "yes_no", ("yes",)),
        (memoryview(b"yes"), "Q", "yes_no", ("yes",)),
        ("Yes, the heart.", "Q", None, ("Yes, the heart.",)),
        *(
            (text, "Q", None, (text,))
            for text in ("opacity (left)", "yes (mild)", "<5 mm", "<b>left</b>", "(a) left (b)")
        ),
        *((text, "Q", None, (text,)) for text in ('("Left") lung', "a" + " " * 200_000 + "b")),
        ("[A] left lung (small)", "Q", None, ("[A] left lung (small)",)),
        ("['yes']", "Q", "yes_no", ("yes",)),
        ("['edema', 'nodule']", "Q", None, ("edema", "nodule")),
        ('["a", "b"]', "Q", None, ("a", "b")),
        ("['a' 'b']", "Q", None, ("a", "b")),
        ("['it''s'\n \"b's\"]", "Q", None, ("it", "s", "b's")),
        ("array(['a', 'b'], dtype=object)", "Q", None, ("a", "b")),
        ("[np.str_('yes')]", "Q", "yes_no", ("yes",)),
        ("[edema, left lung]", "Q", None, ("edema", "left lung")),
        ("{'answer': 'yes', 'answer_confidence': 'yes'}", "Q", "yes_no", ("yes",)),
        ("[['a'], ['b']]", "Q", None, ("a", "b")),
        (np.array(["a", "b"]), "Q", None, ("a", "b")),
        ({"b", "a"}, "Q", None, ("a", "b")),
        (("a", "b"), "Q", None, ("a", "b")),
        ([["yes"]], "Q", "yes_no", ("yes",)),
        ([{"answer": "yes", "answer_confidence": "yes"}], "Q", "yes_no", ("yes",)),
        (VOTES, "Q", "yes_no", ("yes",)),
        (["edema", "edema", "nodule"], "Q", None, ("edema",)),
        ({"text": "yes"}, "Q", "yes_no", ("yes",)),
        ({"text": ["edema"], "answer_start": [3]}, "Q", None, ("edema",)),
        ({"value": True}, "Q", "yes_no", ("yes",)),
        ([("answer", "yes"), ("score", "1")], "Q", "yes_no", ("yes",)),
        ({"label": "edema"}, "Q", None, ("edema",)),
        ({"multiple_choice_answer": "no", "answers": VOTES}, "Q", "yes_no", ("no",)),
        *((missing, "Q", None, None) for missing in (None, NAN, np.float32("nan"), pd.NA, pd.NaT, "", " ", [None])),
        *((missing, "Q", None, None) for missing in ("nan", "NaN", "None", "N/A", "null", "['nan']")),
        ("none", "Q", None, ("none",)),
        ([], "Q", None, ()),
        ("[]", "Q", None, ()),
        (["yes", None], "Q", "yes_no", ("yes",)),
        *((value, "Q", None, None) for value in ({}, {"answer": None}, "{}", "{'answer': None}", [{}], "\u200b")),
        ([{"answer": "yes"}, {}], "Q", "yes_no", ("yes",)),
        *((Decimal(word), "Q", None, None) for word in ("NaN", "sNaN")),
        (1, "Is the grade 1, 2 or 3?", None, ("1",)),
        ("0", "Is it none or 0?", None, ("0",)),
        (1, "Can you count the nodules?", None, ("1",)),
        ("y", "Is it left or right?", "yes_no", ("yes",)),
    ],
)
def test_answers_are_read(value: object, question: str, kind: str | None, answers: tuple[str, ...] | None) -> None:
    assert read_reference(value, question, Tally()) == (kind, answers)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (datetime.date(2020, 1, 1), "of type date"),
        (datetime.datetime(2020, 1, 1), "of type datetime"),
        ([1j], "of type complex"),
        (object(), "of type object"),
        (b"\xff\xfe", "bytes that are no text"),
        ({"score": 1}, "a mapping without answer, text, value or label"),
        ([{"answer": "yes"}, {"score": 2}], "a mapping without"),
        *((text, f"answer is the printed form of {text.partition('(')[0]}") for text in PRINTED),
        ("<datasets.ClassLabel 1>", "the printed form of datasets.ClassLabel"),
        ("<object object at 0x7f3c>", "the printed form of object"),
        ("0    yes\nName: answer, dtype: object", "the printed form of Series"),
        ("  answer\n0    yes\n1     no", "the printed form of DataFrame"),
        (["Timestamp('2020-01-01')"], "the printed form of Timestamp"),
        (10**400, "a number of more than 64 bits"),
        (float("inf"), "a number of more than 64 bits"),
        ("['edema', 'nod", "a list or mapping as text that has an open quote"),
        ("['edema', 'nodule'", "a list or mapping as text that is cut off"),
        ("['a' ... 'z']", "a list or mapping as text that was shortened"),
        ("[datetime.date(2020, 1, 1)]", "a list or mapping as text that holds datetime.date"),
        ("[" * 5000 + "'a'" + "]" * 5000, "nested deeper than"),
        ("['" + "a" * 200_000 + "']", "longer than 100000 characters"),
    ],
)
def test_what_is_no_text_is_refused_by_its_type(value: object, named: str) -> None:
    with pytest.raises(UnreadableError, match="answer is") as refused:
        read_reference(value, "Q", Tally())
    assert named in str(refused.value) and len(str(refused.value)) < 120


def test_a_stated_kind_stays_and_its_spelling_too() -> None:
    assert read_reference("Yes", "Q", Tally(), stated="open") == ("open", ("Yes",))
    assert read_reference("Yes.", "Q", Tally(), stated="yes_no") == ("yes_no", ("yes",))
    assert read_reference(1, "Q", Tally(), stated="yes_no") == ("yes_no", ("yes",))
    assert read_reference("Yes", "Q", Tally(), stated="no such kind") == ("yes_no", ("yes",))


def test_a_column_says_what_1_and_0_mean_in_it() -> None:
    flags, numbers, texts = AnswerColumn(flags=True), AnswerColumn(numbers=True), AnswerColumn()
    for values in ([1, 0, None, "Yes.", True], ["0.0", "y"]):
        assert AnswerColumn.of(values) == flags
    for values in ([1, 2], ["yes", "edema", "3"], ["yes", [0, "2.5"]]):
        assert AnswerColumn.of(values) == numbers
    for values in ([None], [], ["1", 1j], ["yes", "edema"]):
        assert AnswerColumn.of(values) == texts

    def one(question: str, column: AnswerColumn) -> tuple[str | None, tuple[str, ...] | None]:
        return read_reference(1, question, Tally(), column=column)

    yes, digit = ("yes_no", ("yes",)), (None, ("1",))
    assert one("nodule", flags) == one("Is there edema or effusion?", flags) == yes
    assert one("How many nodules?", flags) == one("Is the grade 0 or 1?", flags) == digit
    assert one("Is there a nodule?", texts) == yes
    assert one("Is there a nodule?", numbers) == one("nodule", texts) == digit
    assert read_reference(1, "Is there a nodule?", Tally(), stated="yes_no", column=numbers) == yes


def test_questions_are_read() -> None:
    for value in (
        "Is it?",
        ["Is it?"],
        "['Is it?']",
        [["Is it?", None]],
        b"Is it?",
        {"question": "Is it?"},
        (" Is it? ",),
    ):
        assert read_question(value) == "Is it?"
    for value in (None, NAN, "", [], [None], {}, "None", "nan", "null", "N/A", ["None"], "\u200b", "['nan']"):
        assert read_question(value) == ""
    for text in ('("Left") lung: clear?', "['Left'] lung clear?", "Is there opacity (left)", "(nan)?"):
        assert read_question(text) == text
    assert read_question("\ufeff Is it?\u200b") == "Is it?"
    for value, named in (
        (["a", "b"], "list of 2"),
        ("['a', 'b']", "list of 2"),
        (5, "of type int"),
        ("Timestamp('2020-01-01')", "the printed form of Timestamp"),
        ({"de": "a"}, "mapping"),
    ):
        with pytest.raises(UnreadableError, match=f"question is .*{named}"):
            read_question(value)


def test_every_change_of_form_is_noted() -> None:
    tally = Tally()
    for value in (True, "['a']", "N/A", VOTES):
        read_reference(value, "Q", tally)
    assert tally.notes == {
        "answers true or false, 1 or 0, taken as yes or no": 1,
        "answers read from lists or mappings written as text": 1,
        "answers written as nan, None or N/A, taken as unknown": 1,
        "answers of several annotators, the most frequent taken": 1,
    }


def test_lists_as_text_keep_numbers_escapes_and_order() -> None:
    assert read_literal("[[1. 2.5 -3 4e2]]") == [[1.0, 2.5, -3, 400.0]]
    assert read_literal(r"['a\u00e9\ud83d\ude00\n', (True, None)]") == ["aé😀\n", [True, None]]
    assert read_literal("{'a': {'b': [1]}, 'c': set()}") == {"a": {"b": [1]}, "c": []}
    for text in ("['a']x", "{'a': 1, 'b'}", "[a: b]", "[1,,2]", "]", "", "[" * 100_000, "[" + "{" * 90_000):
        with pytest.raises(ValueError, match=r"\w"):
            read_literal(text)


def saved(folder: Path, features: dict[str, Any], rows: dict[str, list[Any]]) -> Path:
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    datasets.DatasetDict(test=table).save_to_disk(str(folder / "d"))
    return folder / "d"


def picture() -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": "x.png"}


LABEL, TEXT = datasets.ClassLabel(names=["no", "yes"]), datasets.Value("string")


@pytest.mark.parametrize(
    ("feature", "value", "kind", "answer"),
    [
        (LABEL, 1, "yes_no", ("yes",)),
        (LABEL, None, None, None),
        (LABEL, -1, None, None),
        (datasets.ClassLabel(names=["edema", "nodule"]), 1, "open", ("nodule",)),
        (datasets.List(LABEL), [1], "yes_no", ("yes",)),
        (datasets.List(datasets.List(LABEL)), [[0]], "yes_no", ("no",)),
        ({"label": LABEL}, {"label": 1}, "yes_no", ("yes",)),
        (datasets.Value("bool"), True, "yes_no", ("yes",)),
        (datasets.Value("int64"), 0, "yes_no", ("no",)),
        (datasets.List({"answer": TEXT, "answer_confidence": TEXT}), VOTES, "yes_no", ("yes",)),
        (TEXT, "Yes.", "yes_no", ("yes",)),
        (datasets.List(TEXT), ["edema", "nodule"], "open", ("edema", "nodule")),
    ],
)
def test_hub_columns_that_are_no_text(tmp_path: Path, feature: Any, value: Any, kind: str, answer: Any) -> None:
    folder = saved(
        tmp_path,
        {"image": datasets.Image(), "question": TEXT, "answer": feature},
        {"image": [picture()], "question": ["Is there a nodule?"], "answer": [value]},
    )
    tally = Tally()
    [sample] = hub(tmp_path, tally, str(folder))
    assert (sample.kind, sample.answer) == (kind, answer) and not tally.drops


def test_hub_rows_that_cannot_be_read_are_counted_by_type(tmp_path: Path) -> None:
    features = {
        "images": datasets.List(datasets.Image()),
        "question": datasets.List(TEXT),
        "answer": datasets.Value("date32"),
    }
    day, good = datetime.date(2020, 1, 1), [picture()]
    rows = {
        "images": [good, good, good, good * 2, [], [{"bytes": b"no picture", "path": None}]],
        "question": [["a?"], ["a?"], ["a?", "b?"], ["a?"], ["a?"], ["a?"]],
        "answer": [None, day, None, None, None, None],
    }
    tally = Tally()
    [sample] = hub(tmp_path, tally, str(saved(tmp_path, features, rows)), image="images")
    assert sample.question == "a?"
    assert tally.reasons == {
        "question: answer is of type date": 1,
        "question: question is a list of 2": 1,
        "question: row has several pictures, one is expected": 1,
        "question: picture is missing": 1,
        "question: picture is not JPEG or PNG": 1,
    }


@pytest.mark.parametrize("source", ["hub", "table"])
def test_only_the_phantoms_of_the_package_are_called_phantom(tmp_path: Path, prepared: Callable, source: str) -> None:
    """Their name exempts from the warning about the bundled model."""
    rows = {"question": ["Is it?"], "answer": ["yes"]}
    if source == "hub":
        features = {"image": datasets.Image(), "question": TEXT, "answer": TEXT}
        saved(tmp_path, features, {"image": [picture()], **rows}).rename(tmp_path / "phantom")
        own = {"dataset": str(tmp_path / "phantom")}
    else:
        save(tmp_path / "root/a.png", 0)
        table = pd.DataFrame({"image_path": ["a.png"], "source": ["phantom"], **rows})
        table.to_csv(tmp_path / "t.csv", index=False)
        own = {"file": str(tmp_path / "t.csv")}
    (tmp_path / "root").mkdir(exist_ok=True)
    prepared_rows, _ = prepared(source, tmp_path / "root", **own)
    [row] = prepared_rows.values()
    assert row["source"] == f"{source}:phantom"


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "parquet"])
def test_tables_follow_the_same_rule(tmp_path: Path, prepared: Callable, ending: str) -> None:
    save(tmp_path / "root/a.png", 0)
    answers = ["['yes']", "['edema', 'nodule']", "True", "Yes.", "N/A", "['edema", "{'text': 'no'}"]
    table = pd.DataFrame({"image_path": "a.png", "question": [f"q{i}" for i in range(7)], "answer": answers})
    path = tmp_path / f"t.{ending}"
    if ending == "csv":
        table.to_csv(path, index=False)
    elif ending == "parquet":
        table.to_parquet(path)
    else:
        table.to_json(path, orient="records", lines=ending == "jsonl")
    rows, card = prepared("table", tmp_path / "root", file=str(path))
    assert [(row["kind"], row["answer"]) for row in rows.values()] == [
        ("yes_no", ["yes"]),
        (None, ["edema", "nodule"]),
        ("yes_no", ["yes"]),
        ("yes_no", ["yes"]),
        (None, None),
        ("yes_no", ["no"]),
    ]
    assert card["drops"] == {"question: answer is a list or mapping as text that has an open quote": 1}


def test_values_of_json_tables(tmp_path: Path, prepared: Callable) -> None:
    save(tmp_path / "root/a.png", 0)
    values = (True, False, 1, "Yes.", {"text": "yes"}, {"x": 1})
    rows = [{"image_path": "a.png", "question": f"q{i}", "answer": value} for i, value in enumerate(values)]
    path = write_json(tmp_path / "t.json", [*rows, {"image_path": "a.png", "question": ["q", "r"], "answer": "no"}])
    by_id, card = prepared("table", tmp_path / "root", file=str(path))
    assert {row["kind"] for row in by_id.values()} == {"yes_no", None}
    # A column with a value that is no flag leaves 1 as it is, unless the question can only be yes or no.
    assert [row["answer"] for row in by_id.values()] == [["yes"], ["no"], ["1"], ["yes"], ["yes"]]
    assert card["drops"] == {
        "question: answer is a mapping without answer, text, value or label": 1,
        "question: question is a list of 2": 1,
    }


def test_other_columns_that_are_no_text_are_noted(tmp_path: Path, prepared: Callable) -> None:
    save(tmp_path / "root/a.png", 0)
    row = {"image_path": "a.png", "question": "q", "patient_id": ["p"], "split": {"a": 1}, "finding": None, "side": " "}
    path = write_json(tmp_path / "t.json", [row, row | {"image_path": {"bytes": "x"}}])
    rows, card = prepared("table", tmp_path / "root", file=str(path))
    assert rows["t/0"]["patient_id"] is None and card["drops"] == {"question: image_path is missing": 1}
    assert card["notes"] == {
        "column image_path: values that are no text, left out": 1,
        "column patient_id: values that are no text, left out": 2,
        "column split: values that are no text, left out": 2,
    }


def test_slake_vqa_rad_and_vindr_vqa_follow_the_same_rule(
    slake: Path, vqa_rad: Path, vindr: SimpleNamespace, prepared: Callable
) -> None:
    entries = json.loads((slake / "train.json").read_text())
    entries[0]["answer"], entries[1]["answer"] = "['No.']", {"x": 1}
    write_json(slake / "train.json", entries)
    rows, card = prepared("slake", slake, splits="train")
    assert (rows["slake/train/0"]["kind"], rows["slake/train/0"]["answer"]) == ("yes_no", ["no"])
    assert card["drops"] == {"question: answer is a mapping without answer, text, value or label": 1}

    file = vqa_rad / "VQA_RAD Dataset Public.json"
    entries = json.loads(file.read_text())
    entries[0]["answer"], entries[1]["answer"], entries[2]["answer"] = True, ["YES!"], [["left"]]
    entries[3]["question"] = ["How many?", "Which?"]
    write_json(file, entries)
    rows, card = prepared("vqa-rad", vqa_rad)
    assert [(row["kind"], row["answer"]) for row in rows.values()] == [
        ("yes_no", ["yes"]),
        ("yes_no", ["yes"]),
        ("choice", ["left"]),
    ]
    assert card["drops"] == {"question: question is a list of 2": 1, "question: organ HEAD": 1}

    entries = json.loads(vindr.vqa.read_text())
    entries[0]["vqa"][0]["answer"], entries[0]["vqa"][1]["answer"] = True, ["left", "right"]
    write_json(vindr.vqa, entries)
    rows, _ = prepared("vindr-cxr-vqa", vindr.root, vqa=str(vindr.vqa))
    assert [(row["kind"], row["answer"]) for row in rows.values()] == [("yes_no", ["yes"]), ("open", ["left", "right"])]


def test_mimic_answers_that_a_mirror_made_text(mimic: SimpleNamespace, prepared: Callable) -> None:
    entries = json.loads((mimic.vqa / "test.json").read_text())
    for entry, answer in zip(entries, ("['yes']", [False], '["atelectasis"]', "[]", [{"x": 1}]), strict=True):
        entry["answer"] = answer
    write_json(mimic.vqa / "test.json", entries)
    rows, card = prepared("mimic-cxr-vqa", mimic.root, vqa=str(mimic.vqa), splits="test")
    assert [row["answer"] for row in rows.values()] == [["yes"], ["no"], ["atelectasis"], []]
    assert card["drops"]["question: answer is a mapping without answer, text, value or label"] == 1


def test_no_drop_shows_a_text_of_the_data_set(tmp_path: Path, prepared: Callable) -> None:
    save(tmp_path / "root/a.png", 0)
    path = write_csv(tmp_path / "t.csv", "image_path,question,answer", "a.png,Is it?,yes", 'a.png,Is it?,"[\'secret"')
    _, card = prepared("table", tmp_path / "root", file=str(path))
    with (tmp_path / "manifests/table/drops.csv").open(newline="") as file:
        [drop] = csv.DictReader(file)
    assert "secret" not in json.dumps(card) + drop["reason"] + drop["detail"] and drop["id"] == "t/1"
