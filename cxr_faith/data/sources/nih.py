"""NIH ChestX-ray14: presence questions from its labels, with its boxes.

Layout of the root: `Data_Entry_2017_v2020.csv` (or `Data_Entry_2017.csv`), `BBox_List_2017.csv`, `train_val_list.txt`,
`test_list.txt`, and the pictures as `images/<name>.png` or `images_001/images/<name>.png`, ….
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr_faith.data.boxes import from_xywh, on_picture
from cxr_faith.data.picture_files import PictureFiles
from cxr_faith.data.sample import Box, Sample
from cxr_faith.data.sources.presence import NO, YES, presence_samples, questions_from_labels
from cxr_faith.data.subgroups import read_age, read_sex, read_view
from cxr_faith.data.tables import find_file, listed, number, read_table, text
from cxr_faith.data.tally import Tally
from cxr_faith.data.text_files import open_text, short_lines

LISTS = {"train_val": "train_val_list.txt", "test": "test_list.txt"}
FINDINGS = (
    *("atelectasis", "cardiomegaly", "consolidation", "edema", "effusion", "emphysema", "fibrosis", "hernia"),
    *("infiltration", "mass", "nodule", "pleural thickening", "pneumonia", "pneumothorax"),
)
FRAME = (1024, 1024)
"""Height and width of the pictures that the boxes were drawn on, and of the published ones."""
NO_FINDING = "no finding"
# The boxes have another name for one of the labels.
_SAME = {"infiltrate": "infiltration"}
# The header has commas without quotes: "Bbox [x,y,w,h]" is four columns.
_CORNERS = ("Bbox [x", "y", "w", "h]")


def nih(
    root: Path, tally: Tally, splits: str = "test", phrasings: int = 1, balanced: bool = True, views: str = "AP,PA"
) -> Iterator[Sample]:
    """Presence questions for the 14 labels of ChestX-ray14; a finding that a picture's labels do not name is absent.

    The labels were mined from reports. The boxes are those of the finding in question and of the others on the picture;
    they are scaled to pictures of another size than 1,024 px.

    Args:
        root: folder of ChestX-ray14.
        tally: takes the counts.
        splits: official lists to take, separated by commas (train_val, test).
        phrasings: how many phrasings of each question, 1 to 5; they form a question group.
        balanced: for each label, as many images without it as with it, chosen by a hash of their ids; false: all.
        views: view positions to take, separated by commas (AP, PA).
    """
    wanted = listed(splits, tuple(LISTS), "split")
    split_of = {name: split for split in wanted for name in _names(find_file(root, LISTS[split], f"{LISTS[split]}.gz"))}
    pictures, labels, others = _entries(root, split_of, listed(views, ("AP", "PA"), "view"), tally)
    boxes = _boxes(root, labels, others, tally)
    files = PictureFiles(root, tally)
    for split in wanted:
        here = [name for name in labels if split_of[name] == split]
        findings = ((each, {name: YES if each in labels[name] else NO for name in here}) for each in FINDINGS)
        asked = questions_from_labels(findings, balanced, split)
        tally.expected = (tally.expected or 0) + len(asked) * phrasings
        last: dict[str, Any] = {}
        for each in asked:
            if last.get("image_id") != each.image:
                path = files.find(f"images/{each.image}.png") or f"images/{each.image}.png"
                drawn = on_picture(boxes.get(each.image, ()), FRAME, path, root)
                last = {**pictures[each.image], "image_path": path, "boxes": drawn, "split": split}
            yield from presence_samples("nih", each, last, phrasings, tally)


def _names(path: Path) -> Iterator[str]:
    with open_text(path, "list of images") as file:
        yield from filter(None, (_id(line) for line in short_lines(file, path)))


def _id(name: object) -> str | None:
    """Id of a picture from the name of its file."""
    word = text(name)
    return word.removesuffix(".png") if word else None


def _entries(
    root: Path, split_of: Mapping[str, str], views: Sequence[str], tally: Tally
) -> tuple[dict[str, dict[str, Any]], dict[str, set[str]], set[str | None]]:
    """The manifest's columns and the findings of each picture that is taken, and the ids of other splits."""
    names = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
    path = find_file(root, *names, *(f"{name}.gz" for name in names))
    table = read_table(
        path,
        ("Image Index", "Finding Labels", "Patient ID", "View Position"),
        ("Patient Age", "Patient Gender"),
    )
    pictures: dict[str, dict[str, Any]] = {}
    labels: dict[str, set[str]] = {}
    for position, row in enumerate(table.to_dict("records")):
        name, written, view = _id(row["Image Index"]), text(row["Finding Labels"]), read_view(row["View Position"])
        place = f"{path.name} row {position + 1}"
        if name is None or written is None:
            tally.drop("row", name or "", "row without image or labels", place)
        elif name in labels:
            tally.drop("row", name, "image is in the table twice", place)
        elif name not in split_of:  # of another split
            continue
        elif view not in views:
            tally.drop("image", name, f"view {view or 'not stated'}")
        else:
            named = {label.strip().lower().replace("_", " ") for label in written.split("|")}
            if unknown := named - {*FINDINGS, NO_FINDING}:
                tally.drop("image", name, "label of another name", ", ".join(sorted(unknown)))
                continue
            labels[name] = named - {NO_FINDING}
            age, sex = read_age(row.get("Patient Age")), read_sex(row.get("Patient Gender"))
            if age is None and text(row.get("Patient Age")):
                tally.note("ages that no patient has, left out")
            pictures[name] = {"image_id": name, "patient_id": text(row["Patient ID"])}
            pictures[name] |= {"sex": sex, "age": age, "view": view}
    there = set(map(_id, table["Image Index"]))
    for name in sorted(split_of.keys() - there):
        tally.drop("row", name, "in the list of the split, not in the table")
    return pictures, labels, there - split_of.keys()


def _boxes(root: Path, labels: Mapping[str, set[str]], others: set[str | None], tally: Tally) -> dict[str, list[Box]]:
    """Boxes by picture in the frame of 1,024 px; none where the file of boxes is not there.

    Args:
        root: folder of ChestX-ray14.
        labels: the findings of each picture that is taken.
        others: pictures of other splits; their boxes are not counted.
        tally: takes the boxes that are dropped.
    """
    boxes: dict[str, list[Box]] = {}
    names = ("BBox_List_2017.csv", "BBox_List_2017.csv.gz")
    if not any((root / name).is_file() for name in names):
        tally.note("BBox_List_2017.csv is not there: no boxes")
        return boxes
    table = read_table(find_file(root, *names), ("Image Index", "Finding Label", *_CORNERS), ())
    for position, row in enumerate(table.to_dict("records")):
        name, label = _id(row["Image Index"]), (text(row["Finding Label"]) or "").lower().replace("_", " ")
        label = _SAME.get(label, label)
        corners = from_xywh(*(number(row[column]) for column in _CORNERS))
        if name is None:
            tally.drop("box", "", "row without image", f"row {position + 1}")
        elif name not in labels:
            if name not in others:
                tally.drop("box", name, "belongs to no image that was taken", f"row {position + 1}")
        elif label not in labels[name]:
            tally.drop("box", name, "finding that the image's labels do not name", label)
        else:
            boxes.setdefault(name, []).append(Box(label, *corners))
    return boxes
