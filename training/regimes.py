"""What each regime of training shows the model, cycle by cycle.

The regimes differ in what a map can be measured on: `plain` never saw a picture with cells removed, `random` lost cells
at random, and `own-order` also in the order of its own gradients. `shortcut` learned to look at the side marker instead
of the lesion. `eighty` was stopped when four of five of its answers were right. A regime that starts with the
cycles of another one uses what that one has saved.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cycle:
    """One cycle: batches of one kind, under a learning rate that rises and falls once.

    Attributes:
        name: names the folder of its result.
        steps: number of batches.
        peak: highest learning rate, as a share of `--lr`.
        dense: weight of the per-patch lesion loss; with it the tower learns alone for the first steps.
        even: weight of `even_margins`.
        intact: share of the pictures that lose no cell.
        own: remove the cells of half of the pictures in the model's own order.
        sides: ask more about sides, which take longest to learn, and about nodules.
        graded: ask yes/no questions about partly visible lesions too.
        until: end once this share of the yes/no questions about whole, held-out pictures is answered rightly; None: run
            all steps.
        marker: the side marker decides every yes/no answer; half of the pictures have one, whatever lesions they have.
    """

    name: str
    steps: int
    peak: float
    dense: float = 0.0
    even: float = 0.0
    intact: float = 0.3
    own: bool = False
    sides: bool = True
    graded: bool = False
    marker: bool = False
    until: float | None = None


BASE = (
    Cycle("first", 2000, 1.0, dense=0.5, sides=False),
    Cycle("sides", 700, 0.55),
)
RANDOM = (*BASE, Cycle("more", 1000, 0.5))
OWN_ORDER = (
    *BASE,
    Cycle("even", 260, 0.4, even=1.0),
    Cycle("graded", 540, 0.4, even=1.5, graded=True),
    Cycle("own", 1420, 0.4, even=6.0, graded=True, own=True),
)
PLAIN = (
    Cycle("plain", 1500, 1.0, dense=0.5, intact=1.0, sides=False),
    Cycle("plain_sides", 500, 0.55, intact=1.0),
)
SHORTCUT = (*BASE, Cycle("shortcut", 400, 0.4, marker=True))
# Noise in the labels would leave the more frequent answer right; a model that has learned too little is wrong itself.
EIGHTY = (Cycle("short", 500, 1.0, dense=0.5, sides=False, until=0.8),)
REGIMES = {"plain": PLAIN, "random": RANDOM, "own-order": OWN_ORDER, "shortcut": SHORTCUT, "eighty": EIGHTY}
