"""The count of a preparation: what was taken, what was dropped and why, so that nothing is lost in silence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cxr_faith.data.sample import Sample


class PrepareError(ValueError):
    """Input that cannot be prepared at all; the message is one line that names the file and says what to do."""


class Drop(NamedTuple):
    """One thing that was left out.

    Attributes:
        what: question, image, box, mask or row.
        name: Its id.
        reason: Why, in words that are the same for all drops of one kind.
        detail: What is special about this one.
    """

    what: str
    name: str
    reason: str
    detail: str


@dataclass
class Tally:
    """What a preparation took and left.

    Attributes:
        questions: Samples taken.
        images: Ids of the images taken.
        patients: Ids of the patients taken.
        kinds: Questions by kind; ``unknown`` where the manifest leaves it open.
        answers: Questions by kind and reference: ``yes_no: yes``, ``open: stated``, ``open: none``, ``open: unknown``.
        boxes: Different boxes of different images.
        masks: Different mask files, of findings and of organs.
        drops: What was left out, each thing once per reason.
        notes: What was kept in another form than it came in, counted.
        expected: Number of rows to come, as far as the source knows it, for a progress bar.
        seen: Rows that were judged so far.
    """

    questions: int = 0
    images: set[str] = field(default_factory=set)
    patients: set[str] = field(default_factory=set)
    kinds: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    boxes: set[tuple[Any, ...]] = field(default_factory=set)
    masks: set[str] = field(default_factory=set)
    drops: dict[Drop, None] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    expected: int | None = None
    seen: int = 0

    def take(self, sample: Sample) -> None:
        """Count a sample that goes into the manifest."""
        self.questions += 1
        self.images.add(sample.image_id)
        if sample.patient_id:
            self.patients.add(sample.patient_id)
        kind = sample.kind or "unknown"
        self.kinds[kind] += 1
        self.answers[f"{kind}: {_answer(sample)}"] += 1
        self.boxes.update((sample.image_id, box) for box in sample.boxes)
        self.masks.update(path for path in (sample.finding_mask_path, *(p for _, p in sample.anatomy_masks)) if path)

    def drop(self, what: str, name: object, reason: str, detail: object = "") -> None:
        """Count something that was left out; the same thing for the same reason counts once."""
        self.drops[Drop(what, str(name), reason, " ".join(str(detail).split()))] = None

    def note(self, text: str) -> None:
        """Count something that was kept in another form."""
        self.notes[text] += 1

    @property
    def reasons(self) -> Counter[str]:
        """Drops by what and reason."""
        return Counter(f"{drop.what}: {drop.reason}" for drop in self.drops)

    def summary(self) -> dict[str, Any]:
        """All counts, as the data card keeps them."""
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
        }


def _answer(sample: Sample) -> str:
    """Yes or no where that is the reference, else whether there is one."""
    if sample.answer is None:
        return "unknown"
    if sample.kind == "yes_no" and len(sample.answer) == 1:
        return sample.answer[0].casefold()
    return "stated" if sample.answer else "none"
