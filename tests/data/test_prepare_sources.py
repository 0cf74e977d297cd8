"""Each source on a folder in its published layout: the rows, answers and boxes that it gives."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_faith.data.prepare import PrepareOptions, prepare
from cxr_faith.data.tally import PrepareError
from tests.data.layouts import HEIGHT, WIDTH, save, write_csv, write_json

Prepared = Callable[..., tuple[dict[str, dict[str, Any]], dict[str, Any]]]


def boxes(row: dict[str, Any]) -> set[tuple[Any, ...]]:
    return {(box["label"], box["x1"], box["y1"], box["x2"], box["y2"]) for box in row["boxes"]}


def test_mimic_cxr_vqa(mimic: SimpleNamespace, prepared: Prepared) -> None:
    rows, card = prepared("mimic-cxr-vqa", mimic.root, vqa=str(mimic.vqa))
    assert card["images"] == 3 and card["patients"] == 3 and card["questions"] == 7
    assert card["kinds"] == {"choice": 1, "open": 2, "yes_no": 4}
    assert card["answers"]["open: none"] == 1 and card["answers"]["open: stated"] == 1
    assert card["drops"] == {"image: view LATERAL": 1}
    row = rows["mimic-cxr-vqa/test/0"]
    assert row["image_path"] == "files/p10/p10000032/s50414267/aaaa-1.jpg"
    assert (row["patient_id"], row["study_id"], row["image_id"]) == ("10000032", "50414267", "aaaa-1")
    assert (row["kind"], row["answer"], row["finding"], row["side"]) == ("yes_no", ["yes"], "atelectasis", "left")
    assert (row["split"], row["height"], row["width"]) == ("test", HEIGHT, WIDTH)
    assert rows["mimic-cxr-vqa/test/3"]["answer"] == [] and rows["mimic-cxr-vqa/test/2"]["finding"] is None
    assert rows["mimic-cxr-vqa/train/0"]["answer"] == ["edema", "lung opacity"]


def test_mimic_boxes(mimic: SimpleNamespace, prepared: Prepared) -> None:
    joined = {"ms_cxr": str(mimic.ms_cxr.parent), "chest_imagenome": str(mimic.imagenome)}
    rows, _ = prepared("mimic-cxr-vqa", mimic.root, vqa=str(mimic.vqa), splits="test", **joined)
    # A yes: the named anatomy, also as the finding's; x2 comes before y1 in the file.
    left = (64.0, 10.0, 108.0, 70.0)
    assert boxes(rows["mimic-cxr-vqa/test/0"]) == {("left lung", *left), ("atelectasis", *left)}
    # A no: the anatomy only.
    assert boxes(rows["mimic-cxr-vqa/test/1"]) == {("right lung", 10.0, 10.0, 54.0, 70.0)}
    # MS-CXR is better than the anatomy, and has another name for the finding; xywh.
    assert boxes(rows["mimic-cxr-vqa/test/4"]) == {
        ("enlarged cardiac silhouette", 30.0, 20.0, 80.0, 60.0),
        ("cardiac silhouette", 32.0, 20.0, 86.0, 76.0),
    }
    assert boxes(rows["mimic-cxr-vqa/test/2"]) == set()


def test_arguments_that_a_mirror_made_text(mimic: SimpleNamespace, prepared: Prepared) -> None:
    entries = json.loads((mimic.vqa / "test.json").read_text())
    for entry, form in zip(entries, (str, json.dumps, lambda _: "{broken", str, str), strict=True):
        entry["template_arguments"] = form(entry["template_arguments"])
    write_json(mimic.vqa / "test.json", entries)
    rows, _ = prepared("mimic-cxr-vqa", mimic.root, vqa=str(mimic.vqa), splits="test")
    findings = ["atelectasis", "lung opacity", None, None, "enlarged cardiac silhouette"]
    assert [row["finding"] for row in rows.values()] == findings


def test_mimic_cxr_labels(mimic: SimpleNamespace, prepared: Prepared) -> None:
    rows, card = prepared("mimic-cxr", mimic.root, splits="train,validate,test", phrasings=2)
    answers = {(row["image_id"], row["finding"]): row["answer"] for row in rows.values()}
    assert answers == {
        ("aaaa-1", "atelectasis"): ["yes"],
        ("aaaa-1", "cardiomegaly"): ["no"],
        ("aaaa-1", "edema"): None,  # −1: uncertain
        ("bbbb-1", "pleural effusion"): ["no"],
        ("cccc-1", "cardiomegaly"): ["yes"],
    }
    assert card["questions"] == 10 and card["answers"] == {"yes_no: no": 4, "yes_no: unknown": 2, "yes_no: yes": 4}
    group = [row for row in rows.values() if row["question_group"] == "mimic-cxr/aaaa-1/edema"]
    assert [row["variant"] for row in group] == ["0", "1"] and len({row["question"] for row in group}) == 2


@pytest.mark.parametrize(
    ("options", "fault"),
    [({"splits": "tset"}, "no split tset"), ({"phrasings": 9}, "phrasings must be 1 to 5")],
)
def test_wrong_options_of_mimic(mimic: SimpleNamespace, prepared: Prepared, options: dict, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        prepared("mimic-cxr", mimic.root, **options)


def test_vindr_training_split_is_a_vote(vindr: SimpleNamespace, prepared: Prepared) -> None:
    rows, card = prepared("vindr-cxr", vindr.root, splits="train", balanced=False)
    answers = {(row["image_id"], row["finding"]): row["answer"][0] for row in rows.values()}
    assert answers[("t1", "cardiomegaly")] == "yes" and answers[("t2", "cardiomegaly")] == "no"
    assert ("t1", "nodule/mass") not in answers, "one reader of three is no answer"
    assert {finding for _, finding in answers} == {"cardiomegaly", "nodule/mass", "pleural effusion", "pneumonia"}
    assert card["drops"] == {
        "question: readers disagree": 1,
        "box: finding that most readers do not see": 1,
        "box: corner is not a number": 1,
    }
    heart = next(row for row in rows.values() if row["image_id"] == "t1" and row["finding"] == "cardiomegaly")
    assert boxes(heart) == {("cardiomegaly", 32.0, 21.0, 92.0, 62.0)}  # two readers' mean
    effusion = next(row for row in rows.values() if row["image_id"] == "t3" and row["finding"] == "pleural effusion")
    assert boxes(effusion) == {
        ("pleural effusion", 61.0, 49.0, 111.0, 78.0),
        ("pleural effusion", 2.0, 2.0, 20.0, 20.0),
    }
    assert card["notes"] == {"readers' boxes merged into another": 2}


def test_vindr_is_balanced_and_reproducible(vindr: SimpleNamespace, prepared: Prepared) -> None:
    rows, card = prepared("vindr-cxr", vindr.root, splits="train", phrasings=3)
    assert card["answers"] == {"yes_no: no": 9, "yes_no: yes": 9}
    again, other = prepared("vindr-cxr", vindr.root, splits="train", phrasings=3)
    assert again == rows and other["fingerprint"] == card["fingerprint"]


def test_vindr_test_split(vindr: SimpleNamespace, prepared: Prepared) -> None:
    rows, card = prepared("vindr-cxr", vindr.root)
    assert {(row["image_id"], row["finding"], *row["answer"]) for row in rows.values()} == {
        ("e1", "cardiomegaly", "yes"),
        ("e2", "cardiomegaly", "no"),
    }
    present = rows["vindr-cxr/e1/cardiomegaly/0"]
    assert boxes(present) == {("cardiomegaly", 30.5, 20.25, 90.0, 60.0)}
    assert present["image_path"] == "test/e1.dicom" and present["height"] == HEIGHT
    assert card["patients"] == 0 and not card["drops"]


def test_vindr_vqa(vindr: SimpleNamespace, prepared: Prepared) -> None:
    rows, card = prepared("vindr-cxr-vqa", vindr.root, vqa=str(vindr.vqa.parent))
    closed, where = rows["vindr-cxr-vqa/t1/0"], rows["vindr-cxr-vqa/t1/1"]
    assert (closed["kind"], closed["answer"], closed["finding"]) == ("yes_no", ["yes"], "cardiomegaly")
    assert boxes(closed) == {("cardiomegaly", 30.0, 20.0, 90.0, 60.0)}
    assert (where["kind"], where["answer"]) == ("open", ["On both sides."])
    assert boxes(where) == {("nodule/mass", 5.0, 5.0, 10.0, 10.0), ("nodule/mass", 100.0, 60.0, WIDTH, HEIGHT)}
    assert card["notes"] == {"boxes cut at the edge of their image": 1}


def test_slake_takes_english_radiographs(slake: Path, prepared: Prepared) -> None:
    rows, card = prepared("slake", slake)
    assert {name: (row["kind"], row["answer"]) for name, row in rows.items()} == {
        "slake/train/0": ("yes_no", ["no"]),
        "slake/train/1": ("choice", ["Lung"]),
        "slake/validate/2": ("open", ["Chest"]),
    }
    assert card["drops"] == {"question: language zh": 1, "question: modality CT": 1}
    row = rows["slake/train/0"]
    assert row["finding"] == "left lung" and row["image_path"] == "imgs/xmlab1/source.jpg"
    assert boxes(row) == {("left lung", 64.0, 10.0, 108.0, 70.0), ("heart", 40.0, 30.0, 70.0, 60.0)}


def test_vqa_rad_takes_the_chest(vqa_rad: Path, prepared: Prepared) -> None:
    rows, card = prepared("vqa-rad", vqa_rad)
    assert [(row["kind"], row["answer"], row["split"]) for row in rows.values()] == [
        ("yes_no", ["yes"], "train"),
        ("yes_no", ["yes"], "train"),
        ("choice", ["Left"], "test"),
        ("open", ["2"], "train"),
    ]
    assert card["drops"] == {"question: organ HEAD": 1}
    assert {row["question_group"] for row in rows.values()} == {"vqa-rad/link-1"}
    assert rows["vqa-rad/1"]["strategy"] == "paraphrase" and rows["vqa-rad/0"]["strategy"] is None


def test_phantom(tmp_path: Path, prepared: Prepared) -> None:
    rows, card = prepared("phantom", tmp_path / "phantoms", patients=2, seed=3)
    assert card["questions"] == len(rows) > 10 and card["patients"] == 2 and card["masks"] > 0
    assert all((tmp_path / "phantoms" / row["image_path"]).is_file() for row in rows.values())


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "json", "parquet"])
def test_table_of_any_kind(tmp_path: Path, prepared: Prepared, ending: str) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"pictures/{name}.png", ord(name))
    table = pd.DataFrame(
        {
            "path": ["a.png", "b.png", "b.png"],
            "question": ["Is it?", "What?", "Which?"],
            "answer": ["Yes", '["x", "y"]', None],
            "finding": ["Edema", None, None],
            "boxes": ["[[10, 20, 30, 40]]", None, '[{"label": "lung", "x": 1, "y": 2, "w": 3, "h": 4}]'],
        }
    )
    path = tmp_path / f"q.{ending}"
    if ending.startswith("csv"):
        table.to_csv(path, index=False)
    elif ending == "parquet":
        table.to_parquet(path)
    else:
        table.to_json(path, orient="records", lines=ending == "jsonl")
    options = {"file": str(path), "columns": {"image_path": "path"}, "box_format": "xywh"}
    rows, _ = prepared("table", tmp_path / "pictures", **options)
    assert [(row["image_id"], row["kind"], row["answer"]) for row in rows.values()] == [
        ("a.png", "yes_no", ["yes"]),
        ("b.png", None, ["x", "y"]),
        ("b.png", None, None),
    ]
    assert boxes(rows["q/0"]) == {("Edema", 10.0, 20.0, 40.0, 60.0)}
    assert boxes(rows["q/2"]) == {("lung", 1.0, 2.0, 4.0, 6.0)}


def test_table_of_paraphrases(tmp_path: Path, prepared: Prepared) -> None:
    save(tmp_path / "pictures/p10/a.png", 0)
    path = write_csv(
        tmp_path / "p.csv",
        "dicom_id,subject_id,study_id,question,question_type,answer,split,image_path,"
        "baseline_question,question_variant,variant_index,strategy",
        "a,10,50,Is there edema?,verify,yes,test,p10/a.png,Is there edema?,Is there edema?,0,baseline",
        "a,10,50,Is there edema?,verify,yes,test,p10/a.png,Is there edema?,Any edema?,1,lexical",
    )
    rows, card = prepared("table", tmp_path / "pictures", file=str(path))
    assert [(row["question"], row["variant"], row["strategy"], row["kind"]) for row in rows.values()] == [
        ("Is there edema?", "0", "baseline", "yes_no"),
        ("Any edema?", "1", "lexical", "yes_no"),
    ]
    assert {row["question_group"] for row in rows.values()} == {"a/Is there edema?"}
    assert {(row["image_id"], row["patient_id"], row["study_id"]) for row in rows.values()} == {("a", "10", "50")}


@pytest.mark.parametrize(
    ("box_format", "corners"), [("unit", "[0.1, 0.2, 0.5, 0.6]"), ("padded", "[22, 71, 112, 130]")]
)
def test_table_of_boxes_relative_to_a_size(tmp_path: Path, prepared: Callable, box_format: str, corners: str) -> None:
    save(tmp_path / "root/a.png", 0)
    sized, unsized = f'a.png,Is it?,Edema,{HEIGHT},{WIDTH},"[{corners}]"', f'a.png,Is it?,Edema,,,"[{corners}]"'
    path = write_csv(tmp_path / "q.csv", "image_path,question,finding,height,width,boxes", sized, unsized)
    rows, card = prepared("table", tmp_path / "root", file=str(path), box_format=box_format)
    ((label, *box),) = boxes(rows["q/0"])
    assert label == "Edema" and not rows["q/1"]["boxes"]
    # The square of 224 px holds the picture of 120 × 80 at 224 / 120, with 37 rows above it.
    expected = {"unit": [12, 16, 60, 48], "padded": [22 / 224 * 120, 34 / 224 * 120, 60, 93 / 224 * 120]}
    np.testing.assert_allclose(box, expected[box_format])
    assert card["drops"] == {"box: is relative to a size that the table does not state": 1}


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"columns": {"image_path": "file"}}, r"lacks the column file \(for image_path\)"),
        ({"columns": {"imagepath": "path"}}, "manifests have no column imagepath"),
        ({}, "lacks the column image_path"),
        ({"box_format": "yolo"}, "no box format 'yolo'"),
    ],
)
def test_table_without_what_is_needed(tmp_path: Path, prepared: Prepared, options: dict, fault: str) -> None:
    write_csv(tmp_path / "q.csv", "scan,question", "a.png,Is it?")
    with pytest.raises(PrepareError, match=fault):
        prepared("table", tmp_path, file=str(tmp_path / "q.csv"), **options)


def test_hub_folder(tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    pictures = [Image.fromarray(np.full((20, 30), level, np.uint8)) for level in (10, 10, 200)]
    table = datasets.Dataset.from_dict(
        {"image": pictures, "question": ["Is it?", "What?", "Which?"], "answer": ["Yes", "edema", "left"]},
        features=datasets.Features(
            image=datasets.Image(), question=datasets.Value("string"), answer=datasets.Value("string")
        ),
    )
    datasets.DatasetDict(test=table).save_to_disk(str(tmp_path / "vqa"))
    rows, card = prepared("hub", tmp_path / "root", dataset=str(tmp_path / "vqa"))
    assert card["images"] == 2 and [row["kind"] for row in rows.values()] == ["yes_no", "open", "open"]
    waited = [path for path in synced if path.startswith(str(tmp_path / "root"))]
    assert synced and not waited, "prepare waits for the disk with each picture, which it could write again"
    with pytest.raises(PrepareError, match="no split 'train'"):
        prepared("hub", tmp_path / "root", dataset=str(tmp_path / "vqa"), split="train")
    with pytest.raises(PrepareError, match="lacks the column query"):
        prepared("hub", tmp_path / "root", dataset=str(tmp_path / "vqa"), question="query")


def test_limit(mimic: SimpleNamespace, tmp_path: Path) -> None:
    options = PrepareOptions(str(mimic.root), str(tmp_path / "m"), limit=2)
    assert prepare("mimic-cxr-vqa", options, vqa=str(mimic.vqa)).questions == 2
