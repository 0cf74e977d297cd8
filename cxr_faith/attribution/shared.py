"""Results that several methods need about one picture, computed once, with the passes that each of them took."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from torch import Tensor

from cxr_faith.vlm.counts import Counts

T = TypeVar("T")


class SharedWork:
    """Results that methods share about pictures under one model.

    It also knows what each result took, so that the cost of a method does not depend on the methods before it.

    Args:
        counts: the model's counts.
    """

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._results: dict[Hashable, tuple[Tensor, Any, Counts]] = {}
        self._used: dict[Hashable, Counts] = {}

    def begin(self) -> None:
        """Start to note what the next method uses."""
        self._used = {}

    @property
    def reused(self) -> Counts:
        """What the results took that this method has used and another one has computed."""
        return sum(self._used.values(), Counts())

    def get(self, key: Hashable, pixels: Tensor, compute: Callable[[], T]) -> T:
        """A result; the first method that asks for it computes it.

        Args:
            key: names the result; it holds the address of the pixels.
            pixels: kept, so that their address stays theirs.
            compute: makes the result.
        """
        if key not in self._results:
            before, used = self._counts.snapshot(), self.reused
            value = compute()
            self._results[key] = (pixels, value, self._counts - before + (self.reused - used))
            self._used[key] = Counts()  # this method has computed it
        elif key not in self._used:
            self._used[key] = self._results[key][2]
        result: T = self._results[key][1]
        return result
