"""How many passes a run takes: the engine's own plan of every image, with the pilot's maps where they are known."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cxr_faith.attribution.baselines import CONTROLS
from cxr_faith.cases import NO_REPLY, Case
from cxr_faith.curves import plan_curves
from cxr_faith.data.module import CXRVQADataModule, ManifestDataset
from cxr_faith.data.sample import OPEN, YES_NO, Sample
from cxr_faith.data.sharding import ImageBatches
from cxr_faith.perturb.condition import NONE
from cxr_faith.perturb.schedule import stream
from cxr_faith.perturb.substrate import PAIR
from cxr_faith.protocol import Protocol
from cxr_faith.records.controls import BLURRED
from cxr_faith.run.method_set import MethodSet
from cxr_faith.vlm.base import Prompt

Maps = Mapping[str, np.ndarray]
"""Name → map [grid_h, grid_w]."""
Use = Mapping[str, int]
"""Sample → passes that said whether its answer uses its picture."""
Known = Mapping[tuple[str, str], Maps]
"""(sample, condition) → its maps; empty for a sample that nothing could be explained of."""


@dataclass(frozen=True)
class Curves:
    """Work on perturbed pictures.

    Attributes:
        samples: samples that are explained, once for each condition.
        pictures: distinct perturbed pictures, through the vision tower.
        forwards: questions asked about them: forward passes.
        use: forward passes that say whether the answers use their pictures.
    """

    samples: int = 0
    pictures: int = 0
    forwards: int = 0
    use: int = 0

    def __add__(self, other: "Curves") -> "Curves":
        """The work of both."""
        return Curves(*(getattr(self, name) + getattr(other, name) for name in vars(self)))


@dataclass
class CurveCounter:
    """Counts the pictures of an image's questions with `plan_curves`, which the engine runs.

    Without maps it counts the most that there can be: the maps of different methods and questions share no picture by
    chance. Images whose questions have the same kinds of maps have the same count, so each pattern is planned once.

    Attributes:
        grid: cells of a map.
        method_set: the run's methods.
        protocol: the run's protocol.
        lacking: names of maps that the pilot does not have, which count as much as they can at most.
    """

    grid: tuple[int, int]
    method_set: MethodSet
    protocol: Protocol
    lacking: Collection[str] = ()
    _patterns: dict[tuple[object, ...], Curves] = field(default_factory=dict)

    def most(self, group: Sequence[Sample]) -> Curves:
        """The most that the questions of one batch about an image take under one condition."""
        total = Curves(samples=len(group), use=sum(map(self._most_use, group)))
        for spec in self.method_set.scored:
            for members in scored_together(group, spec):
                total += self._most(spec, members)
        return total

    def exact(self, group: Sequence[Sample], maps: Sequence[Maps], condition: str, use: Use) -> Curves:
        """What they take with these maps, and with these passes for image use."""
        kept = [(sample, own) for sample, own in zip(group, maps, strict=True) if own]
        by_id, total = {sample.sample_id: own for sample, own in kept}, Curves(samples=len(kept))
        if self.protocol.image_use and condition == NONE:
            total += Curves(use=sum(use.get(sample.sample_id, self._most_use(sample)) for sample, _ in kept))
        for spec, names in self.method_set.scored.items():
            for members in scored_together([sample for sample, _ in kept], spec):
                cases = []
                for number, (sample, mask) in enumerate(zip(members, _numbered(map(_mask, members)), strict=True)):
                    own, new = by_id[sample.sample_id], [n for n in self._names(spec, sample) if n in self.lacking]
                    maps_of = {name: own[name] for name in names if name in own}
                    cases.append(_case(sample, maps_of | {n: self._placeholder(n, number, mask) for n in new}))
                total += self._planned(members[0].image_id, cases, condition)
        return total

    def _most_use(self, sample: Sample) -> int:
        """Passes for image use, at most.

        A blank picture, another patient's and none; the intact one, too, where its margin is not known; and two under
        each substrate where the finding has a mask.
        """
        if not self.protocol.image_use:
            return 0
        return 3 + (sample.kind != YES_NO) + 2 * len(self.method_set.scored) * _is_marked(sample)

    def rows(self, sample: Sample) -> int:
        """Number of records of a sample."""
        rows = sum(len(self._names(spec, sample)) + 1 for spec in self.method_set.scored)  # `random` has a row
        return rows * (1 + len(self.protocol.conditions))

    def _most(self, spec: str, members: Sequence[Sample]) -> Curves:
        names, masks = [self._names(spec, sample) for sample in members], _numbered(map(_mask, members))
        pattern = (tuple(names), tuple(masks))
        if pattern not in self._patterns:
            cases = [
                _case(sample, {name: self._placeholder(name, number, mask) for name in own})
                for number, (sample, own, mask) in enumerate(zip(members, names, masks, strict=True))
            ]
            self._patterns[pattern] = self._planned("image", cases, NONE)
        return self._patterns[pattern]

    def _planned(self, image_id: str, cases: Sequence[Case], condition: str) -> Curves:
        plan, _ = plan_curves(self.grid, image_id, cases, self.protocol.under(condition))
        return Curves(0, len(plan), plan.questions_asked)

    def _names(self, spec: str, sample: Sample) -> tuple[str, ...]:
        """Names of the maps that a sample has under a substrate."""
        methods = self.method_set.methods
        return tuple(
            name
            for name in self.method_set.scored[spec]
            if not (method := methods[name.removesuffix(BLURRED)]).needs_mask or _has_mask(sample, method.mask)
        )

    def _placeholder(self, name: str, question: int, mask: int) -> np.ndarray:
        """A map without ties that is equal to others only where those of the method are."""
        method = self.method_set.methods[name.removesuffix(BLURRED)]
        per_image = isinstance(method, CONTROLS)
        key = f"mask {mask}" if method.needs_mask else "image" if per_image else f"question {question}"
        return stream(0, key, "placeholder", name).random(self.grid)


def image_groups(data: CXRVQADataModule) -> Iterator[list[Sample]]:
    """The questions of an image that one batch holds: these share their perturbed pictures.

    Args:
        data: its `limit` counts; the number of ranks changes no group.
    """
    loader = data.loader()
    assert isinstance(loader.batch_sampler, ImageBatches) and isinstance(loader.dataset, ManifestDataset)
    for batch in loader.batch_sampler:
        by_image: dict[str, list[Sample]] = {}
        for position in batch:
            sample = Sample.from_row(data.table[int(loader.dataset.rows[position])])
            by_image.setdefault(sample.image_id, []).append(sample)
        yield from by_image.values()
        data.table.release()


def scored_together(group: Sequence[Sample], spec: str) -> list[Sequence[Sample]]:
    """Samples whose pictures are planned together: all of an image, under `pair` those with the same pair."""
    if spec != PAIR:
        return [group] if group else []
    by_pair: dict[str, list[Sample]] = {}
    for sample in group:
        if sample.pair_path:
            by_pair.setdefault(sample.pair_path, []).append(sample)
    return list(by_pair.values())


def _case(sample: Sample, maps: Maps) -> Case:
    prompt = Prompt(sample.question, (), (), 0)
    return Case(prompt, sample.image_id, sample.kind or OPEN, NO_REPLY, None, maps=dict(maps))


def _mask(sample: Sample) -> tuple[object, ...]:
    """What the finding's mask is made from: questions about one finding have one mask, and one order of its cells."""
    return (sample.finding_mask_path, (sample.finding or "").casefold(), sample.boxes, sample.anatomy_masks)


def _numbered(things: Iterable[object]) -> list[int]:
    """Equal things get equal numbers, from 0."""
    numbers: dict[object, int] = {}
    return [numbers.setdefault(thing, len(numbers)) for thing in things]


def _has_mask(sample: Sample, label: str | None) -> bool:
    """Whether a sample has the mask that a method needs: an organ's, or None for the finding's."""
    if (sample.kind or YES_NO) != YES_NO:
        return False
    return label in dict(sample.anatomy_masks) if label is not None else _is_marked(sample)


def _is_marked(sample: Sample) -> bool:
    """Whether the finding has a mask or boxes."""
    finding = (sample.finding or "").casefold()
    return bool(sample.finding_mask_path or (finding and any(box.label.casefold() == finding for box in sample.boxes)))
