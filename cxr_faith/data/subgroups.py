"""Sex, age and view of a picture, however a data set writes them, and the bands that ages are grouped in."""

from __future__ import annotations

import math
import re

from cxr_faith.data.tables import number, text

AGE_BANDS = ((0, 40, "<40"), (40, 60, "40-59"), (60, 80, "60-79"), (80, 131, "≥80"))
"""(first age, age after the last, name) of each band, in years."""
_SEXES = {"m": "M", "male": "M", "man": "M", "f": "F", "female": "F", "woman": "F"}
_VIEWS = {
    **dict.fromkeys(("ap", "anteroposterior", "apsupine", "aperect", "portable", "apportable"), "AP"),
    **dict.fromkeys(("pa", "posteroanterior"), "PA"),
    **dict.fromkeys(("lateral", "ll", "lat", "l", "leftlateral", "rightlateral", "rl"), "LATERAL"),
}
_DICOM_AGE = re.compile(r"(\d+)\s*([DWMY])", re.IGNORECASE)
_PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}


def read_sex(value: object) -> str | None:
    """`M` or `F` from a table's value; None for anything else."""
    return _SEXES.get((text(value) or "").casefold())


def read_age(value: object) -> int | None:
    """Age in whole years from a number or an age as DICOM writes it (`058Y`, `018M`).

    None where it is not stated or cannot be a patient's: ChestX-ray14 has ages above 400.
    """
    match = _DICOM_AGE.fullmatch(text(value) or "")
    years = int(match[1]) / _PER_YEAR[match[2].upper()] if match else number(value)
    return int(years) if math.isfinite(years) and 0 <= years < AGE_BANDS[-1][1] else None


def read_view(value: object) -> str | None:
    """`AP`, `PA` or `LATERAL` from a table's value; `OTHER` for any other view, None where none is stated."""
    word = re.sub(r"[\W_]", "", text(value) or "").casefold()
    return _VIEWS.get(word, "OTHER") if word else None


def age_band(age: int | None) -> str | None:
    """Name of the band of an age; None without one."""
    return next((name for first, end, name in AGE_BANDS if age is not None and first <= age < end), None)
