"""Bad input: one clear line, or a drop that is counted by reason and listed; never silence."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image

from cxr_faith.data.folder import CARD, DROPS, new_folder, noted_root, write_shards
from cxr_faith.data.intake import accept
from cxr_faith.data.manifest import open_manifest
from cxr_faith.data.sample import Box, Sample
from cxr_faith.data.tables import find_file, read_json, read_lines, read_table
from cxr_faith.data.tally import PrepareError, Tally
from cxr_faith.pipeline.prepare import PrepareOptions, prepare
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


def test_truncated_gz_is_no_short_table(tmp_path: Path) -> None:
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
    assert "a.csv: file not found (nor b.csv)" in one_line(lambda: find_file(tmp_path, "a.csv", "b.csv"))
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a":\n')
    assert "line 2 is not valid JSON" in one_line(lambda: read_lines(tmp_path / "a.jsonl"))


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
    )
    assert [s.sample_id for s in kept] == ["s0", "s10"]
    assert (kept[0].height, kept[0].width) == (HEIGHT, WIDTH)
    dropped = {drop.name: drop.reason for drop in tally.drops if drop.what == "question"}
    loop = dropped.pop("s11")  # Python 3.13 no longer tells a loop from a missing file
    assert loop in ("image not a usable path", "image file not found")
    assert dropped == {
        "s0": "sample id is there already",
        "s1": "image file not found",
        "s2": "image outside the data root",
        "s3": "image outside the data root",
        "s4": "image outside the data root",
        "s5": "image is not a file",
        "s6": "image not an image",
        "s7": "question is missing",
        "s8": "unknown kind 'verify': expected yes_no, choice, open or null",
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
    (kept,), tally = judged(tmp_path, question(0, boxes=boxes))
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
    assert "is no prepared manifest" in one_line(lambda: new_folder(tmp_path / "own").__enter__())
    assert (tmp_path / "own" / "thesis.tex").read_text() == "mine"


def test_nothing_taken_is_an_error_and_leaves_no_manifest(mimic: SimpleNamespace, tmp_path: Path) -> None:
    for path in (mimic.root / "files").rglob("*.jpg"):
        path.unlink()
    options = PrepareOptions(str(mimic.root), str(tmp_path / "m"))
    message = one_line(lambda: prepare("mimic-cxr-vqa", options, vqa=str(mimic.vqa)))
    assert "no question could be taken" in message and "image file not found" in message
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
    entries[2]["image_path"] = "../../../../etc/passwd"
    entries += ["text", entries[3]]
    write_json(mimic.vqa / "test.json", entries)
    rows, card = prepared("mimic-cxr-vqa", mimic.root, vqa=str(mimic.vqa), splits="test")
    assert set(rows) == {"mimic-cxr-vqa/test/3", "mimic-cxr-vqa/test/4"}
    assert {key: value for key, value in card["drops"].items() if key.startswith("question")} == {
        "question: entry lacks answer": 1,
        "question: semantic_type or answer of an unknown form": 1,
        "question: image outside the data root": 1,
        "question: entry is no mapping": 1,
        "question: sample id is there already": 1,
    }
