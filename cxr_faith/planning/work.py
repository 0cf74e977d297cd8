"""The passes of a whole run by kind, at most and as expected."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cxr_faith.data.sample import Sample
from cxr_faith.perturb.condition import NONE
from cxr_faith.planning.maps import MapPasses
from cxr_faith.planning.passes import CurveCounter, Curves, Known, Use


@dataclass(frozen=True)
class Work:
    """Passes of a run.

    Attributes:
        samples: samples of the run.
        images: their images.
        patients: their patients; an image without a patient counts as one.
        rows: records.
        answers: forward passes for answers.
        maps: forward passes for maps.
        backwards: backward passes, for maps.
        curves: forward passes for curves: questions asked about perturbed pictures.
        use: forward passes for image use: whether the answers use their pictures.
        pictures: distinct perturbed pictures.
        known: share of the samples whose maps are known from the pilot, so that their counts are exact.
    """

    samples: int
    images: int
    patients: int
    rows: int
    answers: int
    maps: int
    backwards: int
    curves: int
    use: int
    pictures: int
    known: float

    @property
    def forwards(self) -> int:
        """All forward passes."""
        return self.answers + self.maps + self.curves + self.use


def count_work(groups: Iterable[list[Sample]], counter: CurveCounter, maps: MapPasses, known: Known, use: Use) -> Work:
    """Count the passes of a run.

    Samples whose maps are known count exactly. The others count as much as they can at most, times what the known ones
    took of their most: some answers cannot be explained, and some maps share pictures.

    Args:
        groups: the questions of each image and batch.
        counter: plans the curves.
        maps: passes of the maps of one question.
        known: the pilot's maps; empty: none is known.
        use: the pilot's passes for image use.
    """
    conditions = (NONE, *counter.protocol.conditions)
    exact, their_most, rest = Curves(), Curves(), Curves()
    images, patients, samples, rows = set[str](), set[str](), 0, 0
    for group in groups:
        samples += len(group)
        images |= {sample.image_id for sample in group}
        patients |= {sample.patient_id or sample.image_id for sample in group}
        rows += sum(map(counter.rows, group))
        whole = counter.most(group)
        for condition in conditions:
            most = whole if condition == NONE else replace(whole, use=0)
            own = [known.get((sample.sample_id, condition)) for sample in group]
            if all(one is not None for one in own):
                exact += counter.exact(group, [one for one in own if one is not None], condition, use)
                their_most += most
            else:
                rest += most
    explained, pictures, forwards, used = (
        getattr(exact, name)
        + getattr(rest, name) * (getattr(exact, name) / most if (most := getattr(their_most, name)) else 1.0)
        for name in ("samples", "pictures", "forwards", "use")
    )
    copies = counter.protocol.uncertainty
    again = 1 + (copies.copies if copies else 0) / len(conditions)  # copies are made of the plain picture alone
    sets = 2 * maps.sets * len(counter.method_set.scored) * explained
    return Work(
        samples=samples,
        images=len(images),
        patients=len(patients),
        rows=rows,
        answers=samples * len(conditions),
        maps=round(maps.forwards * explained * again),
        backwards=round(maps.backwards * explained * again),
        curves=round(forwards + sets),
        use=round(used),
        pictures=round(pictures + sets),
        known=their_most.samples / max(their_most.samples + rest.samples, 1),
    )
