"""Sparse-autoencoder features of the vision tower, weighted by their effect on the score.

A patch's value is Σ_f a_f·∂s/∂a_f over the autoencoder's features f: the first-order effect of switching them off. The
values of a cell's patches are summed. The part that the autoencoder does not reconstruct is not explained.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, score_gradient
from cxr_faith.attribution.sae_model import SAEError, file_hash, load_sae, read_config
from cxr_faith.vlm import bundled_model
from cxr_faith.vlm.base import VLM, Prompt, Target
from cxr_faith.vlm.errors import ModelError


def bundled_sae() -> Path:
    """Folder of the autoencoder that ships with the package, for the bundled model."""
    return bundled_model() / "sae"


class SAE(Method):
    """Activation × gradient of a sparse autoencoder's features on a vision-tower layer.

    Args:
        path: folder that `cxr-faith fit-sae` wrote; `bundled` is the one for the bundled model.
        layer: the tower layer that the autoencoder must have been trained for; default: any.
        top: number of features to report in `extras`.

    Raises:
        SAEError: the folder holds no autoencoder, or one for another layer.
    """

    def __init__(self, path: str = "bundled", layer: int | None = None, top: int = 8) -> None:
        self.path = bundled_sae() if path == "bundled" else Path(path)
        self.config = read_config(self.path)
        if layer is not None and layer != self.config.layer:
            raise SAEError(f"the SAE in {path} was trained for tower layer {self.config.layer}, not {layer}")
        if top < 0:
            raise ValueError(f"top must not be negative, got {top}")
        self.top = top
        self.sae = load_sae(self.path)
        self.weights = file_hash(self.path)
        self._checked: WeakSet[VLM] = WeakSet()

    def check(self, vlm: VLM) -> None:
        """Refuse a model with another vision tower.

        Raises:
            SAEError: the autoencoder was trained for another tower.
        """
        try:
            fits = vlm.tower_identity() == self.config.tower
        except ModelError as error:
            raise SAEError(f"sae cannot explain this model: {error}") from error
        if not fits:
            raise SAEError(
                f"the SAE in {self.path} was trained for another vision tower: "
                "make one for this model with cxr-faith fit-sae and name its folder as path"
            )
        self._checked.add(vlm)

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Signed maps, one picture at a time; see `Method.attribute`.

        `extras["features"]` lists the features with the largest absolute effect on s: `feature`, `effect` (its sum
        over the picture) and `map`, [grid_h, grid_w].
        """
        return self._explain(vlm, batch, target, lambda scores: scores.mean(1, keepdim=True))[0]

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """One forward for all tokens of a picture, one backward for each; see `Method.attribute_tokens`."""
        return self._explain(vlm, batch, target, lambda scores: scores)

    def _explain(
        self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target], parts: Callable[[Tensor], Tensor]
    ) -> list[Attribution]:
        """Maps of each part [batch, parts] that is computed from the token scores [batch, n]."""
        if vlm not in self._checked:
            self.check(vlm)
        self.sae.to(vlm.device)
        pictures = zip(batch.pixels, batch.prompts, target, strict=True)
        effects = [self._effects(vlm, picture, prompt, one, parts) for picture, prompt, one in pictures]
        return [
            Attribution(
                torch.stack([one.sum(-1) for one in part]), {"features": [self._strongest(one) for one in part]}
            )
            for part in zip(*effects, strict=True)
        ]

    def _effects(
        self, vlm: VLM, picture: Tensor, prompt: Prompt, target: Target, parts: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        """a·ds/da for every cell and feature, [grid_h, grid_w, features], for each part of the score."""
        with torch.enable_grad():
            tokens, stream = vlm.tower_hidden(picture[None], self.config.layer)
            scores = parts(vlm.trace(tokens, [prompt], [target])).unbind(1)
        vlm.counts.backward += len(scores)
        active = self.sae.activations(stream.detach()[0].float())
        effects = []
        for index, score in enumerate(scores):
            gradient = score_gradient(score, [stream], more=index + 1 < len(scores))[0][0].float()
            effects.append(pool_patches(active * self.sae.feature_gradient(gradient), vlm.grid))
        return effects

    def _strongest(self, effects: Tensor) -> list[dict[str, Any]]:
        totals = effects.sum((0, 1))
        order = totals.abs().argsort(descending=True, stable=True)[: self.top].tolist()
        return [
            {"feature": index, "effect": float(totals[index]), "map": effects[..., index].tolist()} for index in order
        ]


def pool_patches(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """Sum over the patches of each cell.

    Args:
        values: [patches, features], patches row by row over a square grid of whole cells.
        grid: (grid_h, grid_w).

    Returns:
        [grid_h, grid_w, features].

    Raises:
        ValueError: a cell is not a block of whole patches.
    """
    side = round(len(values) ** 0.5)
    if side * side != len(values) or side % grid[0] or side % grid[1]:
        raise ValueError(f"{len(values)} patches do not fill a grid of {grid[0]}x{grid[1]} cells")
    blocks = values.reshape(grid[0], side // grid[0], grid[1], side // grid[1], -1)
    return blocks.sum((1, 3))
