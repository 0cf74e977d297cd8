"""A phantom at two times, and the questions about what changed.

Both pictures have the same anatomy, pose, exposure and noise. They differ in one lesion and nowhere else, so the
evidence of each question is known to the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from cxr_faith.data.sources.phantom import sample_phantom
from cxr_faith.data.sources.phantom_questions import SIDED
from cxr_faith.data.sources.phantom_render import stream
from cxr_faith.data.sources.phantom_spec import Lesion, Phantom

Role = Literal["prior", "current"]

CHANGES = {"new": 0.35, "resolved": 0.25, "larger": 0.2, "smaller": 0.1, "same": 0.1}
"""What may happen to the lesion, and how often; with these, about four of ten right answers are yes."""
SMALL = 0.6
"""Size of the smaller lesion as a share of the larger one's."""

PHRASINGS = {
    "new": (
        "Is there a {} that is new since the prior?",
        "Has a {} appeared since the prior study?",
        "Is there a {} that was not there before?",
    ),
    "resolved": (
        "Has the {} resolved since the prior study?",
        "Is the {} of the prior study gone?",
        "Has the {} disappeared since the prior?",
    ),
    "larger": (
        "Is the {} larger than before?",
        "Has the {} grown since the prior study?",
        "Is the {} larger than in the prior study?",
    ),
}


@dataclass(frozen=True)
class Comparison:
    """One patient at two times.

    Attributes:
        prior: the earlier picture.
        current: the later one.
        change: what happened to the lesion, one of `CHANGES`.
        lesion: the lesion at its larger size.
    """

    prior: Phantom
    current: Phantom
    change: str
    lesion: Lesion

    @property
    def without(self) -> Phantom:
        """The phantom without the lesion; the two pictures are the same then."""
        return replace(self.current, lesions=tuple(p for p in self.current.lesions if p.finding != self.lesion.finding))


@dataclass(frozen=True)
class ChangeQuestion:
    """A question about the lesion.

    Attributes:
        text: as a user would type it.
        topic: new, resolved or larger.
        variant: index of the phrasing.
        answer: yes or no.
        evidence: pictures on which the lesion decides the answer; the masks belong to the first. A `larger` question
            compares both. For the other questions, the right answer changes once this picture loses the lesion; there
            is none for whether a lesion that is gone is new.
    """

    text: str
    topic: str
    variant: int
    answer: str
    evidence: tuple[Role, ...]


def sample_comparison(patient_id: str, seed: int) -> Comparison:
    """Sample a phantom at two times: the same name and seed always give the same two.

    Half of them also have another finding, which stays as it is.
    """
    rng = stream(seed, patient_id, "comparison")
    finding, other = (str(name) for name in rng.permutation(SIDED)[:2])
    change = str(rng.choice([*CHANGES], p=[*CHANGES.values()]))
    phantom = sample_phantom(patient_id, seed, findings=[finding, *([other] if rng.random() < 0.5 else [])])
    lesion = next(p for p in phantom.lesions if p.finding == finding)

    def showing(shown: Lesion | None) -> Phantom:
        """The phantom with the lesion in this form; a second one of the same finding is left out."""
        of_all = ((shown if p == lesion else p) for p in phantom.lesions if p == lesion or p.finding != finding)
        return replace(phantom, lesions=tuple(p for p in of_all if p is not None))

    small = _smaller(lesion, phantom)
    before, after = {
        "new": (None, lesion),
        "resolved": (lesion, None),
        "larger": (small, lesion),
        "smaller": (lesion, small),
        "same": (lesion, lesion),
    }[change]
    return Comparison(showing(before), showing(after), change, lesion)


def _smaller(lesion: Lesion, phantom: Phantom) -> Lesion:
    """The same lesion at `SMALL` of its size; the level of an effusion is lower."""
    if lesion.finding == "pleural effusion":
        return replace(lesion, cy=phantom.diaphragm - SMALL * (phantom.diaphragm - lesion.cy))
    return replace(lesion, r=SMALL * lesion.r)


def change_questions(comparison: Comparison) -> list[ChangeQuestion]:
    """One phrasing of each question that has an answer, chosen at random from the patient's name."""
    rng = stream(comparison.current.seed, comparison.current.patient_id, "phrasing")
    change, finding = comparison.change, comparison.lesion.finding
    in_both = change not in ("new", "resolved")
    topics = ("new", *(["resolved"] if change != "new" else []), *(["larger"] if in_both else []))
    asked = []
    for topic in topics:
        variant = int(rng.integers(len(PHRASINGS[topic])))
        text = PHRASINGS[topic][variant].format(finding)
        asked.append(ChangeQuestion(text, topic, variant, "yes" if topic == change else "no", _evidence(topic, change)))
    return asked


def _evidence(topic: str, change: str) -> tuple[Role, ...]:
    """The pictures whose loss of the lesion changes the answer; see `ChangeQuestion.evidence`."""
    if topic == "larger":
        return "current", "prior"
    if topic == "resolved":
        return ("prior",) if change == "resolved" else ("current",)
    if change == "resolved":
        return ()
    return ("current",) if change == "new" else ("prior",)
