"""Medical-Diff-VQA and ReXVQA on folders in their published layouts, and on bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cxr_faith.__main__ import main
from cxr_faith.data.tally import PrepareError
from tests.data.layouts import save, write_csv, write_json

Prepared = Callable[..., tuple[dict[str, dict[str, Any]], dict[str, Any]]]
REPORT = "The heart is enlarged, as compared with the prior."


@pytest.fixture
def diff_vqa(mimic: SimpleNamespace, tmp_path: Path) -> SimpleNamespace:
    """Medical-Diff-VQA on the pictures of the small MIMIC-CXR-JPG."""
    vqa = tmp_path / "medical-diff-vqa"
    write_csv(
        vqa / "mimic_all.csv",
        "subject_id,study_id,dicom_id,view,study_order",
        "10000032,50414267,aaaa-2,lateral,1",
        "10000032,50414267,aaaa-1,postero-anterior,1",
        "10000764,57375967,bbbb-1,antero-posterior,1",
    )
    write_csv(
        vqa / "mimic_pair_questions.csv",
        "study_id,subject_id,ref_id,question_type,question,answer,split",
        "50414267,10000032,1,presence,is there evidence of atelectasis in this image?,yes,test",
        "50414267,10000032,1,difference,what has changed compared to the reference image?,nothing has changed.,test",
        '57375967,10000764,1,abnormality,what abnormalities are seen in this image?,"edema, atelectasis",test',
        "57375967,10000764,1,view,which view is this image taken?,AP view,test",
        "57375967,10000764,1,level,what level is the edema?,mild,train",
    )
    return SimpleNamespace(root=mimic.root, vqa=vqa)


def test_medical_diff_vqa_takes_questions_about_one_picture(diff_vqa: SimpleNamespace, prepared: Prepared) -> None:
    rows, card = prepared("medical-diff-vqa", diff_vqa.root, vqa=str(diff_vqa.vqa))
    assert [(row["image_id"], row["kind"], row["answer"]) for row in rows.values()] == [
        ("aaaa-1", "yes_no", ["yes"]),
        ("bbbb-1", "open", ["edema, atelectasis"]),
        ("bbbb-1", "choice", ["AP view"]),
    ]
    row = rows["medical-diff-vqa/0"]
    assert (row["patient_id"], row["study_id"], row["split"], row["view"]) == ("10000032", "50414267", "test", "PA")
    assert card["drops"] == {
        "image: view LATERAL": 1,
        "question: question about two pictures: only those about one are taken": 1,
    }
    rows, _ = prepared("medical-diff-vqa", diff_vqa.root, vqa=str(diff_vqa.vqa), splits="train,val,test")
    assert rows["medical-diff-vqa/4"]["answer"] == ["mild"]


def test_difference_questions_show_the_prior_and_the_current_study(
    diff_vqa: SimpleNamespace, prepared: Prepared
) -> None:
    ask = "difference,what has changed compared to the reference image?,the edema is new.,test"
    with (diff_vqa.vqa / "mimic_pair_questions.csv").open("a") as file:
        file.write(f"57375967,10000764,50414267,{ask}\n57375967,10000764,57375967,{ask}\n")
    rows, card = prepared("medical-diff-vqa", diff_vqa.root, vqa=str(diff_vqa.vqa), differences=True)
    (row,) = rows.values()
    assert [(image["image_id"], image["role"]) for image in row["images"]] == [
        ("aaaa-1", "prior"),
        ("bbbb-1", "current"),
    ]
    assert row["images"][1]["path"] == row["image_path"] and (row["image_id"], row["study_id"]) == (
        "bbbb-1",
        "57375967",
    )
    assert (row["kind"], row["answer"]) == ("open", ["the edema is new."])
    assert card["images"] == 2  # the prior picture is used, too
    assert card["drops"] == {
        "image: view LATERAL": 1,
        "question: question about one picture: only those about two are taken": 3,
        "question: its study's picture is not stated": 1,  # of the study 1
        "question: images must name the picture of image_id and image_path once": 1,
    }
    path = diff_vqa.root / row["images"][0]["path"]
    path.unlink()
    with pytest.raises(PrepareError, match=f"no question could be taken.*not found: tried {path}; there is"):
        prepared("medical-diff-vqa", diff_vqa.root, vqa=str(diff_vqa.vqa), differences=True)


def test_bad_rows_of_medical_diff_vqa(diff_vqa: SimpleNamespace, prepared: Prepared) -> None:
    with (diff_vqa.vqa / "mimic_pair_questions.csv").open("a") as file:
        file.write("1,2,3,presence,is it?,yes,test\n51967845,2,3,presence,is it?,yes,test\n")
        file.write("57375967,10000764,1,presence,is there edema?,maybe,test\n57375967,1,1,view,,AP,test\n")
        file.write("57375967,10000764,1,presence,is there edema?,Counter({'yes': 9}),test\n57375967,1,1,view,q,AP,\n")
    with (diff_vqa.vqa / "mimic_all.csv").open("a") as file:
        file.write("1,,x,AP,1\n11000183,51967845,gone,AP,1\n")
    rows, card = prepared("medical-diff-vqa", diff_vqa.root, vqa=str(diff_vqa.vqa))
    assert len(rows) == 3
    assert card["drops"] == {
        "image: view LATERAL": 1,
        "row: row without study or picture": 1,
        "question: question about two pictures: only those about one are taken": 1,
        "question: its study's picture is not stated": 1,
        "question: its study's picture is not among those taken": 1,
        "question: yes/no question whose answer is neither": 1,
        "question: question is missing": 1,
        "question: answer is the printed form of Counter": 1,
        "question: split not stated": 1,
    }
    write_csv(diff_vqa.vqa / "mimic_all.csv", "study_id,image", "1,2")
    with pytest.raises(PrepareError, match="mimic_all.csv: lacks the column dicom_id"):
        prepared("medical-diff-vqa", diff_vqa.root, vqa=str(diff_vqa.vqa))


def entry(paths: list[str], options: list[str], answer: str, **more: Any) -> dict[str, Any]:
    return {
        "study_id": "s1",
        "StudyInstanceUid": "1.2.3",
        "task_name": "presence",
        "category": "c",
        "class": "k",
        "subcategory": "d",
        "question": "Which finding is seen?",
        "options": options,
        "correct_answer": answer,
        "correct_answer_explanation": REPORT,
        "ImagePath": paths,
        "ImageViewPosition": ["PA"] * len(paths),
        "PatientID": "p1",
        "PatientAge": "061Y",
        "PatientSex": "F",
        "Indication": REPORT,
        "Findings": REPORT,
        "Impression": REPORT,
    } | more


@pytest.fixture
def rexvqa(tmp_path: Path) -> Path:
    """ReXVQA with a question of each kind."""
    root = tmp_path / "rexvqa"
    save(root / "deid_png/GRDN1/1.2.3/a.png", 0)
    save(root / "deid_png/GRDN1/1.2.3/b.png", 1)
    one, two = ["../deid_png/GRDN1/1.2.3/a.png"], ["../deid_png/GRDN1/1.2.3/a.png", "../deid_png/GRDN1/1.2.3/b.png"]
    four = ["A. Edema", "B. Nodule", "C. Mass", "D. None of them"]
    content = {
        "q1": entry(one, four, "B"),
        "q2": entry(one, ["A. Yes", "B. No"], "B", question="Is there edema?"),
        "q3": entry(two, four, "A"),
    }
    write_json(root / "metadata/test_vqa_data.json", content)
    return root


def test_rexvqa_takes_questions_about_one_picture(rexvqa: Path, prepared: Prepared) -> None:
    rows, card = prepared("rexvqa", rexvqa)
    choice, closed = rows["rexvqa/test/q1"], rows["rexvqa/test/q2"]
    assert choice["question"] == "Which finding is seen?\nA. Edema\nB. Nodule\nC. Mass\nD. None of them"
    assert (choice["kind"], choice["answer"]) == ("option", ["B"])
    assert choice["options"] == ["Edema", "Nodule", "Mass", "None of them"] and closed["options"] == []
    assert (closed["question"], closed["kind"], closed["answer"]) == ("Is there edema?", "yes_no", ["no"])
    assert choice["image_path"] == "deid_png/GRDN1/1.2.3/a.png" and choice["image_id"] == "GRDN1/1.2.3/a"
    assert (choice["patient_id"], choice["sex"], choice["age"], choice["view"]) == ("p1", "F", 61, "PA")
    assert card["drops"] == {"question: question about several pictures: one is expected": 1}


def test_reports_of_rexvqa_reach_neither_a_manifest_nor_the_terminal(
    rexvqa: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = rexvqa / "metadata/test_vqa_data.json"
    content = json.loads(path.read_text())
    content["q4"] = content["q1"] | {"correct_answer": REPORT}
    content["q5"] = content["q1"] | {"options": REPORT}
    write_json(path, content)
    out = tmp_path / "m"
    assert main(["prepare", "rexvqa", "--root", str(rexvqa), "--out", str(out)]) == 0
    written = b"".join(file.read_bytes() for file in out.rglob("*") if file.is_file())
    assert REPORT[:20] not in capsys.readouterr().out and REPORT[:20].encode() not in written
    card = json.loads((out / "card.json").read_text())
    assert card["drops"]["question: answer is none of the options"] == 1
    assert card["drops"]["question: options are not a list"] == 1


def test_bad_entries_of_rexvqa(rexvqa: Path, prepared: Prepared) -> None:
    path = rexvqa / "metadata/test_vqa_data.json"
    content = json.loads(path.read_text())
    content |= {
        "q4": "text",
        "q5": content["q1"] | {"ImagePath": []},
        "q6": content["q1"] | {"options": ["A. Edema"]},
        "q7": content["q1"] | {"ImagePath": ["../../secret.png"]},
        "q8": content["q1"] | {"question": None},
        "q9": {"question": "Is it?"},
    }
    write_json(path, content)
    rows, card = prepared("rexvqa", rexvqa)
    assert len(rows) == 2
    assert card["drops"] == {
        "row: entry is not a mapping": 1,
        "question: question about several pictures: one is expected": 1,
        "question: question about no picture: one is expected": 2,
        "question: question without options": 1,
        "image: outside the data root": 1,
        "question: image outside the data root": 1,
        "question: question is missing": 1,
    }
    with pytest.raises(PrepareError, match="train_vqa_data.json: file not found"):
        prepared("rexvqa", rexvqa, splits="train")
