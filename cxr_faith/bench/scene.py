"""What the benchmark runs on: a model, one picture and three questions, in sizes from tiny to 4B."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoProcessor,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma3TextConfig,
    SiglipVisionConfig,
)

from cxr_faith.attribution import Method, build_methods
from cxr_faith.cases import Case, compute_maps, read_answers
from cxr_faith.data.geometry import fit
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import bundled_manifest, open_manifest
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.vlm import Gemma3VLM, bundled_model

METHODS = ("attention", "rollout", "chefer", "gradient", "grad_x_input", "integrated_gradients")
QUESTIONS = ("Is there a nodule?", "Is there a pleural effusion?", "Is there a pneumothorax?")
VOCABULARY = 262_208
SAMPLED_IG_STEPS = (2, 6)
"""Lengths of the path of integrated gradients of which the time of one more step is told, where not all is run."""


@dataclass(frozen=True)
class Preset:
    """One size of the benchmark.

    Attributes:
        shape: `bundled`, or a key of `SHAPES`: random weights of that shape.
        exact: run every forward of the schedule; else time some of each kind and multiply by the exact counts.
        steps: T of the curves.
        random_orders: R of the random baseline.
        ig_steps: points of the path of integrated gradients.
        naive_batch: pictures in one forward of the usual recipe, which keeps the logits of all positions.
        batches: batch sizes of which the floor takes the best.
        sample: pictures of a sampled turn; on a GPU a whole micro-batch.
        repeats: how often everything is run, in turns.
    """

    shape: str
    exact: bool
    steps: int = 50
    random_orders: int = 20
    ig_steps: int = 32
    naive_batch: int = 51
    batches: tuple[int, ...] = (4, 8, 16, 32, 64)
    sample: int = 8
    repeats: int = 3


PRESETS = {
    "tiny": Preset("bundled", exact=True),
    "small": Preset("small", exact=False, naive_batch=2, batches=(1, 4, 8)),
    "medgemma-4b": Preset("medgemma-4b", exact=False, naive_batch=8, batches=(8, 16, 32, 64), sample=64),
}

SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "small": {
        "text": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 4}
        | {"num_key_value_heads": 2, "head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 1024},
        "vision": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 4}
        | {"image_size": 448, "patch_size": 28},
    },
    "medgemma-4b": {
        "text": {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "num_attention_heads": 8}
        | {"num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 1024},
        "vision": {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
        | {"image_size": 896, "patch_size": 14},
    },
}
"""Shapes with random weights; 256 image tokens and the vocabulary of Gemma 3."""


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
    """

    vlm: Gemma3VLM
    pixels: Tensor
    cases: list[Case]
    methods: Mapping[str, Method]
    protocol: Protocol
    preset: Preset

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
        return read_answers(self.vlm, self.pixels, self.image_id, asked, kinds, self.protocol)

    def explain(self, cases: Sequence[Case], methods: Mapping[str, Method]) -> None:
        """Fill in maps; a model with random weights answers anything, so that answers off the format count too."""
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
    pixels = pictures.get(preset.shape, _noise)(vlm)
    protocol = Protocol(steps=preset.steps, random_orders=preset.random_orders, max_new_tokens=4)
    protocol.check_grid(vlm.grid)
    settings: dict[str, dict[str, Any]] = {name: {} for name in METHODS}
    settings["integrated_gradients"] = {"steps": preset.ig_steps if preset.exact else SAMPLED_IG_STEPS[0]}
    methods = build_methods(settings)
    asked = list(QUESTIONS)
    cases = read_answers(vlm, pixels, "bench", asked, ["yes_no"] * len(asked), protocol)
    scene = Scene(vlm, pixels, cases, methods, protocol, preset)
    scene.explain(cases, methods)
    return scene


def _bundled() -> Gemma3VLM:
    return Gemma3VLM.from_pretrained(bundled_model(), "cpu")


def _phantom(vlm: Gemma3VLM) -> Tensor:
    """The first picture of the bundled data."""
    manifest = bundled_manifest()
    picture, _ = fit(load_image(open_manifest(manifest)[0]["image_path"], manifest.parent), vlm.image_size)
    return vlm.normalize(picture[None])[0]


def _noise(vlm: Gemma3VLM) -> Tensor:
    """Coarse noise: a picture that blurring changes, for a model that has never seen any."""
    coarse = torch.randn(1, 3, *vlm.grid, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, vlm.image_size, mode="nearest")[0].to(vlm.device)


def random_vlm(shape: str) -> Gemma3VLM:
    """A Gemma 3 of that shape with random weights, the vocabulary size of Gemma 3 and the bundled tokenizer.

    Speed needs no trained weights, and ids of a small tokenizer are ids of the large embedding too.
    """
    bundled = AutoProcessor.from_pretrained(bundled_model())
    tokenizer = bundled.tokenizer
    sizes = SHAPES[shape]
    side = sizes["vision"]["image_size"]
    images = Gemma3ImageProcessor(
        size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=True
    )
    processor = Gemma3Processor(images, tokenizer, bundled.chat_template, image_seq_length=256)
    layers = sizes["text"]["num_hidden_layers"]
    text = Gemma3TextConfig(
        vocab_size=VOCABULARY,
        layer_types=["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(layers)],
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
        **sizes["text"],
    )
    config = Gemma3Config(
        text_config=text,
        vision_config=SiglipVisionConfig(vision_use_head=False, **sizes["vision"]),
        mm_tokens_per_image=256,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        tie_word_embeddings=True,
    )
    device = "cuda" if shape == "medgemma-4b" and torch.cuda.is_available() else "cpu"
    return Gemma3VLM(_random_weights(config, device), processor, source=shape)


def _random_weights(config: Any, device: str) -> Gemma3ForConditionalGeneration:
    """Weights with which the picture matters: transformers' own start with a projector of zeros."""
    torch.manual_seed(0)
    with torch.device(device):
        model = Gemma3ForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    hidden = config.text_config.hidden_size
    with torch.no_grad():
        model.model.multi_modal_projector.mm_input_projection_weight.normal_(std=hidden**-0.5)
        for layer in model.model.language_model.layers:
            layer.post_attention_layernorm.weight.fill_(-0.7)
            layer.post_feedforward_layernorm.weight.fill_(-0.7)
    placed: Gemma3ForConditionalGeneration = model.to(torch.bfloat16 if device == "cuda" else torch.float32)
    return placed
