"""Which rows of a run directory belong to its results: a run that grew or shrank keeps all rows that it ever wrote."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_faith.records.duplicates import Codes, Keys
from cxr_faith.records.schema import KEY

_METHOD, _SUBSTRATE, _CONDITION = (KEY[1:].index(name) for name in ("method", "substrate", "condition"))


@dataclass(frozen=True)
class Shown:
    """The rows of a config.

    Attributes:
        scored: substrate → names of its rows.
        conditions: conditions, `none` among them.
        masked: method → the mask that its samples need, for methods without rows for other samples; "" is the
            finding's, any other text the label of an anatomy mask.
    """

    scored: Mapping[str, Collection[str]]
    conditions: Collection[str]
    masked: Mapping[str, str]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Shown | None":
        """What `rows` of `provenance.json` says; None for older runs, whose records all belong to the results.

        Raises:
            ValueError: it is damaged.
        """
        rows = content.get("rows")
        if rows is None:
            return None
        try:
            scored = {str(spec): tuple(map(str, names)) for spec, names in rows["scored"].items()}
            return cls(scored, tuple(map(str, rows["conditions"])), dict(rows["masked"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError("provenance.json: rows is damaged: start the run again, which writes it") from error

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `provenance.json`."""
        scored = {spec: list(names) for spec, names in self.scored.items()}
        return {"scored": scored, "conditions": list(self.conditions), "masked": dict(self.masked)}

    def only(self, methods: Collection[str]) -> "Shown":
        """The rows of some methods alone."""
        scored = {spec: tuple(name for name in names if name in methods) for spec, names in self.scored.items()}
        return Shown({spec: names for spec, names in scored.items() if names}, self.conditions, self.masked)

    def of_every_sample(self) -> "Shown":
        """The rows that every sample has, with or without a mask."""
        return self.only({name for names in self.scored.values() for name in names} - self.masked.keys())

    def has(self, other: Sequence[str]) -> bool:
        """Whether rows with this key, `KEY` without the sample, belong to the results."""
        return other[_CONDITION] in self.conditions and other[_METHOD] in self.scored.get(other[_SUBSTRATE], ())

    def mask(self, keys: Keys, codes: Codes) -> npt.NDArray[np.bool_]:
        """Which rows belong to the results, bool [rows]."""
        inside: npt.NDArray[np.bool_] = np.array([self.has(other) for other in keys.others], bool)[codes[1]]
        return inside
