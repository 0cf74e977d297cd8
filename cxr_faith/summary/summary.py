"""The summary of a run: every number of `summary.json`, typed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from cxr_faith.summary.agreement import Agreement
from cxr_faith.summary.answers import Answers
from cxr_faith.summary.board import Board, Setting
from cxr_faith.summary.calibration import Calibration
from cxr_faith.summary.caveats import Caveat
from cxr_faith.summary.codec import from_json, to_json
from cxr_faith.summary.conditions import Conditions
from cxr_faith.summary.failures import Failures
from cxr_faith.summary.image_use import ImageUse
from cxr_faith.summary.localization import Localization, LocalizationAcross
from cxr_faith.summary.pairs import Pairs
from cxr_faith.summary.regions import Regions
from cxr_faith.summary.result import Result
from cxr_faith.summary.sets import Sets
from cxr_faith.summary.stability import Stability
from cxr_faith.summary.subgroups import Subgroups
from cxr_faith.summary.substrates import Substrates
from cxr_faith.summary.uncertainty import Uncertainty

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 2
"""Version of `summary.json`; it rises whenever a key changes its name or its meaning.

1: plain means, p by sign flips. 2: means in units of the effect are weighted by it, p by bootstrap-t.
"""


class OldSummaryError(ValueError):
    """The summary lacks what this version writes; `cxr-faith report` makes it anew from the records."""


@dataclass(frozen=True)
class Summary(Result):
    """What a run's records say: a board for each setting and slice, and panels on how far to trust it.

    It holds no time and no count of files: one process and many, a restart and an uninterrupted run give the same one.
    """

    n_samples: int
    """Samples with records."""
    n_patients: int
    """Their patients; an image without a patient counts as one."""
    n_without_patient: int
    """Samples without a `patient_id`."""
    samples_total: int | None
    """Samples that the whole run has; None if unknown."""
    missing: int
    """Samples of the whole run that have no records."""
    partial: bool
    """Whether samples are missing."""
    methods: tuple[str, ...]
    """Names in the order of the config; others in the records follow, sorted."""
    answers: tuple[Answers, ...]
    """How the model answered, slice by slice."""
    boards: tuple[Board, ...]
    """Boards by setting, then by slice; the first setting (`records.controls.first_setting`) comes first."""
    failures: Failures
    """Samples that could not be scored."""
    substrates: Substrates
    """Do the substrates agree, and does one of them harm the answer by itself?"""
    localization: tuple[Localization, ...]
    """Mean localization scores of each method but `random`."""
    localization_across: LocalizationAcross
    """Are the methods with the more faithful maps also those whose maps are better placed?"""
    calibration: Calibration
    """Is the model as sure as it should be?"""
    regions: tuple[Regions, ...]
    """Where the maps lie, for each method with maps."""
    agreement: tuple[Agreement, ...]
    """Do the methods agree? Each pair of methods with maps, in the first setting."""
    stability: Stability | None
    """Do answers and maps survive another wording? None without variants of questions."""
    conditions: Conditions | None
    """Do answers and maps survive a small change of the image or another seed? None without conditions."""
    warnings: tuple[str, ...]
    """What a reader should know before the numbers, one sentence each, most serious first."""
    sets: tuple[Sets, ...] | None = None
    """Explaining sets as sets, for methods that give them; None in a summary of an older version."""
    caveats: tuple[Caveat, ...] | None = None
    """What maps say against themselves, for methods that say something; None in a summary of an older version."""
    subgroups: Subgroups | None = None
    """Groups by sex, age and view, and their differences; None in a summary of an older version."""
    pairs: Pairs | None = None
    """Planted pairs; None without any."""
    turns: Stability | None = None
    """Do answers and maps survive another turn of a conversation? None without conversations."""
    image_use: ImageUse | None = None
    """Do the answers use their pictures? None where that was not measured."""
    uncertainty: tuple[Uncertainty, ...] = ()
    """How sure are the maps, and are unsure maps less faithful? Empty where that was not measured."""

    @property
    def settings(self) -> list[Setting]:
        """The settings in the order of the boards; the first one is what a run shows first."""
        return list(dict.fromkeys(board.setting for board in self.boards))

    @property
    def first_boards(self) -> list[Board]:
        """The boards of the first setting; none if the run has no records."""
        return [board for board in self.boards if board.setting == self.boards[0].setting]

    def board(
        self, slice: str = "all", substrate: str | None = None, target: str | None = None, space: str | None = None
    ) -> Board:
        """The first board of a slice that has this substrate, target and space; None stands for any.

        Raises:
            KeyError: the summary has no such board.
        """
        wanted = Setting(substrate or "", target or "", space or "")
        for board in self.boards:
            fits = (name in ("", actual) for name, actual in zip(wanted, board.setting, strict=True))
            if board.slice == slice and all(fits):
                return board
        asked = ", ".join(filter(None, (slice, *wanted)))
        raise KeyError(f"the summary has no board of {asked}")

    def to_frame(self) -> "pd.DataFrame":
        """One row per setting, slice and method, with the columns of `Board.to_frame`."""
        import pandas as pd

        frames = [board.to_frame() for board in self.boards]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def to_dict(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        values: dict[str, Any] = to_json(self)
        return {"schema_version": SCHEMA_VERSION, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The summary that `to_dict` wrote; a file without `schema_version` is read if it has all keys.

        Raises:
            OldSummaryError: an older version wrote it, or it is damaged; the message says what to do.
            ValueError: a newer version wrote it; the same.
        """
        version = values.get("schema_version", SCHEMA_VERSION)
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise ValueError(
                f"written by a newer version of cxr_faith (schema {version}, this one reads {SCHEMA_VERSION}): "
                f"update cxr_faith, or write it anew with `cxr-faith report RUN_DIR`"
            )
        try:
            return from_json(cls, dict(values))
        except ValueError as error:
            raise OldSummaryError(
                f"{error}: written by an older version of cxr_faith? `cxr-faith report RUN_DIR` writes it anew"
            ) from None
