"""CheXpert: presence questions from its labels; `--chexlocalize` joins masks of findings.

Layout of the root: `train.csv` and `valid.csv`, whose paths begin with `CheXpert-v1.0/` or `CheXpert-v1.0-small/`: the
root is that folder, or the one above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cxr_faith.data.sample import Sample
from cxr_faith.data.sources.presence import Asked, chexpert_label, presence_samples
from cxr_faith.data.subgroups import read_age, read_sex, read_view
from cxr_faith.data.tables import find_file, listed, read_table, text
from cxr_faith.data.tally import Tally

SPLITS = ("train", "valid")
FRONTAL, PROJECTION = "Frontal/Lateral", "AP/PA"
NOT_LABELS = ("Path", "Sex", "Age", FRONTAL, PROJECTION)
NOT_A_FINDING = "No Finding"


def chexpert(
    root: Path, tally: Tally, splits: str = "valid", views: str = "AP,PA", phrasings: int = 1
) -> Iterator[Sample]:
    """Yes/no questions from the labels of CheXpert: 1 is yes, 0 is no, a blank is not asked.

    An uncertain label (−1) is asked too; its reference is unknown (null).

    Args:
        root: folder of CheXpert.
        tally: takes the counts.
        splits: splits to take, separated by commas (train, valid).
        views: views to take, separated by commas (AP, PA, LATERAL).
        phrasings: how many phrasings of each question, 1 to 5; they form a question group.
    """
    wanted_views = listed(views.upper(), ("AP", "PA", "LATERAL"), "view")
    for split in listed(splits, SPLITS, "split"):
        path = next((folder for folder in sorted(root.glob("CheXpert-v1.0*")) if folder.is_dir()), root)
        path = find_file(path if (path / f"{split}.csv").is_file() else root, f"{split}.csv", f"{split}.csv.gz")
        table = read_table(path, ("Path", FRONTAL, PROJECTION))
        findings = [name for name in table.columns if name not in (*NOT_LABELS, NOT_A_FINDING)]
        tally.expected = (tally.expected or 0) + int(table[findings].notna().sum().sum()) * phrasings
        for position, row in enumerate(table.to_dict("records")):
            picture = _picture(row, split, root)
            if picture is None:
                tally.drop("row", "", "path is not patient/study/view.jpg", f"{path.name} row {position + 1}")
            elif picture["view"] not in wanted_views:
                tally.drop("image", picture["image_id"], f"view {picture['view'] or 'not stated'}")
            else:
                yield from _questions(picture, {name: row[name] for name in findings}, phrasings, tally)


def _picture(row: Mapping[Any, Any], split: str, root: Path) -> dict[str, Any] | None:
    """What a row gives to the manifest beside its labels; None for a path of another form."""
    parts = PurePosixPath(text(row["Path"]) or "").parts
    if len(parts) < 3:
        return None
    # The paths begin with the folder of the edition, which may be the root itself.
    below = parts[1:] if not (root / parts[0]).is_dir() and len(parts) > 3 else parts
    patient, study, name = parts[-3:]
    view = read_view(row[PROJECTION]) if (text(row[FRONTAL]) or "").casefold() == "frontal" else "LATERAL"
    return {
        "patient_id": patient,
        "study_id": f"{patient}/{study}",
        "image_id": "_".join((patient, study, PurePosixPath(name).stem)),
        "image_path": str(PurePosixPath(*below)),
        "split": split,
        "sex": read_sex(row.get("Sex")),
        "age": read_age(row.get("Age")),
        "view": view,
    }


def _questions(picture: Mapping[str, Any], labels: Mapping[str, object], count: int, tally: Tally) -> Iterator[Sample]:
    for name, value in labels.items():
        asked = Asked(picture["image_id"], " ".join(name.lower().split()), "")
        try:
            answer = chexpert_label(value)
        except ValueError as error:
            tally.drop("question", f"chexpert/{asked.image}/{asked.finding}", str(error))
            continue
        if answer is not None:
            yield from presence_samples("chexpert", asked._replace(answer=answer), picture, count, tally)
