"""How fast a run works: passes and seconds of the first rank, for `cxr-faith plan`."""

import math
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import lightning as L
import torch

from cxr_faith.run.module import FaithfulnessModule


@dataclass(frozen=True)
class Pace:
    """Sums over the batches of one rank, from which the rate and its error follow.

    Attributes:
        ranks: ranks of the run.
        batches: number of batches.
        samples: samples in them.
        forwards: forward passes that were asked for.
        seconds: from the start of the first batch to the end of the last one.
        seconds_squared: Σ seconds² over the batches.
        forwards_squared: Σ forwards².
        mixed: Σ seconds · forwards.
        memory: most bytes that the rank held: on a GPU its memory, else that of the process.
    """

    ranks: int = 1
    batches: int = 0
    samples: int = 0
    forwards: int = 0
    seconds: float = 0.0
    seconds_squared: float = 0.0
    forwards_squared: int = 0
    mixed: float = 0.0
    memory: int = 0

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """What `to_dict` gave; entries of later versions are left out.

        Raises:
            ValueError: a value is not a number.
        """
        known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in known.values()):
            raise ValueError("the pace of a run holds a value that is not a number")
        return cls(**known)

    def to_dict(self) -> dict[str, float]:
        """As it stands in `history.jsonl`."""
        return {name: round(value, 4) for name, value in asdict(self).items()}

    def __add__(self, other: "Pace") -> "Pace":
        """The sums of two starts; ranks and memory are the larger ones."""
        largest = {name: max(getattr(self, name), getattr(other, name)) for name in ("ranks", "memory")}
        return Pace(**{name: value + getattr(other, name) for name, value in asdict(self).items()} | largest)

    @property
    def rate(self) -> float:
        """Seconds of one rank for a forward pass, all other work of the run included."""
        return self.seconds / self.forwards

    @property
    def rate_error(self) -> float:
        """Standard error of `rate`, a ratio of sums over batches; NaN for fewer than two batches."""
        if self.batches < 2:
            return math.nan
        rest = self.seconds_squared - 2 * self.rate * self.mixed + self.rate**2 * self.forwards_squared
        return math.sqrt(self.batches / (self.batches - 1) * max(rest, 0.0)) / self.forwards


class PaceWatch(L.Callback):
    """Measures the pace of this rank.

    Attributes:
        pace: of the batches so far.
    """

    def __init__(self) -> None:
        self.pace = Pace()
        self._last: float | None = None

    def on_predict_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """The clock starts with the first batch: loading model and libraries is no part of the pace."""
        assert isinstance(pl_module, FaithfulnessModule)
        self._before = pl_module.engine.vlm.counts.forwards
        self._last = time.monotonic() if self._last is None else self._last

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch, with the time that it was waited for."""
        assert isinstance(pl_module, FaithfulnessModule) and self._last is not None
        now, forwards = time.monotonic(), pl_module.engine.vlm.counts.forwards - self._before
        seconds, self._last = now - self._last, now
        sums = (seconds, seconds**2, forwards**2, seconds * forwards)
        memory = _memory(trainer.strategy.root_device)
        self.pace += Pace(trainer.world_size, 1, len(batch), forwards, *sums, memory)


def _memory(device: torch.device) -> int:
    """Bytes that this process holds: on a GPU what PyTorch has taken of it, else the most that it ever had of the host.

    PyTorch gives memory of a GPU back only when it runs out.
    """
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
