"""Medical-Diff-VQA: its questions about one study of MIMIC-CXR, and those that compare two.

Layout of its folder: `mimic_pair_questions.csv` and `mimic_all.csv`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr_faith.data.answers import UnreadableError, read_question, read_reference
from cxr_faith.data.sample import Sample, ShownImage
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
    root: Path,
    tally: Tally,
    vqa: str,
    splits: str = "test",
    views: str = "AP,PA",
    patients: str | None = None,
    differences: bool = False,
) -> Iterator[Sample]:
    """Questions of Medical-Diff-VQA about one study, or those that compare a study with an earlier one.

    `presence` questions are yes/no, `view` ones choice, the others open. A `difference` question shows two pictures:
    that of the reference study (role prior), then that of the study itself (current).

    Args:
        root: folder of MIMIC-CXR-JPG.
        tally: takes the counts.
        vqa: folder of Medical-Diff-VQA (mimic_pair_questions.csv, mimic_all.csv).
        splits: splits of the questions to take, separated by commas (train, val, test).
        views: view positions to take, separated by commas.
        patients: patients.csv.gz of MIMIC-IV, or its folder: sex and age.
        differences: take the `difference` questions in place of the others, for models that are shown two pictures.
    """
    wanted = listed(splits, SPLITS, "split")
    pictures = read_pictures(root, views, tally, patients)
    shown = _pictures_of_studies(find_file(Path(vqa), STUDIES, f"{STUDIES}.gz"), tally)
    path = find_file(Path(vqa), QUESTIONS, f"{QUESTIONS}.gz")
    needed = ("study_id", "question_type", "question", "answer", "split", *(("ref_id",) if differences else ()))
    table = read_table(path, needed, ())
    tally.expected = len(table)
    for position, row in enumerate(table.to_dict("records")):
        name = f"medical-diff-vqa/{position}"
        split, study = text(row["split"]), text(row["study_id"])
        if split not in wanted:
            if split not in SPLITS:
                tally.drop("question", name, f"split {among(split, SPLITS)}")
            continue
        if ((text(row["question_type"]) or "").casefold() == DIFFERENCE) != differences:
            number = ("one picture", "two") if differences else ("two pictures", "one")
            tally.drop("question", name, "question about {}: only those about {} are taken".format(*number))
            continue
        studies = [text(row["ref_id"]), study] if differences else [study]
        taken = [pictures.taken.get(shown.get(each or "", "")) for each in studies]
        if None in taken:
            known = studies[taken.index(None)] in shown
            tally.drop("question", name, f"its study's picture is not {'among those taken' if known else 'stated'}")
            continue
        try:
            asked = read_question(row["question"])
            kind = KINDS.get((text(row["question_type"]) or "").casefold(), "open")
            reference = read_reference(row["answer"], asked, tally, stated=kind)
        except UnreadableError as error:
            tally.drop("question", name, str(error))
            continue
        each = [picture_columns(picture, pictures.sizes) for picture in taken if picture is not None]
        columns = each[-1] | {"split": split, "images": _prior_and_current(each) if differences else ()}
        yield Sample(name, question=asked, kind=kind, answer=reference.answers, source="medical-diff-vqa", **columns)


def _prior_and_current(columns: Sequence[Mapping[str, Any]]) -> tuple[ShownImage, ...]:
    """The pictures of a difference question, from the columns of both."""
    return tuple(
        ShownImage(one["image_id"], one["image_path"], role)
        for one, role in zip(columns, ("prior", "current"), strict=True)
    )


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
