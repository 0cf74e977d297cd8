"""iGOS++ (Khorram, Lawson & Li, CHIL 2021; for vision-language models Xing et al. 2025): optimized masks.

Two masks over the cells in [0, 1], 1 = keep, are sought: deleting with the first, x, must lower the score s, inserting
what the second, y, marks must raise it, and their product must do both. With Φ(K) = K·picture + (1 - K)·substrate,

    loss = [s(Φ(x)) - s(Φ(1 - y)) + s(Φ(x·y)) - s(Φ(1 - x·y))] / max(|e|, ε) + area·mean|1 - x·y| + smoothness·TV(x·y)

The step direction comes from integrated gradients: the mean gradient of the score terms at Φ(α·K) for α on the path
from the substrate to the masked picture, which sees evidence where the score saturates. Saliency is 1 - x·y. Cells are
token aligned, as they are when the map is scored; the papers' bilinear masks would credit a cell's neighbors too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method
from cxr_faith.metrics.functional import effect_threshold
from cxr_faith.perturb.schedule import stream
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.vlm.answers import likelihood_ratios
from cxr_faith.vlm.base import VLM, Prompt, Target
from cxr_faith.vlm.micro_batch import MicroBatch

LLR_THRESHOLD = 1.0
"""Tokens that the picture makes at least this much likelier than its substrate, in nats, are explained."""
FIRST_STEP, HALVINGS = 0.5, 5
_SIGNS = (1.0, -1.0, 1.0, -1.0)


def kept_shares(masks: Tensor) -> Tensor:
    """What the four terms keep, [..., 4, gH, gW]: x, 1 - y, x·y, 1 - x·y, from the masks (x, y) [..., 2, gH, gW]."""
    deleting, inserting = masks.unbind(-3)
    product = deleting * inserting
    return torch.stack([deleting, 1 - inserting, product, 1 - product], dim=-3)


def bilateral_tv(mask: Tensor, cells: Tensor) -> Tensor:
    """Total variation that forgives steps where the picture has an edge.

    Args:
        mask: [..., gH, gW].
        cells: mean grey value of each cell, of the same shape.

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
class Problem:
    """The losses of some pictures, each its own.

    Attributes:
        vlm: the model.
        pictures: [batch, 3, H, W]; `removed` likewise, their substrate.
        prompts: the questions, of equal length.
        targets: what s is, of equal shape.
        scale: max(|e|, ε) of s, in its own unit, [batch].
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

    def of(self, chosen: Sequence[int]) -> "Problem":
        """The problem of some of the pictures."""
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
            masks: [batch, 2, gH, gW].
            alpha: point of the path.
            noise: [batch, 1, H, W], added to the pictures.
            part: which of the terms.
        """
        (rows, columns), (height, width) = self.vlm.grid, self.pictures.shape[-2:]
        kept = (alpha * kept_shares(masks))[:, :, None]
        kept = kept.repeat_interleave(height // rows, -2).repeat_interleave(width // columns, -1)
        pictures = self.pictures if noise is None else self.pictures + noise
        pixels = (self.removed[:, None] + kept * (pictures - self.removed)[:, None]).flatten(0, 1)[part]
        self.vlm.counts.backward += len(pixels) if masks.requires_grad else 0
        prompts = [prompt for prompt in self.prompts for _ in _SIGNS][part]
        targets = [target for target in self.targets for _ in _SIGNS][part]
        scores = self.vlm.trace(self.vlm.encode(pixels), prompts, targets).mean(1)
        weights = torch.tensor(_SIGNS, device=scores.device) / self.scale[:, None]
        return scores * weights.flatten()[part]

    def regularizer(self, masks: Tensor) -> Tensor:
        """Area and total variation of the product of both masks, [batch]."""
        product = masks.prod(1)
        cells = torch.nn.functional.adaptive_avg_pool2d(self.pictures.mean(1), self.vlm.grid)
        return self.area * (1 - product).abs().mean((1, 2)) + self.smoothness * bilateral_tv(product, cells)

    def loss(self, masks: Tensor) -> list[float]:
        """The loss of each picture at α = 1, without noise."""
        terms: list[Tensor] = []
        with torch.no_grad():
            self.together.run(
                len(_SIGNS) * len(masks),
                lambda start, stop: terms.append(self.score_terms(masks, part=slice(start, stop))),
            )
            losses = torch.cat(terms).view(-1, len(_SIGNS)).sum(1) + self.regularizer(masks)
        return [float(loss) for loss in losses.cpu()]

    def direction(self, masks: Tensor, steps: int, noise: Tensor | None) -> Tensor:
        """Integrated-gradient directions of ascent: mean over α = 1/steps … 1, and the regularizer's own.

        Args:
            masks: [batch, 2, gH, gW].
            steps: points of the path.
            noise: one field for each picture and point, [batch, steps, H, W]; None for none.

        Returns:
            [batch, 2, gH, gW].
        """
        with torch.enable_grad():
            leaf = masks.detach().requires_grad_()
            gradient = torch.autograd.grad(self.regularizer(leaf).sum(), leaf)[0]
        for point in range(steps):
            field = None if noise is None else noise[:, point : point + 1]
            gradient = gradient + self._slope(masks, (point + 1) / steps, field) / steps
        return gradient

    def _slope(self, masks: Tensor, alpha: float, noise: Tensor | None) -> Tensor:
        """Gradient of the sum of all score terms, like the masks."""
        slope = torch.zeros_like(masks)

        def add(start: int, stop: int) -> None:
            with torch.enable_grad():
                leaf = masks.detach().requires_grad_()
                terms = self.score_terms(leaf, alpha, noise, slice(start, stop))
                slope.add_(torch.autograd.grad(terms.sum(), leaf)[0])

        self.together.run(len(_SIGNS) * len(masks), add)
        return slope


class IGOSPP(Method):
    """Optimized deletion and insertion masks with integrated-gradient steps and a backtracking line search."""

    def __init__(
        self,
        substrate: str = DEFAULT_SUBSTRATE,
        iterations: int = 15,
        path_steps: int = 4,
        noise: float = 0.1,
        area: float = 1.0,
        smoothness: float = 1.0,
    ) -> None:
        """Choose loss and effort.

        Args:
            substrate: what stands for what is not kept; `road` means the default blur, since a path through soft masks
                has no cells to interpolate from.
            iterations: steps of the optimization at most; it ends earlier when no step lowers the loss.
            path_steps: points of the path of integrated gradients.
            noise: standard deviation of the noise on path pictures, as a share of the picture's own.
            area: weight of the masks' area (an L1 on 1 - mask).
            smoothness: weight of the bilateral total variation.
        """
        if iterations < 1 or path_steps < 1:
            raise ValueError(f"iterations and path_steps must be at least 1, got {iterations} and {path_steps}")
        if min(noise, area, smoothness) < 0:
            raise ValueError("noise, area and smoothness must not be negative")
        self.substrate: Substrate = Substrate.parse(DEFAULT_SUBSTRATE if substrate == "road" else substrate)
        self.iterations, self.path_steps, self.noise = iterations, path_steps, noise
        self.area, self.smoothness = area, smoothness
        self._together = MicroBatch(len(_SIGNS))

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Saliency 1 - x·y in [0, 1], all pictures together, each with its own line search; see `Method.attribute`.

        `extras` hold both masks, the explained tokens with their log-likelihood ratios, and the loss after each step.
        """
        removed = self.substrate.apply(batch.pixels, batch.image_ids, batch.seed)
        problem, extras = self._problem(vlm, batch, removed, target)
        masks = torch.empty(len(target), 2, *vlm.grid, device=batch.pixels.device)
        histories: list[list[float]] = [[] for _ in target]
        for chosen in _alike(problem.targets):
            streams = [stream(batch.seed, batch.image_ids[index], "igos_noise") for index in chosen]
            masks[chosen], found = self._optimize(problem.of(chosen), streams)
            for index, history in zip(chosen, found, strict=True):
                histories[index] = history
        deleting, inserting = masks.unbind(1)
        extras |= {"loss_history": histories, "deletion_mask": deleting.tolist(), "insertion_mask": inserting.tolist()}
        return Attribution(1 - deleting * inserting, extras)

    def _problem(
        self, vlm: VLM, batch: AttributionBatch, removed: Tensor, targets: Sequence[Target]
    ) -> tuple[Problem, dict[str, list[Any]]]:
        """The losses, and which tokens they are about."""
        told: dict[str, list[Any]] = {}
        chosen, scales = [], []
        with torch.no_grad():
            tokens, gone = vlm.encode(batch.pixels), vlm.encode(removed)
            for index, (prompt, target) in enumerate(zip(batch.prompts, targets, strict=True)):
                both = tokens[index, None], gone[index, None]
                if target.kind == "tokens":
                    ratios = likelihood_ratios(vlm, *both, prompt, target).tolist()
                    target = replace(target, scored=select_tokens(target.scored, ratios))
                    told.setdefault("tokens", []).append(list(target.scored))
                    told.setdefault("llrs", []).append(ratios)
                s, s_removed = (vlm.trace(seen, [prompt], [target]).mean(1).double() for seen in both)
                scales.append(torch.maximum((s - s_removed).abs(), effect_threshold(s)).float())
                chosen.append(target)
        scale = torch.cat(scales)
        weights = self.area, self.smoothness
        return Problem(vlm, batch.pixels, removed, batch.prompts, chosen, scale, *weights, self._together), told

    def _optimize(self, problem: Problem, streams: Sequence[np.random.Generator]) -> tuple[Tensor, list[list[float]]]:
        """Masks [batch, 2, gH, gW], and the losses before the first and after each accepted step of each picture."""
        masks = torch.ones(len(streams), 2, *problem.vlm.grid, device=problem.pictures.device)
        histories, going = [[loss] for loss in problem.loss(masks)], list(range(len(masks)))
        for _ in range(self.iterations):
            now = problem.of(going)
            steps = now.direction(masks[going], self.path_steps, self._noise(now, [streams[index] for index in going]))
            sizes = steps.abs().amax((1, 2, 3))
            for index, size in zip(going, sizes.tolist(), strict=True):
                if not math.isfinite(size):
                    masks[index] = torch.nan  # no map, rather than one that points nowhere
            uphill = [at for at, size in enumerate(sizes.tolist()) if math.isfinite(size) and size > 0]
            going = [going[at] for at in uphill]
            before = [histories[index][-1] for index in going]
            unit = steps[uphill] / sizes[uphill, None, None, None]
            found = line_search(now.of(uphill), masks[going], unit, before)
            for at, (candidate, loss) in found.items():
                masks[going[at]] = candidate
                histories[going[at]].append(loss)
            going = [going[at] for at in sorted(found)]
            if not going:
                break
        return masks, histories

    def _noise(self, problem: Problem, streams: Sequence[np.random.Generator]) -> Tensor | None:
        """Fields [batch, path_steps, H, W] from each picture's own stream."""
        if not self.noise:
            return None
        pictures = problem.pictures
        shape = (self.path_steps, *pictures.shape[-2:])
        drawn = np.stack([generator.standard_normal(shape, dtype="float32") for generator in streams])
        deviation = pictures.std((1, 2, 3), correction=0, keepdim=True)
        return torch.from_numpy(drawn).to(pictures) * self.noise * deviation


def _alike(targets: Sequence[Target]) -> list[list[int]]:
    """Places of the targets that one pass can score together: they read the same positions."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, target in enumerate(targets):
        groups.setdefault(target.scored, []).append(index)
    return list(groups.values())


def select_tokens(scored: Sequence[int], ratios: Sequence[float]) -> tuple[int, ...]:
    """The tokens that the picture makes likelier by more than `LLR_THRESHOLD`; if there are none, the first among all.

    Args:
        scored: indices of answer tokens.
        ratios: log-likelihood ratio of each, original against substrate, in nats.
    """
    chosen = tuple(index for index, ratio in zip(scored, ratios, strict=True) if ratio > LLR_THRESHOLD)
    return chosen or (max(zip(scored, ratios, strict=True), key=lambda pair: pair[1])[0],)


def line_search(
    problem: Problem, masks: Tensor, step: Tensor, losses: Sequence[float]
) -> dict[int, tuple[Tensor, float]]:
    """Backtracking: halve each picture's step until its loss falls.

    Args:
        problem: the losses.
        masks: [batch, 2, gH, gW].
        step: directions of ascent of the same shape, the largest entry of each 1.
        losses: the loss of the masks of each picture.

    Returns:
        Place -> its new masks [2, gH, gW] in [0, 1] and their lower loss; nothing for those that no step lowers.
    """
    found: dict[int, tuple[Tensor, float]] = {}
    for halving in range(HALVINGS):
        left = [place for place in range(len(masks)) if place not in found]
        if not left:
            break
        candidates = (masks[left] - FIRST_STEP * 0.5**halving * step[left]).clamp(0, 1)
        for place, candidate, reached in zip(left, candidates, problem.of(left).loss(candidates), strict=True):
            if reached < losses[place]:
                found[place] = candidate, reached
    return found
