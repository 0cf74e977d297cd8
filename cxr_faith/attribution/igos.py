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

import torch
from torch import Tensor

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method
from cxr_faith.metrics.functional import effect_threshold
from cxr_faith.perturb.schedule import stream
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.vlm.answers import likelihood_ratios
from cxr_faith.vlm.base import VLM, Prompt, Target

LLR_THRESHOLD = 1.0
"""Tokens that the picture makes at least this much likelier than its substrate, in nats, are explained."""
FIRST_STEP, HALVINGS = 0.5, 5
_SIGNS = (1.0, -1.0, 1.0, -1.0)


def kept_shares(masks: Tensor) -> Tensor:
    """What the four terms keep, [4, gH, gW]: x, 1 - y, x·y, 1 - x·y, from the masks (x, y) [2, gH, gW]."""
    product = masks[0] * masks[1]
    return torch.stack([masks[0], 1 - masks[1], product, 1 - product])


def bilateral_tv(mask: Tensor, cells: Tensor) -> Tensor:
    """Total variation that forgives steps where the picture has an edge.

    Args:
        mask: [gH, gW].
        cells: mean grey value of each cell, [gH, gW].

    Returns:
        Scalar: Σ over neighboring cells of exp(-Δcells² / variance of cells)·Δmask², divided by the number of cells.
    """
    variance = cells.var(correction=0).clamp_min(torch.finfo(cells.dtype).tiny)
    total = mask.new_zeros(())
    for axis in (0, 1):
        weight = (-cells.diff(dim=axis).square() / variance).exp()
        total = total + (weight * mask.diff(dim=axis).square()).sum()
    return total / mask.numel()


@dataclass(frozen=True)
class Problem:
    """One picture's loss.

    Attributes:
        vlm: the model.
        picture: [3, H, W]; `removed` likewise, the substrate.
        prompt: the question.
        target: what s is.
        scale: max(|e|, ε) of s, in its own unit.
        area: weight of the L1 term.
        smoothness: weight of the total variation.
    """

    vlm: VLM
    picture: Tensor
    removed: Tensor
    prompt: Prompt
    target: Target
    scale: float
    area: float
    smoothness: float

    def score_terms(self, masks: Tensor, alpha: float = 1.0, noise: Tensor | None = None) -> Tensor:
        """The four signed score terms at Φ(α·K), summed; noise [3, H, W] is added to the picture."""
        (rows, columns), (height, width) = self.vlm.grid, self.picture.shape[-2:]
        kept = (alpha * kept_shares(masks))[:, None]
        kept = kept.repeat_interleave(height // rows, -2).repeat_interleave(width // columns, -1)
        picture = self.picture if noise is None else self.picture + noise
        pixels = self.removed + kept * (picture - self.removed)
        self.vlm.counts.backward += len(pixels) if masks.requires_grad else 0
        scores = self.vlm.trace(self.vlm.encode(pixels), [self.prompt] * 4, [self.target] * 4).mean(1)
        return (scores * torch.tensor(_SIGNS, device=scores.device)).sum() / self.scale

    def regularizer(self, masks: Tensor) -> Tensor:
        """Area and total variation of the product of both masks."""
        product = masks[0] * masks[1]
        cells = torch.nn.functional.adaptive_avg_pool2d(self.picture.mean(0, keepdim=True), self.vlm.grid)[0]
        return self.area * (1 - product).abs().mean() + self.smoothness * bilateral_tv(product, cells)

    def loss(self, masks: Tensor) -> float:
        """The loss at α = 1, without noise."""
        with torch.no_grad():
            return float(self.score_terms(masks) + self.regularizer(masks))

    def direction(self, masks: Tensor, steps: int, noise: Sequence[Tensor]) -> Tensor:
        """Integrated-gradient direction of ascent [2, gH, gW]: mean over α = 1/steps … 1, and the regularizer's own.

        Args:
            masks: [2, gH, gW].
            steps: points of the path.
            noise: one field [3, H, W] for each point; none if empty.
        """
        with torch.enable_grad():
            leaf = masks.detach().requires_grad_()
            gradient = torch.autograd.grad(self.regularizer(leaf), leaf)[0]
            for point in range(steps):
                field = noise[point] if noise else None
                terms = self.score_terms(leaf, (point + 1) / steps, field)
                gradient = gradient + torch.autograd.grad(terms, leaf)[0] / steps
        return gradient


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
            substrate: what stands for what is not kept.
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
        self.substrate: Substrate = Substrate.parse(substrate)
        self.iterations, self.path_steps, self.noise = iterations, path_steps, noise
        self.area, self.smoothness = area, smoothness

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Saliency 1 - x·y in [0, 1], one picture at a time; see `Method.attribute`.

        `extras` hold both masks, the explained tokens with their log-likelihood ratios, and the loss after each step.
        """
        removed = self.substrate.apply(batch.pixels, batch.image_ids, batch.seed)
        maps = []
        extras: dict[str, list[object]] = {}
        for index, one in enumerate(target):
            problem, told = self._problem(vlm, batch.pixels[index], removed[index], batch.prompts[index], one)
            masks, history = self._optimize(problem, batch.seed, batch.image_ids[index])
            maps.append(1 - masks[0] * masks[1])
            told |= {"loss_history": history, "deletion_mask": masks[0].tolist(), "insertion_mask": masks[1].tolist()}
            for name, value in told.items():
                extras.setdefault(name, []).append(value)
        return Attribution(torch.stack(maps), extras)

    def _problem(
        self, vlm: VLM, picture: Tensor, removed: Tensor, prompt: Prompt, target: Target
    ) -> tuple[Problem, dict[str, object]]:
        """The loss of one picture, and which tokens it is about."""
        told: dict[str, object] = {}
        with torch.no_grad():
            tokens, gone = vlm.encode(picture[None]), vlm.encode(removed[None])
            if target.kind == "tokens":
                ratios = likelihood_ratios(vlm, tokens, gone, prompt, target).tolist()
                target = replace(target, scored=select_tokens(target.scored, ratios))
                told = {"tokens": list(target.scored), "llrs": ratios}
            s, s_removed = (vlm.trace(seen, [prompt], [target]).mean(1).double() for seen in (tokens, gone))
            scale = float(torch.maximum((s - s_removed).abs(), effect_threshold(s)))
        return Problem(vlm, picture, removed, prompt, target, scale, self.area, self.smoothness), told

    def _optimize(self, problem: Problem, seed: int, image_id: str) -> tuple[Tensor, list[float]]:
        """Masks [2, gH, gW] and the loss before the first and after each accepted step."""
        picture = problem.picture
        generator = stream(seed, image_id, "igos_noise")
        masks = torch.ones(2, *problem.vlm.grid, device=picture.device)
        history = [problem.loss(masks)]
        for _ in range(self.iterations):
            fields: list[Tensor] = []
            if self.noise:
                drawn = generator.standard_normal((self.path_steps, 1, *picture.shape[1:]), dtype="float32")
                fields = list(torch.from_numpy(drawn).to(picture) * self.noise * picture.std(correction=0))
            step = problem.direction(masks, self.path_steps, fields)
            size = float(step.abs().max())
            if not math.isfinite(size):
                return torch.full_like(masks, torch.nan), history  # no map, rather than one that points nowhere
            found = line_search(problem, masks, step / size, history[-1]) if size > 0 else None
            if found is None:
                break
            masks, loss = found
            history.append(loss)
        return masks, history


def select_tokens(scored: Sequence[int], ratios: Sequence[float]) -> tuple[int, ...]:
    """The tokens that the picture makes likelier by more than `LLR_THRESHOLD`; if there are none, the first among all.

    Args:
        scored: indices of answer tokens.
        ratios: log-likelihood ratio of each, original against substrate, in nats.
    """
    chosen = tuple(index for index, ratio in zip(scored, ratios, strict=True) if ratio > LLR_THRESHOLD)
    return chosen or (max(zip(scored, ratios, strict=True), key=lambda pair: pair[1])[0],)


def line_search(problem: Problem, masks: Tensor, step: Tensor, loss: float) -> tuple[Tensor, float] | None:
    """Backtracking: halve the step until the loss falls.

    Args:
        problem: the loss.
        masks: [2, gH, gW].
        step: direction of ascent, its largest entry 1.
        loss: the loss of the masks.

    Returns:
        New masks in [0, 1] and their lower loss; None if no step lowers it.
    """
    for halving in range(HALVINGS):
        candidate = (masks - FIRST_STEP * 0.5**halving * step).clamp(0, 1)
        reached = problem.loss(candidate)
        if reached < loss:
            return candidate, reached
    return None
