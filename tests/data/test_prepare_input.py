"""Bad input gives one clear line, or a drop that is counted by reason and listed; never silence."""

import csv
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image

from cxr_faith.data.folder import CARD, DROPS, new_folder, noted_root, write_shards
from cxr_faith.data.intake import accept
from cxr_faith.data.json_files import json_lines
from cxr_faith.data.manifest import ManifestError, open_manifest
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.data.prepare import PrepareOptions, prepare
from cxr_faith.data.sample import Box, Sample
from cxr_faith.data.tables import find_file, read_json, read_table
from cxr_faith.data.tally import PrepareError, Tally
from tests.data.layouts import HEIGHT, WIDTH, save, write_csv, write_json


def one_line(call: Callable[[], object]) -> str:
    with pytest.raises(PrepareError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", "dicom_id,view", "x,PA")
    assert one_line(lambda: read_table(path, ("dicom_id", "split"))) == (
        f"{path}: lacks the column split; it has dicom_id, view"
    )


def test_truncated_gz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    whole = gzip.compress(("a,b\n" + "".join(f"{i},{i * i}\n" for i in range(5000))).encode())
    path.write_bytes(whole[: len(whole) // 2])
    assert "a.csv.gz: not a readable CSV file" in one_line(lambda: read_table(path, ("a",)))
    path.write_bytes(b"a,b\n1,2\n")
    assert "not a readable CSV file" in one_line(lambda: read_table(path, ("a",)))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "is empty"),
        ("[]", "holds no entry"),
        ('[{"a": 1}, {"a"', "not valid JSON"),
        ('{"a": 1}', "holds a dict, expected a list"),
    ],
)
def test_unusable_json(tmp_path: Path, content: str, fault: str) -> None:
    (tmp_path / "a.json").write_text(content)
    message = one_line(lambda: read_json(tmp_path / "a.json", list))
    assert fault in message and str(tmp_path / "a.json") in message


def test_other_unusable_files(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\x01")
    assert "not a readable CSV" in one_line(lambda: read_table(tmp_path / "bytes.csv", ("a",)))
    (tmp_path / "empty.csv").write_text("")
    assert "not a readable CSV" in one_line(lambda: read_table(tmp_path / "empty.csv", ("a",)))
    (tmp_path / "folder.csv").mkdir()
    assert "folder.csv: is not a file" in one_line(lambda: find_file(tmp_path, "folder.csv", "b.csv"))
    assert "a.csv: file not found (nor b.csv)" in one_line(lambda: find_file(tmp_path, "a.csv", "b.csv"))
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a":\n')
    assert "line 2 is not valid JSON" in one_line(lambda: list(json_lines(tmp_path / "a.jsonl")))


def test_commas_that_the_header_lacks(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", "a,b", "1,2,", "3,4,")
    assert read_table(path, ()).to_dict("list") == {"a": ["1", "3"], "b": ["2", "4"]}
    write_csv(path, "a,b", "1,2,5", "3,4,6")
    assert "rows have more fields than the header" in one_line(lambda: read_table(path, ()))
    assert "gone.csv: file not found" in one_line(lambda: read_table(tmp_path / "gone.csv", ()))


def test_ids_stay_text(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", "id,label", "007,", "1e5,NA")
    table = read_table(path, ("id",))
    assert table["id"].tolist() == ["007", "1e5"] and table["label"].isna().tolist() == [True, False]


def question(number: int, path: str = "a.png", **values: object) -> Sample:
    return Sample(f"s{number}", **{"image_id": path, "image_path": path, "question": "Is it?", **values})


def judged(root: Path, *samples: Sample) -> tuple[list[Sample], Tally]:
    tally = Tally()
    return list(accept(samples, root, tally)), tally


def test_each_fault_of_a_sample_is_a_drop_of_its_own_kind(tmp_path: Path) -> None:
    root = tmp_path / "root"
    save(root / "a.png", 0)
    save(tmp_path / "secret.png", 1)
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "folder.png").mkdir()
    (root / "text.png").write_text("no picture")
    (root / "empty.png").touch()
    save(root / "b.png", 2)
    kept, tally = judged(
        root,
        question(0),
        question(0),
        question(1, "gone.png"),
        question(2, "../secret.png"),
        question(3, "out.png"),
        question(4, str(tmp_path / "secret.png")),
        question(5, "folder.png"),
        question(6, "text.png"),
        question(7, question=""),
        question(8, kind="verify"),
        question(9, kind="yes_no", answer=("maybe",)),
        question(10, kind="yes_no", answer=("Yes",)),
        question(11, "loop.png"),
        question(12, "a\0b.png"),
        question(13, "b.png", image_id="a.png"),
        question(14, "empty.png", height=HEIGHT, width=WIDTH),
    )
    assert [s.sample_id for s in kept] == ["s0", "s10"]
    assert (kept[0].height, kept[0].width) == (HEIGHT, WIDTH)
    dropped = {drop.name: drop.reason for drop in tally.drops if drop.what == "question"}
    loop = dropped.pop("s11")  # Python 3.13 no longer tells a loop from a missing file
    assert loop in ("image not a usable path", "image file not found")
    assert dropped == {
        "s0": "sample id is already used",
        "s1": "image file not found",
        "s2": "image outside the data root",
        "s3": "image outside the data root",
        "s4": "image outside the data root",
        "s5": "image is not a file",
        "s6": "image not an image",
        "s7": "question is missing",
        "s8": "unknown kind",
        "s13": "image_id already names another picture",
        "s14": "image file is empty",
        "s9": "yes/no question whose answer is neither",
        "s12": "image not a usable path",
    }
    assert tally.questions == 2 and tally.answers == {"unknown: unknown": 1, "yes_no: yes": 1}


def test_boxes_are_judged_and_their_samples_kept(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 0)
    nan = float("nan")
    boxes = (
        Box("good", 1, 2, 30, 40),
        Box("nan", nan, 2, 30, 40),
        Box("infinite", 1, 2, float("inf"), 40),
        Box("negative", 30, 2, 1, 40),
        Box("empty", 5, 5, 5, 9),
        Box("outside", WIDTH, 0, WIDTH + 5, 5),
        Box("over", -5, -5, WIDTH + 5, 3),
        Box("good", 1, 2, 30, 40),
    )
    (kept, _), tally = judged(tmp_path, question(0, boxes=boxes), question(1, boxes=boxes))
    assert kept.boxes == (Box("good", 1, 2, 30, 40), Box("over", 0, 0, WIDTH, 3))
    assert tally.reasons == {
        "box: corner is not a number": 2,
        "box: empty or of negative size": 2,
        "box: outside the image": 1,
    }
    assert tally.notes == {"boxes cut at the edge of their image": 1} and len(tally.boxes) == 2
    kept.validate()


def test_camera_orientation_is_in_the_size(tmp_path: Path) -> None:
    picture = Image.new("L", (30, 20))
    exif = picture.getexif()
    exif[274] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    (kept,), _ = judged(tmp_path, question(0, "a.jpg"))
    assert (kept.height, kept.width) == (30, 20)


def test_shards_open_as_one_manifest(tmp_path: Path) -> None:
    assert write_shards((question(i) for i in range(25)), tmp_path / "m", rows=10) == 25
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [f"part-{i:05d}.parquet" for i in range(3)]
    assert open_manifest(tmp_path / "m")["sample_id"][:] == [f"s{i}" for i in range(25)]


def test_folder_is_there_completely_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "m"
    with new_folder(out) as folder:
        (folder / CARD).write_text('{"data_root": "/data"}')
    assert noted_root(out) == Path("/data") and noted_root(tmp_path) is None
    with pytest.raises(RuntimeError), new_folder(out) as folder:
        (folder / CARD).write_text("{}")
        raise RuntimeError
    assert noted_root(out) == Path("/data")
    with new_folder(out) as folder:
        (folder / CARD).write_text("{}")
    assert (out / CARD).read_text() == "{}" and [path.name for path in tmp_path.iterdir()] == ["m"]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.tex").write_text("mine")
    assert "is not a prepared manifest" in one_line(lambda: new_folder(tmp_path / "own").__enter__())
    assert (tmp_path / "own" / "thesis.tex").read_text() == "mine"
    (out / "masks/heart").mkdir(parents=True)
    (out / "masks/heart/a.png").touch()
    with new_folder(out) as folder:
        (folder / CARD).write_text("{}")
    assert [path.name for path in out.iterdir()] == [CARD], "what prepare wrote is replaced"
    (out / "notes").mkdir()
    (out / "notes/thesis.tex").write_text("mine")
    assert "holds notes/thesis.tex, which prepare did not write" in one_line(lambda: new_folder(out).__enter__())
    assert (out / "notes/thesis.tex").read_text() == "mine" and len(list(tmp_path.iterdir())) == 2


def test_a_manifest_does_not_take_the_place_of_its_pictures(tmp_path: Path) -> None:
    for root, out in (("p", "p"), ("p/pictures", "p")):
        options = PrepareOptions(str(tmp_path / root), str(tmp_path / out))
        assert "is or holds --root" in one_line(lambda options=options: prepare("phantom", options, patients=1))
    assert not (tmp_path / "p").exists()
    options = PrepareOptions(str(tmp_path / "p"), str(tmp_path / "p/images"))
    assert "is not a prepared manifest" in one_line(lambda: prepare("phantom", options, patients=1))
    assert len(list((tmp_path / "p/images").glob("*.jpg"))) == 1


def test_nothing_taken_is_an_error_and_leaves_no_manifest(mimic: SimpleNamespace, tmp_path: Path) -> None:
    for path in (mimic.root / "files").rglob("*.jpg"):
        path.unlink()
    options = PrepareOptions(str(mimic.root), str(tmp_path / "m"))
    message = one_line(lambda: prepare("mimic-cxr-vqa", options, vqa=str(mimic.vqa)))
    assert "no question could be taken: 3  image: file not found (with 7 questions)" in message
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        ("mimic-cxr-2.0.0-metadata.csv.gz", "mimic-cxr-2.0.0-metadata.csv.gz: file not found"),
        ("mimic-cxr-2.0.0-split.csv.gz", "mimic-cxr-2.0.0-split.csv.gz: file not found"),
    ],
)
def test_missing_table_is_named(mimic: SimpleNamespace, tmp_path: Path, broken: str, fault: str) -> None:
    (mimic.root / broken).unlink()
    options = PrepareOptions(str(mimic.root), str(tmp_path / "m"))
    assert fault in one_line(lambda: prepare("mimic-cxr-vqa", options, vqa=str(mimic.vqa)))


def test_ids_that_only_one_table_has_are_counted_and_listed(
    mimic: SimpleNamespace, prepared: Callable, tmp_path: Path
) -> None:
    table = pd.read_csv(mimic.root / "mimic-cxr-2.0.0-split.csv.gz", dtype=str)
    table.loc[0, "dicom_id"] = "zzzz-9"
    table.to_csv(mimic.root / "mimic-cxr-2.0.0-split.csv.gz", index=False)
    rows, card = prepared("mimic-cxr-vqa", mimic.root, vqa=str(mimic.vqa), splits="test")
    assert set(rows) == {"mimic-cxr-vqa/test/3", "mimic-cxr-vqa/test/4"}
    assert card["drops"]["image: in the metadata, not in the split table"] == 1
    assert card["drops"]["row: in the split table, not in the metadata"] == 1
    assert card["drops"]["question: image is not among the pictures taken"] == 3
    with (tmp_path / "manifests" / "mimic-cxr-vqa" / DROPS).open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert {row["id"] for row in listed if row["what"] == "image"} == {"aaaa-1", "aaaa-2"}
    assert sum(card["drops"].values()) == len(listed)


def test_malformed_entries_are_counted(mimic: SimpleNamespace, prepared: Callable) -> None:
    entries = json.loads((mimic.vqa / "test.json").read_text())
    entries[0].pop("answer")
    entries[1]["answer"] = "no"
    entries[2]["image_path"] = "../../../../etc/aaaa-1.jpg"
    entries += ["text", entries[3]]
    entries.append(entries[3] | {"idx": 90, "question": None})
    entries.append(entries[3] | {"idx": 91, "image_path": entries[0]["image_path"]})
    entries.append(entries[3] | {"idx": 92, "template_arguments": {"object": 5, "attribute": 3}})
    entries.append(entries[3] | {"idx": 93, "answer": [None]})
    write_json(mimic.vqa / "test.json", entries)
    rows, card = prepared("mimic-cxr-vqa", mimic.root, vqa=str(mimic.vqa), splits="test")
    assert set(rows) == {f"mimic-cxr-vqa/test/{i}" for i in (3, 4, 92)}
    assert card["notes"] == {"questions without finding and boxes: template_arguments cannot be read": 1}
    assert {key: value for key, value in card["drops"].items() if key.startswith("question")} == {
        "question: entry lacks answer": 1,
        "question: semantic_type or answer of an unknown form": 2,
        "question: question is missing": 1,
        "question: image_path is another image's": 1,
        "question: image outside the data root": 1,
        "question: entry is not a mapping": 1,
        "question: sample id is already used": 1,
    }


def test_rows_about_mimic_that_fit_no_picture(mimic: SimpleNamespace, prepared: Callable) -> None:
    with mimic.ms_cxr.open("a") as file:
        for box, size, image in (
            ("1,2,3,4", (WIDTH, HEIGHT), "zzzz"),
            ("1,2,-3,4", (WIDTH, HEIGHT), "bbbb-1"),
            ("nan,2,3,4", (WIDTH, HEIGHT), "bbbb-1"),
            ("nan,2,3,4", (WIDTH, HEIGHT), "bbbb-1"),
            ("1,2,30,40", (1200, 800), "bbbb-1"),
        ):
            file.write(f"Cardiomegaly,x,p,{box},{size[0]},{size[1]},{image},test\n")
    with next(mimic.imagenome.rglob("*.csv")).open("a") as file:
        file.write("zzzz.dcm,1,2,3,4,left lung,9,1,2,3,4\n")
    joined = {"ms_cxr": str(mimic.ms_cxr), "chest_imagenome": str(mimic.imagenome)}
    rows, card = prepared("mimic-cxr-vqa", mimic.root, vqa=str(mimic.vqa), splits="test", **joined)
    assert len(rows["mimic-cxr-vqa/test/4"]["boxes"]) == 2
    assert card["drops"] == {
        "image: view LATERAL": 1,
        "box: MS-CXR: corner is not a number": 2,
        "box: MS-CXR: image is not in the metadata": 1,
        "box: MS-CXR: empty or of negative size": 1,
        "box: MS-CXR: was drawn on a picture of another size": 1,
        "box: Chest ImaGenome: image is not in the metadata": 1,
    }


def test_damaged_tables_of_mimic(mimic: SimpleNamespace, prepared: Callable) -> None:
    def edit(name: str, change: Callable[[str], str]) -> None:
        path = mimic.root / f"mimic-cxr-2.0.0-{name}.csv.gz"
        path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()).decode()).encode()))

    edit("metadata", lambda text: text.replace(f"PA,{HEIGHT}", "PA,abc").replace(f"AP,{HEIGHT}", "AP,inf", 1))
    edit("split", lambda text: text + "aaaa-1,50414267,10000032,train\n")
    edit("chexpert", lambda text: text.replace("11000183,51967845", "1,999"))
    rows, card = prepared("mimic-cxr", mimic.root, splits="train,validate,test")
    assert {(row["image_id"], row["split"], row["height"]) for row in rows.values()} == {
        ("aaaa-1", "test", HEIGHT),
        ("bbbb-1", "validate", HEIGHT),
    }
    assert card["drops"] == {
        "image: view LATERAL": 1,
        "row: image is in the split table twice": 1,
        "row: study is in the CheXpert table, not in the metadata": 1,
        "image: its study is not in the CheXpert table": 1,
    }
    assert card["notes"]["invalid sizes, read from the picture instead"] == 2


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ('{"Heart": [1, 2, 3, 4]}', "row: detection.json is not a list"),
        ('[{"Heart": [1,', "row: detection.json is not readable"),
        ('["Heart"]', "box: detection that is not {name: [x, y, width, height]}"),
    ],
)
def test_damaged_detections_of_slake(slake: Path, prepared: Callable, marks: str, reason: str) -> None:
    (slake / "imgs/xmlab1/detection.json").write_text(marks)
    rows, card = prepared("slake", slake)
    assert len(rows) == 3 and card["boxes"] == 0 and card["drops"][reason] == 1


def test_each_fault_of_a_table_is_counted_and_none_of_its_texts_printed(
    tmp_path: Path, prepared: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "a.jpg"):
        save(tmp_path / "root" / name, 1)
    save(tmp_path / "secret.png", 1)
    row = {"image_path": "a.png", "question": "Is it?"}
    changes = [
        {"image_path": ""},
        {"kind": "report text of a patient"},
        {"boxes": "1,2,30,40"},
        {"boxes": "[1,2,30,40]"},
        {"boxes": '[[1,2,30,40], [1,2], ["report text",2,3,4]]'},
        {"boxes": "[[1,2"},
        {"anatomy_masks": '["lung.png"]'},
        {"anatomy_masks": '[{"label": "lung"}, {"label": "lung", "path": "../secret.png"}]'},
        {"finding_mask_path": "../secret.png"},
        {"height": "inf", "width": 3},
        {"image_path": "a.jpg"},
    ]
    pd.DataFrame([row | change for change in changes]).to_csv(tmp_path / "q.csv", index=False)
    rows, card = prepared("table", tmp_path / "root", file=str(tmp_path / "q.csv"))
    assert set(rows) == {f"q/{i}" for i in range(2, 11)} and card["boxes"] == 1 and card["masks"] == 0
    assert rows["q/9"]["height"] == HEIGHT and {row["image_id"] for row in rows.values()} == {"a.png", "a.jpg"}
    assert card["drops"] == {
        "question: image_path is missing": 1,
        "question: unknown kind": 1,
        "box: is not written as a list of lists or mappings": 3,
        "box: is not four numbers": 1,
        "box: corner is not a number": 1,
        "mask: is not written as a list of lists or mappings": 1,
        "mask: has no label or path": 1,
        "mask: outside the data root": 1,
    }
    assert card["notes"] == {"invalid sizes, read from the picture instead": 1}
    listed = (tmp_path / "manifests/table" / DROPS).read_text()
    assert "report text" not in capsys.readouterr().out + listed


def test_hub_pictures_outside_the_data_set_stay_there(tmp_path: Path, prepared: Callable) -> None:
    save(tmp_path / "secret.png", 5)
    save(tmp_path / "vqa/pictures/a.png", 6)
    paths = ("pictures/a.png", "../secret.png", tmp_path / "secret.png", "gone.png")
    write_csv(tmp_path / "vqa/test.csv", "image,question,answer", *(f"{path},Is it?,yes" for path in paths))
    rows, card = prepared("hub", tmp_path / "root", dataset=str(tmp_path / "vqa"))
    assert set(rows) == {"vqa/test/0"} and len(list((tmp_path / "root/images").iterdir())) == 1
    assert card["drops"] == {"question: picture is outside the data set's folder": 2, "question: picture is missing": 1}
    for name in ("./gone", "/gone", "~/gone", "gone", "a/b/c"):
        options = PrepareOptions(str(tmp_path / "root"), str(tmp_path / "m"))
        message = one_line(lambda name=name, options=options: prepare("hub", options, dataset=name))
        assert message == f"{name}: no such folder, and not a hub id of the form owner/name"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"data_root": 3}', '{"data_root": "\\u0000"}', "FIFO"])
def test_a_damaged_card_is_named_where_the_data_root_is_taken_from_it(text: str, tmp_path: Path) -> None:
    write_shards([question(1)], tmp_path)
    card = tmp_path / CARD
    if text == "FIFO":
        os.mkfifo(card)
    else:
        card.write_text(text)
    with pytest.raises(ManifestError, match=f"^{card}: is (damaged|not a regular file)"):
        CXRVQADataModule(str(tmp_path))
    assert CXRVQADataModule(str(tmp_path), data_root="/data").data_root == Path("/data")


def test_a_manifest_that_a_killed_prepare_moved_away_is_named(tmp_path: Path) -> None:
    old = tmp_path / ".m.0123456789abcdef.old"
    old.mkdir()
    with pytest.raises(ManifestError, match=f"manifest not found; a killed process left it as {old}: run `prepare`"):
        open_manifest(tmp_path / "m")
