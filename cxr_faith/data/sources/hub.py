"""Any data set for the `datasets` library whose rows hold a picture, a question and an answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from cxr_faith.data.answers import AnswerColumn, Reference, UnreadableError, read_question, read_reference
from cxr_faith.data.images import ImageError, resolve
from cxr_faith.data.intake import kind_of_fault
from cxr_faith.data.options import read_options, read_with_options
from cxr_faith.data.sample import OPTION, Sample
from cxr_faith.data.sources.hub_files import check_folder
from cxr_faith.data.sources.table_columns import OPTIONS, columns_by_name
from cxr_faith.data.tables import text
from cxr_faith.data.tally import PrepareError, Tally
from cxr_faith.data.text_files import names_of, one_line
from cxr_faith.storage.atomic import replacing

_MAX_FILE = 2**28
_MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png"}


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
) -> Iterator[Sample]:
    """Questions of a data set from the hub or a folder; its pictures are written to ROOT/images, without duplicates.

    A data set from the hub is downloaded to ROOT/.cache; a folder is read in place. Where rows hold the path of a
    picture, the path is relative to that folder and must stay in it.

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
        patient: column of the patient, the unit that statistics cluster by.
        options: column of the options; default: by a usual name (options, choices), if there is one.
    """
    rows = _load(root, dataset, split, config)
    base = Path(dataset) if Path(dataset).is_dir() else root / ".cache"
    given = {"image_path": image, "question": question, "answer": answer, "patient_id": patient, OPTIONS: options}
    tally.columns = _columns(rows, dataset, {name: own for name, own in given.items() if own})
    image, answer = tally.columns["image_path"], tally.columns["answer"]
    rows = _undecoded(rows.select_columns(list(dict.fromkeys(tally.columns.values()))))
    _check_arrays(rows.data, dataset)
    features = rows.features
    (root / "images").mkdir(parents=True, exist_ok=True)
    tally.expected = len(rows)
    column = AnswerColumn.of(_named(value, features[answer]) for value in _column(rows, answer))
    label = Path(dataset).name
    for position in range(len(rows)):
        name = f"{label}/{split}/{position}"
        try:
            row = rows[position]
            asked, reference, offered = _question(row, features, tally.columns, column, tally)
        except UnreadableError as error:
            tally.drop("question", name, str(error))
            continue
        except (ValueError, pa.ArrowException) as error:
            tally.drop("question", name, "row cannot be decoded", error)
            continue
        path = _picture(row[image], root, base, name, tally)
        if path is None:
            continue
        yield Sample(
            sample_id=name,
            patient_id=text(row[patient]) if patient else None,
            image_id=path.stem,
            image_path=f"images/{path.name}",
            question=asked,
            kind=reference.kind or ("open" if reference.answers else None),
            options=offered if reference.kind == OPTION else (),
            answer=reference.answers,
            split=split,
            source=label,
        )


def _question(
    row: Mapping[str, Any], features: datasets.Features, columns: Mapping[str, str], column: AnswerColumn, tally: Tally
) -> tuple[str, Reference, tuple[str, ...]]:
    """Question, reference and options of a row.

    Raises:
        UnreadableError: they cannot be read.
    """
    question, answer = (_named(row[columns[name]], features[columns[name]]) for name in ("question", "answer"))
    asked, offered = read_question(question), read_options(row[columns[OPTIONS]] if OPTIONS in columns else None)
    if offered:
        return *read_with_options(asked, answer, offered, tally), offered
    return asked, read_reference(answer, asked, tally, column=column), ()


def _columns(rows: datasets.Dataset, dataset: str, given: Mapping[str, str]) -> dict[str, str]:
    """The column of picture, question, answer, options and patient: as given, else by usual names; no other patient.

    Raises:
        PrepareError: one that is needed is missing.
    """
    needed = ("image_path", "question", "answer")
    taken = columns_by_name(rows.column_names, given, (*needed, OPTIONS))
    missing = [
        taken.get(name, name.removesuffix("_path")) for name in needed if taken.get(name) not in rows.column_names
    ]
    missing += [own for name, own in given.items() if name not in needed and own not in rows.column_names]
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


def _picture(value: Any, root: Path, base: Path, name: str, tally: Tally) -> Path | None:
    """Write a row's picture below the root, named by its content; None, and counted, if it cannot be used."""
    if isinstance(value, list):
        if len(value) > 1:
            tally.drop("question", name, "row has several pictures, one is expected")
            return None
        value = value[0] if value else None
    try:
        content = _content(value, base)
    except ImageError as error:
        outside = kind_of_fault(str(error)) == "outside the data root"
        tally.drop("question", name, "picture is outside the data set's folder" if outside else "picture is missing")
        return None
    suffix = next((suffix for magic, suffix in _MAGIC.items() if content.startswith(magic)), None)
    if suffix is None:
        tally.drop("question", name, "picture is not JPEG or PNG")
        return None
    path = root / "images" / f"{hashlib.blake2b(content, digest_size=12).hexdigest()}.{suffix}"
    if not path.is_file() or path.stat().st_size != len(content):
        with replacing(path, durable=False) as file:  # it can be written again
            file.write(content)
    return path


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


def _content(value: Any, base: Path) -> bytes:
    """Content of a row's picture file.

    Raises:
        ImageError: the row has no picture, or it is outside the data set's folder.
    """
    if isinstance(value, Mapping):
        if value.get("bytes"):
            return bytes(value["bytes"])
        value = value.get("path")
    path = text(value)
    if path is None:
        raise ImageError("no picture")
    try:
        file = resolve(path, base)
        if file.stat().st_size > _MAX_FILE:
            raise ImageError(f"{path}: larger than any picture")
        return file.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read") from error
