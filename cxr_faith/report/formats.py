"""How tables write numbers: three decimals, shares in percent, an en dash for a value that does not exist."""

from collections.abc import Mapping
from typing import Any


def number(value: float | None, signed: bool = False) -> str:
    """Three decimals, fewer from 10 on; an en dash for a value that does not exist."""
    if value is None:
        return "–"
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("-0.000", "0.000").replace("+0.000", "0.000")


def p_value(value: float | None) -> str:
    """Three decimals; "<.001" for anything smaller."""
    return "–" if value is None else "<.001" if value < 0.001 else number(value)


def percent(value: float | None) -> str:
    """A share in percent with one decimal; an en dash for a value that does not exist."""
    return "–" if value is None else f"{value:.1%}"


def patients(count: int) -> str:
    """A count of patients, in the singular or the plural."""
    return f"{count} patient{'s' * (count != 1)}"


def with_interval(row: Mapping[str, Any], key: str, signed: bool = False) -> str:
    """A mean with its 95 % interval over patients: the BCa interval if there is one, else the percentile interval."""
    text, interval = number(row[key], signed), row["intervals"].get(key)
    if interval is None or row[key] is None or interval["low"] is None:
        return text
    kind = "bca_" if interval["bca_low"] is not None else ""
    return f"{text} [{number(interval[kind + 'low'], signed)}, {number(interval[kind + 'high'], signed)}]"
