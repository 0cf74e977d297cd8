"""Any data set for the `datasets` library whose rows hold a picture, a question and an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from cxr_faith.data.answers import AnswerColumn, UnreadableError, read_question, read_reference
from cxr_faith.data.options import read_options, read_with_options
from cxr_faith.data.sample import OPTION, Sample
from cxr_faith.data.sources.hub_files import check_folder
from cxr_faith.data.sources.hub_pictures import HubPictures
from cxr_faith.data.sources.table_columns import OPTIONS, columns_by_name
from cxr_faith.data.subgroups import read_age, read_sex, read_view
from cxr_faith.data.tables import text
from cxr_faith.data.tally import PrepareError, Tally
from cxr_faith.data.text_files import names_of, one_line

_NEEDED = ("image_path", "question", "answer")
_TAKEN = (*_NEEDED, OPTIONS, "patient_id", "study_id", "sex", "age", "view")


def hub(
    root: Path,
    tally: Tally,
    dataset: str,
    split: str = "test",
    config: str | None = None,
    image: str | None = None,
    question: str | None = None,
    answer: str | None = None,
    patient: str | None = None,
    options: str | None = None,
    columns: dict[str, str] | None = None,
) -> Iterator[Sample]:
    """Questions of a data set from the hub or a folder; its pictures are written to ROOT/images, without duplicates.

    A data set from the hub is downloaded to ROOT/.cache; a folder is read in place. Where rows hold the path of a
    picture, the path is relative to that folder and must stay in it; a picture that is not there is looked for by its
    name without folders and suffix. Sex, age, view and study are taken by usual names, if they are there.

    Args:
        root: folder that the pictures are written to.
        tally: takes the counts.
        dataset: hub id, or folder with Parquet, JSON or CSV files or one written by `save_to_disk`.
        split: split to take.
        config: configuration of the data set, if it has several.
        image: column of the picture; default: by a usual name (image, image_path, …).
        question: column of the question; default: by a usual name.
        answer: column of the answer, in any form of the table "How answers are read" in docs/data.md; default: by a
            usual name (answer, label, …).
        patient: column of the patient, the unit that statistics cluster by; default: by a usual name (patient_id,
            subject_id, …), if there is one.
        options: column of the options; default: by a usual name (options, choices), if there is one.
        columns: the data set's names of the manifest's columns and of options, as in `prepare table`; the options
            above go first.
    """
    if unknown := sorted(set(columns or {}) - set(_TAKEN)):
        raise PrepareError(f"hub takes no column {', '.join(unknown)}; there are {', '.join(_TAKEN)}")
    rows = _load(root, dataset, split, config)
    base = Path(dataset) if Path(dataset).is_dir() else root / ".cache"
    single = {"image_path": image, "question": question, "answer": answer, "patient_id": patient, OPTIONS: options}
    given = (columns or {}) | {name: own for name, own in single.items() if own}
    tally.columns = _columns(rows, dataset, given)
    image, answer = tally.columns["image_path"], tally.columns["answer"]
    rows = _undecoded(rows.select_columns(list(dict.fromkeys(tally.columns.values()))))
    _check_arrays(rows.data, dataset)
    features = rows.features
    pictures = HubPictures(root, base, tally, lambda: _column(rows, image))
    tally.expected = len(rows)
    column = AnswerColumn.of(_named(value, features[answer]) for value in _column(rows, answer))
    label = Path(dataset).name
    for position in range(len(rows)):
        name = f"{label}/{split}/{position}"
        try:
            row = rows[position]
            asked = _question(row, features, tally.columns, column, tally)
            about = _about(row, features, tally.columns)
            path = pictures.write(row[image])
        except UnreadableError as error:
            tally.drop("question", name, str(error))
            continue
        except (ValueError, pa.ArrowException) as error:
            tally.drop("question", name, "row cannot be decoded", error)
            continue
        yield Sample(
            sample_id=name,
            image_id=path.stem,
            image_path=f"images/{path.name}",
            split=split,
            source=label,
            **(asked | about),
        )


def _question(
    row: Mapping[str, Any], features: datasets.Features, columns: Mapping[str, str], column: AnswerColumn, tally: Tally
) -> dict[str, Any]:
    """Question, kind, answer and options of a row.

    Raises:
        UnreadableError: they cannot be read.
    """
    question, answer = (_named(row[columns[name]], features[columns[name]]) for name in ("question", "answer"))
    asked, offered = read_question(question), read_options(row[columns[OPTIONS]] if OPTIONS in columns else None)
    if offered:
        asked, reference = read_with_options(asked, answer, offered, tally)
    else:
        reference = read_reference(answer, asked, tally, column=column)
    kind = reference.kind or ("open" if reference.answers else None)
    shown = offered if kind == OPTION else ()
    return {"question": asked, "kind": kind, "answer": reference.answers, "options": shown}


def _about(row: Mapping[str, Any], features: datasets.Features, columns: Mapping[str, str]) -> dict[str, Any]:
    """Patient, study, sex, age and view of a row; None for each that cannot be read."""

    def value(name: str) -> Any:
        try:
            return _named(row[columns[name]], features[columns[name]]) if name in columns else None
        except UnreadableError:  # a class label without a name
            return None

    return {
        "patient_id": text(value("patient_id")),
        "study_id": text(value("study_id")),
        "sex": read_sex(value("sex")),
        "age": read_age(value("age")),
        "view": read_view(value("view")),
    }


def _columns(rows: datasets.Dataset, dataset: str, given: Mapping[str, str]) -> dict[str, str]:
    """The data set's column of each of `_TAKEN` that it has: as given, else by usual names.

    Raises:
        PrepareError: one that is needed is missing.
    """
    taken = columns_by_name(rows.column_names, given, _TAKEN)
    missing = [
        taken.get(name, name.removesuffix("_path")) for name in _NEEDED if taken.get(name) not in rows.column_names
    ]
    missing += [own for name, own in given.items() if name not in _NEEDED and own not in rows.column_names]
    if missing:
        raise PrepareError(f"{dataset}: lacks the column {', '.join(missing)}; it has {names_of(rows.column_names)}")
    return taken


def _check_arrays(table: Any, dataset: str) -> None:
    """Refuse damaged Arrow files, on which the library would read beyond its memory."""
    try:
        table.validate(full=True)
    except pa.ArrowException as error:
        if "UTF8" not in str(error):  # such a text costs its row
            raise PrepareError(f"{dataset}: is damaged: {one_line(error)[:500]}") from error


def _column(rows: datasets.Dataset, name: str) -> Iterator[Any]:
    """The values of a column, up to one that cannot be decoded."""
    try:
        yield from (row[name] for row in rows.select_columns([name]))
    except (ValueError, pa.ArrowException):
        return


def _undecoded(rows: datasets.Dataset) -> datasets.Dataset:
    """The rows with the files of pictures (also in lists) as they are: a damaged one must not end the reading."""

    def stored(feature: Any) -> Any:
        if isinstance(feature, dict):
            return {name: stored(inner) for name, inner in feature.items()}
        if isinstance(feature, datasets.List | datasets.LargeList):
            return replace(feature, feature=stored(feature.feature))
        return replace(feature, decode=False) if getattr(feature, "decode", False) else feature

    for name, feature in rows.features.items():
        if (changed := stored(feature)) != feature:
            rows = rows.cast_column(name, changed)
    return rows


def _named(value: Any, feature: Any) -> Any:
    """A value with the numbers of class labels replaced by their names; −1 stands for no label."""
    if value is None or (isinstance(feature, datasets.ClassLabel) and value == -1):
        return None
    if isinstance(feature, datasets.ClassLabel):
        if not 0 <= value < len(feature.names):
            raise UnreadableError("answer is a class label without a name")
        return feature.names[value]
    if isinstance(feature, datasets.List | datasets.LargeList):
        return [_named(item, feature.feature) for item in value]
    return {name: _named(item, feature[name]) for name, item in value.items()} if isinstance(feature, dict) else value


def _load(root: Path, dataset: str, split: str, config: str | None) -> datasets.Dataset:
    if not Path(dataset).exists() and not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", dataset):
        raise PrepareError(f"{dataset}: no such folder, and not a hub id of the form owner/name")
    try:
        if any((Path(dataset) / name).is_file() for name in ("state.json", "dataset_dict.json")):
            loaded = datasets.load_from_disk(dataset)
            if isinstance(loaded, datasets.DatasetDict):
                if split not in loaded:
                    raise PrepareError(f"{dataset}: no split {split!r}; there are {', '.join(map(str, loaded))}")
                loaded = loaded[split]
            return loaded
        if Path(dataset).is_dir():
            check_folder(Path(dataset))
        return datasets.load_dataset(dataset, config, split=split, cache_dir=str(root / ".cache"))
    except PrepareError:
        raise
    except Exception as error:  # whatever the library raises on files of others
        raise PrepareError(f"{dataset}: cannot be loaded: {one_line(error)[:500]}") from error
