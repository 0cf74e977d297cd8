"""How explanations are scored: the section `protocol` of a config."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from cxr_faith.perturb.condition import NONE, Condition
from cxr_faith.perturb.copies import Copies
from cxr_faith.perturb.engine import PIXELS, SPACES, TOKENS
from cxr_faith.perturb.schedule import schedule
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.vlm.answers import parse_target

Controls = Literal["none", "basic", "all"]
"""How many controls are scored beside the methods."""

ADAPTIVE = "adaptive"
LONGEST_ANSWER = 1024
"""Tokens of the longest answer that may be asked for: every scored answer is fed again for every picture."""

FINEST_STEPS = 50
"""Adaptive curves refine at most to the points of the default schedule, whose areas they estimate."""


@dataclass(frozen=True)
class Protocol:
    """How explanations are scored.

    Attributes:
        substrates: what replaces removed cells; maps are scored under each of them.
        steps: T, the number of points of a curve after the first. `adaptive`: curves start coarse and are refined where
            they bend, to at most 50 points after the first; straight lines join the points that were run.
        random_orders: R, the orders of the random baseline for each image; even, since they come in reversed pairs.
            With `adaptive`, the largest number.
        auc_error: with `adaptive`, the allowed error of each area. Curves are refined until its estimate is below this
            share of the effect (of the range of the scores, or of the score, if the effect is too small to be scored).
        random_error: with `adaptive`, random orders stop at a Monte-Carlo error below this share of the effect: that of
            their deletion and insertion areas, after four pairs or more.
        softness: σ in pixels of a Gaussian on the edges of the masks; 0 = hard cells.
        space: where cells are replaced: in the `pixels` of the picture, or among its image `tokens`, which skips the
            vision tower.
        target: what is explained: `answer`, `first`, the index of an answer token, or `keyword:WORD`.
        max_new_tokens: longest answer; in generated tokens.
        seed: of every random stream; the image id is part of each.
        controls: which maps that know nothing of the model are scored beside those of the methods. `basic`: noise,
            edges, the mask of the finding where there is one, and a blurred copy of the map of the first method.
            `all`: also a blurred copy of every map, which doubles the cost. `none`: only the controls that are listed
            among the methods.
        conditions: small changes under which every question is answered, explained and scored once more, to measure how
            stable answers, maps and gaps are: `shift:2` (pixels), `contrast:0.95` (factor), `noise:0.02` (share of
            the standard deviation of the picture), `seed:1` (added to the seed). Each costs as much as the run itself.
        image_use: measure whether each answer uses its picture: its score with a blank picture, with another patient's,
            and without a picture, and, where the finding has a mask, without the mask's cells and without as many
            others. A handful of forward passes a sample; samples that a run has finished without it stay without it.
        uncertainty: `{copies: 8, source: noise}` makes every map again for so many copies, and records how much each
            cell varies. None: not measured. Maps that a run has finished without it stay without it.
    """

    substrates: tuple[str, ...] = ("blur:0.1",)
    steps: int | str = 50
    random_orders: int = 20
    auc_error: float = 0.005
    random_error: float = 0.01
    softness: float = 0.0
    space: str = PIXELS
    target: str | int = "answer"
    max_new_tokens: int = 32
    seed: int = 0
    controls: Controls = "basic"
    conditions: tuple[str, ...] = ()
    image_use: bool = True
    uncertainty: Copies | None = None

    def __post_init__(self) -> None:
        """Check each value; the spelling of substrates and conditions is made canonical."""
        specs = tuple(Substrate.parse(spec).spec for spec in self.substrates)
        if not specs or len(set(specs)) != len(specs):
            raise ValueError(f"substrates must be one or more, each listed once, got {list(self.substrates)}")
        object.__setattr__(self, "substrates", specs)
        conditions = tuple(Condition.parse(spec).spec for spec in self.conditions)
        if len(set(conditions)) != len(conditions):
            raise ValueError(f"conditions must each be listed once, got {list(self.conditions)}")
        object.__setattr__(self, "conditions", conditions)
        object.__setattr__(self, "target", parse_target(self.target))
        if self.random_orders < 2 or self.random_orders % 2:
            raise ValueError(f"random_orders must be even (reversed pairs) and at least 2, got {self.random_orders}")
        if isinstance(self.steps, str) and not self.adaptive:
            raise ValueError(f"steps must be a whole number or {ADAPTIVE}, got {self.steps!r}")
        for name, count in (
            ("steps", 1 if self.adaptive else int(self.steps)),
            ("max_new_tokens", self.max_new_tokens),
        ):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        if self.max_new_tokens > LONGEST_ANSWER:
            raise ValueError(f"max_new_tokens must be at most {LONGEST_ANSWER}, got {self.max_new_tokens}")
        if self.softness < 0:
            raise ValueError(f"softness must not be negative, got {self.softness}")
        for name, allowed in (("auc_error", self.auc_error), ("random_error", self.random_error)):
            if not 0 < allowed < 1:
                raise ValueError(f"{name} is a share of the effect, between 0 and 1, got {allowed}")
        if self.controls not in get_args(Controls):
            raise ValueError(f"controls must be one of {', '.join(get_args(Controls))}, got {self.controls!r}")
        if self.space not in SPACES:
            raise ValueError(f"space must be one of {', '.join(SPACES)}, got {self.space!r}")
        if self.space == TOKENS and self.softness > 0:
            raise ValueError("softness must be 0 with space: tokens, since it blurs the edges of masks in pixels")

    def under(self, condition: str) -> "Protocol":
        """The protocol under one condition: only the seed may differ."""
        return self if condition == NONE else replace(self, seed=Condition.parse(condition).seed(self.seed))

    @property
    def adaptive(self) -> bool:
        """Whether curves and random orders stop at a stated error."""
        return self.steps == ADAPTIVE

    def finest(self, n_cells: int) -> int:
        """T for a grid: `steps`, or for adaptive curves the largest number up to 50 that fits the grid."""
        if not self.adaptive:
            return int(self.steps)
        steps = min(FINEST_STEPS, n_cells)
        return steps - (n_cells % 2 == 1 and steps % 2 == 0)

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Raise a ValueError if the schedule does not fit the model's grid."""
        n_cells = grid[0] * grid[1]
        schedule(n_cells, self.finest(n_cells))
