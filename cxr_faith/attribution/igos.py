"""iGOS++ (Khorram, Lawson & Li, CHIL 2021; for vision-language models Xing et al. 2025): optimized masks.

The method optimizes two masks over the cells, with values in [0, 1] and 1 = keep. Deleting with the first, x, must
lower the score s; inserting what the second, y, marks must raise it; their product must do both. The loss is averaged
over a path between the substrate and the picture, which finds evidence where the score saturates; it is in
`cxr_faith.attribution.igos_loss`, and the two optimizers are in `cxr_faith.attribution.igos_search`.

Saliency is 1 - x·y. Cells are aligned with tokens, as they are when the map is scored; the papers' bilinear masks would
also credit the neighbors of a cell.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, check_choice
from cxr_faith.attribution.igos_loss import SIGNS, MaskLoss
from cxr_faith.attribution.igos_search import Masks, line_search, momentum
from cxr_faith.metrics.functional import effect_threshold
from cxr_faith.perturb.device_noise import device_noise
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.vlm.answers import likelihood_ratios
from cxr_faith.vlm.base import VLM, Target
from cxr_faith.vlm.micro_batch import MicroBatch

LLR_THRESHOLD = 1.0
"""Nats: tokens whose log-probability falls by more when the picture is replaced by its substrate are explained."""
OPTIMIZERS = ("momentum", "line_search")
SHRINKAGE_DECAY = math.exp(-1)
"""Ratio of the weights of the squared area in consecutive iterations."""


class IGOSPP(Method):
    """iGOS++ (Khorram et al. 2021): masks optimized for a low deletion and a high insertion score.

    Args:
        substrate: what replaces what a mask does not keep; `road` means the default blur, since a path through soft
            masks has no cells to interpolate from.
        optimizer: `momentum` (Nesterov's, as for vision-language models) or `line_search` (as published for
            classifiers).
        iterations: number of optimization steps.
        path_steps: points of the path of integrated gradients.
        step: of `momentum`: how far a slope of 1 / N moves one of the N cells of a mask. From 1/8 on, the total
            variation alone makes the masks swing.
        noise: standard deviation of the noise on path pictures, as a share of the picture's standard deviation.
        area: weight of the masks' area (an L1 on 1 - mask).
        shrinkage: weight of the masks' squared area at first; with `momentum` it decays by e in each iteration.
        smoothness: weight of the bilateral total variation.
    """

    can_ablate = True

    def __init__(
        self,
        substrate: str = DEFAULT_SUBSTRATE,
        optimizer: str = "momentum",
        iterations: int = 15,
        path_steps: int = 4,
        step: float = 0.02,
        noise: float = 0.1,
        area: float = 1.0,
        shrinkage: float = 1.0,
        smoothness: float = 1.0,
    ) -> None:
        if iterations < 1 or path_steps < 1:
            raise ValueError(f"iterations and path_steps must be at least 1, got {iterations} and {path_steps}")
        if min(noise, area, shrinkage, smoothness) < 0 or step <= 0:
            raise ValueError("noise, area, shrinkage and smoothness must not be negative, step must be positive")
        self.substrate: Substrate = Substrate.parse(DEFAULT_SUBSTRATE if substrate == "road" else substrate)
        self.optimizer = check_choice("optimizer", optimizer, OPTIMIZERS)
        self.iterations, self.path_steps, self.step, self.noise = iterations, path_steps, step, noise
        self.area, self.shrinkage, self.smoothness = area, shrinkage, smoothness
        self.together: MicroBatch = MicroBatch(len(SIGNS))

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Saliency 1 - x·y in [0, 1]; pictures share passes, each is optimized on its own. See `Method.attribute`.

        `extras` holds both masks, the explained tokens with their log-likelihood ratios, and the loss before each step.
        """
        removed = self.substrate.apply(batch.pixels, batch.image_ids, batch.seed, vlm.pictures)
        loss, extras = self._loss(vlm, batch, removed, target)
        masks = torch.empty(len(target), 2, *vlm.grid, device=batch.pixels.device)
        histories: list[list[float]] = [[] for _ in target]
        for chosen in _by_scored_tokens(loss.targets):
            names = [batch.image_ids[index] for index in chosen]
            part = replace(loss.of(chosen), core=partial(self.core, image_ids=names, seed=batch.seed))
            optimized = self._optimize(part, names, batch.seed)
            masks[chosen] = optimized.values
            for index, history in zip(chosen, optimized.history, strict=True):
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
        core = partial(self.core, image_ids=batch.image_ids, seed=batch.seed)
        loss = MaskLoss(
            vlm=vlm,
            pictures=batch.pixels,
            removed=removed,
            prompts=batch.prompts,
            targets=chosen,
            scale=torch.cat(scales),
            area=self.area,
            shrinkage=self.shrinkage,
            smoothness=self.smoothness,
            steps=self.path_steps,
            together=self.together,
            core=core,
        )
        return loss, extras

    def _optimize(self, loss: MaskLoss, image_ids: Sequence[str], seed: int) -> Masks:
        """Masks of pictures with the same scored tokens."""

        def noise(iteration: int) -> Tensor | None:
            return self._noise(loss.pictures, image_ids, seed, iteration)

        if self.optimizer == "line_search":
            return line_search(loss, self.iterations, noise)
        return momentum(loss, self.iterations, self.step * loss.vlm.n_cells, SHRINKAGE_DECAY, noise)

    def _noise(self, pictures: Tensor, image_ids: Sequence[str], seed: int, iteration: int) -> Tensor | None:
        """Noise fields [batch, path_steps, H, W] of an iteration, each picture's from its own row of values."""
        if not self.noise:
            return None
        shape = (self.path_steps, *pictures.shape[-2:])
        part = (iteration * math.prod(shape), math.prod(shape), pictures.device)
        drawn = [device_noise(seed, image_id, "noise", "igos_pp", *part).view(shape) for image_id in image_ids]
        deviation = pictures.std((1, 2, 3), correction=0, keepdim=True)
        return torch.stack(drawn).to(pictures) * self.noise * deviation


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
