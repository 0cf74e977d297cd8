"""The loss of iGOS++ on the path of integrated gradients; see `cxr_faith.attribution.igos`.

With Φ(K) = K·picture + (1 - K)·substrate, the loss of a deletion mask x and an insertion mask y (1 = keep) is

    mean over α of [s(Φ(αx)) - s(Φ(1 - αy)) + s(Φ(αx·y)) - s(Φ(1 - αx·y))] / max(|e|, ε)
    + area·mean|1 - x·y| + shrinkage·mean (1 - x·y)² + smoothness·TV(x·y)

with α = 1/steps … 1. Deletion starts at the substrate and puts back what its mask keeps; insertion starts at the
picture and takes away what its mask keeps, so both integrate over the removal of all evidence from the first step on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cxr_faith.vlm.base import VLM, Prompt, Target
from cxr_faith.vlm.micro_batch import MicroBatch

Core = Callable[[Tensor], Tensor]
SIGNS = (1.0, -1.0, 1.0, -1.0)
"""Signs of the four score terms."""


def kept_shares(masks: Tensor, alpha: float) -> Tensor:
    """What each score term keeps of a picture: αx, 1 - αy, αx·y and 1 - αx·y.

    Args:
        masks: x and y, [..., 2, grid_h, grid_w].
        alpha: point of the path, 0 to 1.

    Returns:
        [..., 4, grid_h, grid_w].
    """
    deleting, inserting = (alpha * masks).unbind(-3)
    product = alpha * masks.prod(-3)
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
        shrinkage: weight of the squared term.
        smoothness: weight of the total variation.
        steps: points of the path.
        together: terms in one forward and backward pass.
        core: what is used in place of the gradients of the score terms, [batch, 2, grid_h, grid_w].
    """

    vlm: VLM
    pictures: Tensor
    removed: Tensor
    prompts: Sequence[Prompt]
    targets: Sequence[Target]
    scale: Tensor
    area: float
    shrinkage: float
    smoothness: float
    steps: int
    together: MicroBatch
    core: Core

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

    def shrunk(self, factor: float) -> "MaskLoss":
        """The losses with another weight of the squared area."""
        return replace(self, shrinkage=self.shrinkage * factor)

    def regularizer(self, masks: Tensor) -> Tensor:
        """Weighted area, squared area and total variation of the product of both masks, [batch]."""
        gone = 1 - masks.prod(1)
        cells = torch.nn.functional.adaptive_avg_pool2d(self.pictures.mean(1), self.vlm.grid)
        own = (self.vlm.pictures, -1)  # pictures of a sheet are no neighbors
        smooth = self.smoothness * bilateral_tv((1 - gone).unflatten(1, own), cells.unflatten(1, own)).mean(1)
        return self.area * gone.abs().mean((1, 2)) + self.shrinkage * gone.square().mean((1, 2)) + smooth

    def values(self, masks: Tensor, noise: Tensor | None) -> Tensor:
        """Loss of each picture, float32 [batch], without a graph; see `slopes`."""
        with torch.no_grad():
            total = self.regularizer(masks)
            for point in range(self.steps):
                terms: list[Tensor] = []

                def add(start: int, stop: int, point: int = point, terms: list[Tensor] = terms) -> None:
                    terms.append(self._terms(masks, point, noise, slice(start, stop)))

                self.together.run(len(SIGNS) * len(masks), add)
                total = total + torch.cat(terms).view(-1, len(SIGNS)).sum(1) / self.steps
        return total

    def slopes(self, masks: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Losses and their gradients, from the same passes.

        Args:
            masks: [batch, 2, grid_h, grid_w].
            noise: a field for each picture and point of the path, [batch, steps, H, W]; None: no noise.

        Returns:
            (float32 [batch], float32 [batch, 2, grid_h, grid_w]).
        """
        with torch.enable_grad():
            leaf = masks.detach().requires_grad_()
            extra = self.regularizer(leaf)
            pull = torch.autograd.grad(extra.sum(), leaf)[0]
        total, slope = extra.detach(), torch.zeros_like(masks)
        for point in range(self.steps):
            terms: list[Tensor] = []

            def add(start: int, stop: int, point: int = point, terms: list[Tensor] = terms) -> None:
                with torch.enable_grad():
                    leaf = masks.detach().requires_grad_()
                    part = self._terms(leaf, point, noise, slice(start, stop))
                    slope.add_(torch.autograd.grad(part.sum(), leaf)[0] / self.steps)
                terms.append(part.detach())

            self.together.run(len(SIGNS) * len(masks), add)
            total = total + torch.cat(terms).view(-1, len(SIGNS)).sum(1) / self.steps
        return total, self.core(slope) + pull

    def _terms(self, masks: Tensor, point: int, noise: Tensor | None, part: slice) -> Tensor:
        """A part of the 4 · batch signed and scaled score terms at one point of the path."""
        (rows, columns), (height, width) = self.vlm.grid, self.pictures.shape[-2:]
        kept = kept_shares(masks, (point + 1) / self.steps)[:, :, None]
        kept = kept.repeat_interleave(height // rows, -2).repeat_interleave(width // columns, -1)
        pixels = self.removed[:, None] + kept * (self.pictures - self.removed)[:, None]
        if noise is not None:
            pixels = pixels + noise[:, point, None, None]
        pixels = pixels.flatten(0, 1)[part]
        self.vlm.counts.backward += len(pixels) if masks.requires_grad else 0
        prompts = [prompt for prompt in self.prompts for _ in SIGNS][part]
        targets = [target for target in self.targets for _ in SIGNS][part]
        scores = self.vlm.trace(self.vlm.encode(pixels), prompts, targets).mean(1)
        # Not `torch.tensor(SIGNS)`: the copy to a device would wait there in every pass.
        weights = torch.stack([sign / self.scale for sign in SIGNS], 1)
        return scores * weights.flatten()[part]
