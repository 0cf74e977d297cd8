"""MIMIC-CXR-JPG 2.x: questions from its labels, and the questions of MIMIC-Ext-MIMIC-CXR-VQA.

Layout of the root: `files/p10/p10000032/s50414267/<dicom_id>.jpg` and `mimic-cxr-2.0.0-*.csv.gz` (plain .csv too).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from cxr_faith.data.answers import UnreadableError, read_question, read_reference
from cxr_faith.data.literals import looks_like_literal, read_cell
from cxr_faith.data.sample import Box, Sample
from cxr_faith.data.sources.mimic_boxes import BoxesByImage, read_chest_imagenome, read_ms_cxr
from cxr_faith.data.sources.mimic_pictures import IDS, Pictures, picture_columns, read_pictures, table_file
from cxr_faith.data.sources.presence import Asked, chexpert_label, presence_samples
from cxr_faith.data.tables import find_file, listed, read_json, read_table, text
from cxr_faith.data.tally import Tally

VQA_SPLITS = {"train": "train.json", "valid": "valid.json", "test": "test.json"}
VQA_KINDS = {"verify": "yes_no", "choose": "choice", "query": "open"}
# Finding in the questions (named as in Chest ImaGenome) to its name in MS-CXR.
MS_CXR_NAMES = {"enlarged cardiac silhouette": "cardiomegaly", "pulmonary edema/hazy opacity": "edema"}
NOT_A_FINDING = ("No Finding", "Support Devices")


def mimic_cxr_vqa(
    root: Path,
    tally: Tally,
    vqa: str,
    ms_cxr: str | None = None,
    chest_imagenome: str | None = None,
    views: str = "AP,PA",
    splits: str = "train,valid,test",
    patients: str | None = None,
) -> Iterator[Sample]:
    """Questions of MIMIC-Ext-MIMIC-CXR-VQA about pictures of MIMIC-CXR-JPG.

    `verify` questions are yes/no, `choose` are choice, `query` are open. The answer list is kept as published; an empty
    list means none. The finding is the question's attribute, if it names exactly one.

    Args:
        root: folder of MIMIC-CXR-JPG.
        tally: takes the counts.
        vqa: folder of MIMIC-Ext-MIMIC-CXR-VQA (train.json, valid.json, test.json).
        ms_cxr: CSV file or folder of MS-CXR: boxes of findings.
        chest_imagenome: gold box CSV or folder of Chest ImaGenome: boxes of the anatomy that a question names; if the
            reference is yes, they also count as boxes of the finding unless MS-CXR has some.
        views: view positions to take, separated by commas.
        splits: splits of the questions to take, separated by commas.
        patients: patients.csv.gz of MIMIC-IV, or its folder: sex and age.
    """
    wanted = listed(splits, tuple(VQA_SPLITS), "split")
    pictures = read_pictures(root, views, tally, patients)
    findings = read_ms_cxr(Path(ms_cxr), pictures, tally) if ms_cxr else {}
    anatomy = read_chest_imagenome(Path(chest_imagenome), pictures, tally) if chest_imagenome else {}
    for split in wanted:
        file = VQA_SPLITS[split]
        path = find_file(Path(vqa), file, f"dataset/{file}", f"MIMIC-Ext-MIMIC-CXR-VQA/dataset/{file}")
        entries = read_json(path, list)
        tally.expected = (tally.expected or 0) + len(entries)
        for position, entry in enumerate(entries):
            sample = _vqa_sample(entry, f"mimic-cxr-vqa/{split}/{position}", split, pictures, tally)
            if sample is not None:
                yield _with_boxes(sample, _arguments(entry, "object") or [], findings, anatomy)


def mimic_cxr(
    root: Path,
    tally: Tally,
    views: str = "AP,PA",
    splits: str = "validate,test",
    phrasings: int = 1,
    patients: str | None = None,
) -> Iterator[Sample]:
    """Yes/no questions from the CheXpert labels of MIMIC-CXR-JPG: 1 is yes, 0 is no, a blank is not asked.

    An uncertain label (−1) is asked too; its reference is unknown (null).

    Args:
        root: folder of MIMIC-CXR-JPG.
        tally: takes the counts.
        views: view positions to take, separated by commas.
        splits: splits to take, separated by commas.
        phrasings: how many phrasings of each question, 1 to 5; they form a question group.
        patients: patients.csv.gz of MIMIC-IV, or its folder: sex and age.
    """
    wanted = listed(splits, ("train", "validate", "test"), "split")
    pictures = read_pictures(root, views, tally, patients)
    labels = read_table(table_file(root, "chexpert"), ("subject_id", "study_id"))
    findings = [name for name in labels.columns if name not in (*IDS, *NOT_A_FINDING)]
    by_study: dict[str, list[dict[str, Any]]] = {}
    for picture in pictures.taken.values():
        if picture["split"] in wanted:
            by_study.setdefault(picture["study_id"], []).append(picture_columns(picture, pictures.sizes))
    _count_unmatched(set(labels["study_id"].dropna()), pictures, by_study, tally)
    here = labels["study_id"].map(lambda study: len(by_study.get(study, ())))
    tally.expected = int((labels[findings].notna().sum(axis=1) * here).sum()) * phrasings
    for row in labels.to_dict("records"):
        for columns in by_study.get(str(row["study_id"]), ()):
            for name in findings:
                yield from _label_samples(columns, str(name), row[name], phrasings, tally)


def _count_unmatched(
    labeled: set[str], pictures: Pictures, by_study: Mapping[str, list[dict[str, Any]]], tally: Tally
) -> None:
    """Count studies that only one of the two tables has."""
    for study in sorted(labeled - pictures.studies):
        tally.drop("row", study, "study is in the CheXpert table, not in the metadata")
    for study in sorted(by_study.keys() - labeled):
        for columns in by_study[study]:
            tally.drop("image", columns["image_id"], "its study is not in the CheXpert table", study)


def _label_samples(columns: Mapping[str, Any], name: str, value: object, count: int, tally: Tally) -> Iterator[Sample]:
    """The question about one label of one picture, in `count` phrasings."""
    finding = name.lower()
    try:
        answer = chexpert_label(value)
    except ValueError as error:
        tally.drop("question", f"mimic-cxr/{columns['image_id']}/{finding}", f"CheXpert {error}")
        return
    if answer is not None:
        yield from presence_samples("mimic-cxr", Asked(columns["image_id"], finding, answer), columns, count, tally)


def _vqa_sample(entry: object, name: str, split: str, pictures: Pictures, tally: Tally) -> Sample | None:
    """One entry of the question files, or None if it is dropped."""
    if not isinstance(entry, dict):
        tally.drop("question", name, "entry is not a mapping")
        return None
    missing = [key for key in ("image_id", "question", "semantic_type", "answer") if key not in entry]
    if missing:
        tally.drop("question", name, f"entry lacks {', '.join(missing)}")
        return None
    name = f"mimic-cxr-vqa/{split}/{entry.get('idx', name.rsplit('/', 1)[-1])}"
    picture = pictures.taken.get(str(entry["image_id"]))
    if picture is None:
        tally.drop("question", name, "image is not among the pictures taken", entry["image_id"])
        return None
    kind = VQA_KINDS.get(str(entry["semantic_type"]))
    answer = entry["answer"]
    if isinstance(answer, str) and looks_like_literal(answer):  # mirrors of the data set store lists as text
        answer = read_cell(answer)
    if kind is None or not isinstance(answer, list) or any(word is None or word == "" for word in answer):
        tally.drop("question", name, "semantic_type or answer of an unknown form")
        return None
    try:
        question = read_question(entry["question"])
        reference = read_reference(answer, question, tally, stated=kind)
    except UnreadableError as error:
        tally.drop("question", name, str(error))
        return None
    attributes, objects = _arguments(entry, "attribute"), _arguments(entry, "object")
    if attributes is None or objects is None:
        tally.note("questions without finding and boxes: template_arguments cannot be read")
    columns = picture_columns(picture, pictures.sizes) | {"split": split}
    if path := text(entry.get("image_path")):
        columns["image_path"] = f"files/{path.removeprefix('files/')}"
    if PurePosixPath(columns["image_path"]).stem != columns["image_id"]:
        tally.drop("question", name, "image_path is another image's", columns["image_id"])
        return None
    place = objects[0].lower() if objects and len(objects) == 1 else ""
    return Sample(
        sample_id=name,
        question=question,
        kind=kind,
        answer=reference.answers,
        finding=attributes[0].lower() if attributes and len(attributes) == 1 else None,
        side=next((side for side in ("left", "right") if place.startswith(side)), None),
        source="mimic-cxr-vqa",
        **columns,
    )


def _with_boxes(sample: Sample, objects: list[str], findings: BoxesByImage, anatomy: BoxesByImage) -> Sample:
    """Add the finding's boxes of MS-CXR, and the boxes of the anatomy that the question names."""
    same = MS_CXR_NAMES.get(sample.finding or "")
    own = [
        replace(box, label=sample.finding) if same and box.label == same and sample.finding else box
        for box in findings.get(sample.image_id, ())
    ]
    named = [box for box in anatomy.get(sample.image_id, ()) if box.label in {name.lower() for name in objects}]
    affirmed = sample.finding and sample.answer == ("yes",) and all(box.label != sample.finding for box in own)
    if affirmed and sample.finding:
        named += [Box(sample.finding, box.x1, box.y1, box.x2, box.y2) for box in named]
    return replace(sample, boxes=(*own, *named))


def _arguments(entry: Mapping[str, Any], name: str) -> list[str] | None:
    """Values of one kind of template argument, which mirrors of the data set store as text; None: unknown form."""
    arguments = entry.get("template_arguments") or {}
    if isinstance(arguments, str):
        arguments = read_cell(arguments)
    if not isinstance(arguments, dict):
        return None
    values = arguments.get(name) or []
    values = list(values.values()) if isinstance(values, dict) else values
    words = [text(value) for value in values] if isinstance(values, list | tuple) else [None]
    return None if None in words else [word for word in words if word is not None]
