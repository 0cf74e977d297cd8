"""Tables and folders that people have: columns by usual names, pictures that lie elsewhere, options, one question."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cxr_faith.__main__ import main
from cxr_faith.data.answers import UnreadableError
from cxr_faith.data.options import chosen, read_options, with_options
from cxr_faith.data.picture_files import PictureFiles, not_found
from cxr_faith.data.prepare import PrepareOptions, prepare
from cxr_faith.data.sample import Turn
from cxr_faith.data.sources.table_cells import turns_in
from cxr_faith.data.sources.table_columns import columns_by_name
from cxr_faith.data.tally import PrepareError, Tally
from tests.data.layouts import save, write_csv

Prepared = Callable[..., tuple[dict[str, dict[str, Any]], dict[str, Any]]]


def test_a_table_of_a_lab_for_mimic(tmp_path: Path, prepared: Prepared) -> None:
    """Paths as lists of one, pictures named by their id without a suffix, in folders that the table does not name."""
    save(tmp_path / "root/p10/aaaa-1.png", 0)
    (tmp_path / "root/p10/aaaa-1.png").rename(tmp_path / "root/p10/aaaa-1")
    save(tmp_path / "root/p11/bbbb-1.png", 1)
    table = pd.DataFrame(
        {
            "ImagePath": ["['aaaa-1.jpg']", "['bbbb-1.jpg']", "['aaaa-1.jpg', 'bbbb-1.jpg']"],
            "dicom_id": ["aaaa-1", "bbbb-1", "aaaa-1"],
            "Question": ["Is there edema?", "Which view is it?", "What changed?"],
            "options": ["['yes', 'no', '', '']", "['A. AP', 'B. PA', 'C. lateral', '']", "[]"],
            "correct_answer": ["no", "B", "nothing"],
            "PatientID": ["10", "11", "10"],
            "ViewPosition": ["AP", "PA", ""],
            "PatientSex": ["F", "male", "U"],
            "PatientAge": ["061Y", "34", "412"],
        }
    )
    table.to_csv(tmp_path / "q.csv", index=False)
    rows, card = prepared("table", tmp_path / "root", file=str(tmp_path / "q.csv"))
    first, second = rows.values()
    assert (first["image_path"], first["image_id"], first["patient_id"]) == ("p10/aaaa-1", "aaaa-1", "10")
    assert (first["kind"], first["answer"], first["question"]) == ("yes_no", ["no"], "Is there edema?")
    assert (first["sex"], first["age"], first["view"]) == ("F", 61, "AP")
    assert (second["image_path"], second["kind"], second["answer"]) == ("p11/bbbb-1.png", "option", ["B"])
    assert second["question"] == "Which view is it?\nA. AP\nB. PA\nC. lateral"
    assert card["columns"] == {
        "image_path": "ImagePath",
        "image_id": "dicom_id",
        "question": "Question",
        "answer": "correct_answer",
        "options": "options",
        "patient_id": "PatientID",
        "view": "ViewPosition",
        "sex": "PatientSex",
        "age": "PatientAge",
    }
    assert card["drops"] == {"question: row has several pictures, one is expected": 1}
    assert card["notes"] == {"images found by their name without folders and suffix": 2}


def test_pictures_of_ids_alone(tmp_path: Path, prepared: Prepared) -> None:
    save(tmp_path / "root/files/p10/1.2.840.png", 0)
    path = write_csv(tmp_path / "q.csv", "dicom_id,question,label", "1.2.840,Is there edema?,1")
    rows, _ = prepared("table", tmp_path / "root", file=str(path))
    (row,) = rows.values()
    assert (row["image_path"], row["image_id"], row["answer"]) == ("files/p10/1.2.840.png", "1.2.840", ["yes"])


def test_a_stem_of_several_files_or_several_paths_names_no_picture(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "a/2.png", "a/3.png"):
        save(tmp_path / name, 0)
    (tmp_path / "3.txt").write_text("no picture")
    tally = Tally()
    pictures = PictureFiles(tmp_path, tally, lambda: ["train/2.png", "test/2.png", "3", "1"])
    assert pictures.find("a/1.png") == "a/1.png"
    assert pictures.find("4") is None and tally.missing is None
    assert pictures.find("1") is None, "two files"
    assert tally.missing == "several files are named 1: a/1.png and b/1.png"
    tally.missing = None
    assert pictures.find("train/2.png") is None, "train/2.png and test/2.png are two pictures"
    assert tally.missing == "several paths of the table end in 2; there is only a/2.png"
    assert pictures.find("C:\\scans\\3.dcm") == "a/3.png"
    assert pictures.find("") is None and pictures.find("a\0b") is None and pictures.find("x" * 5000) is None


def test_a_picture_that_is_not_found_is_shown_beside_one_that_is_there(
    tmp_path: Path, prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "root/p10/a.png", 0)
    path = write_csv(tmp_path / "q.csv", "image_path,question", "b.png,Is it?", "c.png,Is it?")
    tried, there = tmp_path / "root" / "b.png", tmp_path / "root" / "p10/a.png"
    expected = f"not found: tried {tried}; there is {there}"
    options = PrepareOptions(str(tmp_path / "root"), str(tmp_path / "m"))
    with pytest.raises(PrepareError, match=expected):
        prepare("table", options, file=str(path))
    write_csv(path, "image_path,question", "b.png,Is it?", "p10/a.png,Is it?")
    arguments = ["--root", str(tmp_path / "root"), "--file", str(path), "--out", str(tmp_path / "m")]
    assert main(["prepare", "table", *arguments]) == 0
    assert f"not found tried {tried}; there is" in " ".join(capsys.readouterr().out.split())
    save(tmp_path / "root/p11/b.jpg", 0)
    save(tmp_path / "root/p12/b.jpg", 0)
    assert main(["prepare", "table", *arguments]) == 0
    assert "not found several files are named b: p11/b.jpg and p12/b.jpg" in " ".join(capsys.readouterr().out.split())
    report = "The heart is enlarged. No effusion."
    assert report not in not_found(report, tmp_path) and "no file name" in not_found(report, tmp_path)
    assert "holds no picture" in not_found("a.png", tmp_path / "empty")


@pytest.mark.parametrize("written", ["image_path=scan,answer=truth", '{"image_path": "scan", "answer": "truth"}'])
def test_columns_are_written_in_two_ways_and_printed(
    tmp_path: Path, written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "a.png", 0)
    path = write_csv(tmp_path / "q.csv", "scan,question,truth,answer", "a.png,Is it?,yes,no")
    arguments = ["--root", str(tmp_path), "--file", str(path), "--columns", written, "--out", str(tmp_path / "m")]
    assert main(["prepare", "table", *arguments]) == 0
    lines = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert {"columns image_path from scan", "answer from truth", "question from question"} <= lines
    assert "| image_path | scan |" in (tmp_path / "m/README.md").read_text()
    assert json.loads((tmp_path / "m/card.json").read_text())["answers"] == {"yes_no: yes": 1}


def test_own_names_go_before_usual_ones_and_the_users_before_both() -> None:
    assert columns_by_name(["image", "image_path"], {})["image_path"] == "image_path"
    assert columns_by_name(["filename", "image_path"], {"image_path": "filename"})["image_path"] == "filename"
    assert columns_by_name(["Label", "Image File"], {}) == {"answer": "Label", "image_path": "Image File"}
    assert columns_by_name(["readers", "report"], {}) == {}
    assert columns_by_name(["image_id", "path"], {}) == {"image_path": "path", "image_id": "image_id"}
    assert columns_by_name(["File", "dicom_id"], {}) == {"image_path": "File", "image_id": "dicom_id"}


def test_hub_takes_usual_columns(tmp_path: Path, prepared: Prepared) -> None:
    save(tmp_path / "vqa/a.png", 6)
    write_csv(tmp_path / "vqa/test.csv", "file_name_of,image_path,query,label", "x,a.png,Is it?,yes")
    rows, card = prepared("hub", tmp_path / "root", dataset=str(tmp_path / "vqa"))
    assert [row["answer"] for row in rows.values()] == [["yes"]]
    assert card["columns"] == {"image_path": "image_path", "question": "query", "answer": "label"}
    options = """a.png,Which side?,"['left', 'right']",B""", """a.png,Which side?,"['left', 'right']",up"""
    write_csv(tmp_path / "vqa/test.csv", "image,question,choices,answer", *options)
    rows, card = prepared("hub", tmp_path / "root", dataset=str(tmp_path / "vqa"))
    assert [(row["kind"], row["question"], row["answer"]) for row in rows.values()] == [
        ("option", "Which side?\nA. left\nB. right", ["B"])
    ]
    assert card["drops"] == {"question: answer is none of the options": 1}
    write_csv(tmp_path / "vqa/test.csv", "image_path,text,label", "a.png,Is it?,yes")
    with pytest.raises(PrepareError, match="lacks the column question; it has image_path, text, label"):
        prepared("hub", tmp_path / "root", dataset=str(tmp_path / "vqa"))


def test_hub_on_the_columns_of_a_lab(tmp_path: Path, prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths as lists of one, a picture named by its id without a suffix in a subfolder, patients and subgroups."""
    folder = tmp_path / "vqa"
    save(folder / "p10/aaaa-1.png", 6)
    (folder / "p10/aaaa-1.png").rename(folder / "p10/aaaa-1")
    header = "ImagePath,Question,correct_answer,PatientID,study_id,PatientSex,PatientAge,ViewPosition"
    write_csv(folder / "test.csv", header, "['aaaa-1.jpg'],Is it?,yes,10,s1,F,061Y,AP", "['b.jpg'],Is it?,no,11,,,,")
    rows, card = prepared("hub", tmp_path / "root", dataset=str(folder))
    (row,) = rows.values()
    assert (row["patient_id"], row["study_id"]) == ("10", "s1")
    assert (row["sex"], row["age"], row["view"]) == ("F", 61, "AP")
    assert (tmp_path / "root" / row["image_path"]).read_bytes() == (folder / "p10/aaaa-1").read_bytes()
    assert card["drops"] == {"question: picture is missing": 1}
    assert card["notes"] == {"images found by their name without folders and suffix": 1}
    assert card["missing"] == f"tried {folder / 'b.jpg'}; there is {folder / 'p10/aaaa-1'}"
    arguments = ["--root", str(tmp_path / "root"), "--dataset", str(folder), "--out", str(tmp_path / "m")]
    assert main(["prepare", "hub", *arguments, "--columns", "patient_id=study_id,view=Question"]) == 0
    assert "patient_id from study_id" in " ".join(capsys.readouterr().out.split())
    assert main(["prepare", "hub", *arguments, "--columns", "finding=Question"]) == 2
    assert "hub takes no column finding" in capsys.readouterr().err


def test_a_folder_with_one_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "pictures/a.png", 0)
    save(tmp_path / "pictures/old/b.jpg", 1)
    (tmp_path / "pictures/notes.txt").write_text("mine")
    (tmp_path / "pictures/LICENSE").write_text("no picture")
    arguments = ["--question", "Is there a pneumothorax?", "--out", str(tmp_path / "m")]
    assert main(["prepare", "folder", str(tmp_path / "pictures"), *arguments]) == 0
    card = json.loads((tmp_path / "m/card.json").read_text())
    assert card["images"] == 2 and card["answers"] == {"unknown: unknown": 2}
    assert card["drops"] == {"image: not an image": 1, "question: image not an image": 1}
    assert main(["prepare", "folder", str(tmp_path / "pictures"), *arguments, "--answer", "No."]) == 0
    assert json.loads((tmp_path / "m/card.json").read_text())["answers"] == {"yes_no: no": 2}
    with pytest.raises(PrepareError, match="--question is empty"):
        prepare("folder", PrepareOptions(str(tmp_path / "pictures"), str(tmp_path / "n")), question=" ")
    capsys.readouterr()


def test_only_folders_named_as_splits_are_splits(tmp_path: Path, prepared: Prepared) -> None:
    for name in ("p1/s1/a.png", "p1/s2/a.png", "Test/p1/a.png", "val/a.png", "train.png"):
        save(tmp_path / "pictures" / name, 0)
    rows, _ = prepared("folder", tmp_path / "pictures", question="Is there a pneumothorax?")
    assert {row["image_path"]: row["split"] for row in rows.values()} == {
        "p1/s1/a.png": None,
        "p1/s2/a.png": None,
        "Test/p1/a.png": "test",
        "val/a.png": "val",
        "train.png": None,
    }


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ("['yes', 'no', '', '']", ("yes", "no")),
        (["A. left", "B. right"], ("left", "right")),
        ('{"B": "right", "A": "left"}', ("left", "right")),
        (["A. fumigatus", "none"], ("A. fumigatus", "none")),
        (None, ()),
        ("", ()),
        (float("nan"), ()),
    ],
)
def test_options_in_every_form(written: object, options: tuple[str, ...]) -> None:
    assert read_options(written) == options


def test_options_that_cannot_be_read_or_chosen() -> None:
    with pytest.raises(UnreadableError, match="options are not a list"):
        read_options("left or right")
    with pytest.raises(UnreadableError, match="more than 26"):
        read_options([str(number) for number in range(27)])
    options = ("left", "right", "both")
    assert [chosen(word, options) for word in ("b", "(B)", "B. right", "Right", "right", "B. left", "D", "", None)] == [
        *(1, 1, 1, 1, 1),
        *(None, None, None, None),
    ]
    assert chosen("x", ("x", "x")) is None
    shown = "Is it left, right or both?\nA. left\nB. right\nC. both"
    assert with_options("Is it left, right or both?", options) == shown, "an answer's letter must be shown"
    assert with_options(shown, options) == shown
    assert with_options("Is it (A) left, (B) right, or (C) both?", options).count("left") == 1
    assert with_options("", options) == "", "a missing question stays missing"
    assert with_options("Is there a nodule?", ("no", "maybe")).endswith("\nA. no\nB. maybe"), "no is not in nodule"


@pytest.mark.parametrize(
    "written",
    [
        [["Is it large?", "no"], ["Where?", "left"]],
        "[['Is it large?', 'no'], ['Where?', 'left']]",
        [{"question": "Is it large?", "answer": "no"}, {"answer": "left", "question": "Where?"}],
    ],
)
def test_earlier_turns_in_every_form(written: object) -> None:
    assert turns_in(written) == (Turn("Is it large?", "no"), Turn("Where?", "left"))
    assert turns_in(None) == turns_in("") == turns_in([]) == turns_in("[]") == ()
    for wrong in ("Where?", [["Where?"]], [["Where?", ""]], ["Where?", "left"], [{"question": "Where?"}]):
        with pytest.raises(UnreadableError, match="turns are not a list of questions and answers"):
            turns_in(wrong)


def test_an_answer_that_is_none_of_the_options_costs_its_row(tmp_path: Path, prepared: Prepared) -> None:
    save(tmp_path / "root/a.png", 0)
    rows = ('a.png,Which side?,"[""left"", ""right""]",up', 'a.png,Which side?,"[""left"", ""right""]",')
    path = write_csv(tmp_path / "q.csv", "image,question,options,answer", *rows)
    taken, card = prepared("table", tmp_path / "root", file=str(path))
    assert [(row["kind"], row["answer"]) for row in taken.values()] == [("option", None)]
    assert card["drops"] == {"question: answer is none of the options": 1}
