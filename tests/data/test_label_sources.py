"""Sources with labels and without questions, each on a folder in its exact published layout, and on bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxr_faith.data.boxes import from_relative_rle
from cxr_faith.data.images import load_mask
from cxr_faith.data.tally import PrepareError
from tests.data.layouts import HEIGHT, WIDTH, save, write_csv, write_dicom, write_json

Prepared = Callable[..., tuple[dict[str, dict[str, Any]], dict[str, Any]]]

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


def boxes(row: dict[str, Any]) -> set[tuple[Any, ...]]:
    return {(box["label"], box["x1"], box["y1"], box["x2"], box["y2"]) for box in row["boxes"]}


def answers(rows: dict[str, dict[str, Any]]) -> set[tuple[Any, ...]]:
    return {(row["image_id"], row["finding"], *(row["answer"] or ("?",))) for row in rows.values()}


@pytest.fixture
def nih(tmp_path: Path) -> Path:
    """ChestX-ray14 with pictures of 64 px in two of its folders; the boxes are of the 1,024 px pictures."""
    root = tmp_path / "nih"
    for seed, name in enumerate(("images_001/images/00000001_000", "images_002/images/00000002_000")):
        save(root / f"{name}.png", seed, height=64, width=64)
    save(root / "images_002/images/00000002_001.png", 7, height=64, width=64)
    write_csv(
        root / "Data_Entry_2017_v2020.csv",
        NIH_HEADER,
        "00000001_000.png,Infiltration|Pleural_Thickening,0,1,57,M,PA,2682,2749,0.143,0.143",
        "00000002_000.png,No Finding,0,2,080Y,F,AP,2894,2729,0.143,0.143",
        "00000002_001.png,No Finding,1,2,412,F,PA,2894,2729,0.143,0.143",
        "00000003_000.png,Mass,0,3,40,M,PA,2894,2729,0.143,0.143",
    )
    write_csv(
        root / "BBox_List_2017.csv",
        "Image Index,Finding Label,Bbox [x,y,w,h],,,",
        "00000001_000.png,Infiltrate,128,256,512,256,,,",
    )
    write_csv(root / "test_list.txt", "00000001_000.png", "00000002_000.png", "00000002_001.png")
    write_csv(root / "train_val_list.txt", "00000003_000.png")
    return root


def test_nih(nih: Path, prepared: Prepared) -> None:
    rows, card = prepared("nih", nih)
    assert card["answers"] == {"yes_no: no": 2, "yes_no: yes": 2} and card["drops"] == {}
    row = rows["nih/00000001_000/infiltration/0"]
    assert boxes(row) == {("infiltration", 8.0, 16.0, 40.0, 32.0)}, "scaled from 1,024 to 64 px"
    assert row["image_path"] == "images_001/images/00000001_000.png"
    assert (row["patient_id"], row["split"], row["sex"], row["age"], row["view"]) == ("1", "test", "M", 57, "PA")
    assert {row["finding"] for row in rows.values()} == {"infiltration", "pleural thickening"}
    assert all(row["patient_id"] == "2" for row in rows.values() if row["answer"] == ["no"])


def test_nih_in_full(nih: Path, prepared: Prepared) -> None:
    rows, card = prepared("nih", nih, balanced=False, phrasings=2, views="PA")
    assert card["questions"] == 14 * 2 * 2 and card["images"] == 2
    assert card["drops"] == {"image: view AP": 1}
    assert card["notes"] == {"ages that no patient has, left out": 1}
    old = next(row for row in rows.values() if row["image_id"] == "00000002_001")
    assert old["age"] is None and old["sex"] == "F"


@pytest.mark.parametrize("form", ["crlf", "bom", "gz"])
def test_nih_as_other_programs_save_it(nih: Path, prepared: Prepared, form: str) -> None:
    table = nih / "Data_Entry_2017_v2020.csv"
    text = table.read_text()
    if form == "gz":
        table.unlink()
        write_csv(nih / f"{table.name}.gz", *text.splitlines())
        lines = (nih / "test_list.txt").read_text().splitlines()
        (nih / "test_list.txt").unlink()
        write_csv(nih / "test_list.txt.gz", *lines)
    else:
        table.write_bytes(text.replace("\n", "\r\n").encode() if form == "crlf" else b"\xef\xbb\xbf" + text.encode())
        for name in ("test_list.txt", "BBox_List_2017.csv"):
            (nih / name).write_bytes((nih / name).read_bytes().replace(b"\n", b"\r\n"))
    rows, card = prepared("nih", nih)
    assert len(rows) == 4 and card["boxes"] == 1 and not card["drops"]


def test_bad_rows_of_nih(nih: Path, prepared: Prepared) -> None:
    with (nih / "Data_Entry_2017_v2020.csv").open("a") as file:
        file.write("00000001_000.png,Mass,0,1,57,M,PA,1,1,1,1\n,Mass,0,1,57,M,PA,1,1,1,1\n")
        file.write("00000005_000.png,Broken leg,0,5,57,M,PA,1,1,1,1\n00000006_000.png,Mass,0,6,57,M,PA,1,1,1,1\n")
    with (nih / "test_list.txt").open("a") as file:
        file.write("00000005_000.png\n00000006_000.png\n00000009_000.png\n\n")
    with (nih / "BBox_List_2017.csv").open("a") as file:
        file.write("00000001_000.png,Infiltrate,1,2,-3,4,,,\n00000001_000.png,Infiltrate,a,2,3,4,,,\n")
        file.write("00000001_000.png,Mass,1,2,3,4,,,\n00000005_000.png,Mass,1,2,3,4,,,\n,Mass,1,2,3,4,,,\n")
        file.write("00000001_000.png,Infiltrate,2000,2,3,4,,,\n00000003_000.png,Mass,1,2,3,4,,,\n")
        file.write("00000077_000.png,Mass,1,2,3,4,,,\n")
    rows, card = prepared("nih", nih)
    assert boxes(rows["nih/00000001_000/infiltration/0"]) == {("infiltration", 8.0, 16.0, 40.0, 32.0)}
    assert card["drops"] == {
        "row: image is in the table twice": 1,
        "row: row without image or labels": 1,
        "row: in the list of the split, not in the table": 1,
        "image: label of another name": 1,
        "image: file not found": 1,
        "question: image file not found": 1,
        "box: empty or of negative size": 1,
        "box: corner is not a number": 1,
        "box: outside the image": 1,
        "box: finding that the image's labels do not name": 1,
        "box: belongs to no image that was taken": 2,
        "box: row without image": 1,
    }
    (nih / "BBox_List_2017.csv").write_text("Image Index,Finding Label,x\n")
    with pytest.raises(PrepareError, match=r"BBox_List_2017.csv: lacks the column Bbox \[x, y, w, h\]"):
        prepared("nih", nih)
    (nih / "BBox_List_2017.csv").unlink()
    assert prepared("nih", nih)[1]["boxes"] == 0


@pytest.fixture
def vinbigdata(tmp_path: Path) -> Path:
    """VinBigData with three images of three readers each."""
    root = tmp_path / "vinbigdata"
    for seed, name in enumerate(("a", "b", "c")):
        write_dicom(root / f"train/{name}.dicom", seed)
    write_csv(
        root / "train.csv",
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
        "a,Cardiomegaly,3,R1,30,20,90,60",
        "a,Cardiomegaly,3,R2,34,22,94,64",
        "a,Nodule/Mass,8,R2,5,5,10,10",
        "a,No finding,14,R3,,,,",
        *(f"b,No finding,14,{reader},,,," for reader in ("R1", "R2", "R3")),
        *(f"c,Pleural effusion,10,{reader},60,50,110,79" for reader in ("R1", "R2", "R3")),
    )
    return root


def test_vinbigdata_is_a_vote(vinbigdata: Path, prepared: Prepared) -> None:
    rows, card = prepared("vinbigdata", vinbigdata, balanced=False)
    assert answers(rows) == {
        ("a", "cardiomegaly", "yes"),
        ("b", "cardiomegaly", "no"),
        ("c", "cardiomegaly", "no"),
        ("a", "pleural effusion", "no"),
        ("b", "pleural effusion", "no"),
        ("c", "pleural effusion", "yes"),
        ("b", "nodule/mass", "no"),
        ("c", "nodule/mass", "no"),
    }
    heart = rows["vinbigdata/a/cardiomegaly/0"]
    assert boxes(heart) == {("cardiomegaly", 32.0, 21.0, 92.0, 62.0)}
    assert [(each["reader"], len(each["boxes"])) for each in heart["readers"]] == [("R1", 1), ("R2", 2), ("R3", 0)]
    assert rows["vinbigdata/b/cardiomegaly/0"]["readers"] == []
    assert card["drops"] == {"question: readers disagree": 1, "box: finding that most readers do not see": 1}


def test_vinbigdata_as_png_of_another_size(vinbigdata: Path, prepared: Prepared) -> None:
    for seed, name in enumerate(("a", "b", "c")):
        (vinbigdata / f"train/{name}.dicom").unlink()
        save(vinbigdata / f"train/{name}.png", seed, height=HEIGHT // 2, width=WIDTH // 4)
    with pytest.raises(PrepareError, match="train_meta.csv: file not found"):
        prepared("vinbigdata", vinbigdata)
    meta = write_csv(vinbigdata / "train_meta.csv", "image_id,dim0,dim1", f"a,{HEIGHT},{WIDTH}", f"c,{HEIGHT},{WIDTH}")
    rows, _ = prepared("vinbigdata", vinbigdata)
    heart = rows["vinbigdata/a/cardiomegaly/0"]
    assert heart["image_path"] == "train/a.png" and boxes(heart) == {("cardiomegaly", 8.0, 10.5, 23.0, 31.0)}
    assert heart["readers"][0]["boxes"] == [
        {"label": "cardiomegaly", "x1": 7.5, "y1": 10.0, "x2": 22.5, "y2": 30.0, "image_id": None}
    ]
    write_csv(meta, "image_id,dim0,dim1", f"a,{HEIGHT},{WIDTH}", "c,,")
    with pytest.raises(PrepareError, match="train_meta.csv: has no size of image c"):
        prepared("vinbigdata", vinbigdata)


def test_bad_rows_of_vinbigdata(vinbigdata: Path, prepared: Prepared) -> None:
    with (vinbigdata / "train.csv").open("a") as file:
        file.write(",Cardiomegaly,3,R1,30,20,90,60\nc,Cardiomegaly,3,,30,20,90,60\nc,Pleural effusion,10,R1,9,9,3,20\n")
        file.write("c,Pleural effusion,10,R1,x,9,13,20\nd,Cardiomegaly,3,R1,1,1,9,9\n")
    (vinbigdata / "train/b.dicom").unlink()
    rows, card = prepared("vinbigdata", vinbigdata)
    assert "vinbigdata/c/pleural effusion/0" in rows
    assert card["drops"]["row: row without image, reader or finding"] == 2
    assert card["drops"]["box: row without image id"] == 1
    assert card["drops"]["box: empty or of negative size"] == 1
    assert card["drops"]["box: corner is not a number"] == 1
    assert card["drops"]["image: file not found"] == 2


@pytest.fixture
def rsna(tmp_path: Path) -> Path:
    """RSNA Pneumonia with an image of each class, one of them with two boxes."""
    root = tmp_path / "rsna"
    for seed, name in enumerate(("p1", "p2", "p3")):
        write_dicom(root / f"stage_2_train_images/{name}.dcm", seed, height=64, width=128)
    write_csv(
        root / "stage_2_train_labels.csv",
        "patientId,x,y,width,height,Target",
        "p1,128.0,256.0,64.0,128.0,1",
        "p1,512.0,256.0,64.0,128.0,1",
        "p2,,,,,0",
        "p3,,,,,0",
    )
    write_csv(
        root / "stage_2_detailed_class_info.csv",
        "patientId,class",
        "p1,Lung Opacity",
        "p1,Lung Opacity",
        "p2,No Lung Opacity / Not Normal",
        "p3,Normal",
    )
    return root


def test_rsna_has_three_classes(rsna: Path, prepared: Prepared) -> None:
    rows, card = prepared("rsna", rsna, findings="lung opacity,abnormality", balanced=False)
    assert answers(rows) == {
        ("p1", "lung opacity", "yes"),
        ("p2", "lung opacity", "no"),
        ("p3", "lung opacity", "no"),
        ("p1", "abnormality", "yes"),
        ("p2", "abnormality", "yes"),
        ("p3", "abnormality", "no"),
    }
    present = rows["rsna/p1/lung opacity/0"]
    assert boxes(present) == {("lung opacity", 16.0, 16.0, 24.0, 24.0), ("lung opacity", 64.0, 16.0, 72.0, 24.0)}
    assert present["image_path"] == "stage_2_train_images/p1.dcm" and not card["drops"]


def test_bad_rows_of_rsna(rsna: Path, prepared: Prepared) -> None:
    with (rsna / "stage_2_train_labels.csv").open("a") as file:
        file.write("p2,1,2,3,4,1\np9,1,2,3,4,1\np1,1,2,3,4,x\np1,1,2,-3,4,1\n")
    with (rsna / "stage_2_detailed_class_info.csv").open("a") as file:
        file.write("p1,Normal\np4,Something\n,Normal\np5,Normal\n")
    rows, card = prepared("rsna", rsna, balanced=False)
    assert {row["image_id"] for row in rows.values()} == {"p1", "p2", "p3"}
    assert card["drops"] == {
        "row: target and class of the image disagree": 1,
        "row: image has no class": 1,
        "row: row without image, or whose target is not 0 or 1": 1,
        "row: image has two classes, the first is taken": 1,
        "row: class of another name": 1,
        "row: row without image": 1,
        "box: empty or of negative size": 1,
        "image: file not found": 1,
        "question: image file not found": 1,
    }
    with pytest.raises(PrepareError, match="no finding mass; there are lung opacity, abnormality"):
        prepared("rsna", rsna, findings="mass")


def encoded(mask: np.ndarray) -> str:
    """Relative run lengths of a mask, column by column: the slow twin of the reader's rule, written the other way."""
    words, gap, run = [], 0, 0
    for pixel in mask.T.ravel().tolist():
        if pixel:
            run += 1
        else:
            if run:
                words += [gap, run]
                gap, run = 0, 0
            gap += 1
    return " ".join(map(str, words + ([gap, run] if run else [])))


def test_relative_run_lengths_of_random_masks() -> None:
    rng = np.random.default_rng(0)
    for height, width in ((7, 5), (5, 9)):
        mask = rng.random((height, width)) < 0.5
        np.testing.assert_array_equal(from_relative_rle(encoded(mask), (height, width)), mask)
    np.testing.assert_array_equal(np.argwhere(from_relative_rle("1 2 3 1", (4, 3))), [[1, 0], [2, 0], [2, 1]])


@pytest.mark.parametrize("text", ["1", "1 -2", "a b", "", "5 20", "999999999999 1", "1.5 2"])
def test_broken_run_lengths_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="run"):
        from_relative_rle(text, (4, 3))


@pytest.fixture
def siim(tmp_path: Path) -> Path:
    """SIIM-ACR with three images in nested folders; one has two rows."""
    root = tmp_path / "siim"
    for seed, name in enumerate(("1.2.276.1", "1.2.276.2", "1.2.276.3")):
        write_dicom(root / f"dicom-images-train/s{seed}/t{seed}/{name}.dcm", seed, height=1024, width=1024)
    first, second = np.zeros((2, 1024, 1024), bool)
    first[100:200, 50:60] = second[300:310, 700:720] = True
    write_csv(
        root / "train-rle.csv",
        "ImageId, EncodedPixels",
        f"1.2.276.1,{encoded(first)}",
        f"1.2.276.1, {encoded(second)}",
        "1.2.276.2,-1",
        "1.2.276.3, -1",
    )
    return root


def test_siim_masks_are_exact(siim: Path, prepared: Prepared, tmp_path: Path) -> None:
    rows, card = prepared("siim", siim)
    assert sorted(row["answer"] for row in rows.values()) == [["no"], ["yes"]] and card["masks"] == 1
    row = rows["siim/1.2.276.1/pneumothorax/0"]
    assert row["image_path"] == "dicom-images-train/s0/t0/1.2.276.1.dcm"
    mask = load_mask(row["finding_mask_path"], tmp_path / "manifests/siim")
    expected = np.zeros((1024, 1024), bool)
    expected[100:200, 50:60] = expected[300:310, 700:720] = True
    np.testing.assert_array_equal(mask, expected)


def test_siim_masks_fit_a_smaller_picture(siim: Path, prepared: Prepared, tmp_path: Path) -> None:
    write_dicom(siim / "dicom-images-train/s0/t0/1.2.276.1.dcm", 0, height=256, width=256)
    rows, card = prepared("siim", siim)
    path = rows["siim/1.2.276.1/pneumothorax/0"]["finding_mask_path"]
    mask = load_mask(path, tmp_path / "manifests/siim")
    assert mask.shape == (256, 256) and card["drops"] == {}
    assert mask[30, 13] and mask[76, 176] and not mask[30, 176] and mask.sum() == pytest.approx(1200 / 16, rel=0.2)


def test_a_picture_of_siim_outside_the_root_is_not_opened(siim: Path, prepared: Prepared, tmp_path: Path) -> None:
    write_dicom(tmp_path / "secret.dcm", 5, height=64, width=64)
    with (siim / "train-rle.csv").open("a") as file:
        file.write("../secret,1 5\n")
    _, card = prepared("siim", siim, balanced=False)
    assert card["drops"] == {"image: outside the data root": 1, "question: image outside the data root": 1}
    assert len(list((tmp_path / "manifests/siim/masks/pneumothorax").iterdir())) == 1


def test_bad_rows_of_siim(siim: Path, prepared: Prepared) -> None:
    with (siim / "train-rle.csv").open("a") as file:
        file.write("1.2.276.2,5 5 5\n,-1\n1.2.276.3,\n1.2.276.9,-1\n")
    rows, card = prepared("siim", siim, balanced=False)
    assert rows["siim/1.2.276.2/pneumothorax/0"]["finding_mask_path"] is None
    assert card["drops"] == {
        "mask: run lengths are damaged": 1,
        "row: row without image or run lengths": 2,
        "image: file not found": 1,
        "question: image file not found": 1,
    }
    write_csv(siim / "train-rle.csv", "ImageId,Pixels", "1,2")
    with pytest.raises(PrepareError, match="lacks the column EncodedPixels"):
        prepared("siim", siim)


CHEXPERT_HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Cardiomegaly,Lung Opacity,Support Devices"


@pytest.fixture
def chexpert(tmp_path: Path) -> Path:
    """CheXpert (small) with two patients; the second has a lateral view."""
    root = tmp_path / "data/CheXpert-v1.0-small"
    names = (
        "patient64541/study1/view1_frontal",
        "patient64542/study1/view1_frontal",
        "patient64542/study1/view2_lateral",
    )
    for seed, name in enumerate(names):
        save(root / f"valid/{name}.jpg", seed)
    write_csv(
        root / "valid.csv",
        CHEXPERT_HEADER,
        f"CheXpert-v1.0-small/valid/{names[0]}.jpg,Male,73,Frontal,AP,0.0,1.0,-1.0,",
        f"CheXpert-v1.0-small/valid/{names[1]}.jpg,Female,70,Frontal,PA,1.0,0.0,0.0,1.0",
        f"CheXpert-v1.0-small/valid/{names[2]}.jpg,Female,70,Lateral,,1.0,0.0,0.0,1.0",
    )
    return root


@pytest.mark.parametrize("above", [False, True])
def test_chexpert(chexpert: Path, prepared: Prepared, above: bool) -> None:
    rows, card = prepared("chexpert", chexpert.parent if above else chexpert)
    assert answers(rows) == {
        ("patient64541_study1_view1_frontal", "cardiomegaly", "yes"),
        ("patient64541_study1_view1_frontal", "lung opacity", "?"),
        ("patient64542_study1_view1_frontal", "cardiomegaly", "no"),
        ("patient64542_study1_view1_frontal", "lung opacity", "no"),
        ("patient64542_study1_view1_frontal", "support devices", "yes"),
    }
    row = next(iter(rows.values()))
    assert (row["patient_id"], row["study_id"]) == ("patient64541", "patient64541/study1")
    assert (row["sex"], row["age"], row["view"]) == ("M", 73, "AP")
    assert card["drops"] == {"image: view LATERAL": 1}
    assert card["notes"] == {"uncertain labels, asked with an unknown reference": 1}
    lateral, _ = prepared("chexpert", chexpert, views="lateral")
    assert {row["view"] for row in lateral.values()} == {"LATERAL"}


def test_chexlocalize_joins_chexpert(chexpert: Path, prepared: Prepared, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    runs = {"size": [HEIGHT, WIDTH], "counts": [100, 50, HEIGHT * WIDTH - 150]}
    marks = {"patient64541_study1_view1_frontal": {"Cardiomegaly": runs, "Airspace Opacity": runs}}
    path = write_json(tmp_path / "gt_segmentations_val.json", marks)
    rows, card = prepared("chexpert", chexpert, {"chexlocalize": str(path)})
    masked = {row["finding"] for row in rows.values() if row["finding_mask_path"]}
    assert masked == {"cardiomegaly", "lung opacity"}, "CheXlocalize calls lung opacity airspace opacity"
    assert card["masks"] == 2


def test_bad_rows_of_chexpert(chexpert: Path, prepared: Prepared) -> None:
    with (chexpert / "valid.csv").open("a") as file:
        file.write("view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0,,\n,Male,73,Frontal,AP,0.0,1.0,,\n")
        file.write("CheXpert-v1.0-small/valid/p9/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0,2.0,yes\n")
    _, card = prepared("chexpert", chexpert)
    assert card["drops"] == {
        "image: view LATERAL": 1,
        "row: path is not patient/study/view.jpg": 2,
        "question: label is not 1, 0, -1 or blank": 2,
        "image: file not found": 1,
        "question: image file not found": 1,
    }
    write_csv(chexpert / "valid.csv", "Path,Sex", "a,b")
    with pytest.raises(PrepareError, match="lacks the column Frontal/Lateral, AP/PA; it has Path, Sex"):
        prepared("chexpert", chexpert)


@pytest.fixture
def padchest(tmp_path: Path) -> Path:
    """PadChest-GR with three studies of two patients."""
    root = tmp_path / "padchest"
    for seed in range(3):
        save(root / f"PadChest_GR/i{seed}.png", seed)
    finding = {"sentence_en": "…", "sentence_es": "…", "abnormal": True, "locations": [], "progression": None}
    one, two = [[0.1, 0.2, 0.5, 0.8]], [[0.2, 0.2, 0.6, 0.8]]
    nodule = finding | {"labels": ["Nodule"], "boxes": one, "extra_boxes": two}
    both = finding | {"labels": ["Pleural effusion", "Atelectasis"], "boxes": [[0.0, 0.5, 0.5, 1.0]], "extra_boxes": []}
    normal = {"sentence_en": "No effusion.", "sentence_es": "…", "abnormal": False}
    studies = [("s0", [nodule, normal]), ("s1", [both]), ("s2", [normal | {"labels": ["Normal"]}])]
    write_json(
        root / "grounded_reports_20240819.json",
        [{"StudyID": s, "ImageID": f"i{k}.png", "findings": found} for k, (s, found) in enumerate(studies)],
    )
    write_csv(
        root / "master_table.csv",
        "StudyID,PatientID,label,label_group,split",
        "s0,p0,Nodule,Nodule,test",
        "s1,p0,Pleural effusion,Effusion,test",
        "s1,p0,Atelectasis,Atelectasis,test",
        "s2,p2,Normal,Normal,test",
    )
    return root


def test_padchest_gr_keeps_both_readers(padchest: Path, prepared: Prepared) -> None:
    rows, card = prepared("padchest-gr", padchest, balanced=False)
    assert answers(rows) == {
        (f"i{image}", finding, "yes" if image == present else "no")
        for finding, present in (("nodule", 0), ("pleural effusion", 1), ("atelectasis", 1))
        for image in range(3)
    }
    row = rows["padchest-gr/i0/nodule/0"]
    assert row["image_path"] == "PadChest_GR/i0.png" and (row["patient_id"], row["study_id"]) == ("p0", "s0")
    ((_, *merged),) = boxes(row)
    np.testing.assert_allclose(merged, [0.15 * WIDTH, 0.2 * HEIGHT, 0.55 * WIDTH, 0.8 * HEIGHT])
    assert [each["reader"] for each in row["readers"]] == ["reader 1", "reader 2"]
    assert row["readers"][1]["boxes"][0]["x2"] == pytest.approx(0.6 * WIDTH)
    alone = rows["padchest-gr/i1/nodule/0"]
    assert [(each["reader"], len(each["boxes"])) for each in alone["readers"]] == [("reader 1", 2)]
    assert card["patients"] == 2 and not card["drops"]


def test_bad_entries_of_padchest_gr(padchest: Path, prepared: Prepared) -> None:
    path = padchest / "grounded_reports_20240819.json"
    studies = json.loads(path.read_text())
    bad = [[0.1, 0.2, 1.5, 0.8], [0.5, 0.5, 0.2, 0.6]]
    broken = {"labels": ["Mass", "Nodule"], "boxes": bad, "extra_boxes": bad[:1]}
    unsaid = {"sentence_en": "No hernia.", "labels": ["Hernia"]}
    studies += ["text", {"StudyID": "s9", "ImageID": "i9.png", "findings": [broken]}, studies[0]]
    studies[2]["findings"] = [broken, "text", unsaid]
    write_json(path, studies)
    with (padchest / "master_table.csv").open("a") as file:
        file.write(",p0,Nodule,Nodule,test\ns5,p0,Nodule,Nodule,other\n")
    rows, card = prepared("padchest-gr", padchest)
    assert card["drops"] == {
        "row: entry without ImageID or findings": 1,
        "row: its study is not in master_table.csv": 1,
        "row: image has two reports, the first is taken": 1,
        "row: row without study or split": 2,
        "box: finding that is not {labels, boxes, extra_boxes}": 1,
        "box: corner is not a share of the image": 2,
        "box: empty or of negative size": 1,
    }
    listed = (padchest.parent / "manifests/padchest-gr/drops.csv").read_text()
    assert "reader 1 box 0: [0.1, 0.2, 1.5, 0.8]" in listed and "reader 2 box 0: [0.1, 0.2, 1.5, 0.8]" in listed
    assert "hernia" not in {row["finding"] for row in rows.values()}, "nothing says that it is there"
    assert rows["padchest-gr/i2/mass/0"]["answer"] == ["yes"] and not rows["padchest-gr/i2/mass/0"]["boxes"]
    path.unlink()
    with pytest.raises(PrepareError, match=r"no file grounded_reports_\*.json"):
        prepared("padchest-gr", padchest)
