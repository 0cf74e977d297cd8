"""An ensemble of methods: the mean of their ranks."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, build_methods
from cxr_faith.vlm.base import VLM, Target

DEFAULT_METHODS = ("attention", "chefer", "gradient")


class Ensemble(Method):
    """Mean over several methods of each cell's rank.

    Ranks make maps of different units comparable: a cell counts as the share of the other cells that it is above, with
    ties as one half. So a flat map has no say, and a map that is not finite makes the ensemble not finite.

    Args:
        methods: names of the methods, or name → options as in a config's `methods`. Their substrate, if they use one,
            must be the same.
    """

    def __init__(self, methods: Sequence[str] | Mapping[str, Mapping[str, Any] | None] = DEFAULT_METHODS) -> None:
        options = methods if isinstance(methods, Mapping) else dict.fromkeys(methods)
        if isinstance(methods, str) or len(options) < 2:
            raise ValueError(f"methods must name at least two methods, got {methods!r}")
        self.members = build_methods({name: own or {} for name, own in options.items()})
        if needing := [name for name, member in self.members.items() if member.needs_mask]:
            raise ValueError(f"methods must explain the model, and {needing[0]} is the mask of the finding")
        substrates = {member.substrate.spec: member.substrate for member in self.members.values() if member.substrate}
        if len(substrates) > 1:
            raise ValueError(f"methods must use the same substrate, got {', '.join(substrates)}")
        self.substrate = next(iter(substrates.values()), None)
        self.weights = " ".join(member.weights for member in self.members.values() if member.weights)

    def check(self, vlm: VLM) -> None:
        """Refuse a model that one of the methods cannot explain; see `Method.check`."""
        for member in self.members.values():
            member.check(vlm)

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """The mean rank of the methods' maps; see `Method.attribute`."""
        return _combined([member.attribute(vlm, batch, target) for member in self.members.values()])

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """The mean rank of the methods' maps of each token; see `Method.attribute_tokens`."""
        results = [member.attribute_tokens(vlm, batch, target) for member in self.members.values()]
        return [_combined(of_token) for of_token in zip(*results, strict=True)]


def _combined(results: Sequence[Attribution]) -> Attribution:
    maps = torch.stack([result.maps.flatten(1) for result in results])
    return Attribution(shares_below(maps).mean(0).unflatten(1, results[0].maps.shape[1:]))


def shares_below(values: Tensor) -> Tensor:
    """The share of the other values in the last axis that each value is above; ties count one half.

    Args:
        values: [..., N]. Where one of the N is not finite, all N results are NaN.
    """
    above = (values[..., :, None] > values[..., None, :]).float() + 0.5 * (values[..., :, None] == values[..., None, :])
    shares = (above.sum(-1) - 0.5) / max(values.shape[-1] - 1, 1)
    return shares.masked_fill(~values.isfinite().all(-1, keepdim=True), torch.nan)
