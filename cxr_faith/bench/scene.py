"""What the benchmark runs on: a model, one picture and three questions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cxr_faith.attribution import Method, build_methods
from cxr_faith.bench.presets import METHODS, QUESTIONS, SAMPLED_IG_STEPS, Preset
from cxr_faith.bench.random_model import random_vlm
from cxr_faith.cases import Case, compute_maps, read_answers
from cxr_faith.data.geometry import fit
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import bundled_manifest, open_manifest
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.vlm import Gemma3VLM, bundled_model
from cxr_faith.vlm.counts import Counts
from cxr_faith.vlm.pretrained import FamilyVLM


@dataclass
class Scene:
    """One picture and its questions, answered and explained, so that all contestants score the same maps.

    Attributes:
        vlm: the model.
        pixels: [3, H, W].
        cases: one for each question, with maps.
        methods: name -> method.
        protocol: the schedule.
        preset: the sizes.
        map_counts: passes of all maps of each question; methods share some.
    """

    vlm: Gemma3VLM
    pixels: Tensor
    cases: list[Case]
    methods: Mapping[str, Method]
    protocol: Protocol
    preset: Preset
    map_counts: list[Counts] = field(default_factory=list)

    @property
    def substrate(self) -> Substrate:
        """What stands for removed cells."""
        return Substrate.parse(self.protocol.substrates[0])

    @property
    def image_id(self) -> str:
        """The picture's id."""
        return self.cases[0].image_id

    def answer(self, questions: Sequence[int]) -> list[Case]:
        """Fresh cases of these questions, without maps."""
        asked = [self.cases[question].prompt.question for question in questions]
        kinds = ["yes_no"] * len(asked)
        read = partial(read_answers, self.vlm, self.pixels, self.image_id, asked, kinds, self.protocol, None)
        return Engine(self.vlm).whole_pass(read)

    def explain(self, cases: Sequence[Case], methods: Mapping[str, Method]) -> None:
        """Fill in the maps, also for answers off the format, since a model with random weights may answer anything."""
        pixels = [self.pixels] * len(cases)
        compute_maps(self.vlm, methods, pixels, cases, self.protocol.seed, only_in_format=False)


def build_scene(preset: Preset, vlm: Gemma3VLM | None = None) -> Scene:
    """Load or make the model, and answer and explain the questions once, untimed.

    Args:
        preset: the sizes.
        vlm: another model in place of the preset's.
    """
    pictures: dict[str, Callable[[Gemma3VLM], Tensor]] = {"bundled": _phantom}
    vlm = vlm or (_bundled() if preset.shape == "bundled" else random_vlm(preset.shape))
    pixels = pictures.get(preset.shape, noise)(vlm)
    protocol = Protocol(steps=preset.steps, random_orders=preset.random_orders, max_new_tokens=4)
    protocol.check_grid(vlm.grid)
    settings: dict[str, dict[str, Any]] = {name: {} for name in METHODS}
    settings["integrated_gradients"] = {"steps": preset.ig_steps if preset.exact else SAMPLED_IG_STEPS[0]}
    methods = build_methods(settings)
    asked = list(QUESTIONS)
    read = partial(read_answers, vlm, pixels, "bench", asked, ["yes_no"] * len(asked), protocol, None)
    cases = Engine(vlm).whole_pass(read)
    scene = Scene(vlm, pixels, cases, methods, protocol, preset)
    for case in cases:
        before = vlm.counts.snapshot()
        scene.explain([case], methods)
        scene.map_counts.append(vlm.counts - before)
    return scene


def _bundled() -> Gemma3VLM:
    return Gemma3VLM.from_pretrained(bundled_model(), "cpu")


def _phantom(vlm: Gemma3VLM) -> Tensor:
    """The first picture of the bundled data."""
    manifest = bundled_manifest()
    picture, _ = fit(load_image(open_manifest(manifest)[0]["image_path"], manifest.parent), vlm.image_size)
    return vlm.normalize(picture[None])[0]


def noise(vlm: FamilyVLM) -> Tensor:
    """Coarse noise, which blurring changes, for a model that was trained on no picture."""
    coarse = torch.randn(1, 3, *vlm.grid, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, vlm.image_size, mode="nearest")[0].to(vlm.device)
