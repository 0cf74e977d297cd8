"""Relevancy propagation of Chefer, Gur & Wolf (ICCV 2021), for the self-attention of a causal decoder.

R starts as the identity and each layer, first to last, adds Ā·R with Ā = mean over heads of (∇A ⊙ A)⁺. Only row p-1
of R is wanted; that row of the product is carried from the last layer down as a vector, r ← r + r·Ā, which costs L²
a layer instead of L³ and is equal.

A backward pass meets the layers in that order too, so each layer's ∇A is used where it arises and let go: one is alive
at a time. What stays is the graph that any gradient needs: of one 4B layer in bfloat16 with 300 tokens autograd keeps
42.8 MB, so the peak above the weights (8.6 GB) is 34 · 42.8 MB = 1.45 GB. The probabilities are a tenth of it, layers ·
heads · L² · (4 bytes + those of the model's dtype) = 34 · 8 · 300² · 6 bytes = 147 MB; one ∇A in float32 is 2.9 MB.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from cxr_faith.attribution.attention import image_columns
from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, score_gradient
from cxr_faith.vlm.base import VLM, Target


class Chefer(Method):
    """Gradient-weighted attention relevancy over all decoder layers."""

    def __init__(self, normalize_rows: bool = False) -> None:
        """Choose the row normalisation, which the definition leaves out.

        Args:
            normalize_rows: scale each row of Ā to sum 1 (rows of zeros stay zero).
        """
        self.normalize_rows = normalize_rows

    def layers(self, vlm: VLM) -> list[int]:
        """Indices of the layers that take part."""
        return list(range(len(vlm.layer_types)))

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """One backward for each scored token; the un-normalised maps are summed. See `Method.attribute`."""
        total = reduce(torch.add, self._per_token(vlm, batch, target))
        return Attribution(total[:, image_columns(vlm, batch)].unflatten(1, vlm.grid), sequences=total)

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """One forward for all tokens, one backward for each; see `Method.attribute_tokens`."""
        columns = image_columns(vlm, batch)
        rows = self._per_token(vlm, batch, target)
        return [Attribution(row[:, columns].unflatten(1, vlm.grid), sequences=row) for row in rows]

    def _per_token(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Tensor]:
        """Row p-1 of R, [batch, sequence], for each scored token."""
        chosen, rows = set(self.layers(vlm)), list[Tensor]()

        def observer(layer: int, probabilities: Tensor) -> None:
            if layer in chosen:
                value = probabilities.detach()
                probabilities.register_hook(lambda gradient: carry(value, gradient))

        def carry(attention: Tensor, gradient: Tensor) -> None:
            rows[-1] = self._propagate(rows[-1], attention, gradient)

        with torch.enable_grad():
            tokens = batch.tokens(vlm).detach().requires_grad_()
            scores = vlm.trace(tokens, batch.prompts, target, observer).unbind(1)
        length = batch.prompts[0].length + len(target[0].forced_ids)
        for index, position in enumerate(target[0].read_positions(batch.prompts[0])):
            row = torch.zeros(len(tokens), length, device=tokens.device)
            row[:, position] = 1
            rows.append(row)
            score_gradient(scores[index], [tokens], more=index + 1 < len(scores))
            vlm.counts.backward += len(tokens)
        return rows

    def _propagate(self, row: Tensor, attention: Tensor, gradient: Tensor) -> Tensor:
        relevance = (gradient.float() * attention).clamp_min(0).mean(1)
        if self.normalize_rows:
            relevance = relevance / relevance.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        return row + (row[:, None] @ relevance)[:, 0]


class CheferGlobal(Chefer):
    """The same over the global attention layers only, as the model's config names them."""

    def layers(self, vlm: VLM) -> list[int]:
        """Indices of the `full_attention` layers."""
        return [layer for layer, kind in enumerate(vlm.layer_types) if kind == "full_attention"]
