"""iGOS++ (Khorram, Lawson & Li, CHIL 2021; for vision-language models Xing et al. 2025): optimized masks.

The method optimizes two masks over the cells, with values in [0, 1] and 1 = keep. Deleting with the first, x, must
lower the score s; inserting what the second, y, marks must raise it; their product must do both. The loss is in
`cxr_faith.attribution.igos_loss`.

The step direction comes from integrated gradients, the mean gradient of the score terms on a path from the substrate to
the masked picture, which finds evidence where the score saturates. Saliency is 1 - x·y. Cells are aligned with tokens,
as they are when the map is scored; the papers' bilinear masks would also credit the neighbors of a cell.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method
from cxr_faith.attribution.igos_loss import SIGNS, MaskLoss
from cxr_faith.metrics.functional import effect_threshold
from cxr_faith.perturb.schedule import stream
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.vlm.answers import likelihood_ratios
from cxr_faith.vlm.base import VLM, Target
from cxr_faith.vlm.micro_batch import MicroBatch

LLR_THRESHOLD = 1.0
"""Nats: tokens whose log-probability falls by more when the picture is replaced by its substrate are explained."""
FIRST_STEP, HALVINGS = 0.5, 5
"""Of the line search: first step, as a share of the masks' range, and how often it is halved."""


class IGOSPP(Method):
    """iGOS++ (Khorram et al. 2021): masks optimized for a low deletion and a high insertion score.

    Args:
        substrate: what replaces what a mask does not keep; `road` means the default blur, since a path through soft
            masks has no cells to interpolate from.
        iterations: maximum number of optimization steps; it stops earlier when no step lowers the loss.
        path_steps: points of the path of integrated gradients.
        noise: standard deviation of the noise on path pictures, as a share of the picture's standard deviation.
        area: weight of the masks' area (an L1 on 1 - mask).
        smoothness: weight of the bilateral total variation.
    """

    def __init__(
        self,
        substrate: str = DEFAULT_SUBSTRATE,
        iterations: int = 15,
        path_steps: int = 4,
        noise: float = 0.1,
        area: float = 1.0,
        smoothness: float = 1.0,
    ) -> None:
        if iterations < 1 or path_steps < 1:
            raise ValueError(f"iterations and path_steps must be at least 1, got {iterations} and {path_steps}")
        if min(noise, area, smoothness) < 0:
            raise ValueError("noise, area and smoothness must not be negative")
        self.substrate: Substrate = Substrate.parse(DEFAULT_SUBSTRATE if substrate == "road" else substrate)
        self.iterations, self.path_steps, self.noise = iterations, path_steps, noise
        self.area, self.smoothness = area, smoothness
        self._together = MicroBatch(len(SIGNS))

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Saliency 1 - x·y in [0, 1]; pictures share passes, each with its own line search. See `Method.attribute`.

        `extras` holds both masks, the explained tokens with their log-likelihood ratios, and the loss after each step.
        """
        removed = self.substrate.apply(batch.pixels, batch.image_ids, batch.seed)
        loss, extras = self._loss(vlm, batch, removed, target)
        masks = torch.empty(len(target), 2, *vlm.grid, device=batch.pixels.device)
        histories: list[list[float]] = [[] for _ in target]
        for chosen in _by_scored_tokens(loss.targets):
            streams = [stream(batch.seed, batch.image_ids[index], "igos_noise") for index in chosen]
            masks[chosen], optimized = self._optimize(loss.of(chosen), streams)
            for index, history in zip(chosen, optimized, strict=True):
                histories[index] = history
        deleting, inserting = masks.unbind(1)
        extras |= {"loss_history": histories, "deletion_mask": deleting.tolist(), "insertion_mask": inserting.tolist()}
        return Attribution(1 - deleting * inserting, extras)

    def _loss(
        self, vlm: VLM, batch: AttributionBatch, removed: Tensor, targets: Sequence[Target]
    ) -> tuple[MaskLoss, dict[str, list[Any]]]:
        """The losses, and the tokens whose probability they are about."""
        extras: dict[str, list[Any]] = {}
        chosen, scales = [], []
        with torch.no_grad():
            tokens, gone = vlm.encode(batch.pixels), vlm.encode(removed)
            for index, (prompt, target) in enumerate(zip(batch.prompts, targets, strict=True)):
                both = tokens[index, None], gone[index, None]
                if target.kind == "tokens":
                    ratios = likelihood_ratios(vlm, *both, prompt, target).tolist()
                    target = replace(target, scored=select_tokens(target.scored, ratios))
                    extras.setdefault("tokens", []).append(list(target.scored))
                    extras.setdefault("llrs", []).append(ratios)
                s, s_removed = (vlm.trace(seen, [prompt], [target]).mean(1).double() for seen in both)
                scales.append(torch.maximum((s - s_removed).abs(), effect_threshold(s)).float())
                chosen.append(target)
        scale = torch.cat(scales)
        weights = self.area, self.smoothness
        return MaskLoss(vlm, batch.pixels, removed, batch.prompts, chosen, scale, *weights, self._together), extras

    def _optimize(self, loss: MaskLoss, streams: Sequence[np.random.Generator]) -> tuple[Tensor, list[list[float]]]:
        """Masks [batch, 2, grid_h, grid_w], and each picture's losses: at the start and after each accepted step."""
        masks = torch.ones(len(streams), 2, *loss.vlm.grid, device=loss.pictures.device)
        histories, going = [[value] for value in loss.values(masks)], list(range(len(masks)))
        for _ in range(self.iterations):
            now = loss.of(going)
            steps = now.direction(masks[going], self.path_steps, self._noise(now, [streams[index] for index in going]))
            sizes = steps.abs().amax((1, 2, 3))
            for index, size in zip(going, sizes.tolist(), strict=True):
                if not math.isfinite(size):
                    masks[index] = torch.nan  # an invalid map, rather than one that points nowhere
            sloped = [at for at, size in enumerate(sizes.tolist()) if math.isfinite(size) and size > 0]
            going = [going[at] for at in sloped]
            before = [histories[index][-1] for index in going]
            unit = steps[sloped] / sizes[sloped, None, None, None]
            accepted = line_search(now.of(sloped), masks[going], unit, before)
            for at, (candidate, lower) in accepted.items():
                masks[going[at]] = candidate
                histories[going[at]].append(lower)
            going = [going[at] for at in sorted(accepted)]
            if not going:
                break
        return masks, histories

    def _noise(self, loss: MaskLoss, streams: Sequence[np.random.Generator]) -> Tensor | None:
        """Noise fields [batch, path_steps, H, W], each picture's from its own stream."""
        if not self.noise:
            return None
        pictures = loss.pictures
        shape = (self.path_steps, *pictures.shape[-2:])
        drawn = np.stack([generator.standard_normal(shape, dtype="float32") for generator in streams])
        deviation = pictures.std((1, 2, 3), correction=0, keepdim=True)
        return torch.from_numpy(drawn).to(pictures) * self.noise * deviation


def _by_scored_tokens(targets: Sequence[Target]) -> list[list[int]]:
    """Indices of targets, grouped by their scored tokens: one pass can score a group."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, target in enumerate(targets):
        groups.setdefault(target.scored, []).append(index)
    return list(groups.values())


def select_tokens(scored: Sequence[int], ratios: Sequence[float]) -> tuple[int, ...]:
    """The tokens whose log-likelihood ratio is above `LLR_THRESHOLD`; if there is none, the one with the highest.

    Args:
        scored: indices of answer tokens.
        ratios: log-likelihood ratio of each, original against substrate, in nats.
    """
    chosen = tuple(index for index, ratio in zip(scored, ratios, strict=True) if ratio > LLR_THRESHOLD)
    return chosen or (max(zip(scored, ratios, strict=True), key=lambda pair: pair[1])[0],)


def line_search(
    loss: MaskLoss, masks: Tensor, step: Tensor, losses: Sequence[float]
) -> dict[int, tuple[Tensor, float]]:
    """Backtracking: halve each picture's step until its loss falls.

    Args:
        loss: the losses as functions of the masks.
        masks: [batch, 2, grid_h, grid_w].
        step: directions of ascent of the same shape, the largest entry of each 1.
        losses: the current loss of each picture.

    Returns:
        index of a picture -> its new masks [2, grid_h, grid_w] in [0, 1] and their lower loss; pictures whose loss no
        step lowers are missing.
    """
    accepted: dict[int, tuple[Tensor, float]] = {}
    for halving in range(HALVINGS):
        left = [index for index in range(len(masks)) if index not in accepted]
        if not left:
            break
        candidates = (masks[left] - FIRST_STEP * 0.5**halving * step[left]).clamp(0, 1)
        for index, candidate, reached in zip(left, candidates, loss.of(left).values(candidates), strict=True):
            if reached < losses[index]:
                accepted[index] = candidate, reached
    return accepted
