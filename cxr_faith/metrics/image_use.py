"""Does an answer use the picture? A class from the scores of the same answer without it and with another one."""

import math
from dataclasses import dataclass

USES, MIXED, IGNORES = "uses", "mixed", "ignores"
"""The answer goes with a blank picture and with another patient's; with one of them; with neither."""

CLASSES = (USES, MIXED, IGNORES)

LOST = 0.5
"""Share of the score's size that must be lost for the answer to go."""


@dataclass(frozen=True)
class Stand:
    """How an answer stands on one picture.

    Attributes:
        s: its score, in logits: the yes/no margin oriented by the answer, or the log-odds of the answer.
        standing: negative where the answer has changed.
    """

    s: float
    standing: float


def goes(intact: Stand, changed: Stand) -> bool | None:
    """Whether the answer goes with the picture: it changes, or its score loses more than half of its size.

    Args:
        intact: on the picture as it is.
        changed: on another one.

    Returns:
        None where a score is not finite.
    """
    if not all(map(math.isfinite, (intact.s, changed.s, changed.standing))):
        return None
    return changed.standing < 0 or intact.s - changed.s > LOST * abs(intact.s)


def image_use(intact: Stand, blank: Stand, swapped: Stand | None) -> str | None:
    """The class of an answer, one of `CLASSES`.

    Args:
        intact: on the picture as it is.
        blank: on a blank picture.
        swapped: on another patient's picture; None: there is none.

    Returns:
        None without another patient's picture, or where a score is not finite.
    """
    if swapped is None:
        return None
    gone = [goes(intact, blank), goes(intact, swapped)]
    if None in gone:
        return None
    return {2: USES, 1: MIXED, 0: IGNORES}[gone.count(True)]
