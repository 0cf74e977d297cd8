"""The interface of an attribution method, and the registry of all of them.

A new method is one file with a class that derives from `Method`, and one line in `cxr_faith/attribution/__init__.py`.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from cxr_faith.attribution.shared import SharedWork
from cxr_faith.perturb.schedule import stream
from cxr_faith.perturb.substrate import PAIR, Substrate
from cxr_faith.vlm.base import VLM, Prompt, Target
from cxr_faith.vlm.micro_batch import MicroBatch

T = TypeVar("T")


class MethodError(ValueError):
    """A method cannot explain this model, for example because the model has no such layer."""


@dataclass(frozen=True)
class AttributionBatch:
    """What a method gets: pictures, prompts of equal length, and what identifies and seeds them.

    Attributes:
        pixels: pixel values [batch, 3, H, W] on the model's device.
        prompts: one for each picture.
        image_ids: one for each picture; seeds everything random, together with `seed`.
        seed: the run's seed.
        finding_cells: float [batch, grid_h, grid_w], the share of each cell that the finding, or the anatomy of
            `Method.mask`, covers; None where no sample has that mask.
        shared: results that methods share about these pictures under one model; None: each method computes its own.
        micro_batch: how many perturbed pictures are scored at once; None: each method has its own.
        sample_ids: one for each prompt; empty for pictures that are no samples of a manifest.
        pairs: the same pictures without the finding [batch, 3, H, W]; None where there are none.
    """

    pixels: Tensor
    prompts: Sequence[Prompt]
    image_ids: Sequence[str]
    seed: int = 0
    finding_cells: Tensor | None = None
    shared: SharedWork | None = field(default=None, repr=False, compare=False)
    micro_batch: MicroBatch | None = field(default=None, repr=False, compare=False)
    sample_ids: Sequence[str] = ()
    pairs: Tensor | None = None

    def share(self, name: Hashable, compute: Callable[[], T]) -> T:
        """A result that several methods need for these pictures and prompts; the first method computes it."""
        if self.shared is None:
            return compute()
        key = (name, self.pixels.data_ptr(), tuple(self.prompts), tuple(self.image_ids), self.seed)
        return self.shared.get(key, self.pixels, compute)

    def tokens(self, vlm: VLM) -> Tensor:
        """Image tokens [batch, N, hidden] of the intact pictures, without a graph."""
        with torch.no_grad():
            return self.share("tokens", lambda: vlm.encode(self.pixels))


@dataclass(frozen=True)
class Attribution:
    """Maps, and what else a method reports.

    Attributes:
        maps: float32 [batch, grid_h, grid_w]; larger = more important for the answer that the model gave.
        extras: named values for each sample, such as the completeness residual of integrated gradients.
        sequences: float32 [batch, sequence], the relevance of every position, text included; None for methods that
            rate the image alone.
    """

    maps: Tensor
    extras: dict[str, list[Any]] = field(default_factory=dict)
    sequences: Tensor | None = None


class Method(ABC):
    """An attribution method; the arguments of its constructor are its options in the config.

    Attributes:
        needs_mask: the method is defined only for yes/no questions about a finding with a mask (`oracle`).
        mask: label of the anatomy mask that it needs instead of the finding's; None: the finding's.
        substrate: what replaces removed cells, for methods that use a substrate; None for the others. Scores under the
            method's own substrate are marked in the records.
        weights: hash of the file that the method reads, for the fingerprint of a run; empty for the others.
        together: how many points of a path, or copies, a method runs at once; None for methods with a pass a picture.
        uses_pair: the method takes the picture without the finding, where there is one.
        can_ablate: `core` is part of the method. The others would be noise altogether: `random_map` is their ablation.
        ablated: noise stands in for the method's idea; set by the option `ablated`, which every such method has.
    """

    needs_mask: ClassVar[bool] = False
    mask: str | None = None
    substrate: Substrate | None = None
    weights: str = ""
    together: MicroBatch | None = None
    uses_pair: ClassVar[bool] = False
    can_ablate: ClassVar[bool] = False
    ablated: bool = False

    def core(self, values: Tensor, image_ids: Sequence[str], seed: int) -> Tensor:
        """The values that carry the method's idea, or, in an ablation, noise of the same spread.

        A method that scores as well with noise in their place owes its score to something else.

        Args:
            values: [passes · pictures, ...], the pictures in turn.
            image_ids: one for each picture.
            seed: the run's seed.
        """
        if not self.ablated:
            return values
        shape = values.shape[1:]
        noise = ablation_noise(seed, tuple(image_ids), type(self).__name__, shape, values.device).to(values.dtype)
        spread = values.flatten(1).std(1, correction=0)
        return noise.repeat(len(values) // len(image_ids), *[1] * len(shape)) * spread.view(-1, *[1] * len(shape))

    def check(self, vlm: VLM) -> None:  # noqa: B027 - most methods work with any model
        """Refuse a model that this method cannot explain; called before the first sample.

        Raises:
            MethodError: the message says what does not fit, and what to do.
        """

    @abstractmethod
    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Explain each picture's score.

        Args:
            vlm: the model.
            batch: pictures and prompts.
            target: the score of each picture, as it will be evaluated.
        """

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """Explain each scored token on its own: one result for each, in order.

        This default explains the tokens one after another; methods that can share the forward pass override it.

        Args:
            vlm: the model.
            batch: pictures and prompts.
            target: of kind `tokens`, with the same scored tokens.
        """
        return [self.attribute(vlm, batch, each) for each in by_token(target)]


def by_token(target: Sequence[Target]) -> list[list[Target]]:
    """For each scored token, the targets of the batch with that token alone; all targets score the same tokens."""
    return [[one.alone(index) for one in target] for index in target[0].scored]


@lru_cache(maxsize=4)
def ablation_noise(seed: int, image_ids: tuple[str, ...], name: str, shape: torch.Size, device: torch.device) -> Tensor:
    """Noise [pictures, *shape] of an ablation; drawn on the host once, so that loops do not wait for copies."""
    drawn = [stream(seed, one, "ablation", name).standard_normal(shape, dtype="float32") for one in image_ids]
    return torch.from_numpy(np.stack(drawn)).to(device)


METHODS: dict[str, type[Method]] = {}
"""Registry: name in the config's `class` key -> class."""


def build_methods(config: Mapping[str, Mapping[str, Any]]) -> dict[str, Method]:
    """Build the methods of a config section `{name: {class: …, options…}}`; `class` defaults to the name.

    `ablated: true` replaces what carries the method's idea by noise, see `Method.core`.

    Raises:
        ValueError: unknown class or option (the message suggests the nearest name), or an option out of range.
    """
    methods: dict[str, Method] = {}
    for name, settings in config.items():
        options = dict(settings or {})
        key = options.pop("class", name)
        if key not in METHODS:
            raise ValueError(f"methods.{name}: no method class {key!r}{nearest(key, METHODS)}")
        ablated = options.pop("ablated", False)
        if not isinstance(ablated, bool):
            raise ValueError(f"methods.{name}.ablated: must be true or false, got {ablated!r}")
        if ablated and not METHODS[key].can_ablate:
            raise ValueError(f"methods.{name}.ablated: without its idea, {key} is noise: compare it with random_map")
        known = [parameter for parameter in inspect.signature(METHODS[key]).parameters]
        for option in options:
            if option not in known:
                raise ValueError(f"methods.{name}.{option}: not an option of {key}{nearest(option, known)}")
        try:
            methods[name] = METHODS[key](**options)
            methods[name].ablated = ablated
            if (own := methods[name].substrate) is not None and own.name == PAIR:
                raise ValueError(
                    "substrate pair only scores maps: a method does not get the picture without the finding"
                )
        except (ValueError, TypeError) as error:
            raise ValueError(f"methods.{name}: {error}") from error
    return methods


def check_choice(option: str, value: str, choices: Sequence[str]) -> str:
    """Return the value, or raise a ValueError that lists the choices and suggests the nearest one."""
    if value not in choices:
        near = get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{option} must be one of {', '.join(choices)}, got {value!r}{hint}")
    return value


def score_gradient(scores: Tensor, inputs: Sequence[Tensor], *, more: bool = False) -> tuple[Tensor, ...]:
    """Gradient of the summed scores with respect to tensors; no parameter gradient is formed.

    Args:
        scores: any shape; a sample's scores depend on its own inputs only, so the gradient of their sum separates.
        inputs: tensors of the graph.
        more: keep the graph for a further backward pass.
    """
    with torch.enable_grad():  # Lightning may have disabled gradients
        total = scores.sum()
    return torch.autograd.grad(total, inputs, retain_graph=more)


def nearest(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """End of an error message about an unknown word: the most similar known word, or a list of all."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(known))}"
