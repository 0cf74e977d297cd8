"""What every class of the summary can do: become JSON and come back, and become a data frame."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from cxr_faith.summary.codec import from_json, to_json

if TYPE_CHECKING:
    import pandas as pd


class Result:
    """Base of the summary's frozen dataclasses."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON, as they stand in `summary.json`."""
        values: dict[str, Any] = to_json(self)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The object that `to_dict` wrote; unknown keys are ignored.

        Raises:
            ValueError: a key is missing or a value has the wrong type; the message names it.
        """
        return from_json(cls, dict(values))

    def to_frame(self) -> "pd.DataFrame":
        """One row per entry, per point of a curve, or one row if there is neither.

        Names of nested fields and keys are joined by "_": `selective_accuracy` → `selective_accuracy_0.8`, an entry of
        `reliability` → `reliability_low`. Numbers that belong to the whole object are repeated in each row.
        """
        import pandas as pd

        values = _flat(self.to_dict())
        whole = {name: value for name, value in values.items() if not isinstance(value, list)}
        rows: list[dict[str, Any]] = []
        points: dict[str, list[Any]] = {}
        for name, value in values.items():
            if isinstance(value, list) and value and isinstance(value[0], dict):
                rows += [_flat(entry, f"{name}_") for entry in value]
            elif isinstance(value, list) and value:
                points[name] = value
        rows += [dict(zip(points, point, strict=True)) for point in zip(*points.values(), strict=True)]
        return pd.DataFrame([whole | row for row in rows or [{}]])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one level of names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}_") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
