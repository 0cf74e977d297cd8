"""VinDr-CXR 1.0.0: presence questions from its image labels, with the readers' boxes merged.

Layout of the root: `train/<image_id>.dicom`, `test/<image_id>.dicom` and
`annotations/{annotations,image_labels}_{train,test}.csv`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from cxr_faith.data.sample import Sample
from cxr_faith.data.sources.presence import presence_samples, questions_from_labels
from cxr_faith.data.sources.readings import BOX_COLUMNS, Marks, Votes, answers, finding_name, read_marks
from cxr_faith.data.tables import find_file, listed, read_table
from cxr_faith.data.tally import Tally

SPLITS = ("train", "test")


def vindr_cxr(
    root: Path, tally: Tally, splits: str = "test", phrasings: int = 1, balanced: bool = True
) -> Iterator[Sample]:
    """Presence questions for each label of VinDr-CXR.

    In the training split a finding is present if at least two of the three readers saw it and absent if none did; where
    one reader alone saw it, the image gets no question about it. The test split is a consensus. `No finding`, `Other
    disease` and `Other lesion` get no question. The readers' boxes of a finding are merged (see
    `cxr_faith.data.boxes.fuse`). Every sample has all boxes of the findings present in its image, and the boxes of each
    reader.

    Args:
        root: folder of VinDr-CXR.
        tally: takes the counts.
        splits: splits to take, separated by commas (train, test).
        phrasings: how many phrasings of each question, 1 to 5; they form a question group.
        balanced: for each label, as many images without it as with it, chosen by a hash of their ids; false: all.
    """
    for split in listed(splits, SPLITS, "split"):
        votes = _votes(find_file(root, f"annotations/image_labels_{split}.csv", f"image_labels_{split}.csv"), tally)
        path = find_file(root, f"annotations/annotations_{split}.csv", f"annotations_{split}.csv")
        marks = read_marks(read_table(path, BOX_COLUMNS, ("rad_id",)), path.name, votes, tally)
        asked = questions_from_labels(answers(votes, "vindr-cxr", tally), balanced, split)
        tally.expected = (tally.expected or 0) + len(asked) * phrasings
        for each in asked:
            drawn = marks.get(each.image, Marks())
            # The data set does not say which images are one patient's.
            columns = {"image_path": f"{split}/{each.image}.dicom", "split": split, **vars(drawn)}
            yield from presence_samples("vindr-cxr", each, columns, phrasings, tally)


def _votes(path: Path, tally: Tally) -> dict[str, dict[str, Votes]]:
    """Votes by label and image; a reader with several rows for an image counts once, as yes if one of them is."""
    table = read_table(path, ("image_id",))
    labels = [name for name in table.columns if name not in ("image_id", "rad_id", "rad_ID")]
    reader = next((name for name in ("rad_id", "rad_ID") if name in table.columns), None)
    unnamed = table["image_id"].isna()
    for row in table.index[unnamed]:
        tally.drop("row", f"{path.name} line {row + 2}", "row without image id")
    table = table[~unnamed]
    values = table[labels].apply(pd.to_numeric, errors="coerce")
    values = values.where(values.isin([0, 1]))
    for row in table.index[values.isna().any(axis=1)]:
        tally.drop("row", str(table["image_id"][row]), "label that is not 0 or 1", path.name)
    values = values.dropna().assign(image_id=table["image_id"], reader=table[reader].fillna("") if reader else "")
    by_reader = values.groupby(["image_id", "reader"], sort=True)[labels].max().gt(0)
    readers = by_reader.groupby(level="image_id").size()
    seen = by_reader.groupby(level="image_id").sum()
    counts = {finding_name(label): seen[label] for label in labels}
    return {
        label: {str(name): Votes(int(count), int(readers[name])) for name, count in column.items()}
        for label, column in counts.items()
    }
