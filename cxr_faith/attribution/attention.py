"""Raw attention and attention rollout: what the answer's position attends to, without gradients.

Both read row p-1 for a scored token at position p, since the logits at i predict the token at i+1.
"""

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, check_choice
from cxr_faith.vlm.base import VLM, Target


def at_image(vlm: VLM, batch: AttributionBatch, values: Tensor, dim: int = -1) -> Tensor:
    """The part of `values` at the positions of the image tokens, along one dimension."""
    starts = batch.prompts[0].image_starts
    count = vlm.layout.n_tokens // len(starts)
    parts = [values.narrow(dim, start, count) for start in starts]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def observe(
    vlm: VLM, batch: AttributionBatch, target: Sequence[Target], keep: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Run without gradients and keep `keep(probabilities)` of every decoder layer, first to last."""
    kept: list[Tensor] = []
    with torch.no_grad():
        vlm.trace(batch.tokens(vlm), batch.prompts, target, lambda _, probabilities: kept.append(keep(probabilities)))
    return kept


def entropy_weights(rows: Tensor) -> Tensor:
    """Weight of each head: 1 - H / log N, with H the entropy of its image row scaled to sum 1; 0 for a row of zeros.

    Args:
        rows: [..., heads, N].

    Returns:
        [..., heads] in [0, 1].
    """
    share = rows / rows.sum(-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    entropy = -torch.special.xlogy(share, share).sum(-1)
    weights = (1 - entropy / math.log(rows.shape[-1])).clamp_min(0)
    return torch.where(rows.sum(-1) > 0, weights, 0.0)


def image_share(vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Tensor:
    """Share of the attention at p-1 that falls on the image tokens, mean over heads and scored tokens.

    Returns:
        float32 [layers, batch] in [0, 1].
    """
    read = target[0].read_positions(batch.prompts[0])
    kept = observe(vlm, batch, target, lambda a: at_image(vlm, batch, a[:, :, read]).sum(-1).mean(2).mean(1))
    return torch.stack(kept)


class Attention(Method):
    """Attention of the answer's position on the image.

    Args:
        heads: how heads are combined: `mean`, `max`, or `entropy` (heads with a peaked image row weigh more).
        layers: which layers are averaged: `mean` (all), `last`, or `deep` (the last four).
        renormalize: scale each head's image row to sum 1, which gives heads that ignore the image the same weight.
        renormalise: old name of `renormalize`.
    """

    def __init__(
        self, heads: str = "mean", layers: str = "mean", renormalize: bool = False, renormalise: bool | None = None
    ) -> None:
        if renormalise is not None:
            warnings.warn("attention: renormalise is now called renormalize", FutureWarning, stacklevel=2)
            renormalize = renormalise
        self.heads = check_choice("heads", heads, ("mean", "max", "entropy"))
        self.layers = check_choice("layers", layers, ("mean", "last", "deep"))
        self.renormalize = renormalize

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Maps from the rows at p-1, averaged over the scored tokens; see `Method.attribute`."""
        return Attribution(vlm.on_cells(self._per_token(vlm, batch, target).mean(1)))

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """Each token's own row, from one forward; see `Method.attribute_tokens`."""
        return [Attribution(vlm.on_cells(row)) for row in self._per_token(vlm, batch, target).unbind(1)]

    def _per_token(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Tensor:
        """Image rows over all heads and layers, [batch, scored tokens, N]."""
        rows = self._rows(vlm, batch, target)
        if self.renormalize:
            rows = rows / rows.sum(-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
        chosen = {"mean": rows, "last": rows[-1:], "deep": rows[-4:]}[self.layers]
        # One axis after the other: a mean over both at once would round differently at different batch sizes.
        return self._over_heads(chosen).mean(0)

    def _rows(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Tensor:
        """Image rows [layers, batch, scored tokens, heads, N]."""
        read = target[0].read_positions(batch.prompts[0])
        return torch.stack(observe(vlm, batch, target, lambda a: at_image(vlm, batch, a[:, :, read]).transpose(1, 2)))

    def _over_heads(self, rows: Tensor) -> Tensor:
        if self.heads == "max":
            return rows.amax(-2)
        if self.heads == "mean":
            return rows.mean(-2)
        weights = entropy_weights(rows)
        total = weights.sum(-1, keepdim=True)
        weighted = (weights[..., None] * rows).sum(-2) / total.clamp_min(torch.finfo(rows.dtype).tiny)
        return torch.where(total > 0, weighted, rows.mean(-2))


class Rollout(Method):
    """Attention rollout (Abnar & Zuidema 2020): product over layers of (A + I) / 2, heads averaged.

    Args:
        full_matrices: multiply whole matrices instead of the rows that are read: slower, and equal up to rounding.
    """

    def __init__(self, full_matrices: bool = False) -> None:
        self.full_matrices = full_matrices

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Maps from the rows at p-1 of the product, averaged over the scored tokens; see `Method.attribute`."""
        row = self._per_token(vlm, batch, target).mean(1)
        return Attribution(vlm.on_cells(at_image(vlm, batch, row)), sequences=row)

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """Each token's own row, from one forward; see `Method.attribute_tokens`."""
        rows = self._per_token(vlm, batch, target).unbind(1)
        return [Attribution(vlm.on_cells(at_image(vlm, batch, row)), sequences=row) for row in rows]

    def _per_token(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Tensor:
        """Rows [batch, scored tokens, sequence] of the product."""
        layers, read = observe(vlm, batch, target, lambda a: a.mean(1)), target[0].read_positions(batch.prompts[0])
        rows = start_rows(layers[0], list(range(layers[0].shape[1])) if self.full_matrices else read)
        # Later layers multiply from the left, so a row of the product needs only vector-matrix products, last layer
        # first. Attention rows sum to 1, and so do those of (A + I) / 2, so nothing needs normalizing.
        waiting: dict[int, Tensor] = {}  # for the layers whose keys and values later ones read
        for layer in reversed(range(len(layers))):
            reads, taken = vlm.key_layers[layer], rows @ layers[layer]
            if reads == layer:
                rows = (rows + taken) / 2 + waiting.get(layer, 0)
            else:
                rows, waiting[reads] = rows / 2, taken / 2 + waiting.get(reads, 0)
        return rows[:, read] if self.full_matrices else rows


def start_rows(matrix: Tensor, read: list[int]) -> Tensor:
    """Unit rows [batch, len(read), sequence] that select rows of a product of [batch, sequence, sequence] matrices."""
    batch, length, _ = matrix.shape
    unit = torch.eye(length, device=matrix.device, dtype=matrix.dtype)[read]
    return unit.expand(batch, -1, -1)
