"""Questions about a chest phantom, and their answers given which of its lesions are visible.

The answer depends on what is visible: once a lesion is removed from a picture, the right answer is that for a picture
without it. `visible` maps (finding, side) to True (visible), False (removed) or None (partly visible: no answer is
right). A pair that is missing is a lesion that the phantom does not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

FINDINGS = ("nodule", "consolidation", "pleural effusion", "pneumothorax", "cardiomegaly")
SIDED = FINDINGS[:4]
SIDES = ("right", "left")
ARTICLE = {
    "nodule": "a nodule",
    "consolidation": "a consolidation",
    "pleural effusion": "a pleural effusion",
    "pneumothorax": "a pneumothorax",
    "cardiomegaly": "cardiomegaly",
}

PRESENCE = (
    "Is there {a}?",
    "Does this image show {a}?",
    "Can you see {a}?",
    "Is {a} visible?",
    "Does the patient have {a}?",
)
PRESENCE_EXTRA = {"cardiomegaly": ("Is the heart enlarged?",)}
SIDE_PRESENCE = (
    "Is there {a} in the {side} lung?",
    "Is there {a} on the {side} side?",
    "Does the {side} lung show {a}?",
    "Can you see {a} on the {side}?",
)
SIDE = (
    "Is the {f} on the left or the right side?",
    "Which side is the {f} on, left or right?",
    "Is the {f} in the left or the right lung?",
)
WHERE = ("Where is the {f}?", "What is the location of the {f}?", "Where can you see the {f}?")
LIST = ("What findings are there?", "Which findings are visible?", "List the findings.")

Visible = Mapping[tuple[str, str | None], bool | None]


@dataclass(frozen=True)
class Question:
    """One phrasing of a question, with what is needed to answer it.

    Attributes:
        text: the question as a user would type it.
        topic: presence, side_presence, side, where or list.
        kind: yes_no, choice or open.
        finding: the finding that it asks about; None for a list of findings.
        side: the patient's side that it asks about (side_presence only).
        variant: index of the phrasing within the topic.
        answer: the answer on the intact picture; empty if it is not known yet.
    """

    text: str
    topic: str
    kind: str
    finding: str | None
    side: str | None
    variant: int
    answer: str = ""

    @property
    def group(self) -> str:
        """Key shared by all phrasings of a question about a picture."""
        return "/".join(part.replace(" ", "_") for part in (self.topic, self.finding, self.side) if part)


def phrasings(topic: str, finding: str | None = None, side: str | None = None) -> list[Question]:
    """All phrasings of one question.

    Args:
        topic: presence, side_presence, side, where or list.
        finding: the finding asked about (none for list).
        side: the patient's side (side_presence only).

    Returns:
        one `Question` per phrasing, without an answer.
    """
    templates, kind = {
        "presence": (PRESENCE + PRESENCE_EXTRA.get(finding or "", ()), "yes_no"),
        "side_presence": (SIDE_PRESENCE, "yes_no"),
        "side": (SIDE, "choice"),
        "where": (WHERE, "open"),
        "list": (LIST, "open"),
    }[topic]
    words = {"a": ARTICLE.get(finding or "", ""), "f": finding, "side": side}
    return [Question(t.format(**words), topic, kind, finding, side, i) for i, t in enumerate(templates)]


def _seen(finding: str, visible: Visible, side: str | None = None) -> bool | None:
    """Whether a finding is visible, on one side or anywhere; None if it is only partly visible."""
    states = [v for (name, where), v in visible.items() if name == finding and (side is None or where == side)]
    if any(v is True for v in states):
        return True
    return None if any(v is None for v in states) else False


def _only_side(finding: str, visible: Visible) -> str | None:
    """The only side on which a finding is visible; None if there is no single side."""
    states = {where: v for (name, where), v in visible.items() if name == finding}
    seen = [where for where, v in states.items() if v is True]
    return seen[0] if len(seen) == 1 and all(v is not None for v in states.values()) else None


def answer(question: Question, visible: Visible, zones: Mapping[tuple[str, str | None], str | None]) -> str | None:
    """The right answer to a question, given which lesions are visible.

    Args:
        question: the question.
        visible: visibility of every lesion of the picture, by (finding, side).
        zones: zone (upper, middle, lower) of every lesion that has one, by (finding, side).

    Returns:
        the answer; None if no answer is right (a lesion is partly visible, or the question presumes a lesion that the
        picture does not show).
    """
    if question.topic in ("presence", "side_presence"):
        state = _seen(question.finding or "", visible, question.side)
        return None if state is None else ("yes" if state else "no")
    if question.topic == "list":
        states = {finding: _seen(finding, visible) for finding in FINDINGS}
        if any(state is None for state in states.values()):
            return None
        return ", ".join(f for f, state in states.items() if state) or "no finding"
    finding = question.finding or ""
    side = _only_side(finding, visible)
    if question.topic == "side" or side is not None:
        return side if question.topic == "side" else _location(finding, side or "", zones)
    return f"no {finding}" if _seen(finding, visible) is False else None


def _location(finding: str, side: str, zones: Mapping[tuple[str, str | None], str | None]) -> str:
    """Answer to "Where is the ...": finding, side and, if it has one, zone."""
    zone = zones.get((finding, side))
    return f"{finding} in the {side} {zone} lung" if zone else f"{finding} on the {side} side"


def every_question() -> Iterator[Question]:
    """All phrasings of all questions about a chest phantom, in a fixed order, without answers."""
    for finding in FINDINGS:
        yield from phrasings("presence", finding)
    for finding in SIDED:
        for side in SIDES:
            yield from phrasings("side_presence", finding, side)
        yield from phrasings("side", finding)
        yield from phrasings("where", finding)
    yield from phrasings("list")
