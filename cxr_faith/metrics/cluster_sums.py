"""Sums of weighted values over clusters: all that a clustered mean, its interval and its test need."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]

Part = tuple[Floats, Floats | None]
"""Values of some columns [rows, columns], NaN = missing, and their weights, as many; None: 1 each."""


def cluster_sums(values: Floats, clusters: Ints, weights: Floats | None = None) -> tuple[Floats, Floats]:
    """Sums of weight · value and of weight over the values that are not NaN, each [clusters, columns].

    Args:
        values: [rows, columns].
        clusters: 0-based number of each row's cluster [rows].
        weights: [rows, columns]; None: 1 each.
    """
    present = np.isfinite(values)
    heavy = present.astype(np.float64) if weights is None else np.where(present, weights, 0.0)
    n_clusters = int(clusters.max(initial=-1)) + 1
    return added(heavy * np.where(present, values, 0.0), clusters, n_clusters), added(heavy, clusters, n_clusters)


def added(values: Floats, groups: Ints, n_groups: int) -> Floats:
    """Sums over the rows of each group, in the order of the rows, [groups, columns]."""
    columns = (np.bincount(groups, values[:, column], n_groups) for column in range(values.shape[1]))
    return np.stack(list(columns), axis=1) if values.shape[1] else np.zeros((n_groups, 0))


class Kinds:
    """The distinct columns among many, which mostly are few: columns of weights of the same samples are equal.

    `np.unique(axis=1)` compares clusters one by one, which takes longer than a resample of many of them.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def add(self, table: npt.NDArray[np.generic]) -> tuple[Ints, Ints]:
        """Takes columns [clusters, columns].

        Returns:
            places of the columns that are of a new kind [new], and the kind of each column [columns].
        """
        known = len(self._numbers)
        kind = np.array([self._numbers.setdefault(column.tobytes(), len(self._numbers)) for column in table.T], np.intp)
        numbers, first = np.unique(kind, return_index=True)
        return first[numbers >= known], kind


@dataclass(frozen=True)
class ClusterSums:
    """Sums of many columns over the same clusters.

    Attributes:
        sums: Σ weight · value [clusters, columns].
        kinds: distinct columns of Σ weight [clusters, kinds].
        kind: which of them is that of a column [columns].
        n: rows with a value [columns].
    """

    sums: Floats
    kinds: Floats
    kind: Ints
    n: Ints

    @classmethod
    def of(cls, parts: Iterable[Part], clusters: Ints) -> Self:
        """The sums of columns that come in parts; one part at a time is in memory.

        Args:
            parts: see `Part`.
            clusters: 0-based number of each row's cluster [rows].
        """
        known, sums, kinds, kind, n = Kinds(), list[Floats](), list[Floats](), list[Ints](), list[Ints]()
        for values, weights in parts:
            own, totals = cluster_sums(values, clusters, weights)
            new, numbers = known.add(totals)
            sums.append(own)
            kinds.append(totals[:, new])
            kind.append(numbers)
            n.append(np.isfinite(values).sum(0))
        return cls(np.hstack(sums), np.hstack(kinds), np.concatenate(kind), np.concatenate(n))

    def by_clusters(self) -> list[tuple[Flags, Ints]]:
        """The columns that have a value in the same clusters: these clusters [clusters], and places of the columns."""
        first, pattern = Kinds().add(self.kinds > 0)
        return [
            (self.kinds[:, place] > 0, np.flatnonzero(pattern[self.kind] == number))
            for number, place in enumerate(first)
        ]

    def part(self, clusters: Flags, columns: Ints) -> tuple[Floats, Floats]:
        """Σ weight · value and Σ weight of some clusters and columns, each [clusters, columns]."""
        places = np.flatnonzero(clusters)
        return self.sums[np.ix_(places, columns)], self.kinds[np.ix_(places, self.kind[columns])]
