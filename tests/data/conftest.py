"""Small made-up data sets in the exact layouts in which the real ones are published."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cxr_faith.data.manifest import open_manifest
from cxr_faith.data.prepare import Prepared, PrepareOptions, prepare
from tests.data.layouts import CHEXPERT, HEIGHT, VINDR, WIDTH, save, vqa_entry, write_csv, write_dicom, write_json
from tests.disks import small_disk  # noqa: F401


def assert_counts(card: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Check that the card's counts are those of the rows that were written."""
    boxes = {(row["image_id"], *box.values()) for row in rows for box in row["boxes"]}
    masks = {row["finding_mask_path"] for row in rows} | {m["path"] for row in rows for m in row["anatomy_masks"]}
    assert card["questions"] == len(rows) == sum(card["kinds"].values()) == sum(card["answers"].values())
    shown = [[image["image_id"] for image in row["images"] or ()] or [row["image_id"]] for row in rows]
    assert card["images"] == len({image_id for ids in shown for image_id in ids})
    assert card["patients"] == len({row["patient_id"] for row in rows} - {None})
    assert card["boxes"] == len(boxes) and card["masks"] == len(masks - {None})
    for kind in ("yes_no", "choice", "open"):
        assert card["kinds"].get(kind, 0) == sum(row["kind"] == kind for row in rows)


@pytest.fixture
def mimic(tmp_path: Path) -> SimpleNamespace:
    """MIMIC-CXR-JPG with four images of three patients, one of them lateral; questions; MS-CXR; Chest ImaGenome."""
    root, vqa = tmp_path / "mimic-cxr-jpg", tmp_path / "vqa"
    images = [
        ("10000032", "50414267", "aaaa-1", "PA"),
        ("10000032", "50414267", "aaaa-2", "LATERAL"),
        ("10000764", "57375967", "bbbb-1", "AP"),
        ("11000183", "51967845", "cccc-1", "AP"),
    ]
    for seed, (subject, study, dicom, _) in enumerate(images):
        save(root / f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg", seed)
    write_csv(
        root / "mimic-cxr-2.0.0-metadata.csv.gz",
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate",
        *(f"{d},{s},{t},CHEST,{view},{HEIGHT},{WIDTH},21800506" for s, t, d, view in images),
    )
    splits = ("test", "test", "validate", "train")
    write_csv(
        root / "mimic-cxr-2.0.0-split.csv.gz",
        "dicom_id,study_id,subject_id,split",
        *(f"{d},{t},{s},{split}" for (s, t, d, _), split in zip(images, splits, strict=True)),
    )
    write_csv(
        root / "mimic-cxr-2.0.0-chexpert.csv.gz",
        "subject_id,study_id," + ",".join(CHEXPERT),
        "10000032,50414267,1.0,0.0,-1.0,,,1.0",
        "10000764,57375967,,,,1.0,0.0,",
        "11000183,51967845,,1.0,,,,",
    )
    a, b = images[0][:3], images[2][:3]
    entries = [
        vqa_entry(
            0,
            a,
            "verify",
            "Is there atelectasis in the left lung?",
            ["yes"],
            object=["left lung"],
            attribute=["atelectasis"],
        ),
        vqa_entry(
            1,
            a,
            "verify",
            "Is there lung opacity in the right lung?",
            ["no"],
            object=["right lung"],
            attribute=["lung opacity"],
        ),
        vqa_entry(2, a, "choose", "Which, edema or atelectasis?", ["atelectasis"], attribute=["edema", "atelectasis"]),
        vqa_entry(3, b, "query", "What are the findings?", []),
        vqa_entry(
            4,
            b,
            "verify",
            "Is the heart enlarged?",
            ["yes"],
            object=["cardiac silhouette"],
            attribute=["enlarged cardiac silhouette"],
        ),
    ]
    write_json(vqa / "test.json", entries)
    write_json(vqa / "train.json", [vqa_entry(0, images[3][:3], "query", "What is seen?", ["edema", "lung opacity"])])
    write_json(vqa / "valid.json", [vqa_entry(0, b, "verify", "Is there a fracture?", ["no"], attribute=["fracture"])])
    ms_cxr = write_csv(
        tmp_path / "ms-cxr/MS_CXR_Local_Alignment_v1.1.0.csv",
        "category_name,label_text,path,x,y,w,h,image_width,image_height,dicom_id,split",
        f"Cardiomegaly,large heart,files/x.jpg,30,20,50,40,{WIDTH},{HEIGHT},bbbb-1,test",
    )
    imagenome = write_csv(
        tmp_path / "chest-imagenome/gold_dataset/gold_bbox_coordinate_annotations_1000images.csv",
        "image_id,x1,y1,x2,y2,bbox_name,annot_id,original_x1,original_x2,original_y1,original_y2",
        "aaaa-1.dcm,120,40,200,190,left lung,1,64,108,10,70",
        "aaaa-1.dcm,20,40,100,190,right lung,2,10,54,10,70",
        "bbbb-1.dcm,60,60,160,180,cardiac silhouette,3,32,86,20,76",
    )
    return SimpleNamespace(root=root, vqa=vqa, ms_cxr=ms_cxr, imagenome=imagenome.parents[1], images=images)


@pytest.fixture
def vindr(tmp_path: Path) -> SimpleNamespace:
    """VinDr-CXR with four training images of three readers each and two test images."""
    root = tmp_path / "vindr-cxr"
    for seed, name in enumerate(("t1", "t2", "t3", "t4")):
        write_dicom(root / f"train/{name}.dicom", seed)
    for seed, name in enumerate(("e1", "e2")):
        write_dicom(root / f"test/{name}.dicom", seed + 9)
    labels = ",".join((*VINDR[:-1], "Other diseases", VINDR[-1]))
    votes = {  # image: one row per reader, in the order of the labels
        "t1": ("1,0,0,0,0,0,0", "1,1,0,0,0,0,0", "0,0,0,0,0,1,0"),
        "t2": ("0,0,0,0,0,0,1",) * 3,
        "t3": ("0,0,1,0,1,0,0",) * 3,
        "t4": ("0,0,0,0,0,0,1",) * 3,
    }
    write_csv(
        root / "annotations/image_labels_train.csv",
        f"image_id,rad_id,{labels}",
        *(f"{name},R{reader},{row}" for name, rows in votes.items() for reader, row in enumerate(rows)),
    )
    write_csv(
        root / "annotations/annotations_train.csv",
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max",
        "t1,R0,Cardiomegaly,30,20,90,60",
        "t1,R1,Cardiomegaly,34,22,94,64",
        "t1,R1,Nodule/Mass,5,5,10,10",
        "t2,R0,No finding,,,,",
        "t3,R0,Pleural effusion,60,50,110,79",
        "t3,R1,Pleural effusion,62,48,112,77",
        "t3,R2,Pleural effusion,2,2,20,20",
        "t3,R2,Pneumonia,9,9,,30",
    )
    write_csv(
        root / "annotations/image_labels_test.csv",
        "image_id," + labels.replace("Other diseases", "Other disease"),
        "e1,1,0,0,0,0,1,0",
        "e2,0,0,0,0,0,0,1",
    )
    write_csv(
        root / "annotations/annotations_test.csv",
        "image_id,class_name,x_min,y_min,x_max,y_max",
        "e1,Cardiomegaly,30.5,20.25,90,60",
        "e2,No finding,,,,",
    )
    vqa = write_json(
        tmp_path / "vindr-cxr-vqa/data.json",
        [
            {
                "image_id": "t1",
                "vqa": [
                    {
                        "question": "Is there cardiomegaly?",
                        "answer": "Yes, the heart is enlarged.",
                        "reason": "…",
                        "type": "Yes_No",
                        "difficulty": "easy",
                        "gt_finding": "Cardiomegaly",
                        "gt_location": "<loc_30_20_90_60>",
                    },
                    {
                        "question": "Where are the findings?",
                        "answer": "On both sides.",
                        "reason": "…",
                        "type": "Where",
                        "difficulty": "hard",
                        "gt_finding": "Nodule/Mass",
                        "gt_location": "<loc_5_5_10_10>, <loc_100_60_130_90>",
                    },
                ],
            }
        ],
    )
    return SimpleNamespace(root=root, vqa=vqa)


@pytest.fixture
def slake(tmp_path: Path) -> Path:
    """SLAKE with a radiograph and a CT."""
    root = tmp_path / "Slake1.0"
    for number in (1, 2):
        save(root / f"imgs/xmlab{number}/source.jpg", number)
        write_json(
            root / f"imgs/xmlab{number}/detection.json", [{"Left Lung": [64, 10, 44, 60]}, {"Heart": [40, 30, 30, 30]}]
        )
    common = {"location": "Lung", "base_type": "vqa", "content_type": "Organ", "triple": ["vhead", "_", "_"]}
    entry = {"img_id": 1, "img_name": "xmlab1/source.jpg", "modality": "X-Ray", "q_lang": "en", **common}
    entries = [
        entry | {"qid": 0, "question": "Is the left lung healthy?", "answer": "No", "answer_type": "CLOSED"},
        entry | {"qid": 1, "question": "Which is bigger, lung or heart?", "answer": "Lung", "answer_type": "CLOSED"},
        entry | {"qid": 2, "question": "What is shown?", "answer": "Chest", "answer_type": "OPEN"},
        entry | {"qid": 3, "question": "肺是否健康?", "answer": "否", "answer_type": "CLOSED", "q_lang": "zh"},
        entry
        | {
            "qid": 4,
            "question": "Is this CT?",
            "answer": "Yes",
            "answer_type": "CLOSED",
            "modality": "CT",
            "img_name": "xmlab2/source.jpg",
        },
    ]
    for split, part in (("train", entries[:2]), ("validate", entries[2:3]), ("test", entries[3:])):
        write_json(root / f"{split}.json", part)
    return root


@pytest.fixture
def vqa_rad(tmp_path: Path) -> Path:
    """VQA-RAD as on OSF."""
    root = tmp_path / "VQA_RAD"
    for seed, name in enumerate(("synpic1.jpg", "synpic2.jpg")):
        save(root / "VQA_RAD Image Folder" / name, seed)
    common = {"image_name": "synpic1.jpg", "image_organ": "CHEST", "question_type": "PRES", "qid_linked_id": "link-1"}
    write_json(
        root / "VQA_RAD Dataset Public.json",
        [
            common
            | {
                "qid": "0",
                "question": "Is there an effusion?",
                "answer": "Yes",
                "answer_type": "CLOSED",
                "phrase_type": "freeform",
            },
            common
            | {
                "qid": "1",
                "question": "Any effusion?",
                "answer": "yes",
                "answer_type": "CLOSED ",
                "phrase_type": "para",
            },
            common
            | {
                "qid": "2",
                "question": "Left or right?",
                "answer": "Left",
                "answer_type": "CLOSED",
                "phrase_type": "test_freeform",
            },
            common
            | {"qid": "3", "question": "How many?", "answer": 2, "answer_type": "OPEN", "phrase_type": "freeform"},
            common
            | {
                "qid": "4",
                "question": "Bleeding?",
                "answer": "No",
                "answer_type": "CLOSED",
                "image_organ": "HEAD",
                "image_name": "synpic2.jpg",
            },
        ],
    )
    return root


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., tuple[dict[str, dict[str, Any]], dict[str, Any]]]:
    """`prepared(source, root, **options)`: rows by sample id, and the data card."""

    def run(source: str, root: Path, common: dict[str, Any] | None = None, **options: Any) -> Any:
        out = tmp_path / "manifests" / source
        prepared = prepare(source, PrepareOptions(str(root), str(out), **(common or {})), **options)
        card = json.loads((out / "card.json").read_text())
        assert Prepared.from_card(out, card) == prepared
        rows = list(open_manifest(out))
        assert_counts(card, rows)
        return {row["sample_id"]: row for row in rows}, card

    return run
