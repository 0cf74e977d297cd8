"""VinDr-CXR 1.0.0: presence questions from its image labels, with the readers' boxes merged.

Layout of the root: `train/<image_id>.dicom`, `test/<image_id>.dicom` and
`annotations/{annotations,image_labels}_{train,test}.csv`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxr_faith.data.boxes import fuse, limited
from cxr_faith.data.sample import Box, Sample
from cxr_faith.data.sources.presence import phrasings as phrased
from cxr_faith.data.sources.presence import shuffled
from cxr_faith.data.tables import find_file, listed, number, read_table, text
from cxr_faith.data.tally import Tally

SPLITS = ("train", "test")
OTHER = "other disease"
# Spellings that differ between the two splits.
SAME = {"other diseases": OTHER, "other disease(s)": OTHER}
# Labels without a question.
NOT_ASKED = ("no finding", OTHER, "other lesion")


@dataclass(frozen=True)
class _Votes:
    """Number of readers who saw a label on an image, and of all its readers."""

    seen: int
    readers: int

    @property
    def answer(self) -> str | None:
        """Yes if a majority (2 of 3) saw it, no if nobody did, else None: the readers disagree."""
        if 2 * self.seen > self.readers:
            return "yes"
        return "no" if self.seen == 0 else None


def vindr_cxr(
    root: Path, tally: Tally, splits: str = "test", phrasings: int = 1, balanced: bool = True
) -> Iterator[Sample]:
    """Presence questions for each label of VinDr-CXR.

    In the training split a finding is present if at least two of the three readers saw it and absent if none did; where
    one reader alone saw it, the image gets no question about it. The test split is a consensus. `No finding`, `Other
    disease` and `Other lesion` get no question. The readers' boxes of a finding are merged (see
    `cxr_faith.data.boxes.fuse`); every sample has all boxes of the findings present in its image.

    Args:
        root: folder of VinDr-CXR.
        tally: takes the counts.
        splits: splits to take, separated by commas (train, test).
        phrasings: how many phrasings of each question, 1 to 5; they form a question group.
        balanced: for each label, as many images without it as with it, chosen by a hash of their ids; false: all.
    """
    for split in listed(splits, SPLITS, "split"):
        votes = _votes(find_file(root, f"annotations/image_labels_{split}.csv", f"image_labels_{split}.csv"), tally)
        boxes = _boxes(
            find_file(root, f"annotations/annotations_{split}.csv", f"annotations_{split}.csv"), votes, tally
        )
        asked = list(_choose(votes, split, balanced, tally))
        tally.expected = (tally.expected or 0) + len(asked) * phrasings
        for name, finding, answer in sorted(asked):
            yield from _samples(name, split, finding, answer, boxes.get(name, ()), phrasings)


def _samples(name: str, split: str, finding: str, answer: str, boxes: Sequence[Box], count: int) -> Iterator[Sample]:
    group = f"vindr-cxr/{name}/{finding}"
    for variant, question in enumerate(phrased(finding, count)):
        yield Sample(
            sample_id=f"{group}/{variant}",
            patient_id=None,  # the data set does not say which images are one patient's
            image_id=name,
            image_path=f"{split}/{name}.dicom",
            question=question,
            question_group=group,
            variant=str(variant),
            strategy="template",
            kind="yes_no",
            answer=(answer,),
            finding=finding,
            split=split,
            boxes=tuple(boxes),
            source="vindr-cxr",
        )


def _votes(path: Path, tally: Tally) -> dict[str, dict[str, _Votes]]:
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
    counts = {_name(label): seen[label] for label in labels}
    return {
        label: {str(name): _Votes(int(count), int(readers[name])) for name, count in column.items()}
        for label, column in counts.items()
    }


def _boxes(path: Path, votes: Mapping[str, Mapping[str, _Votes]], tally: Tally) -> dict[str, tuple[Box, ...]]:
    """Merged boxes by image, of findings present there; a row without corners means that there is nothing to box."""
    corners = ("x_min", "y_min", "x_max", "y_max")
    drawn: dict[str, list[Box]] = {}
    for position, row in enumerate(read_table(path, ("image_id", "class_name", *corners), ()).to_dict("records")):
        name, label = text(row["image_id"]), _name(text(row["class_name"]) or "")
        x1, y1, x2, y2 = (number(row[corner]) for corner in corners)
        if name is None:
            tally.drop("box", "", "row without image id", f"{path.name} row {position + 1}")
        elif not any(map(math.isfinite, (x1, y1, x2, y2))):
            if label != "no finding" and _is_present(votes, label, name):
                tally.note("findings that are present, without a box")
        elif not all(map(math.isfinite, (x1, y1, x2, y2))):
            tally.drop("box", name, "corner is not a number", f"{label} {x1} {y1} {x2} {y2}")
        elif x1 >= x2 or y1 >= y2:
            tally.drop("box", name, "empty or of negative size", f"{label} {x1} {y1} {x2} {y2}")
        elif all(name not in images for images in votes.values()):
            tally.drop("box", name, "image has no labels")
        elif not _is_present(votes, label, name):
            tally.drop("box", name, "finding that most readers do not see", label)
        else:
            drawn.setdefault(name, []).append(Box(label, x1, y1, x2, y2))
    drawn = {name: list(limited(boxes, name, tally)) for name, boxes in drawn.items()}
    fused = {name: fuse(boxes) for name, boxes in drawn.items()}
    for name, boxes in drawn.items():
        for _ in range(len(boxes) - len(fused[name])):
            tally.note("readers' boxes merged into another")
    return fused


def _is_present(votes: Mapping[str, Mapping[str, _Votes]], label: str, name: str) -> bool:
    vote = votes.get(label, {}).get(name)
    return vote is not None and vote.answer == "yes"


def _choose(
    votes: Mapping[str, Mapping[str, _Votes]], split: str, balanced: bool, tally: Tally
) -> Iterator[tuple[str, str, str]]:
    """(image, finding, answer) of the questions to ask."""
    for finding, images in votes.items():
        if finding in NOT_ASKED:
            continue
        present = [name for name, vote in images.items() if vote.answer == "yes"]
        absent = [name for name, vote in images.items() if vote.answer == "no"]
        for name in (name for name, vote in images.items() if vote.answer is None):
            tally.drop("question", f"vindr-cxr/{name}/{finding}", "readers disagree")
        if balanced:
            absent = shuffled(absent, f"{split}/{finding}")[: len(present)]
        yield from ((name, finding, "yes") for name in present)
        yield from ((name, finding, "no") for name in absent)


def _name(label: str) -> str:
    lower = " ".join(label.lower().split())
    return SAME.get(lower, lower)
