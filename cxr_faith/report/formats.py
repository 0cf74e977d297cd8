"""How tables and pages write numbers; a value that does not exist is an en dash."""

from pathlib import PurePath

from cxr_faith.summary.board_row import BoardRow


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


def whole_percent(share: float | None) -> str:
    """A share in whole percent; only certainty is called 100%, and only 0 is called 0%."""
    if share is None:
        return "–"
    if 0.995 <= share < 1:
        return "over 99%"
    if 0 < share < 0.005:
        return "under 1%"
    return f"{share:.0%}"


def without_folder(value: str) -> str:
    """A path on this computer as its last name: where a model lies is nobody's business, and may name a person."""
    return PurePath(value).name if PurePath(value).is_absolute() else value


def patients(count: int) -> str:
    """A count of patients, in the singular or the plural."""
    return f"{count} patient{'s' * (count != 1)}"


def with_interval(row: BoardRow, column: str, signed: bool = False) -> str:
    """A mean with its 95 % interval over patients, if there is one."""
    value, interval = row.value(column), row.intervals.get(column)
    text = number(value, signed)
    if value is None or interval is None or interval.ends is None:
        return text
    low, high = interval.ends
    return f"{text} [{number(low, signed)}, {number(high, signed)}]"
