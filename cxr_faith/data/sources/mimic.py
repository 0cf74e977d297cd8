"""MIMIC-CXR-JPG 2.x: its pictures and labels, and the questions of MIMIC-Ext-MIMIC-CXR-VQA about them.

Layout of the root: ``files/p10/p10000032/s50414267/<dicom_id>.jpg`` and ``mimic-cxr-2.0.0-*.csv.gz`` (plain .csv too).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxr_faith.data.sample import Box, Sample
from cxr_faith.data.sources.mimic_boxes import BoxesByImage, read_chest_imagenome, read_ms_cxr
from cxr_faith.data.sources.presence import phrasings as phrased
from cxr_faith.data.tables import find_file, read_json, read_table, text
from cxr_faith.data.tally import PrepareError, Tally

VQA_SPLITS = {"train": "train.json", "valid": "valid.json", "test": "test.json"}
VQA_KINDS = {"verify": "yes_no", "choose": "choice", "query": "open"}
CHEXPERT_ANSWERS = {1.0: ("yes",), 0.0: ("no",), -1.0: None}
# What MS-CXR calls the findings that the questions name after Chest ImaGenome.
MS_CXR_NAMES = {"enlarged cardiac silhouette": "cardiomegaly", "pulmonary edema/hazy opacity": "edema"}
NOT_A_FINDING = ("No Finding", "Support Devices")
_IDS = ("dicom_id", "subject_id", "study_id")


def mimic_cxr_vqa(
    root: Path,
    tally: Tally,
    vqa: str,
    ms_cxr: str | None = None,
    chest_imagenome: str | None = None,
    views: str = "AP,PA",
    splits: str = "train,valid,test",
) -> Iterator[Sample]:
    """Questions of MIMIC-Ext-MIMIC-CXR-VQA about pictures of MIMIC-CXR-JPG.

    `verify` questions are yes/no, `choose` are choice, `query` are open; the answer list is kept as published, an empty
    one means none. The finding is the attribute that a question names, if it names just one.

    Args:
        root: Folder of MIMIC-CXR-JPG.
        tally: Takes the counts.
        vqa: folder of MIMIC-Ext-MIMIC-CXR-VQA (train.json, valid.json, test.json).
        ms_cxr: CSV file or folder of MS-CXR: boxes of findings.
        chest_imagenome: gold box CSV or folder of Chest ImaGenome: boxes of the anatomy that a question names; where
            the reference says yes, they count as the finding's unless MS-CXR has better ones.
        views: view positions to take, separated by commas.
        splits: splits of the questions to take, separated by commas.
    """
    pictures = _pictures(root, views, tally)
    findings = read_ms_cxr(Path(ms_cxr), tally) if ms_cxr else {}
    anatomy = read_chest_imagenome(Path(chest_imagenome), tally) if chest_imagenome else {}
    for split in _names(splits, VQA_SPLITS, "split"):
        file = VQA_SPLITS[split]
        path = find_file(Path(vqa), file, f"dataset/{file}", f"MIMIC-Ext-MIMIC-CXR-VQA/dataset/{file}")
        entries = read_json(path, list)
        tally.expected = (tally.expected or 0) + len(entries)
        for position, entry in enumerate(entries):
            sample = _vqa_sample(entry, f"mimic-cxr-vqa/{split}/{position}", split, pictures, tally)
            if sample is not None:
                yield _with_boxes(sample, _objects(entry), findings, anatomy)


def mimic_cxr(
    root: Path, tally: Tally, views: str = "AP,PA", splits: str = "validate,test", phrasings: int = 1
) -> Iterator[Sample]:
    """Yes/no questions made from the CheXpert labels of MIMIC-CXR-JPG: 1 yes, 0 no, blank not asked.

    An uncertain label (−1) is asked too; its reference is unknown (null), which is how the rows are told apart.

    Args:
        root: Folder of MIMIC-CXR-JPG.
        tally: Takes the counts.
        views: view positions to take, separated by commas.
        splits: splits to take, separated by commas.
        phrasings: how many phrasings of each question, 1 to 5; they form a question group.
    """
    pictures = _pictures(root, views, tally)
    wanted = set(_names(splits, ("train", "validate", "test"), "split"))
    labels = read_table(_table(root, "chexpert"), ("subject_id", "study_id"))
    findings = [name for name in labels.columns if name not in (*_IDS, *NOT_A_FINDING)]
    by_study: dict[str, list[Mapping[str, Any]]] = {}
    for taken in pictures.values():
        if taken["split"] in wanted:
            by_study.setdefault(taken["study_id"], []).append(taken)
    tally.expected = sum(map(len, by_study.values())) * len(findings) * phrasings
    for row in labels.to_dict("records"):
        for picture in by_study.get(str(row["study_id"]), ()):
            for name in findings:
                yield from _label_samples(picture, str(name), row[name], phrasings, tally)


def _label_samples(picture: Mapping[str, Any], name: str, value: object, count: int, tally: Tally) -> Iterator[Sample]:
    """The phrasings of the question about one label of one picture."""
    word = text(value)
    if word is None:
        return
    finding = name.lower()
    group = f"mimic-cxr/{picture['dicom_id']}/{finding}"
    try:
        answer = CHEXPERT_ANSWERS[float(word)]
    except (KeyError, ValueError):
        tally.drop("question", group, "CheXpert label is not 1, 0, -1 or blank", word)
        return
    if answer is None:
        tally.note("uncertain CheXpert labels, asked with an unknown reference")
    for variant, question in enumerate(phrased(finding, count)):
        yield Sample(
            sample_id=f"{group}/{variant}",
            question=question,
            question_group=group,
            variant=str(variant),
            strategy="template",
            kind="yes_no",
            answer=answer,
            finding=finding,
            source="mimic-cxr",
            **_picture_columns(picture),
        )


def _pictures(root: Path, views: str, tally: Tally) -> dict[str, dict[str, Any]]:
    """Pictures of the wanted views by their id, with split and size."""
    wanted = {view.strip().upper() for view in views.split(",")}
    metadata = read_table(_table(root, "metadata"), (*_IDS, "ViewPosition"), ("Rows", "Columns"))
    splits = read_table(_table(root, "split"), ("dicom_id", "split"), ())
    by_id = dict(zip(splits["dicom_id"], splits["split"], strict=True))
    pictures: dict[str, dict[str, Any]] = {}
    for row in metadata.to_dict("records"):
        picture = {str(name): text(value) for name, value in row.items()}
        name = picture["dicom_id"]
        if not name or not picture["subject_id"] or not picture["study_id"]:
            tally.drop("row", name or "", "metadata row without its three ids")
        elif name in pictures:
            tally.drop("row", name, "image is in the metadata twice")
        elif (picture["ViewPosition"] or "").upper() not in wanted:
            tally.drop("image", name, f"view {picture['ViewPosition'] or 'not stated'}")
        elif name not in by_id:
            tally.drop("image", name, "in the metadata, not in the split table")
        else:
            pictures[name] = {**picture, "split": by_id[name]}
    for name in sorted(by_id.keys() - set(metadata["dicom_id"]), key=str):
        tally.drop("row", name, "in the split table, not in the metadata")
    return pictures


def _vqa_sample(
    entry: object, name: str, split: str, pictures: Mapping[str, dict[str, Any]], tally: Tally
) -> Sample | None:
    """One entry of the question files, or None if it is dropped."""
    if not isinstance(entry, dict):
        tally.drop("question", name, "entry is no mapping", type(entry).__name__)
        return None
    missing = [key for key in ("image_id", "question", "semantic_type", "answer") if key not in entry]
    if missing:
        tally.drop("question", name, f"entry lacks {', '.join(missing)}")
        return None
    name = f"mimic-cxr-vqa/{split}/{entry.get('idx', name.rsplit('/', 1)[-1])}"
    picture = pictures.get(str(entry["image_id"]))
    if picture is None:
        tally.drop("question", name, "image is not among the pictures taken", entry["image_id"])
        return None
    kind = VQA_KINDS.get(entry["semantic_type"])
    answer = entry["answer"]
    if kind is None or not isinstance(answer, list):
        tally.drop("question", name, "semantic_type or answer of an unknown form", entry["semantic_type"])
        return None
    attributes, objects = _arguments(entry, "attribute"), _objects(entry)
    columns = _picture_columns(picture) | {"split": split}
    if path := text(entry.get("image_path")):
        columns["image_path"] = f"files/{path.removeprefix('files/')}"
    return Sample(
        sample_id=name,
        question=str(entry["question"]),
        kind=kind,
        answer=tuple(str(word) for word in answer),
        finding=attributes[0].lower() if len(attributes) == 1 else None,
        side=next((s for s in ("left", "right") if len(objects) == 1 and objects[0].lower().startswith(s)), None),
        source="mimic-cxr-vqa",
        **columns,
    )


def _with_boxes(sample: Sample, objects: list[str], findings: BoxesByImage, anatomy: BoxesByImage) -> Sample:
    """Boxes of the finding from MS-CXR, and of the anatomy that the question names."""
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


def _arguments(entry: Mapping[str, Any], name: str) -> list[str]:
    """Values of one kind of template argument; a mirror of the data set has them as text."""
    arguments = entry.get("template_arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            try:
                arguments = ast.literal_eval(arguments)
            except (ValueError, SyntaxError):
                return []
    values = arguments.get(name) if isinstance(arguments, dict) else None
    return [str(value) for value in (values.values() if isinstance(values, dict) else values or ())]


def _objects(entry: Mapping[str, Any]) -> list[str]:
    return _arguments(entry, "object")


def _picture_columns(picture: Mapping[str, Any]) -> dict[str, Any]:
    subject, study, name = picture["subject_id"], picture["study_id"], picture["dicom_id"]
    rows, columns = picture.get("Rows"), picture.get("Columns")
    return {
        "patient_id": subject,
        "study_id": study,
        "image_id": name,
        "image_path": f"files/p{subject[:2]}/p{subject}/s{study}/{name}.jpg",
        "split": picture["split"],
        "height": int(float(rows)) if rows else None,
        "width": int(float(columns)) if columns else None,
    }


def _table(root: Path, name: str) -> Path:
    return find_file(root, f"mimic-cxr-2.0.0-{name}.csv.gz", f"mimic-cxr-2.0.0-{name}.csv")


def _names(listed: str, known: Any, what: str) -> list[str]:
    names = [name.strip() for name in listed.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise PrepareError(f"no {what} {', '.join(unknown)}; there are {', '.join(known)}")
    return names
