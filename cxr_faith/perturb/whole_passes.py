"""Scores of a few whole pictures under the questions that are asked about them, such as a blank one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cxr_faith.perturb.engine import Engine
from cxr_faith.vlm.base import PictureScores, Prompt, Target


def score_pictures(
    engine: Engine,
    pictures: Sequence[Tensor],
    prompts: Sequence[Prompt],
    targets: Sequence[Target],
    wanted: Sequence[Sequence[int]],
) -> list[PictureScores]:
    """Score whole pictures; each goes through the tower once, in micro-batches as full as those of the curves.

    Args:
        engine: runs the model, which is shown as many pictures as each question.
        pictures: pixel values [3, H, W] each.
        prompts: the questions.
        targets: one for each question.
        wanted: for each question, the places in `pictures` of those that it is asked about.

    Returns:
        for each question, its scores [len(wanted)] on the CPU, in that order.
    """
    vlm, columns = engine.vlm, len(PictureScores.__dataclass_fields__)
    filled = torch.full((len(prompts), columns, len(pictures)), torch.nan, dtype=torch.float64, device=vlm.device)

    def work(start: int, stop: int) -> None:
        batch, padding = torch.stack(list(pictures[start:stop])), engine.batches.rows(stop - start) - (stop - start)
        if padding:
            batch = torch.cat([batch, batch[:1].expand(padding, -1, -1, -1)])
        prefix = vlm.prefill(vlm.encode(batch))
        for question, places in enumerate(wanted):
            mine = sum(start <= place < stop for place in places)
            if mine:
                scores = vlm.score(prefix, prompts[question], targets[question])
                filled[question][:, start:stop] = torch.stack(scores.columns)[:, : stop - start]
                vlm.counts.padding += len(batch) - mine

    with torch.no_grad():
        engine.batches.run(len(pictures), work)
    scores = filled.cpu()
    return [PictureScores(*scores[question][:, list(places)]) for question, places in enumerate(wanted)]
