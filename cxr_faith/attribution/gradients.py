"""Gradient methods on the projected image tokens x: gradient, gradient × input, integrated gradients."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cxr_faith.attribution.backward import backwards
from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, score_gradient
from cxr_faith.metrics.functional import effect_threshold
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.vlm.base import VLM, Target
from cxr_faith.vlm.micro_batch import MicroBatch

PATH_BATCH = 4
"""Points of the path of integrated gradients in one forward and backward pass; for a 4B model, 5.42 GB of graphs."""

Parts = Callable[[Tensor], tuple[Tensor, ...]]
"""From token scores [batch, n] to the scores [batch] that are differentiated; each gets its own map."""


def mean_score(scores: Tensor) -> tuple[Tensor, ...]:
    """The score s itself: the mean over the scored tokens."""
    return (scores.mean(1),)


def each_score(scores: Tensor) -> tuple[Tensor, ...]:
    """Each scored token's log-odds."""
    return scores.unbind(1)


def token_gradients(
    vlm: VLM, batch: AttributionBatch, target: Sequence[Target], tokens: Tensor, parts: Parts
) -> list[Tensor]:
    """Gradient of each part with respect to the image tokens, float32 [batch, N, hidden]; one forward pass for all."""
    with torch.enable_grad():
        leaf = tokens.detach().float().requires_grad_()
        scores = parts(vlm.trace(leaf, batch.prompts, target))
    vlm.counts.backward += len(tokens) * len(scores)
    return [score_gradient(score, [leaf], more=i + 1 < len(scores))[0] for i, score in enumerate(scores)]


def picture_gradient(vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Tensor:
    """Gradient of s with respect to the intact pictures' tokens [batch, N, hidden]; one pass serves all methods."""
    if len(target[0].scored) == 1:  # relevancies need the same pass
        return backwards(vlm, batch, target)[0].gradient

    def compute() -> Tensor:
        return token_gradients(vlm, batch, target, batch.tokens(vlm), mean_score)[0]

    return batch.share(("gradient", *target), compute)


class Gradient(Method):
    """Saliency: L2 norm of the gradient at each image token."""

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Maps of gradient norms; see `Method.attribute`."""
        return Attribution(vlm.on_cells(picture_gradient(vlm, batch, target).norm(dim=-1)))

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """One forward for all tokens, one backward for each; see `Method.attribute_tokens`."""
        gradients = [each.gradient for each in backwards(vlm, batch, target)]
        return [Attribution(vlm.on_cells(gradient.norm(dim=-1))) for gradient in gradients]


class _FromBaseline(Method):
    """Methods that compare with the projected tokens of a baseline picture.

    Args:
        baseline: a substrate (`blur:0.1`, `mean`, `noise`; `zero` is the gray picture; `road` means the default blur),
            or `zero_tokens` for tokens of zeros.
    """

    can_ablate = True

    def __init__(self, baseline: str = "blur:0.1") -> None:
        spec = DEFAULT_SUBSTRATE if baseline == "road" else baseline  # road has no cell left to interpolate from
        self.substrate = None if baseline == "zero_tokens" else Substrate.parse(spec)

    def endpoints(self, vlm: VLM, batch: AttributionBatch) -> tuple[Tensor, Tensor]:
        """Tokens of the pictures and of their baselines, float32 [batch, N, hidden] each."""
        tokens, substrate = batch.tokens(vlm).float(), self.substrate
        if substrate is None:
            return tokens, torch.zeros_like(tokens)

        def encode_removed() -> Tensor:
            return vlm.encode(substrate.apply(batch.pixels, batch.image_ids, batch.seed, vlm.pictures))

        with torch.no_grad():
            return tokens, batch.share(f"tokens of {substrate.spec}", encode_removed).float()


class GradXInput(_FromBaseline):
    """Gradient × (token - baseline token), summed, signed.

    Args:
        baseline: a substrate (`blur:0.1`, `mean`, `noise`; `zero` is the gray picture; `road` means the default blur),
            or `zero_tokens` for tokens of zeros.
    """

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Signed maps; see `Method.attribute`."""
        tokens, baseline = self.endpoints(vlm, batch)
        gradient = self.core(picture_gradient(vlm, batch, target), batch.image_ids, batch.seed)
        return Attribution(vlm.on_cells((gradient * (tokens - baseline)).sum(-1)))

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """One forward for all tokens, one backward for each; see `Method.attribute_tokens`."""
        tokens, baseline = self.endpoints(vlm, batch)
        gradients = [self.core(each.gradient, batch.image_ids, batch.seed) for each in backwards(vlm, batch, target)]
        path = tokens - baseline
        return [Attribution(vlm.on_cells((gradient * path).sum(-1))) for gradient in gradients]


class IntegratedGradients(_FromBaseline):
    """Integrated gradients (Sundararajan et al. 2017) by the midpoint rule, summed over channels.

    Maps are signed.

    Args:
        baseline: start of the path: a substrate (`road` means the default blur), or `zero_tokens` for tokens of zeros.
        steps: gradient evaluations along the straight path.
        micro_batch: points of the path in one forward and backward pass; halved when memory runs out.
    """

    def __init__(self, baseline: str = "blur:0.1", steps: int = 32, micro_batch: int = PATH_BATCH) -> None:
        super().__init__(baseline)
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        self.steps = steps
        self.together: MicroBatch = MicroBatch(micro_batch)

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Signed maps; `extras["completeness_residual"]` = |ΣIG - e| / max(|e|, ε). See `Method.attribute`."""
        return self._explain(vlm, batch, target, mean_score)[0]

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """Each point's forward for all tokens, one backward for each; see `Method.attribute_tokens`."""
        return self._explain(vlm, batch, target, each_score)

    def _explain(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target], parts: Parts) -> list[Attribution]:
        tokens, baseline = self.endpoints(vlm, batch)
        path = tokens - baseline
        with torch.no_grad():
            intact, removed = (torch.stack(parts(vlm.trace(x, batch.prompts, target))) for x in (tokens, baseline))
        total = torch.zeros(len(intact), *tokens.shape, device=tokens.device)

        def add(start: int, stop: int) -> None:
            # Several points of the path share one pass.
            points = torch.arange(start, stop, device=path.device)
            weights = ((points + 0.5) / self.steps)[:, None, None, None]
            along = (baseline + weights * path).flatten(0, 1)
            repeated = replace(batch, prompts=list(batch.prompts) * len(points))
            gradients = [
                self.core(gradient, batch.image_ids, batch.seed)
                for gradient in token_gradients(vlm, repeated, list(target) * len(points), along, parts)
            ]
            total.add_(torch.stack([gradient.unflatten(0, (len(points), -1)).sum(0) for gradient in gradients]))

        self.together.run(self.steps, add)
        maps = (total / self.steps * path).sum(-1)
        effect = intact - removed
        floor = effect_threshold(intact.double()).to(effect.dtype)
        residual = (maps.sum(-1) - effect).abs() / torch.maximum(effect.abs(), floor)
        return [
            Attribution(vlm.on_cells(one), {"completeness_residual": left.tolist()})
            for one, left in zip(maps, residual, strict=True)
        ]
