"""SLAKE 1.0: English questions about its chest radiographs, with its boxes of organs and lesions.

Layout of the root: `{train,validate,test}.json` and `imgs/xmlab<n>/{source.jpg,detection.json}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cxr_faith.data.answers import UnreadableError, read_question, read_reference
from cxr_faith.data.boxes import from_xywh
from cxr_faith.data.images import ImageError, resolve
from cxr_faith.data.intake import kind_of_fault
from cxr_faith.data.json_files import json_entries
from cxr_faith.data.sample import Box, Sample
from cxr_faith.data.tables import among, find_file, listed, number, read_json, text
from cxr_faith.data.tally import PrepareError, Tally

SPLITS = ("train", "validate", "test")
LANGUAGES, MODALITIES = ("en", "zh"), ("X-Ray", "CT", "MRI")


def slake(root: Path, tally: Tally, splits: str = "train,validate,test", language: str = "en") -> Iterator[Sample]:
    """Questions of SLAKE with `modality` X-Ray; all of its radiographs are of the chest.

    Closed questions answered with yes or no are yes/no, other closed ones choice, the rest open. The boxes come from
    `detection.json`; if a question names the label of a box, that label is its finding.

    Args:
        root: folder of SLAKE.
        tally: takes the counts.
        splits: splits to take, separated by commas.
        language: questions to take by their `q_lang` (en, zh).
    """
    boxes: dict[str, tuple[Box, ...]] = {}
    for split in listed(splits, SPLITS, "split"):
        entries = read_json(find_file(root, f"{split}.json"), list)
        tally.expected = (tally.expected or 0) + len(entries)
        for position, entry in enumerate(entries):
            if not isinstance(entry, dict):
                tally.drop("row", f"{split}.json entry {position}", "entry is not a mapping")
                continue
            name = f"slake/{split}/{entry.get('qid', position)}"
            image = text(entry.get("img_name"))
            if entry.get("q_lang") != language:
                tally.drop("question", name, f"language {among(entry.get('q_lang'), LANGUAGES)}")
            elif entry.get("modality") != "X-Ray":
                tally.drop("question", name, f"modality {among(entry.get('modality'), MODALITIES)}")
            elif not image or entry.get("question") in (None, ""):
                tally.drop("question", name, "entry without img_name or question")
            else:
                if image not in boxes:
                    boxes[image] = _boxes(root, image, tally)
                try:
                    yield _sample(name, image, entry, split, boxes[image], tally)
                except UnreadableError as error:
                    tally.drop("question", name, str(error))


def _sample(
    name: str, image: str, entry: Mapping[str, Any], split: str, boxes: tuple[Box, ...], tally: Tally
) -> Sample:
    question = read_question(entry["question"])
    reference = read_reference(entry.get("answer"), question, tally)
    closed = (text(entry.get("answer_type")) or "").upper() == "CLOSED"
    # The longest label first: "left lung" rather than "lung".
    named = sorted(
        {box.label for box in boxes if box.label in question.lower()}, key=lambda label: (-len(label), label)
    )
    return Sample(
        sample_id=name,
        image_id=str(Path(image).parent) if "/" in image else Path(image).stem,
        image_path=f"imgs/{image}",
        question=question,
        kind=(reference.kind or "choice") if closed else "open",
        answer=reference.answers,
        finding=named[0] if named else None,
        split=split,
        boxes=boxes,
        source="slake",
    )


def _boxes(root: Path, image: str, tally: Tally) -> tuple[Box, ...]:
    """Boxes of the picture's `detection.json`, a list of {name: [x, y, width, height]}."""
    path = f"imgs/{Path(image).parent}/detection.json"
    try:
        marks = [mark for _, mark in json_entries(resolve(path, root), list)]
    except ImageError as error:
        if kind_of_fault(str(error)) == "file not found":
            tally.note("images without boxes")
        else:
            tally.drop("row", path, f"detection.json {kind_of_fault(str(error))}")
        return ()
    except PrepareError as error:
        tally.drop("row", path, f"detection.json is not {'a list' if 'expected a list' in str(error) else 'readable'}")
        return ()
    boxes = []
    for position, mark in enumerate(marks):
        if not isinstance(mark, dict):
            tally.drop("box", image, "detection that is not {name: [x, y, width, height]}", position)
            continue
        for label, xywh in mark.items():
            if isinstance(xywh, list) and len(xywh) == 4:
                x, y, width, height = map(number, xywh)
                boxes.append(Box(str(label).lower(), *from_xywh(x, y, width, height)))
            else:
                tally.drop("box", image, "detection that is not {name: [x, y, width, height]}", position)
    return tuple(boxes)
