"""Medical-Diff-VQA: its questions about one study of MIMIC-CXR; those that compare two studies are left out.

Layout of its folder: `mimic_pair_questions.csv` and `mimic_all.csv`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cxr_faith.data.answers import UnreadableError, read_question, read_reference
from cxr_faith.data.sample import Sample
from cxr_faith.data.sources.mimic_pictures import picture_columns, read_pictures
from cxr_faith.data.subgroups import read_view
from cxr_faith.data.tables import among, find_file, listed, read_table, text
from cxr_faith.data.tally import Tally

QUESTIONS, STUDIES = "mimic_pair_questions.csv", "mimic_all.csv"
DIFFERENCE = "difference"
# Type of a question → its kind; the other types are open.
KINDS = {"presence": "yes_no", "view": "choice"}
TYPES = ("abnormality", "location", "level", "view", "type", "presence", DIFFERENCE)
SPLITS = ("train", "val", "test")


def medical_diff_vqa(
    root: Path, tally: Tally, vqa: str, splits: str = "test", views: str = "AP,PA", patients: str | None = None
) -> Iterator[Sample]:
    """Questions of Medical-Diff-VQA about one study; `difference` questions need two pictures and are counted.

    `presence` questions are yes/no, `view` ones choice, the others open.

    Args:
        root: folder of MIMIC-CXR-JPG.
        tally: takes the counts.
        vqa: folder of Medical-Diff-VQA (mimic_pair_questions.csv, mimic_all.csv).
        splits: splits of the questions to take, separated by commas (train, val, test).
        views: view positions to take, separated by commas.
        patients: patients.csv.gz of MIMIC-IV, or its folder: sex and age.
    """
    wanted = listed(splits, SPLITS, "split")
    pictures = read_pictures(root, views, tally, patients)
    shown = _pictures_of_studies(find_file(Path(vqa), STUDIES, f"{STUDIES}.gz"), tally)
    path = find_file(Path(vqa), QUESTIONS, f"{QUESTIONS}.gz")
    table = read_table(path, ("study_id", "question_type", "question", "answer", "split"), ())
    tally.expected = len(table)
    for position, row in enumerate(table.to_dict("records")):
        name = f"medical-diff-vqa/{position}"
        split, study = text(row["split"]), text(row["study_id"])
        if split not in wanted:
            if split not in SPLITS:
                tally.drop("question", name, f"split {among(split, SPLITS)}")
            continue
        if (text(row["question_type"]) or "").casefold() == DIFFERENCE:
            tally.drop("question", name, "question about two pictures: only those about one are taken")
            continue
        picture = pictures.taken.get(shown.get(study or "", ""))
        if picture is None:
            known = study in shown
            tally.drop("question", name, f"its study's picture is not {'among those taken' if known else 'stated'}")
            continue
        try:
            asked = read_question(row["question"])
            kind = KINDS.get((text(row["question_type"]) or "").casefold(), "open")
            reference = read_reference(row["answer"], asked, tally, stated=kind)
        except UnreadableError as error:
            tally.drop("question", name, str(error))
            continue
        columns = picture_columns(picture, pictures.sizes) | {"split": split}
        yield Sample(name, question=asked, kind=kind, answer=reference.answers, source="medical-diff-vqa", **columns)


def _pictures_of_studies(path: Path, tally: Tally) -> Mapping[str, str]:
    """Picture of each study: its first frontal one in the table."""
    shown: dict[str, str] = {}
    table = read_table(path, ("study_id", "dicom_id"), ("view",))
    for position, row in enumerate(table.to_dict("records")):
        study, name = text(row["study_id"]), text(row["dicom_id"])
        if study is None or name is None:
            tally.drop("row", name or "", "row without study or picture", f"{path.name} row {position + 1}")
        elif "view" not in row or read_view(row["view"]) in ("AP", "PA"):
            shown.setdefault(study, name)
    return shown
