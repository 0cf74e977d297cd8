"""Attention without sinks: image tokens that draw attention even where the picture shows nothing."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from cxr_faith.attribution.attention import Attention
from cxr_faith.attribution.base import AttributionBatch
from cxr_faith.perturb.schedule import stream
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.vlm.base import VLM, Target

BLANK = Substrate.parse("mean")


class AttentionSinkMasked(Attention):
    """`attention` without the image tokens that are sinks.

    Large models send much of their attention to a few tokens, often in corners, that hold no evidence (Xiao et al.
    2024; for image tokens Kang et al. 2025). The rule: a token is a sink of a decoder layer if, with the picture blank
    (its channel means), the position before the scored token gives it more than `factor` times the attention of the
    median image token, mean over heads. Its attention counts as 0 in that layer. This rule does not see a sink that
    comes with the picture's content. The ablation leaves out as many tokens of each layer at random.

    Args:
        factor: how many times the median's attention a sink gets on the blank picture.
        heads: how heads are combined: `mean`, `max` or `entropy`; see `attention`.
        layers: `mean` over all, the `last`, or `deep`, the mean over the last four.
        renormalize: scale each head's row over the image to sum 1, without its sinks.
    """

    can_ablate = True

    def __init__(
        self, factor: float = 5.0, heads: str = "mean", layers: str = "mean", renormalize: bool = False
    ) -> None:
        super().__init__(heads, layers, renormalize)
        if not factor > 1:
            raise ValueError(f"factor must be above 1, got {factor}")
        self.factor = factor

    def _rows(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Tensor:
        pixels = BLANK.apply(batch.pixels, batch.image_ids, batch.seed, vlm.pictures)
        blank = super()._rows(vlm, replace(batch, pixels=pixels, shared=None), target)
        sinks = is_sink(blank.mean(3), self.factor)
        if self.ablated:
            sinks = _shuffled(sinks, batch)
        return super()._rows(vlm, batch, target).masked_fill(sinks[..., None, :], 0)


def is_sink(values: Tensor, factor: float) -> Tensor:
    """Bool [..., N]: more than `factor` times the median of the last axis."""
    return values > factor * values.median(-1, keepdim=True).values


def _shuffled(sinks: Tensor, batch: AttributionBatch) -> Tensor:
    """As many tokens of each layer, picture and scored token [layers, batch, scored tokens, N], at random."""
    draws = (stream(batch.seed, one, "ablation", "AttentionSinkMasked") for one in batch.image_ids)
    places = np.stack([draw.permutation(sinks.shape[-1]) for draw in draws])
    return sinks.gather(3, torch.from_numpy(places).to(sinks.device)[:, None].expand_as(sinks))
