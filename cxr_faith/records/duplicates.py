"""Chooses among the rows of several starts: for each key the row of the earliest start stays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cxr_faith.records.schema import KEY

Codes = npt.NDArray[np.int32]


class Keys:
    """Numbers the samples, and the combinations of the other key columns, so that the key of a row takes 8 bytes.

    Attributes:
        samples: `sample_id` → its number.
        others: the other key columns → the number of their combination.
    """

    def __init__(self) -> None:
        self.samples: dict[str, int] = {}
        self.others: dict[tuple[str, ...], int] = {}

    def codes(self, group: pa.Table) -> Codes:
        """Numbers of the samples and of the other key columns' combinations, int32 [2, rows]."""
        columns = [group.column(name).combine_chunks().dictionary_encode() for name in KEY]
        known = [self.samples.setdefault(text, len(self.samples)) for text in columns[0].dictionary.to_pylist()]
        samples = np.array(known, np.int32)[columns[0].indices.to_numpy()]
        mixed = np.zeros(len(group), np.int64)
        for column in columns[1:]:  # renumbered after each column, so that no product of counts overflows
            mixed = np.unique(mixed * len(column.dictionary) + column.indices.to_numpy(), return_inverse=True)[1]
        texts = group.select(KEY[1:]).take(pa.array(np.unique(mixed, return_index=True)[1])).to_pylist()
        numbers = [self.others.setdefault(tuple(row.values()), len(self.others)) for row in texts]
        return np.stack([samples, np.array(numbers, np.int32)[mixed]])

    def order(self, groups: Sequence[Codes]) -> npt.NDArray[np.int64]:
        """One number per row over all groups; the numbers sort as the keys do."""
        samples, others = (_places(list(numbers)) for numbers in (self.samples, self.others))
        order = np.empty(sum(group.shape[1] for group in groups), np.int64)
        begin = 0
        for sample, other in groups:
            order[begin : begin + len(sample)] = samples[sample] * len(others) + others[other]
            begin += len(sample)
        return order


def _places(texts: list[Any]) -> npt.NDArray[np.int64]:
    """Place of each text, or tuple of texts, in the alphabet."""
    places = np.empty(len(texts), np.int64)
    places[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
    return places


def first_of_each_key(groups: Sequence[Codes], keys: Keys) -> npt.NDArray[np.intp]:
    """Numbers of the rows that stay, sorted by key; rows are numbered across the groups."""
    order = keys.order(groups)
    # The sort is stable, so of duplicates the one in the first part by name comes first.
    rows = np.argsort(order, kind="stable")
    order, first = order[rows], np.ones(len(rows), bool)
    first[1:] = order[1:] != order[:-1]
    return rows[first]
