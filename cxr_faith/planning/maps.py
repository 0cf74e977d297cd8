"""How many passes the maps of one question take: counted on the bundled model, which explains one question."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from cxr_faith.cases import compute_maps, read_answers
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.protocol import Protocol
from cxr_faith.run.method_set import MethodSet
from cxr_faith.vlm.config import ModelConfig
from cxr_faith.vlm.loading import load_configured


@dataclass(frozen=True)
class MapPasses:
    """Passes of all maps of one question.

    Attributes:
        forwards: forward passes; those that methods share count once.
        backwards: backward passes.
        sets: methods that give a set of cells, which is scored with two pictures.
        each: method → its own (forwards, backwards), shared ones included.
        unknown: methods that the bundled model cannot run, such as those with weights of another model.
        cells: of the bundled model's grid; `occlusion` and `greedy` take more passes on a larger one.
    """

    forwards: float
    backwards: float
    sets: int
    each: Mapping[str, tuple[float, float]]
    unknown: tuple[str, ...] = ()
    cells: int = 0

    def measured(self, costs: Mapping[str, tuple[float, float]]) -> "MapPasses":
        """The same with the costs of methods as a pilot measured them; what they share stays shared.

        Args:
            costs: method → mean (forwards, backwards) of a map.
        """
        more = [sum(costs[name][place] - self.each.get(name, (0.0, 0.0))[place] for name in costs) for place in (0, 1)]
        left = tuple(name for name in self.unknown if name not in costs)
        return MapPasses(
            self.forwards + more[0], self.backwards + more[1], self.sets, {**self.each, **costs}, left, self.cells
        )


def count_maps(method_set: MethodSet, seed: int = 0) -> MapPasses:
    """Explain one yes/no question about the first bundled picture, and count."""
    vlm = load_configured(ModelConfig(path="bundled"), torch.device("cpu"))
    data = CXRVQADataModule("bundled")
    data.image_size, data.limit = vlm.image_size, 1
    (item,) = next(iter(data.loader()))
    assert item.image is not None
    pixels, kinds = vlm.normalize(item.image[None])[0], [item.sample.kind]
    cases = read_answers(
        vlm, pixels, item.sample.image_id, [item.sample.question], kinds, Protocol(max_new_tokens=4), None
    )
    fitting, unknown = {}, list[str]()
    for name, method in method_set.methods.items():
        try:
            method.check(vlm)
            fitting[name] = method
        except ValueError:
            unknown.append(name)
    before = vlm.counts.snapshot()
    compute_maps(vlm, fitting, [pixels], cases, seed, only_in_format=False, forgive=True)
    spent, (case,) = vlm.counts - before, cases
    each = {name: (float(cost["forwards"] or 0), float(cost["backwards"] or 0)) for name, cost in case.costs.items()}
    sets = sum(bool(extras.get("set_size")) for extras in case.extras.values())
    lost = (name for name in case.failed if name in fitting)
    return MapPasses(spent.forwards, spent.backward, sets, each, (*unknown, *lost), vlm.n_cells)
