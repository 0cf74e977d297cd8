"""Counts what a preparation takes and drops, and why, so that nothing is lost silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cxr_faith.data.sample import Sample

MAX_LISTED = 1_000_000
"""Most drops that are listed one by one."""
_LONGEST = 1000


class PrepareError(ValueError):
    """Input that cannot be prepared; the message is one line that names the file and says what to do."""


class Drop(NamedTuple):
    """Something that was left out.

    Attributes:
        what: question, image, box, mask, pair, row or object (to plant).
        name: its id.
        reason: why, in words of the fixed vocabulary.
        detail: the details of this drop, such as its row.
    """

    what: str
    name: str
    reason: str
    detail: str


@dataclass
class Tally:
    """What a preparation took, dropped and changed.

    Attributes:
        questions: number of samples taken.
        images: ids of the images taken, with the others that a question shows.
        patients: ids of the patients taken.
        kinds: number of questions by kind; `unknown` where the sample has none.
        answers: number of questions by kind and reference: `yes_no: yes`, `open: stated`, `open: none`,
            `open: unknown`.
        boxes: the distinct (image id, box) pairs.
        masks: paths of the mask files of findings and organs.
        drops: what was left out, each thing once per reason, in order; the first `MAX_LISTED`.
        unlisted: number of further drops by what was dropped and why.
        notes: number of values that were changed, by what was changed.
        noted: the changed values that count once, each with what was changed.
        expected: number of rows to expect, if the source knows it, for the progress bar.
        seen: number of rows checked so far.
        columns: the table's column of each of the manifest's columns, of sources that read any table.
        missing: one picture that was not found: which file was tried, and one that is there.
    """

    questions: int = 0
    images: set[str] = field(default_factory=set)
    patients: set[str] = field(default_factory=set)
    kinds: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    boxes: set[tuple[Any, ...]] = field(default_factory=set)
    masks: set[str] = field(default_factory=set)
    drops: dict[Drop, None] = field(default_factory=dict)
    unlisted: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    noted: set[tuple[str, Hashable]] = field(default_factory=set)
    expected: int | None = None
    seen: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    missing: str | None = None

    def take(self, sample: Sample) -> None:
        """Count a sample that goes into the manifest."""
        self.questions += 1
        self.images.update(sample.picture_ids)
        if sample.patient_id:
            self.patients.add(sample.patient_id)
        kind = sample.kind or "unknown"
        self.kinds[kind] += 1
        self.answers[f"{kind}: {_answer(sample)}"] += 1
        self.boxes.update((sample.image_id, box) for box in sample.boxes)
        self.masks.update(path for path in (sample.finding_mask_path, *(p for _, p in sample.anatomy_masks)) if path)

    def drop(self, what: str, name: object, reason: str, detail: object = "") -> None:
        """Count something that was left out; the same thing counts once per reason."""
        if len(self.drops) < MAX_LISTED:
            self.drops[Drop(what, _short(name), reason, " ".join(_short(detail).split()))] = None
        else:
            self.unlisted[f"{what}: {reason}"] += 1

    def note(self, text: str, value: Hashable = None) -> None:
        """Count a value that was changed; a value that is given counts once, however many questions have it."""
        if value is not None and (text, value) in self.noted:
            return
        if value is not None:
            self.noted.add((text, value))
        self.notes[text] += 1

    @property
    def reasons(self) -> Counter[str]:
        """Number of drops by what was dropped and why."""
        return Counter(f"{drop.what}: {drop.reason}" for drop in self.drops) + self.unlisted

    def summary(self) -> dict[str, Any]:
        """All counts, as the data card holds them."""
        return {
            "images": len(self.images),
            "patients": len(self.patients),
            "questions": self.questions,
            "kinds": dict(sorted(self.kinds.items())),
            "answers": dict(sorted(self.answers.items())),
            "boxes": len(self.boxes),
            "masks": len(self.masks),
            "drops": dict(self.reasons.most_common()),
            "notes": dict(sorted(self.notes.items())),
            "columns": self.columns,
            "missing": self.missing,
        }


def _short(value: object) -> str:
    """A name or detail for the list of drops, which is written as UTF-8."""
    try:
        text = str(value)
    except ValueError:  # a whole number of more digits than the interpreter prints
        text = type(value).__name__
    return text[:_LONGEST].encode(errors="replace").decode()


def _answer(sample: Sample) -> str:
    """Reference of a sample for the counts: yes or no, stated, none or unknown."""
    if sample.answer is None:
        return "unknown"
    if sample.kind == "yes_no" and len(sample.answer) == 1:
        return sample.answer[0].casefold()
    return "stated" if sample.answer else "none"
