"""Another patient's picture in place of a sample's own: does the answer change with it?

Which one depends on the manifest, the image's id and the run's seed alone, never on the rank or the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor
from torch.utils.data import Dataset

from cxr_faith.data.sample import FAULT, YES_NO

if TYPE_CHECKING:
    from cxr_faith.data.items import ManifestDataset, SampleItem

SwapStream = Callable[[str], np.random.Generator]
"""Image id → what draws the picture that stands in for it."""

TRIES = 3
"""Pictures that are tried for a sample before it has none: files may be damaged."""

_APART = "\x1f"


@dataclass(frozen=True)
class Swap:
    """The picture that stands in for a sample's own.

    Attributes:
        image: uint8 [3, H, W] at model size; of several pictures a sheet, see `SampleItem`.
        image_id: id of the picture; of several pictures their ids, joined.
        opposite: whether the same question about it has another reference answer.
    """

    image: Tensor
    image_id: str
    opposite: bool


class Swaps:
    """Draws and decodes the pictures that stand in for those of a manifest.

    Pictures about which the same question has another reference answer come first. Yes/no questions are the same if
    they are about one finding and one side, in whatever words; all others, if their text is, and so are those about
    planted pairs, whose finding is what was planted and need not be what is asked about. A "no" without a side means
    that the finding is nowhere, so that side does not matter.

    Args:
        dataset: serves the whole manifest.
        draw: image id → a generator.
    """

    def __init__(self, dataset: ManifestDataset, draw: SwapStream) -> None:
        self._dataset, self._draw, table = dataset, draw, dataset.table.data
        question, side, kind = (table.column(name) for name in ("question", "side", "kind"))
        finding, answers = pc.utf8_lower(table.column("finding")), table.column("answer")
        by_finding = pc.and_(pc.fill_null(pc.equal(kind, YES_NO), False), pc.is_valid(finding))
        by_finding = pc.and_(by_finding, pc.is_null(table.column("planted")))
        about = pc.if_else(by_finding, finding, question)
        said = pc.utf8_lower(pc.binary_join(answers, _APART))
        self._patients = _codes(pc.coalesce(table.column("patient_id"), table.column("image_id")))
        self._questions = _codes(pc.binary_join_element_wise(pc.fill_null(kind, ""), about, _APART))
        self._answers = _codes(said)
        self._sides = _codes(pc.if_else(by_finding, pc.fill_null(side, ""), ""))
        nowhere = pc.and_(by_finding, pc.and_(pc.fill_null(pc.equal(said, "no"), False), pc.is_null(side)))
        self._nowhere = np.asarray(nowhere.to_numpy(), np.bool_)
        self._shown = np.asarray(pc.fill_null(pc.list_value_length(table.column("images")), 0).to_numpy(), np.int32)
        self._usable = self._patients >= 0
        if FAULT in table.column_names:
            self._usable &= pc.is_null(table.column(FAULT)).to_numpy()
        self._by_question = np.argsort(self._questions, kind="stable")
        self._sorted = self._questions[self._by_question]

    def of(self, row: int, image_id: str) -> Swap | None:
        """The picture that stands in for a sample's own; None: no other patient has one that can be used.

        Args:
            row: the sample's place in the manifest.
            image_id: id of its image, which seeds the draw.
        """
        for tried, (other, opposite) in enumerate(self._candidates(row, image_id)):
            if tried == TRIES:
                break
            item = self._dataset.at(other, masks=False)
            if item.image is not None:
                return Swap(item.image, item.sample.pictures_id, opposite)
        return None

    def _candidates(self, row: int, image_id: str) -> Iterator[tuple[int, bool]]:
        """Rows of other patients in a random order, and whether the reference is another one; those come first."""
        rng = self._draw(image_id)
        others = self._usable & (self._patients != self._patients[row]) & (self._shown == self._shown[row])
        begin, end = np.searchsorted(self._sorted, self._questions[row] + np.arange(2))
        same = self._by_question[begin:end]
        sides = (self._sides[same] == self._sides[row]) | self._nowhere[same] | self._nowhere[row]
        answers = self._answers[same]
        opposite = same[others[same] & sides & (answers != self._answers[row]) & (answers >= 0)]
        if self._answers[row] >= 0:
            yield from ((int(other), True) for other in _drawn(rng, opposite))
        yield from ((int(other), False) for other in _drawn(rng, np.flatnonzero(others)))


class SwappedDataset(Dataset["SampleItem"]):
    """Rows of a manifest, each with another patient's picture that stands in for its own.

    Args:
        dataset: serves the rows.
        draw: image id → a generator.

    Attributes:
        table: the open manifest.
        rows: rows that are served, in order.
    """

    def __init__(self, dataset: ManifestDataset, draw: SwapStream) -> None:
        self.table, self.rows = dataset.table, dataset.rows
        whole = copy(dataset)  # keeps the last picture for itself, so that the questions about one share it
        whole.rows, whole.pairs = np.arange(len(dataset.table)), False
        self._dataset, self._swaps = dataset, Swaps(whole, draw)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def __getitem__(self, index: int) -> SampleItem:
        """Decode one sample; a bad one gets no other picture."""
        item = self._dataset[index]
        if item.error is not None:
            return item
        return replace(item, swap=self._swaps.of(int(self.rows[index]), item.sample.pictures_id))


def _drawn(rng: np.random.Generator, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Up to `TRIES` of some rows in a random order."""
    return rng.choice(rows, min(TRIES, len(rows)), replace=False)


def _codes(column: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """A number for each value, equal for equal values; -1 for null."""
    indices = pc.dictionary_encode(column).combine_chunks().indices
    return np.asarray(pc.fill_null(indices, -1).to_numpy(), np.int32)
