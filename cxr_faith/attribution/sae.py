"""Sparse-autoencoder features of the vision tower, weighted by what they do to the score.

A patch's value is Σ_f a_f·∂s/∂a_f over the autoencoder's features f, the first-order effect of switching its features
off; the values of a cell's patches are summed. What the autoencoder does not reconstruct is left as it is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, score_gradient
from cxr_faith.attribution.sae_model import SAEError, file_hash, load_sae, read_config
from cxr_faith.vlm import bundled_model
from cxr_faith.vlm.base import VLM, ModelError, Target


def bundled_sae() -> Path:
    """Folder of the small autoencoder that ships, for the small model that ships."""
    return bundled_model() / "sae"


class SAE(Method):
    """Activation × gradient of sparse features on the residual stream of a vision-tower layer."""

    def __init__(self, path: str = "bundled", layer: int | None = None, top: int = 8) -> None:
        """Choose the autoencoder.

        Args:
            path: folder that `cxr-faith fit-sae` wrote; `bundled` is the one for the small model that ships.
            layer: the tower's layer, as a check; default: the one that the autoencoder was trained for.
            top: features that `extras` tell about.

        Raises:
            SAEError: no autoencoder there, or one of another layer.
        """
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
        over the picture) and `map`, [gH, gW].
        """
        if vlm not in self._checked:
            self.check(vlm)
        self.sae.to(vlm.device)
        maps, features = [], []
        for picture, prompt, one in zip(batch.pixels, batch.prompts, target, strict=True):
            effects = pool_patches(self._effects(vlm, picture, prompt, one), vlm.grid)
            maps.append(effects.sum(-1))
            features.append(self._strongest(effects))
        return Attribution(torch.stack(maps), {"features": features})

    def _effects(self, vlm: VLM, picture: Tensor, prompt: Any, target: Target) -> Tensor:
        """a·ds/da for every patch and feature, [patches, features]."""
        with torch.enable_grad():
            tokens, stream = vlm.tower_hidden(picture[None], self.config.layer)
            score = vlm.trace(tokens, [prompt], [target]).mean(1)
        vlm.counts.backward += 1
        gradient = score_gradient(score, [stream])[0][0].float()
        return self.sae.activations(stream.detach()[0].float()) * self.sae.feature_gradient(gradient)

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
        grid: (gH, gW).

    Returns:
        [gH, gW, features].

    Raises:
        ValueError: cells that do not hold whole patches.
    """
    side = round(len(values) ** 0.5)
    if side * side != len(values) or side % grid[0] or side % grid[1]:
        raise ValueError(f"{len(values)} patches do not fill a grid of {grid[0]}x{grid[1]} cells")
    blocks = values.reshape(grid[0], side // grid[0], grid[1], side // grid[1], -1)
    return blocks.sum((1, 3))
