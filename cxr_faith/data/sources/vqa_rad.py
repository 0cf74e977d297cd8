"""VQA-RAD: clinicians' questions about radiology pictures, as published on OSF.

Layout of the root: `VQA_RAD Dataset Public.json` and `VQA_RAD Image Folder/`. Parquet mirrors lack the organ of a
picture; prepare them with the source `hub`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cxr_faith.data.answers import UnreadableError, read_question, read_reference
from cxr_faith.data.sample import Sample
from cxr_faith.data.tables import among, find_file, read_json, text
from cxr_faith.data.tally import Tally

ORGANS = ("CHEST", "HEAD", "ABD")
FILE, FOLDER = "VQA_RAD Dataset Public.json", "VQA_RAD Image Folder"


def vqa_rad(root: Path, tally: Tally, organ: str = "CHEST") -> Iterator[Sample]:
    """Questions of VQA-RAD about one organ.

    Closed questions answered with yes or no are yes/no, other closed ones choice, the rest open. A question and its
    paraphrase form a question group.

    Args:
        root: folder of VQA-RAD.
        tally: takes the counts.
        organ: questions to take by their `image_organ` (CHEST, HEAD, ABD); some chest pictures are CT slices, and the
            data set does not mark them.
    """
    entries = read_json(find_file(root, FILE), list)
    tally.expected = len(entries)
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            tally.drop("row", f"entry {position}", "entry is not a mapping")
            continue
        name = f"vqa-rad/{entry.get('qid', position)}"
        shown, image = (text(entry.get(key)) for key in ("image_organ", "image_name"))
        if (shown or "").upper() != organ.upper():
            tally.drop("question", name, f"organ {among(shown, ORGANS)}")
            continue
        try:
            question = read_question(entry.get("question"))
            reference = read_reference(entry.get("answer"), question, tally)
        except UnreadableError as error:
            tally.drop("question", name, str(error))
            continue
        if not image or not question:
            tally.drop("question", name, "entry without image_name or question")
            continue
        closed = (text(entry.get("answer_type")) or "").upper().startswith("CLOSED")
        phrase = text(entry.get("phrase_type"))
        linked = text(entry.get("qid_linked_id")) or text(entry.get("qid"))
        yield Sample(
            sample_id=name,
            image_id=Path(image).stem,
            image_path=f"{FOLDER}/{image}",
            question=question,
            question_group=f"vqa-rad/{linked}" if linked else None,
            variant=phrase,
            strategy="paraphrase" if phrase and "para" in phrase else None,
            kind=(reference.kind or "choice") if closed else "open",
            answer=reference.answers,
            split="test" if phrase and phrase.startswith("test") else "train",
            source="vqa-rad",
        )
