"""Relevancy propagation of Chefer, Gur & Wolf (ICCV 2021), for the self-attention of a causal decoder.

Its memory is that of the graph which any gradient needs. For one 4B layer in bfloat16 with 300 tokens autograd keeps
42.8 MB, so the peak above the weights (8.6 GB) is 34 · 42.8 MB = 1.45 GB. The probabilities are a tenth of it, layers ·
heads · L² · (4 bytes + those of the model's dtype) = 34 · 8 · 300² · 6 bytes = 147 MB; one ∇A in float32 is 2.9 MB.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from cxr_faith.attribution.attention import at_image
from cxr_faith.attribution.backward import Layers, all_layers, backwards, global_layers
from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, MethodError
from cxr_faith.vlm.base import VLM, Target


class Chefer(Method):
    """Gradient-weighted attention relevancy over all decoder layers (Chefer et al. 2021).

    Args:
        normalize_rows: scale each row of Ā to sum 1 (rows of zeros stay zero), which the definition does not.
        full_matrices: multiply whole matrices instead of the row that is read: slower, and equal up to rounding.
    """

    can_ablate = True

    def __init__(self, normalize_rows: bool = False, full_matrices: bool = False) -> None:
        self.normalize_rows, self.full_matrices = normalize_rows, full_matrices

    def _layers(self, vlm: VLM) -> Layers:
        """Layers over which relevancy is propagated."""
        return all_layers(vlm)

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """One backward for each scored token; their maps are summed, not normalized. See `Method.attribute`."""
        total = reduce(torch.add, self._per_token(vlm, batch, target))
        return Attribution(vlm.on_cells(at_image(vlm, batch, total)), sequences=total)

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """One forward for all tokens, one backward for each; see `Method.attribute_tokens`."""
        rows = self._per_token(vlm, batch, target)
        return [Attribution(vlm.on_cells(at_image(vlm, batch, row)), sequences=row) for row in rows]

    def _per_token(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Tensor]:
        """Row p-1 of R, [batch, sequence], for each scored token."""

        def core(gradient: Tensor) -> Tensor:
            return self.core(gradient, batch.image_ids, batch.seed)

        used = core if self.ablated else None
        passes = backwards(vlm, batch, target, self.normalize_rows, self.full_matrices, used)
        if not all(each.rows for each in passes):
            raise MethodError("no relevancy: the model's attention does not depend on the image")
        return [each.rows[self._layers(vlm)] for each in passes]


class CheferGlobal(Chefer):
    """`chefer` over the global attention layers only.

    Args:
        normalize_rows: scale each row of Ā to sum 1 (rows of zeros stay zero), which the definition does not.
        full_matrices: multiply whole matrices instead of the row that is read: slower, and equal up to rounding.
    """

    def _layers(self, vlm: VLM) -> Layers:
        """The `full_attention` layers."""
        return global_layers(vlm)
