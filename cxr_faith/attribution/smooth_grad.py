"""Gradients on the input patches with SmoothGrad.

Chosen over AttnLRP (Achtibat et al. 2024), whose rules replace the backward pass inside every norm, softmax, product
and gated MLP of tower and decoder. That needs a second copy of the model rather than a method on a VLM's interface.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, score_gradient
from cxr_faith.attribution.gradients import Parts, each_score, mean_score
from cxr_faith.perturb.device_noise import device_noise
from cxr_faith.vlm.base import VLM, Target
from cxr_faith.vlm.micro_batch import MicroBatch

COPIES_AT_ONCE = 4
"""Noisy copies in one forward and backward pass through tower and decoder."""


class SmoothGrad(Method):
    """SmoothGrad (Smilkov et al. 2017): gradient of the score by pixels, averaged over noisy copies.

    A cell's value is the L2 norm of the averaged gradient over its pixels and channels.

    Args:
        copies: noisy copies of a picture.
        noise: standard deviation, as a share of the picture's range of values; 0 with one copy is the plain gradient.
        micro_batch: copies in one forward and backward pass; halved when memory runs out.
    """

    def __init__(self, copies: int = 16, noise: float = 0.15, micro_batch: int = COPIES_AT_ONCE) -> None:
        if copies < 1 or noise < 0:
            raise ValueError(f"copies must be at least 1 and noise not negative, got {copies} and {noise}")
        self.copies, self.noise = copies, noise
        self.together: MicroBatch = MicroBatch(micro_batch)

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Maps of gradient norms; the noise is seeded by the image. See `Method.attribute`."""
        return self._explain(vlm, batch, target, mean_score)[0]

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """Each copy's forward for all tokens, one backward for each; see `Method.attribute_tokens`."""
        return self._explain(vlm, batch, target, each_score)

    def _explain(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target], parts: Parts) -> list[Attribution]:
        maps = [self._maps(vlm, batch, index, target[index], parts) for index in range(len(batch.prompts))]
        return [Attribution(one) for one in torch.stack(maps, dim=1)]

    def _maps(self, vlm: VLM, batch: AttributionBatch, index: int, target: Target, parts: Parts) -> Tensor:
        """One picture's map of each part, [parts, grid_h, grid_w]."""
        picture = batch.pixels[index].float()
        sigma = self.noise * (picture.max() - picture.min())
        source, size, totals = (
            (batch.seed, batch.image_ids[index], "noise", "smooth_grad"),
            picture.numel(),
            list[Tensor](),
        )

        def add(start: int, stop: int) -> None:
            count = stop - start
            with torch.enable_grad():
                noise = device_noise(*source, start * size, count * size, picture.device).view(count, *picture.shape)
                noisy = (picture + sigma * noise).requires_grad_()
                scores = parts(vlm.trace(vlm.encode(noisy), [batch.prompts[index]] * count, [target] * count))
            vlm.counts.backward += count * len(scores)
            gradients = [
                score_gradient(score, [noisy], more=part + 1 < len(scores))[0].sum(0)
                for part, score in enumerate(scores)
            ]
            totals[:] = map(torch.add, totals, gradients) if totals else gradients

        self.together.run(self.copies, add)
        energy = (torch.stack(totals) / self.copies).square().sum(1)
        rows, columns = vlm.grid
        cells = energy.reshape(-1, rows, energy.shape[1] // rows, columns, energy.shape[2] // columns)
        return cells.sum(4).sum(2).sqrt()
