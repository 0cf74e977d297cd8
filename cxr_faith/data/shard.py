"""Which part of the samples a run takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """Part of the samples that a run takes; the `count` parts together are all samples, each once.

    Attributes:
        index: 0-based number of the part.
        count: number of parts; 1: all samples.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 <= self.index < self.count:
            raise ValueError(f"shard must be INDEX/COUNT with 0 <= INDEX < COUNT, got {self.index}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `3/8`, the fourth of eight."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise ValueError(f"shard must be INDEX/COUNT such as 3/8, got {text!r}")
        return cls(int(index), int(count))
