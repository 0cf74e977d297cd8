"""The loss of iGOS++ and its integrated gradient; see `cxr_faith.attribution.igos`.

With Φ(K) = K·picture + (1 - K)·substrate, the loss of a deletion mask x and an insertion mask y (1 = keep) is

    [s(Φ(x)) - s(Φ(1 - y)) + s(Φ(x·y)) - s(Φ(1 - x·y))] / max(|e|, ε) + area·mean|1 - x·y| + smoothness·TV(x·y)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cxr_faith.vlm.base import VLM, Prompt, Target
from cxr_faith.vlm.micro_batch import MicroBatch

SIGNS = (1.0, -1.0, 1.0, -1.0)
"""Signs of the four score terms."""


def kept_shares(masks: Tensor) -> Tensor:
    """What each score term keeps of a picture: x, 1 - y, x·y and 1 - x·y.

    Args:
        masks: x and y, [..., 2, grid_h, grid_w].

    Returns:
        [..., 4, grid_h, grid_w].
    """
    deleting, inserting = masks.unbind(-3)
    product = deleting * inserting
    return torch.stack([deleting, 1 - inserting, product, 1 - product], dim=-3)


def bilateral_tv(mask: Tensor, cells: Tensor) -> Tensor:
    """Total variation of a mask, weighted less across edges of the picture.

    Args:
        mask: [..., grid_h, grid_w].
        cells: mean gray value of each cell, of the same shape.

    Returns:
        [...]: Σ over neighboring cells of exp(-Δcells² / variance of cells)·Δmask², divided by the number of cells.
    """
    variance = cells.var((-2, -1), correction=0, keepdim=True).clamp_min(torch.finfo(cells.dtype).tiny)
    total = mask.new_zeros(mask.shape[:-2])
    for axis in (-2, -1):
        weight = (-cells.diff(dim=axis).square() / variance).exp()
        total = total + (weight * mask.diff(dim=axis).square()).sum((-2, -1))
    return total / (mask.shape[-2] * mask.shape[-1])


@dataclass(frozen=True)
class MaskLoss:
    """The losses of a batch of pictures, one for each, as functions of their masks.

    Attributes:
        vlm: the model.
        pictures: [batch, 3, H, W].
        removed: their substrate, of the same shape.
        prompts: the questions, of equal length.
        targets: what s is, with the same scored tokens for all.
        scale: max(|e|, ε) in the unit of s, [batch].
        area: weight of the L1 term.
        smoothness: weight of the total variation.
        together: terms in one forward and backward pass.
    """

    vlm: VLM
    pictures: Tensor
    removed: Tensor
    prompts: Sequence[Prompt]
    targets: Sequence[Target]
    scale: Tensor
    area: float
    smoothness: float
    together: MicroBatch

    def of(self, chosen: Sequence[int]) -> "MaskLoss":
        """The losses of some of the pictures."""
        pick = list(chosen)
        return replace(
            self,
            pictures=self.pictures[pick],
            removed=self.removed[pick],
            prompts=[self.prompts[index] for index in pick],
            targets=[self.targets[index] for index in pick],
            scale=self.scale[pick],
        )

    def score_terms(
        self, masks: Tensor, alpha: float = 1.0, noise: Tensor | None = None, part: slice = slice(None)
    ) -> Tensor:
        """The four signed score terms at Φ(α·K) of each picture in turn, [4 · batch].

        Args:
            masks: [batch, 2, grid_h, grid_w].
            alpha: point on the path from the substrate to the masked picture.
            noise: [batch, 1, H, W], added to the pictures.
            part: which of the 4 · batch terms to compute.
        """
        (rows, columns), (height, width) = self.vlm.grid, self.pictures.shape[-2:]
        kept = (alpha * kept_shares(masks))[:, :, None]
        kept = kept.repeat_interleave(height // rows, -2).repeat_interleave(width // columns, -1)
        pictures = self.pictures if noise is None else self.pictures + noise
        pixels = (self.removed[:, None] + kept * (pictures - self.removed)[:, None]).flatten(0, 1)[part]
        self.vlm.counts.backward += len(pixels) if masks.requires_grad else 0
        prompts = [prompt for prompt in self.prompts for _ in SIGNS][part]
        targets = [target for target in self.targets for _ in SIGNS][part]
        scores = self.vlm.trace(self.vlm.encode(pixels), prompts, targets).mean(1)
        weights = torch.tensor(SIGNS, device=scores.device) / self.scale[:, None]
        return scores * weights.flatten()[part]

    def regularizer(self, masks: Tensor) -> Tensor:
        """Weighted area and total variation of the product of both masks, [batch]."""
        product = masks.prod(1)
        cells = torch.nn.functional.adaptive_avg_pool2d(self.pictures.mean(1), self.vlm.grid)
        return self.area * (1 - product).abs().mean((1, 2)) + self.smoothness * bilateral_tv(product, cells)

    def values(self, masks: Tensor) -> list[float]:
        """The loss of each picture at α = 1, without noise."""
        terms: list[Tensor] = []
        with torch.no_grad():
            self.together.run(
                len(SIGNS) * len(masks),
                lambda start, stop: terms.append(self.score_terms(masks, part=slice(start, stop))),
            )
            losses = torch.cat(terms).view(-1, len(SIGNS)).sum(1) + self.regularizer(masks)
        return [float(loss) for loss in losses.cpu()]

    def direction(self, masks: Tensor, steps: int, noise: Tensor | None) -> Tensor:
        """Direction of ascent: score gradient averaged over α = 1/steps … 1, plus the gradient of the regularizer.

        Args:
            masks: [batch, 2, grid_h, grid_w].
            steps: points of the path.
            noise: a field for each picture and point, [batch, steps, H, W]; None: no noise.

        Returns:
            [batch, 2, grid_h, grid_w].
        """
        with torch.enable_grad():
            leaf = masks.detach().requires_grad_()
            gradient = torch.autograd.grad(self.regularizer(leaf).sum(), leaf)[0]
        for point in range(steps):
            field = None if noise is None else noise[:, point : point + 1]
            gradient = gradient + self._slope(masks, (point + 1) / steps, field) / steps
        return gradient

    def _slope(self, masks: Tensor, alpha: float, noise: Tensor | None) -> Tensor:
        """Gradient of the sum of all score terms, in the shape of the masks."""
        slope = torch.zeros_like(masks)

        def add(start: int, stop: int) -> None:
            with torch.enable_grad():
                leaf = masks.detach().requires_grad_()
                terms = self.score_terms(leaf, alpha, noise, slice(start, stop))
                slope.add_(torch.autograd.grad(terms.sum(), leaf)[0])

        self.together.run(len(SIGNS) * len(masks), add)
        return slope
