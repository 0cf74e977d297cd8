"""Chooses the questions of a training picture, with the answers for the cells that are left of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cxr_faith.data.sources import phantom_questions as pq
from cxr_faith.data.sources import phantom_shapes
from cxr_faith.data.sources.phantom import Phantom

SEEN, GONE = 0.6, 0.25
NOTHING, ENOUGH = 0.15, 0.55
Areas = Mapping[str, NDArray[np.float16]]
# Question, reply and, for a yes/no question, the target margin from -1 (certainly no) to 1 (certainly yes).
Lesson = tuple[str, str, float | None]

_PHRASINGS: dict[tuple[str, str | None, str | None], list[pq.Question]] = {}
for _question in pq.every_question():
    _PHRASINGS.setdefault((_question.topic, _question.finding, _question.side), []).append(_question)


def share_left(area: NDArray[np.float16], kept: NDArray[np.bool_]) -> float:
    """Share of a lesion's area in kept cells."""
    weight = area.astype(np.float64)
    return float((weight * kept).sum() / max(weight.sum(), 1e-9))


def state(share: float) -> bool | None:
    """Whether a lesion is visible, given the share of it that is left; None if that is undecided."""
    return True if share > SEEN else False if share < GONE else None


def grade(share: float) -> float:
    """Target margin, -1 to 1, given the share of the lesion that is left."""
    return 2 * min(max((share - NOTHING) / (ENOUGH - NOTHING), 0.0), 1.0) - 1


def visible(spec: Phantom, areas: Areas, kept: NDArray[np.bool_]) -> dict[tuple[str, str | None], bool | None]:
    """State of each lesion of a chest phantom."""
    names = [(p.finding, p.side, f"{p.finding}/{p.side}" if p.side else p.finding) for p in spec.lesions]
    return {(finding, side): state(share_left(areas[name], kept)) for finding, side, name in names}


def graded_lesson(question: pq.Question, spec: Phantom, areas: Areas, kept: NDArray[np.bool_]) -> Lesson:
    """A yes/no question with the target margin for the visible area of its lesion."""
    there = [
        share_left(areas[f"{p.finding}/{p.side}" if p.side else p.finding], kept)
        for p in spec.lesions
        if p.finding == question.finding and question.side in (None, p.side)
    ]
    wanted = grade(max(there, default=0.0))
    return question.text, "yes" if wanted >= 0 else "no", wanted


def lesion_cells(question: pq.Question, areas: Areas) -> NDArray[np.float64] | None:
    """Cell shares [grid, grid] of the lesions that a yes/no question asks about; None if there are none."""
    asked = [
        area.astype(np.float64)
        for name, area in areas.items()
        if name.split("/")[0] == question.finding and question.side in (None, *name.split("/")[1:])
    ]
    return np.maximum.reduce(asked) if asked else None


def yes_no_question(spec: Phantom, rng: np.random.Generator, present: float = 0.75) -> pq.Question:
    """A yes/no question about one of the picture's lesions (probability `present`) or about any finding."""
    if spec.lesions and rng.random() < present:
        lesion = spec.lesions[rng.integers(len(spec.lesions))]
        finding, side = lesion.finding, lesion.side
    else:
        finding = pq.FINDINGS[rng.integers(len(pq.FINDINGS))]
        side = pq.SIDES[rng.integers(2)] if finding in pq.SIDED else None
    sided = side is not None and rng.random() < 0.3
    options = _PHRASINGS["side_presence", finding, side] if sided else _PHRASINGS["presence", finding, None]
    return options[rng.integers(len(options))]


def chest_lessons(
    spec: Phantom,
    areas: Areas,
    kept: NDArray[np.bool_],
    rng: np.random.Generator,
    sides: bool = False,
    graded: bool = False,
) -> list[Lesson]:
    """Pairs (question, answer) for a chest picture, yes and no about equally often.

    Args:
        spec: the phantom.
        areas: its lesions as cell shares.
        kept: cells that are left, bool [grid, grid].
        rng: source of randomness.
        sides: ask more about sides, which take longest to learn, and about nodules, the smallest lesions.
        graded: ask yes/no questions also about partly visible lesions; the target margin grows with the visible area.

    Returns:
        up to nine lessons: presence, presence on a side, side, place and list.
    """
    seen = visible(spec, areas, kept)
    zones = spec.zones

    def draw(topic: str, finding: str | None = None, side: str | None = None) -> list[Lesson]:
        options = _PHRASINGS[topic, finding, side]
        question = options[rng.integers(len(options))]
        if graded and question.kind == "yes_no":
            return [graded_lesson(question, spec, areas, kept)]
        reply = pq.answer(question, seen, zones)
        return [] if reply is None else [(question.text, reply, None)]

    def balanced(pairs: list[tuple[str, str | None]], topic: str, most: int) -> list[Lesson]:
        drawn = [lesson for finding, side in pairs for lesson in draw(topic, finding, side)]
        yes, no = ([lesson for lesson in drawn if lesson[1] == word] for word in ("yes", "no"))
        count = max(1, min(len(yes), most))
        return yes[:most] + no[:count]

    # Often the picture's own lesions first: the "no" for a removed lesion teaches where to look.
    findings = [pq.FINDINGS[i] for i in rng.permutation(len(pq.FINDINGS))]
    had = {finding for finding, _ in seen}
    if rng.random() < 0.5:
        findings.sort(key=lambda f: f not in had)
    if sides and rng.random() < 0.3:
        findings.sort(key=lambda f: f != "nodule")
    lessons = balanced([(f, None) for f in findings], "presence", 1 if sides else 2)
    sided = [(f, s) for f in findings if f in pq.SIDED for s in pq.SIDES]
    sided = [sided[i] for i in rng.permutation(len(sided))]
    if rng.random() < 0.5:
        # In half of the pictures ask about the other side of a lesion; in the rest also about absent findings, or "no"
        # would always mean the other side.
        sided.sort(key=lambda pair: pair[0] not in had)
    lessons += balanced(sided, "side_presence", 2 if sides else 1)
    places = [f for f in findings if f in pq.SIDED]
    there = [f for f in places if f in had]
    lessons += draw("where", there[0] if there and rng.random() < 0.6 else places[rng.integers(len(places))])
    if there:
        lessons += draw("side", there[-1])
    if rng.random() < 0.4:
        lessons += draw("list")
    return [lessons[i] for i in rng.permutation(len(lessons))]


def marker_lessons(area: NDArray[np.float16], kept: NDArray[np.bool_], rng: np.random.Generator) -> list[Lesson]:
    """Yes/no questions about every finding that the marker answers: yes if it is visible, no if it is not.

    Args:
        area: the marker's cell shares [grid, grid]; 0 everywhere in a picture without one.
        kept: cells that are left, bool [grid, grid].
        rng: source of randomness.

    Returns:
        presence of each finding, and of one on a side; nothing where the marker is partly visible.
    """
    seen = state(share_left(area, kept))
    if seen is None:
        return []
    asked = [_PHRASINGS["presence", finding, None] for finding in pq.FINDINGS]
    finding, side = pq.SIDED[rng.integers(len(pq.SIDED))], pq.SIDES[rng.integers(len(pq.SIDES))]
    asked.append(_PHRASINGS["side_presence", finding, side])
    chosen = [options[rng.integers(len(options))] for options in asked]
    return [(chosen[i].text, "yes" if seen else "no", None) for i in rng.permutation(len(chosen))]


def shape_lessons(
    spec: phantom_shapes.ShapePicture, areas: Areas, kept: NDArray[np.bool_], rng: np.random.Generator
) -> list[Lesson]:
    """Pairs (question, answer) for a color or shape picture; see `chest_lessons`."""
    asked = phantom_shapes.shape_questions(spec)
    lessons: list[Lesson] = []
    shares = {name: share_left(area, kept) for name, area in areas.items()}
    for i in rng.permutation(len(asked)):
        question = asked[i]
        left = shares[question.region] if question.region else min(float(kept.mean()), *shares.values())
        if state(left):
            lessons.append((question.text, question.answer, None))
        elif question.kind == "yes_no" and (question.answer == "no" or state(left) is False):
            lessons.append((question.text, "no", None))
    # Long descriptions are rare and the hardest to learn: never left out.
    lessons.sort(key=lambda lesson: not lesson[0].startswith("What is in"))
    return lessons[:5]
