"""RSNA Pneumonia Detection Challenge: presence questions from its three classes, with its boxes.

Layout of the root: `stage_2_train_labels.csv`, `stage_2_detailed_class_info.csv` and
`stage_2_train_images/<patientId>.dcm`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cxr_faith.data.boxes import from_xywh, on_picture
from cxr_faith.data.picture_files import PictureFiles
from cxr_faith.data.sample import Box, Sample
from cxr_faith.data.sources.presence import NO, YES, presence_samples, questions_from_labels
from cxr_faith.data.tables import among, find_file, listed, number, read_table, text
from cxr_faith.data.tally import Tally

LABELS, CLASSES = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
OPACITY, ABNORMALITY = "lung opacity", "abnormality"
NORMAL, OTHER, PRESENT = "Normal", "No Lung Opacity / Not Normal", "Lung Opacity"
# Class of an image → the answer about each finding.
ANSWERS = {
    NORMAL: {OPACITY: NO, ABNORMALITY: NO},
    OTHER: {OPACITY: NO, ABNORMALITY: YES},
    PRESENT: {OPACITY: YES, ABNORMALITY: YES},
}
FRAME = (1024, 1024)
"""Height and width of the published pictures, which the boxes were drawn on."""
_CORNERS = ("x", "y", "width", "height")


def rsna(
    root: Path, tally: Tally, findings: str = OPACITY, phrasings: int = 1, balanced: bool = True
) -> Iterator[Sample]:
    """Presence questions for lung opacity, and for any abnormality.

    Images of the class `No Lung Opacity / Not Normal` have no opacity and are abnormal. Boxes are those of opacities;
    they are scaled to pictures of another size than 1,024 px.

    Args:
        root: folder of the challenge.
        tally: takes the counts.
        findings: findings to ask about, separated by commas (lung opacity, abnormality).
        phrasings: how many phrasings of each question, 1 to 5; they form a question group.
        balanced: for each finding, as many images without it as with it, chosen by a hash of their ids; false: all.
    """
    wanted = listed(findings, (OPACITY, ABNORMALITY), "finding")
    classes = _classes(root, tally)
    boxes = _boxes(root, classes, tally)
    labels = ((each, {name: ANSWERS[kind][each] for name, kind in classes.items()}) for each in wanted)
    asked = questions_from_labels(labels, balanced, "train")
    tally.expected = len(asked) * phrasings
    files = PictureFiles(root, tally)
    for each in asked:
        path = f"stage_2_train_images/{each.image}.dcm"
        path = files.find(path) or path
        columns = {
            "patient_id": each.image,  # the challenge has one image a patient
            "image_path": path,
            "split": "train",
            "boxes": on_picture(boxes.get(each.image, ()), FRAME, path, root),
        }
        yield from presence_samples("rsna", each, columns, phrasings, tally)


def _classes(root: Path, tally: Tally) -> dict[str, str]:
    """Class of each image; the table has a row for each box, and those of one image agree."""
    table = read_table(find_file(root, CLASSES, f"{CLASSES}.gz"), ("patientId", "class"), ())
    classes: dict[str, str] = {}
    for position, (image, kind) in enumerate(table.itertuples(index=False)):
        name, known = text(image), among(kind, tuple(ANSWERS))
        if name is None:
            tally.drop("row", "", "row without image", f"{CLASSES} row {position + 1}")
        elif known not in ANSWERS:
            tally.drop("row", name, f"class {known}", f"{CLASSES} row {position + 1}")
        elif classes.setdefault(name, known) != known:
            tally.drop("row", name, "image has two classes, the first is taken", f"{CLASSES} row {position + 1}")
    return classes


def _boxes(root: Path, classes: Mapping[str, str], tally: Tally) -> dict[str, list[Box]]:
    """Boxes by image; rows that the class contradicts are dropped."""
    table = read_table(find_file(root, LABELS, f"{LABELS}.gz"), ("patientId", *_CORNERS, "Target"), ())
    boxes: dict[str, list[Box]] = {}
    for position, row in enumerate(table.to_dict("records")):
        name, target, place = text(row["patientId"]), number(row["Target"]), f"{LABELS} row {position + 1}"
        if name is None or target not in (0, 1):
            tally.drop("row", name or "", "row without image, or whose target is not 0 or 1", place)
        elif name not in classes:
            tally.drop("row", name, "image has no class", place)
        elif (target == 1) != (classes[name] == PRESENT):
            tally.drop("row", name, "target and class of the image disagree", place)
        elif target == 1:
            boxes.setdefault(name, []).append(Box(OPACITY, *from_xywh(*(number(row[corner]) for corner in _CORNERS))))
    return boxes
