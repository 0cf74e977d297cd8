"""Layer-wise Grad-CAM on the image tokens of a late decoder layer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cxr_faith.attribution.attention import image_columns
from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, MethodError, score_gradient
from cxr_faith.attribution.gradients import Parts, each_score, mean_score
from cxr_faith.vlm.base import VLM, Target


class GradCam(Method):
    """Grad-CAM (Selvaraju et al. 2017) on the image tokens' hidden states after a decoder layer.

    The map is ReLU(Σ_channels weight · h). As published, the weights are the gradients of s averaged over the image
    tokens, so the map shows where the channels that matter are active. A token's own gradient instead of the mean
    (HiResCAM) would give 0: later layers read h through an RMS norm, which ignores the length of h, so the product of h
    and its own gradient is 0 (Euler).

    Args:
        layer: the decoder layer whose output is used; negative counts from the end. None: the one before the last
            global attention layer (28 of 0 to 33 for the 4B models). The last layer has no map, since nothing reads the
            image after it.
    """

    def __init__(self, layer: int | None = None) -> None:
        if layer is not None and not isinstance(layer, int):
            raise ValueError(f"layer must be the number of a decoder layer, got {layer!r}")
        self.layer = layer

    def check(self, vlm: VLM) -> None:
        """Refuse a layer that the model does not have; see `chosen_layer`."""
        self.chosen_layer(vlm)

    def chosen_layer(self, vlm: VLM) -> int:
        """Index of the layer, from 0.

        Raises:
            MethodError: the model has no such layer, or no layer reads the image after it.
        """
        count = len(vlm.layer_types)
        if self.layer is None:
            reading = [i for i, kind in enumerate(vlm.layer_types) if kind == "full_attention" and i > 0]
            return (reading[-1] if reading else count - 1) - 1
        layer = self.layer + count if self.layer < 0 else self.layer
        if not 0 <= layer < count - 1:
            raise MethodError(f"grad_cam: layer must be 0 to {count - 2}, or -{count} to -2, got {self.layer}")
        return layer

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """One forward and one backward; see `Method.attribute`."""
        return self._explain(vlm, batch, target, mean_score)[0]

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """One forward for all tokens, one backward for each; see `Method.attribute_tokens`."""
        return self._explain(vlm, batch, target, each_score)

    def _explain(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target], parts: Parts) -> list[Attribution]:
        """Maps of each part of the score."""
        layer, columns, kept = self.chosen_layer(vlm), image_columns(vlm, batch), list[Tensor]()

        def keep(index: int, state: Tensor) -> None:
            if index == layer:
                kept.append(state)

        with torch.enable_grad():
            tokens = batch.tokens(vlm).detach().requires_grad_()
            scores = parts(vlm.trace(tokens, batch.prompts, target, states=keep))
        vlm.counts.backward += len(tokens) * len(scores)
        active, results = kept[0].detach()[:, columns].float(), []
        for index, score in enumerate(scores):
            gradient = score_gradient(score, kept, more=index + 1 < len(scores))[0][:, columns].float()
            maps = (gradient.mean(1, keepdim=True) * active).sum(-1).clamp_min(0)
            results.append(Attribution(maps.unflatten(1, vlm.grid)))
        return results
