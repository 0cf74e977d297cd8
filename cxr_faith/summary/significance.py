"""What a board's means are worth: intervals and tests per method, and which methods can be told apart."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_faith.metrics.statistics import FLIPS, LEVEL, Estimates, estimate, holm
from cxr_faith.records import GAPS
from cxr_faith.summary.mean_scores import Flags, Floats, MethodRows

TESTED = {
    **{name: (name, "common") for name in (*GAPS, "srg", "srg_logit")},
    "srg_logit_scored": ("srg_logit", "scored"),
}
"""Key in a summary's row → column of the records, and the samples that it is taken over."""

_FLIPS_A_PAIR = 40

DIGITS = 10  # a matrix product may round its last digits otherwise with another number of threads


def add_statistics(board: dict[str, Any], picked: Sequence[tuple[MethodRows, Flags]], n_samples: int) -> None:
    """Put `intervals` and `n_clusters` into a board's rows, and `differences` between the methods into the board.

    Every p is adjusted (`p_holm`) over the methods within this board and metric, and over the pairs of methods for
    the differences, which are taken in the board's headline, on the samples that both methods have.

    Args:
        board: one board with its `rows`, one for each of `picked`, and its `slice` and `headline`.
        picked: rows of each method and which of them belong to the slice.
        n_samples: samples of the whole run.
    """
    patients = np.zeros(n_samples, np.intp)
    for rows, _ in picked:
        patients[rows.sample] = rows.patient
    columns = {key: _columns(picked, column, which, n_samples) for key, (column, which) in TESTED.items()}
    together = estimate(np.hstack(list(columns.values())), patients)
    for number, key in enumerate(columns):
        found = [_one(together, number * len(picked) + index) for index in range(len(picked))]
        for entry, result in zip(board["rows"], _adjusted(found), strict=True):
            entry.setdefault("intervals", {})[key] = result
    for entry in board["rows"]:
        entry["n_clusters"] = entry["intervals"][board["headline"]]["clusters"]
    whole = not board["slice"].startswith("finding:")
    board["differences"] = _differences(picked, columns[board["headline"]], patients) if whole else []


def _columns(picked: Sequence[tuple[MethodRows, Flags]], column: str, which: str, n_samples: int) -> Floats:
    """[samples, methods], NaN where a method has no value."""
    table = np.full((n_samples, len(picked)), np.nan)
    for index, (rows, inside) in enumerate(picked):
        chosen = inside & (rows.common if which == "common" else rows.scored)
        table[rows.sample[chosen], index] = rows.values[column][chosen]
    return table


def _differences(
    picked: Sequence[tuple[MethodRows, Flags]], values: Floats, patients: npt.NDArray[np.intp]
) -> list[dict[str, Any]]:
    names = [rows.method for rows, _ in picked]
    pairs = [
        (a, b)
        for a, b in combinations(range(len(names)), 2)
        if "random" not in (names[a], names[b]) and (np.isfinite(values[:, a]) & np.isfinite(values[:, b])).any()
    ]
    if not pairs:
        return []
    first, second = np.array(pairs).T
    # Times the number of pairs (Holm), the smallest p there can be has to stay below .05.
    flips = max(FLIPS, _FLIPS_A_PAIR * len(pairs))
    found = estimate(values[:, first] - values[:, second], patients, flips=flips)
    results = _adjusted([_one(found, index) for index in range(len(pairs))])
    return [{"a": names[a], "b": names[b]} | result for (a, b), result in zip(pairs, results, strict=True)]


def _one(estimates: Estimates, index: int) -> dict[str, Any]:
    values = {field.name: float(getattr(estimates, field.name)[index]) for field in fields(estimates)}
    result: dict[str, Any] = {
        name: float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for name, value in values.items()
    }
    return result | {"n": int(values["n"]), "clusters": int(values["clusters"])}


def _adjusted(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    p = [np.nan if result["p"] is None else result["p"] for result in results]
    adjusted = [float(value) if np.isfinite(value) else None for value in holm(p)]
    return [result | {"p_holm": value} for result, value in zip(results, adjusted, strict=True)]


def upside_down(board: Mapping[str, Any], ranking: Sequence[str]) -> list[Mapping[str, Any]]:
    """Differences whose sign is not the ranking's although they are significant.

    Means are taken over each method's own samples, differences over those that both have.

    Args:
        board: a board with its `differences`.
        ranking: names of its methods, best first.
    """
    place = {name: index for index, name in enumerate(ranking)}
    return [
        pair
        for pair in board["differences"]
        if pair["p_holm"] < 1 - LEVEL and (pair["mean"] > 0) != (place[pair["a"]] < place[pair["b"]])
    ]


def not_told_apart(board: Mapping[str, Any], ranking: Sequence[str]) -> dict[str, list[str]]:
    """Method → the methods ranked below it whose difference to it is not significant; methods without any left out.

    Args:
        board: a board with its `differences`.
        ranking: names of its methods, best first.
    """
    place = {name: index for index, name in enumerate(ranking)}
    tied: dict[str, list[str]] = {name: [] for name in ranking}
    for pair in board["differences"]:
        if pair["p_holm"] >= 1 - LEVEL:
            upper, lower = sorted((pair["a"], pair["b"]), key=place.__getitem__)
            tied[upper].append(lower)
    return {name: sorted(others, key=place.__getitem__) for name, others in tied.items() if others}
