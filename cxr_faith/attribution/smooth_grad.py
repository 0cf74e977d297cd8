"""Gradients on the input patches with SmoothGrad.

Chosen over AttnLRP (Achtibat et al. 2024), whose relevance rules replace the backward pass inside every norm, softmax,
product and gated MLP of tower and decoder: that is a second copy of the model, not a method on a VLM's interface.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, score_gradient
from cxr_faith.perturb.schedule import stream
from cxr_faith.vlm.base import VLM, Target

COPIES_AT_ONCE = 4
"""Noisy copies in one forward and backward pass through tower and decoder."""


class SmoothGrad(Method):
    """SmoothGrad (Smilkov et al. 2017): the gradient of s with respect to the pixels, averaged over noisy copies.

    A cell's value is the L2 norm of the averaged gradient over its pixels and channels.
    """

    def __init__(self, copies: int = 16, noise: float = 0.15) -> None:
        """Choose the noise.

        Args:
            copies: noisy copies of a picture.
            noise: standard deviation, as a share of the picture's range of values; 0 with one copy is the gradient.
        """
        if copies < 1 or noise < 0:
            raise ValueError(f"copies must be at least 1 and noise not negative, got {copies} and {noise}")
        self.copies, self.noise = copies, noise

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Maps of gradient norms; the noise is seeded by the image. See `Method.attribute`."""
        maps = [self._map(vlm, batch, index, target[index]) for index in range(len(batch.prompts))]
        return Attribution(torch.stack(maps))

    def _map(self, vlm: VLM, batch: AttributionBatch, index: int, target: Target) -> Tensor:
        picture = batch.pixels[index].float()
        sigma = self.noise * (picture.max() - picture.min())
        random = stream(batch.seed, batch.image_ids[index], "noise", "smooth_grad")
        total = torch.zeros_like(picture)
        for start in range(0, self.copies, COPIES_AT_ONCE):
            count = min(COPIES_AT_ONCE, self.copies - start)
            noise = torch.from_numpy(random.standard_normal((count, *picture.shape))).to(picture)
            with torch.enable_grad():
                noisy = (picture + sigma * noise).requires_grad_()
                score = vlm.trace(vlm.encode(noisy), [batch.prompts[index]] * count, [target] * count).mean(1)
            vlm.counts.backward += count
            total += score_gradient(score, [noisy])[0].sum(0)
        energy = (total / self.copies).square().sum(0)
        rows, columns = vlm.grid
        cells = energy.reshape(rows, energy.shape[0] // rows, columns, energy.shape[1] // columns)
        return cells.sum(3).sum(1).sqrt()
