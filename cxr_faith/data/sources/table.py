"""Any table of questions (CSV, JSON, JSON Lines or Parquet), with a mapping from the manifest's columns to its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxr_faith.data.answers import AnswerColumn, UnreadableError, read_question, read_reference
from cxr_faith.data.options import read_options, read_with_options
from cxr_faith.data.picture_files import BY_NAME, PictureFiles
from cxr_faith.data.sample import OPTION, Sample
from cxr_faith.data.sources.table_cells import boxes_in, masks_in, path_in, paths_in, turns_in
from cxr_faith.data.sources.table_columns import KNOWN, OPTIONS, columns_by_name
from cxr_faith.data.sources.table_rows import TableRows
from cxr_faith.data.subgroups import read_age, read_sex, read_view
from cxr_faith.data.tables import length, text
from cxr_faith.data.tally import PrepareError, Tally
from cxr_faith.data.text_files import names_of

# The manifest's columns and their names in tables of paraphrased questions.
PARAPHRASES = {
    "image_id": "dicom_id",
    "patient_id": "subject_id",
    "question": "question_variant",
    "question_group": "baseline_question",
    "variant": "variant_index",
}
PARAPHRASE_COLUMNS = ("baseline_question", "question", "question_type")
KIND_NAMES = {"verify": "yes_no", "closed": "yes_no", "binary": "yes_no", "choose": "choice", "query": "open"}
BOX_FORMATS = ("xyxy", "xywh", "unit", "padded", "loc")
_TEXTS = ("patient_id", "study_id", "question_group", "variant", "strategy", "finding", "side", "split")


def table(
    root: Path,
    tally: Tally,
    file: str,
    columns: dict[str, str] | None = None,
    box_format: str = "xyxy",
    box_label: str = "",
) -> Iterator[Sample]:
    """Questions from a table with at least an image path and a question per row.

    Columns with the manifest's names are taken as they are, others through `columns` or by usual names (filename,
    label, PatientID, …); the header of paraphrase tables (baseline_question, question_variant, …) is recognized. A
    picture is looked for by its path, then by its name without folders and suffix. Answers are read as docs/data.md
    says. Options other than yes and no are put below the question, and the answer is a letter. A question without a
    kind is yes/no if its only answer is yes or no; without an answer, the model's first token decides. An image
    without an image_id gets its path as id.

    Args:
        root: folder that image paths are relative to.
        tally: takes the counts.
        file: CSV (.csv, .csv.gz), JSON (.json), JSON Lines (.jsonl) or Parquet file.
        columns: the table's names of the manifest's columns and of options, e.g. 'image_path=ImagePath,answer=label' or
            '{"image_path": "path"}'.
        box_format: format of the column boxes: xyxy or xywh in pixels, unit (x1, y1, x2, y2 as shares of the size),
            padded (x1, y1, x2, y2 in a padded square of 224 px), or loc (a text with <loc_x1_y1_x2_y2>); unit and
            padded need the columns height and width.
        box_label: label of boxes without one; default: the row's finding.
    """
    if box_format not in BOX_FORMATS:
        raise PrepareError(f"no box format {box_format!r}; there are {', '.join(BOX_FORMATS)}")
    if unknown := sorted(set(columns or {}) - set(KNOWN)):
        raise PrepareError(f"manifests have no column {', '.join(unknown)}; there are {', '.join(KNOWN)}")
    path = Path(file)
    rows = TableRows(path)
    present = rows.columns
    paraphrases = {"baseline_question", "question_variant"} <= present.keys()
    known = {name: own for name, own in PARAPHRASES.items() if own in present} if paraphrases else {}
    names = columns_by_name(present, known | (columns or {}))
    missing = [f"{own} (for {name})" for name, own in (columns or {}).items() if own not in present]
    missing += [name for name in ("image_path", "question") if name not in names]
    if missing:
        raise PrepareError(
            f"{path}: lacks the column {', '.join(missing)}; it has {names_of(present)}; name it with --columns"
        )
    tally.columns = names
    rows.keep({*names.values(), *(PARAPHRASE_COLUMNS if paraphrases else ())})
    tally.expected = rows.count
    answers = AnswerColumn.of(row.get(names["answer"]) for row in rows if "answer" in names)
    pictures = PictureFiles(root, tally, lambda: paths_in(row.get(names["image_path"]) for row in rows))
    for position, row in enumerate(rows):
        values = {name: row.get(own) for name, own in names.items()}
        if paraphrases:
            asked = (values["question"], row.get("question"), row.get("baseline_question"))
            values["question"] = next((question for question in asked if text(question)), None)
            values.setdefault("kind", KIND_NAMES.get((text(row.get("question_type")) or "").lower()))
        name = text(values.get("sample_id")) or f"{path.stem.removesuffix('.csv')}/{position}"
        try:
            sample = _sample(values, name, box_format, box_label, answers, tally)
            yield _with_picture(sample, pictures, tally)
        except UnreadableError as error:
            tally.drop("question", name, str(error))


def _sample(
    values: Mapping[str, Any], sample_id: str, box_format: str, box_label: str, answers: AnswerColumn, tally: Tally
) -> Sample:
    path = path_in(values.get("image_path"))
    for column in ("sample_id", "image_id", *_TEXTS, *(() if path else ("image_path",))):
        value = values.get(column)
        if isinstance(value, list | dict) and value:
            tally.note(f"column {column}: values that are no text, left out")
    image_id = text(values.get("image_id")) or path
    question = read_question(values.get("question"))
    stated = (text(values.get("kind")) or "").lower()
    stated = KIND_NAMES.get(stated, stated)
    options = read_options(values.get(OPTIONS))
    if options:
        question, reference = read_with_options(question, values.get("answer"), options, tally, stated or None)
    else:
        reference = read_reference(values.get("answer"), question, tally, stated or None, answers)
    given: dict[str, Any] = {name: text(values.get(name)) for name in _TEXTS}
    height, width = (length(values.get(name)) for name in ("height", "width"))
    size = (height, width) if height and width else None
    if size is None and (text(values.get("height")) or text(values.get("width"))):
        tally.note("invalid sizes, read from the picture instead")
    group = given["question_group"]
    return Sample(
        sample_id=sample_id,
        image_id=image_id,
        image_path=path,
        question=question,
        # A question group belongs to one image, even where several images have groups of the same name.
        **(given | {"question_group": f"{image_id}/{group}" if group else None}),
        kind=reference.kind,
        answer=reference.answers,
        options=options if reference.kind == OPTION else (),
        boxes=tuple(
            boxes_in(values.get("boxes"), box_format, box_label or given["finding"] or "", size, sample_id, tally)
        ),
        finding_mask_path=text(values.get("finding_mask_path")),
        anatomy_masks=tuple(masks_in(values.get("anatomy_masks"), sample_id, tally)),
        pair_path=text(values.get("pair_path")),
        height=size and size[0],
        width=size and size[1],
        source=text(values.get("source")) or "table",
        sex=read_sex(values.get("sex")),
        age=read_age(values.get("age")),
        view=read_view(values.get("view")),
        turns=turns_in(values.get("turns")),
    )


def _with_picture(sample: Sample, pictures: PictureFiles, tally: Tally) -> Sample:
    """The sample with the path of its picture, where that is not the table's."""
    file = pictures.find(sample.image_path)
    if file is None or file == sample.image_path:
        return sample
    tally.note(BY_NAME)
    return replace(sample, image_path=file)
