"""Layer-wise Grad-CAM on the image tokens of a decoder layer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cxr_faith.attribution.attention import at_image
from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, score_gradient
from cxr_faith.attribution.gradients import Parts, each_score, mean_score
from cxr_faith.attribution.layers import check_layer, decoder_layer
from cxr_faith.vlm.base import VLM, Target


class GradCam(Method):
    """Grad-CAM (Selvaraju et al. 2017) on the image tokens' hidden states after a decoder layer.

    The map is ReLU(Σ_channels weight · h). As published, the weights are the gradients of s averaged over the image
    tokens, so the map shows where the channels that matter are active. In the last layers a token's own gradient,
    instead of the mean (HiResCAM), would give 0: they read h through an RMS norm, which ignores the length of h, so the
    product of h and its own gradient is 0 (Euler).

    Args:
        layer: the decoder layer whose output is used; negative counts from the end. `auto`: the middle of the decoder,
            see `cxr_faith.attribution.layers`. The last layer has no map, since nothing reads the image after it.
    """

    can_ablate = True

    def __init__(self, layer: int | str = "auto") -> None:
        check_layer(layer, ("auto",))
        self.layer = layer

    def check(self, vlm: VLM) -> None:
        """Refuse a layer that the model does not have, or that nothing reads."""
        self.chosen_layer(vlm)

    def chosen_layer(self, vlm: VLM) -> int:
        """Index of the layer, from 0.

        Raises:
            MethodError: the model has no such layer, or no layer reads the image after it.
        """
        return decoder_layer(vlm, self.layer, "grad_cam", unread=1)

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """One forward and one backward; see `Method.attribute`."""
        return self._explain(vlm, batch, target, mean_score)[0]

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """One forward for all tokens, one backward for each; see `Method.attribute_tokens`."""
        return self._explain(vlm, batch, target, each_score)

    def _explain(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target], parts: Parts) -> list[Attribution]:
        """Maps of each part of the score."""
        layer, kept = self.chosen_layer(vlm), list[Tensor]()

        def keep(index: int, state: Tensor) -> None:
            if index == layer:
                kept.append(state)

        with torch.enable_grad():
            tokens = batch.tokens(vlm).detach().requires_grad_()
            scores = parts(vlm.trace(tokens, batch.prompts, target, states=keep))
        vlm.counts.backward += len(tokens) * len(scores)
        active, results = at_image(vlm, batch, kept[0].detach(), 1).float(), []
        for index, score in enumerate(scores):
            (whole,) = score_gradient(score, kept, more=index + 1 < len(scores))
            gradient = self.core(at_image(vlm, batch, whole, 1).float(), batch.image_ids, batch.seed)
            maps = (gradient.mean(1, keepdim=True) * active).sum(-1).clamp_min(0)
            results.append(Attribution(vlm.on_cells(maps)))
        return results
