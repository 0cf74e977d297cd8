"""Options of `cxr-faith plan`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PlanOptions:
    """What a plan starts from.

    Attributes:
        pilot: a run directory of the same model on some samples, such as `evaluate --limit 50` leaves; its measured
            pace, maps and spread are used.
        difference: the difference in srg between two methods that the run is to find.
        gpus: GPUs that share the work, one job of an array for each.
        peak: without a pilot, TFLOP/s that the GPU can reach at most; 989 is an H100 in bfloat16.
        share: without a pilot, the share of `peak` that the run is assumed to reach.
    """

    pilot: str | None = None
    difference: float = 0.02
    gpus: int = 1
    peak: float = 989.0
    share: float = 0.4

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0 < self.difference < 2:
            raise ValueError(f"difference must be between 0 and 2, got {self.difference}")
        if self.gpus < 1:
            raise ValueError(f"gpus must be at least 1, got {self.gpus}")
        if self.peak <= 0:
            raise ValueError(f"peak must be more than 0, got {self.peak}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be more than 0 and at most 1, got {self.share}")
