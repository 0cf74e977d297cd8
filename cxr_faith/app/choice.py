"""Which samples the list shows, and in which order: read from an address, written as SQL."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Self
from urllib.parse import urlencode

from cxr_faith.metrics.functional import MEASURED, STATUSES
from cxr_faith.perturb.condition import NONE
from cxr_faith.records.view import text
from cxr_faith.summary.board import Setting

ORDERS = {"id": "by name", "best": "highest srg first", "worst": "lowest srg first"}
"""Order → its name on the page."""
ANSWERED = {"wrong": "wrongly", "right": "rightly"}
"""Filter on the answer → its name on the page."""

USE = {"uses": "use it", "mixed": "mixed", "ignores": "ignore it"}
"""Class of image use → its name on the page."""

_SORTED = {
    "id": "sample_id",
    "best": "srg DESC NULLS LAST, sample_id",
    "worst": "srg ASC NULLS LAST, sample_id",
}
_IDS = ("sample_id", "image_id", "study_id", "patient_id")
_SCORE = f"round(avg(srg) FILTER (status IN ({', '.join(map(text, MEASURED))})), 9)"
_WORST_STATUS = "coalesce(min(status) FILTER (status != 'ok'), min(status))"


@dataclass(frozen=True)
class Choice:
    """What a reader chose on the page; an empty text chooses nothing.

    Attributes:
        setting: number of the setting, in the order of the report.
        method: method whose srg and status count; empty: the mean over all methods that are no controls.
        finding: the finding that is asked about.
        status: a status that one of the counted rows has.
        answered: `right` or `wrong`.
        use: a class of image use.
        low: least srg.
        high: largest srg.
        words: text in the ids of sample, image, study or patient.
        order: one of `ORDERS`.
        page: number of the page, from 0.
    """

    setting: int = 0
    method: str = ""
    finding: str = ""
    status: str = ""
    answered: str = ""
    use: str = ""
    low: str = ""
    high: str = ""
    words: str = ""
    order: str = "id"
    page: int = 0

    @classmethod
    def from_query(cls, query: Mapping[str, str], settings: int, methods: Sequence[str]) -> Self:
        """Read the fields of an address; names that are no field are left out.

        Args:
            query: name → value.
            settings: number of settings of the run.
            methods: names of its methods.

        Raises:
            ValueError: a value that the page does not offer; the message names its field.
        """
        given = {field.name: query[field.name].strip() for field in fields(cls) if field.name in query}
        numbers = {name: _whole(name, given.pop(name)) for name in ("setting", "page") if name in given}
        choice = cls(**given, **numbers)  # type: ignore[arg-type]
        offered = {
            "setting": range(max(settings, 1)),
            "method": ("", *methods),
            "status": ("", *STATUSES),
            "answered": ("", *ANSWERED),
            "use": ("", *USE),
            "order": tuple(ORDERS),
        }
        for name, values in offered.items():
            if getattr(choice, name) not in values:
                raise ValueError(f"{name}: this run has no {getattr(choice, name)!r}")
        for name in ("low", "high"):
            _number(name, getattr(choice, name))
        if not (choice.words + choice.finding).isprintable():
            raise ValueError("words: only text that can be shown")
        return choice

    def address(self, **changes: str | int) -> str:
        """The fields that are not at their default, as the query of an address, with some of them changed."""
        chosen, default = asdict(replace(self, **changes)), asdict(Choice())  # type: ignore[arg-type]
        return urlencode({name: value for name, value in chosen.items() if value != default[name]})

    def matching(self, setting: Setting, methods: Sequence[str]) -> str:
        """A query for the samples that match: id, srg, status and texts, with `place`, the number in the order.

        Args:
            setting: the chosen one.
            methods: the methods whose rows count.
        """
        rows = [f"condition = {text(NONE)}", f"method IN ({', '.join(map(text, methods))})"]
        rows += [f"{name} = {text(value)}" for name, value in setting._asdict().items()]
        if self.finding:
            rows.append(f"finding = {text(self.finding)}")
        if self.answered:
            rows.append(f"correct = {str(self.answered == 'right').lower()}")
        if self.use:
            rows.append(f"image_use = {text(self.use)}")
        if self.words:
            word = text(self.words.lower())
            rows.append("(" + " OR ".join(f"contains(lower({name}), {word})" for name in _IDS) + ")")
        groups = ["true"]
        if self.status:
            groups.append(f"bool_or(status = {text(self.status)})")
        groups += [
            f"{_SCORE} {sign} {float(value)!r}" for sign, value in ((">=", self.low), ("<=", self.high)) if value
        ]
        shown = ", ".join(f"min({name}) AS {name}" for name in ("question", "predicted", "reference", "finding"))
        shown += ", bool_and(correct) AS correct"
        return (
            f"SELECT *, row_number() OVER (ORDER BY {_SORTED[self.order]}) - 1 AS place FROM ("
            f"SELECT sample_id, {_SCORE} AS srg, {_WORST_STATUS} AS status, {shown} FROM records "
            f"WHERE {' AND '.join(rows)} GROUP BY sample_id HAVING {' AND '.join(groups)})"
        )


def _whole(name: str, value: str) -> int:
    if not (value.isdecimal() and value.isascii() and len(value) < 10):
        raise ValueError(f"{name}: {value!r} is not a whole number")
    return int(value)


def _number(name: str, value: str) -> None:
    try:
        known = not value or math.isfinite(float(value))
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"{name}: {value!r} is not a number")
