"""Sparse-autoencoder features of the vision tower, weighted by their effect on the score.

A patch's value is Σ_f (a_f - b_f)·∂s/∂a_f over the autoencoder's features f, with the activations a in the picture and
b in its substrate. The slope is the mean over the straight path from the substrate's stream to the picture's: where the
score is saturated, the slope at the picture itself says little, and along this path differences times slopes add up to
the effect. The values of a cell's patches are summed. The part that the autoencoder does not reconstruct is not
explained.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, score_gradient
from cxr_faith.attribution.gradients import Parts, each_score, mean_score
from cxr_faith.attribution.sae_model import SAEError, file_hash, load_sae, read_config
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.vlm import bundled_model
from cxr_faith.vlm.base import VLM, Prompt, Target
from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.micro_batch import MicroBatch


def bundled_sae() -> Path:
    """Folder of the autoencoder that ships with the package, for the bundled model."""
    return bundled_model() / "sae"


class SAE(Method):
    """Features of a sparse autoencoder on the vision tower.

    Args:
        path: folder that `cxr-faith fit-sae` wrote; `bundled` is the one for the bundled model.
        layer: the tower layer that the autoencoder must have been trained for; default: any.
        top: number of features to report in `extras`.
        substrate: start of the path; `road` means the default blur.
        steps: points of the path, by the midpoint rule.
        micro_batch: points in one forward and backward pass; halved when memory runs out.

    Raises:
        SAEError: the folder holds no autoencoder, or one for another layer.
    """

    can_ablate = True

    def __init__(
        self,
        path: str = "bundled",
        layer: int | None = None,
        top: int = 8,
        substrate: str = DEFAULT_SUBSTRATE,
        steps: int = 8,
        micro_batch: int = 4,
    ) -> None:
        self.path = bundled_sae() if path == "bundled" else Path(path)
        self.config = read_config(self.path)
        if layer is not None and layer != self.config.layer:
            raise SAEError(f"the SAE in {path} was trained for tower layer {self.config.layer}, not {layer}")
        if top < 0 or steps < 1:
            raise ValueError(f"top must not be negative and steps at least 1, got {top} and {steps}")
        self.top, self.steps = top, steps
        self.substrate: Substrate = Substrate.parse(DEFAULT_SUBSTRATE if substrate == "road" else substrate)
        self.together: MicroBatch = MicroBatch(micro_batch)
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
        return self._explain(vlm, batch, target, mean_score)[0]

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """One forward for all tokens of a picture, one backward for each; see `Method.attribute_tokens`."""
        return self._explain(vlm, batch, target, each_score)

    def _explain(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target], parts: Parts) -> list[Attribution]:
        """Maps of each part of the score."""
        if vlm not in self._checked:
            self.check(vlm)
        self.sae.to(vlm.device)
        removed = self.substrate.apply(batch.pixels, batch.image_ids, batch.seed, vlm.pictures)
        effects = []
        for index, (picture, gone, prompt, one) in enumerate(
            zip(batch.pixels, removed, batch.prompts, target, strict=True)
        ):
            difference, slopes = self._slopes(vlm, picture, gone, prompt, one, parts)
            slopes = [self.core(slope[None], [batch.image_ids[index]], batch.seed)[0] for slope in slopes]
            effects.append([pool_patches(difference * slope, vlm.grid) for slope in slopes])
        return [
            Attribution(
                torch.stack([one.sum(-1) for one in part]), {"features": [self._strongest(one) for one in part]}
            )
            for part in zip(*effects, strict=True)
        ]

    def _slopes(
        self, vlm: VLM, picture: Tensor, removed: Tensor, prompt: Prompt, target: Target, parts: Parts
    ) -> tuple[Tensor, list[Tensor]]:
        """How activations differ from the substrate's, and the mean slope by them for each part of the score.

        Returns:
            ([patches, features], a tensor of the same shape for each part).
        """
        layer, totals = self.config.layer, list[Tensor]()
        with torch.no_grad():
            end, begin = vlm.tower_stream(torch.stack([picture, removed]), layer).unbind(0)
            intact, gone = self.sae.activations(torch.stack([end, begin]).float()).unbind(0)

        def add(start: int, stop: int) -> None:
            weights = ((torch.arange(start, stop, device=picture.device) + 0.5) / self.steps)[:, None, None]
            with torch.enable_grad():
                stream = torch.lerp(begin, end, weights.to(end)).requires_grad_()
                tokens = vlm.encode_stream(stream, layer)
                scores = parts(vlm.trace(tokens, [prompt] * len(weights), [target] * len(weights)))
            vlm.counts.backward += len(weights) * len(scores)
            gradients = [
                score_gradient(score, [stream], more=index + 1 < len(scores))[0].float().sum(0)
                for index, score in enumerate(scores)
            ]
            totals[:] = map(torch.add, totals, gradients) if totals else gradients

        self.together.run(self.steps, add)
        return intact - gone, [self.sae.feature_gradient(total / self.steps) for total in totals]

    def _strongest(self, effects: Tensor) -> list[dict[str, Any]]:
        totals = effects.sum((0, 1))
        order = totals.abs().argsort(descending=True, stable=True)[: self.top]
        columns = order.tolist(), totals[order].tolist(), effects[..., order].movedim(-1, 0).tolist()
        return [{"feature": index, "effect": effect, "map": own} for index, effect, own in zip(*columns, strict=True)]


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
