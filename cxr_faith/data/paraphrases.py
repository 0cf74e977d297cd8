"""The other wordings of a sample's question in a manifest: those of its question group about the same pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
from torch.utils.data import Dataset

from cxr_faith.data.items import ManifestDataset, SampleItem
from cxr_faith.data.manifest import MappedManifest
from cxr_faith.data.sample import FAULT
from cxr_faith.data.swaps import SwappedDataset


class Paraphrases:
    """Finds the paraphrases of each question.

    Two rows are paraphrases if they share `question_group`, picture, kind, options and earlier turns; one cannot stand
    in for another otherwise. They are listed in the manifest's order, wherever in the manifest they are.

    Args:
        table: the open manifest.
    """

    def __init__(self, table: MappedManifest) -> None:
        self._table = table
        names = ("question_group", "image_id")
        keys = pc.binary_join_element_wise(*(table.data.column(name) for name in names), "\x1f")
        indices = pc.dictionary_encode(keys).combine_chunks().indices
        self._groups = np.asarray(pc.fill_null(indices, -1).to_numpy(), np.int32)  # -1: of no group
        self._by_group = np.argsort(self._groups, kind="stable")
        self._sorted = self._groups[self._by_group]

    def of(self, row: int) -> tuple[str, ...]:
        """Other wordings of the question of a row, each once.

        Args:
            row: the sample's place in the manifest.
        """
        group = self._groups[row]
        if group < 0:
            return ()
        begin, end = np.searchsorted(self._sorted, [group, group + 1])
        own = self._table[row]
        rows = (self._table[int(other)] for other in self._by_group[begin:end] if other != row)
        texts = [other["question"] for other in rows if _is_same(own, other)]
        self._table.release()
        return tuple(dict.fromkeys(text for text in texts if text and text != own["question"]))


class ParaphrasedDataset(Dataset[SampleItem]):
    """Rows of a manifest, each with the other wordings of its question.

    Args:
        dataset: serves the rows.

    Attributes:
        table: the open manifest.
        rows: rows that are served, in order.
    """

    def __init__(self, dataset: ManifestDataset | SwappedDataset) -> None:
        self.table, self.rows = dataset.table, dataset.rows
        self._dataset, self._paraphrases = dataset, Paraphrases(dataset.table)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def __getitem__(self, index: int) -> SampleItem:
        """Decode one sample; a bad one has no other wordings."""
        item = self._dataset[index]
        return item if item.error else replace(item, paraphrases=self._paraphrases.of(int(self.rows[index])))


def _is_same(own: dict[str, object], other: dict[str, object]) -> bool:
    """Whether another row asks the same thing in the same place of the same conversation."""
    return not other.get(FAULT) and all(own[name] == other[name] for name in ("kind", "options", "turns", "images"))
