"""Measures how sure the maps of a batch are: the spread of each over copies of its picture."""

from collections.abc import Sequence

from cxr_faith.perturb.copies import Copies
from cxr_faith.perturb.engine import Engine
from cxr_faith.run.method_set import MethodSet
from cxr_faith.run.predict import Reading
from cxr_faith.uncertainty import measure_spread


def measure_spreads(
    engine: Engine, method_set: MethodSet, readings: Sequence[Reading], seed: int, copies: Copies
) -> None:
    """Put the spread beside each map that is not from an earlier start; answers that are not scored have none.

    Args:
        engine: runs the model.
        method_set: the methods.
        readings: answered and explained questions.
        seed: the run's seed.
        copies: what the copies are.
    """
    vlm, methods = engine.vlm, method_set.methods
    for reading in readings:
        for item, case, known in zip(reading.items, reading.cases, reading.known, strict=True):
            ids = item.sample.picture_ids
            batches, texts = engine.batches, item.paraphrases
            measure_spread(vlm, methods, reading.pixels, case, ids, seed, copies, known.maps, batches, texts)
