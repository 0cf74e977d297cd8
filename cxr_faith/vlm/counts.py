"""Counts of the work that a model has done."""

from dataclasses import dataclass


@dataclass
class Counts:
    """Number of pictures that went through each stage since the model was loaded.

    Attributes:
        embed: pictures cut into patches; fewer than `encode` where pictures were composed from patch embeddings.
        encode: pictures through the vision tower.
        prefill: pictures through the decoder up to the end of the image.
        score: (picture, question) pairs scored on the cache.
        trace: pictures through the whole decoder, for attribution.
        backward: backward passes over such pictures.
        padding: (picture, question) pairs among those scored that only fill up a micro-batch; nobody asked for them.
    """

    embed: int = 0
    encode: int = 0
    prefill: int = 0
    score: int = 0
    trace: int = 0
    backward: int = 0
    padding: int = 0

    @property
    def forwards(self) -> int:
        """Forward passes that were asked for: scored on the cache, or traced."""
        return self.score + self.trace - self.padding

    def snapshot(self) -> "Counts":
        """A copy of the counts so far."""
        return Counts(**vars(self))

    def __add__(self, other: "Counts") -> "Counts":
        """The sum, stage by stage."""
        return Counts(**{stage: count + getattr(other, stage) for stage, count in vars(self).items()})

    def __sub__(self, other: "Counts") -> "Counts":
        """The difference, stage by stage."""
        return Counts(**{stage: count - getattr(other, stage) for stage, count in vars(self).items()})
