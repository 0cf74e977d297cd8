"""What every contestant did in every turn, kept until the results are made."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cxr_faith.bench.flops import Stages
from cxr_faith.bench.presets import METHODS
from cxr_faith.bench.scene import Scene
from cxr_faith.bench.timing import peak_memory
from cxr_faith.bench.turns import Rows, Turn
from cxr_faith.bench.variants import VARIANTS, Variant


@dataclass
class Contest:
    """The turns of all contestants.

    Attributes:
        scene: what they ran on.
        engine: (one question, all questions) of each repeat.
        naive: one question of each repeat; several questions take a multiple of it, since nothing is shared.
        bare: seconds of the bare stages.
        exact: the engine's rows of all questions, of the last repeat; where every forward was run.
        variants: name -> each repeat's turn; where every forward was run.
        libraries: name -> seconds of a forward.
        peaks: name -> bytes, where memory can be measured.
    """

    scene: Scene
    engine: list[tuple[Turn, Turn]] = field(default_factory=list)
    naive: list[Turn] = field(default_factory=list)
    bare: list[Stages] = field(default_factory=list)
    exact: Rows = field(default_factory=list)
    variants: dict[str, list[Variant]] = field(default_factory=dict)
    libraries: dict[str, list[float]] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def memory(self, name: str) -> Iterator[None]:
        """Keep the peak memory of a block under a contestant's name."""
        with peak_memory(self.scene.vlm.device) as peak:
            yield
        # On a GPU each of the engine's maps measures its own peak, which resets the peak that is measured here.
        makes_maps = name in ("engine", *VARIANTS)
        maps = [p for p in map_peaks(self.scene).values() if p is not None] if makes_maps else []
        if peak.value is not None:
            self.keep_peak(name, int(max(peak.value, *maps)) if maps else peak.value)

    def keep_peak(self, name: str, peak: int | None) -> None:
        """Keep a contestant's highest peak memory, in bytes."""
        if peak is not None:
            self.peaks[name] = max(peak, self.peaks.get(name, 0))


def map_peaks(scene: Scene) -> dict[str, float | None]:
    """Highest peak memory of each method's maps, weights included, in bytes; None where it is not measured."""
    peaks = {name: [case.costs[name]["peak_memory"] for case in scene.cases] for name in METHODS}
    return {name: max((p for p in each if p is not None), default=None) for name, each in peaks.items()}
