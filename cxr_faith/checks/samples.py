"""The samples that `doctor` and `sanity` look at: the first ones that can be explained."""

from functools import partial

from torch import Tensor

from cxr_faith.cases import Case, read_answers
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.perturb.engine import Engine
from cxr_faith.protocol import Protocol
from cxr_faith.vlm import ModelError

LOOKED_AT = 50
"""Samples that are looked at, at most, for each one that is wanted: a model may answer none of a large manifest."""


def read_cases(
    engine: Engine, data: CXRVQADataModule, protocol: Protocol, samples: int
) -> tuple[list[Tensor], list[Case]]:
    """Pictures [3, H, W] and answered questions of the first samples that can be explained.

    All show as many pictures as the first one, since maps of different sizes cannot be compared; for several, each
    picture is a sheet [3, pictures * H, W]. At most half of the samples are about one picture. No more than `LOOKED_AT`
    times as many samples are looked at.
    """
    vlm, pictures = engine.vlm, list[Tensor]()
    cases: list[Case] = []
    seen = 0
    for batch in data.loader():
        seen += len(batch)
        for item in batch:
            sample, other_size = item.sample, bool(cases) and item.pictures != cases[0].pictures
            of_same_picture = sum(case.image_id == sample.pictures_id for case in cases)
            if item.image is None or other_size or len(cases) == samples or 2 * of_same_picture >= max(samples, 2):
                continue
            try:
                shown = vlm.showing(item.pictures)
            except ModelError:  # its record says so
                continue
            pixels = vlm.normalize(item.image[None].to(vlm.device))[0]
            read = partial(
                read_answers,
                shown,
                pixels,
                sample.pictures_id,
                [sample.question],
                [sample.kind],
                protocol,
                [item.finding_cells(vlm.grid)],
                options=[sample.n_options],
                turns=[sample.turns],
            )
            [case] = engine.whole_pass(read)
            if case.target is not None and not case.off_format:
                pictures.append(pixels)
                cases.append(case)
        if len(cases) == samples or seen >= LOOKED_AT * samples:
            break
    return pictures, cases
