"""Memory, GPU-hours and disk of MedGemma 4B on a VQA test set: `python benchmarks/budget.py`. Computed, not measured.

It counts the passes of `configs/mimic.yaml` with the engine's own plan and with the bundled model's own counters, and
multiplies them by the operations of a model of the true shape. It needs no GPU and loads no large weights.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from cxr_faith.attribution import build_methods
from cxr_faith.bench.flops import decoder_flops, tower_flops
from cxr_faith.bench.presets import PRESETS, SHAPES, VOCABULARY
from cxr_faith.bench.scene import build_scene
from cxr_faith.curves import plan_curves
from cxr_faith.protocol import Protocol

CONFIG = Path(__file__).parents[1] / "configs" / "mimic.yaml"
GRID = (16, 16)
PREFIX, SUFFIX = 262, 28
"""Tokens up to the end of the image, and of a question with the chat's turn: 290 in all."""
PER_IMAGE = ("random_map", "edges")
"""Controls whose map is the same for every question about an image; `center` is one too, and is always planned."""
BYTES = 2  # bfloat16
ROW_BYTES, ROW_CELLS = 2_843, 144
"""Bytes of a record, and cells of its map, in a run of six samples of the demo with the full schedule:
`cxr-faith evaluate --config demo --limit 6 --model.protocol.steps 50 --model.protocol.random_orders 20`."""


@dataclass(frozen=True)
class Work:
    """Passes of one image with all its questions.

    Attributes:
        pictures: distinct perturbed pictures, through tower and prefix.
        questions: questions asked about them.
        forwards: whole forwards of the decoder for maps.
        backwards: backward passes of the decoder.
        use_pictures: pictures for image use, at most: a blank one, and another patient's for each question.
        use_questions: questions asked about these, and without a picture.
    """

    pictures: int
    questions: int
    forwards: int
    backwards: int
    use_pictures: int
    use_questions: int


def main() -> None:
    """Print the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500, help="images of the test set (assumed)")
    parser.add_argument("--samples", type=int, default=13_793, help="questions about them (assumed)")
    parser.add_argument("--peak", type=float, default=989, help="TFLOP/s of a GPU; H100, bfloat16, dense: 989")
    parser.add_argument("--share", type=float, default=0.4, help="share of the peak that the run reaches (assumed)")
    parser.add_argument("--micro_batch", type=int, default=64, help="perturbed pictures in one forward pass")
    parser.add_argument("--steps", type=int, help="steps of a curve; default: the config's")
    parser.add_argument("--random_orders", type=int, help="orders of the random baseline; default: the config's")
    parser.add_argument("--run_dir", type=Path, help="measure the bytes of a record in this run; default: ROW_BYTES")
    options = parser.parse_args()
    settings = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["model"]
    given = {name: value for name in ("steps", "random_orders") if (value := getattr(options, name)) is not None}
    protocol = Protocol(**settings["protocol"] | given)
    shown = {
        **assumptions(options),
        **compute(options, settings["methods"], protocol),
        **memory(options.micro_batch),
        **disk(options, settings["methods"]),
    }
    print("MedGemma 4B, configs/mimic.yaml: computed, not measured")
    for name, value in shown.items():
        print(f"  {name:<58}{value:>14}" if value else f"\n{name}")


def assumptions(options: argparse.Namespace) -> dict[str, str]:
    """What is not computed."""
    return {
        "assumed": "",
        "images": f"{options.images:,}",
        "questions": f"{options.samples:,}",
        "peak of the GPU, TFLOP/s": f"{options.peak:,.0f}",
        "share of the peak that a run reaches": f"{options.share:.0%}",
        "tokens of image and question": f"{PREFIX + SUFFIX}",
    }


def compute(options: argparse.Namespace, methods: Mapping[str, Any], protocol: Protocol) -> dict[str, str]:
    """Passes, operations and GPU-hours."""
    per_image = ceil(options.samples / options.images)
    work = count_work(per_image, methods, protocol)
    shape: Any = SimpleNamespace(model=SimpleNamespace(config=config()), n_cells=GRID[0] * GRID[1])
    tower, prefix = tower_flops(shape), decoder_flops(shape, PREFIX, PREFIX)
    question = decoder_flops(shape, SUFFIX, PREFIX + SUFFIX)
    length = PREFIX + SUFFIX
    forward, backward = (decoder_flops(shape, length, length, products) for products in (2, 4))
    curves = work.pictures * (tower + prefix) + work.questions * question
    maps = work.forwards * forward + work.backwards * backward
    use = work.use_pictures * (tower + prefix) + work.use_questions * question
    images = options.samples / per_image
    speed = options.peak * 1e12 * options.share
    curve_hours, map_hours, use_hours = (images * flops / speed / 3600 for flops in (curves, maps, use))
    hours = curve_hours + map_hours + use_hours
    return {
        "passes of an image": "",
        "questions about it, rounded up": f"{per_image}",
        "distinct perturbed pictures": f"{work.pictures:,}",
        "questions asked about them": f"{work.questions:,}",
        "decoder forwards for maps": f"{work.forwards:,}",
        "decoder backwards for maps": f"{work.backwards:,}",
        "pictures for image use, at most": f"{work.use_pictures:,}",
        "questions asked for image use": f"{work.use_questions:,}",
        "operations": "",
        "vision tower, a picture, TFLOP": f"{tower / 1e12:.2f}",
        "decoder, image tokens of a picture, TFLOP": f"{prefix / 1e12:.2f}",
        "decoder, a question on that cache, TFLOP": f"{question / 1e12:.2f}",
        "the test set, EFLOP": f"{images * (curves + maps + use) / 1e18:.1f}",
        "GPU-hours": "",
        "curves": f"{curve_hours:.0f}",
        "maps": f"{map_hours:.1f}",
        "image use": f"{use_hours:.1f}",
        "together": f"{hours:.0f}",
        "hours on 8 such GPUs": f"{hours / 8:.1f}",
    }


def count_work(per_image: int, methods: Mapping[str, Any], protocol: Protocol) -> Work:
    """Passes of an image, with maps that share no picture by chance: random ones, one for each method and question."""
    rng = np.random.default_rng(0)
    shared = {name: rng.random(GRID) for name in PER_IMAGE}
    names = [*methods, "blurred copy of the first"]
    cases: list[Any] = [
        SimpleNamespace(maps={name: rng.random(GRID) for name in names} | shared) for _ in range(per_image)
    ]
    plan, _ = plan_curves(GRID, "image", cases, protocol)
    forwards, backwards = count_maps(methods)
    use = (1 + per_image, 3 * per_image) if protocol.image_use else (0, 0)
    return Work(len(plan), plan.questions_asked, per_image * forwards, per_image * backwards, *use)


def count_maps(methods: Mapping[str, Any]) -> tuple[int, int]:
    """Decoder forwards and backwards of all maps of one question, counted on the bundled model."""
    scene = build_scene(PRESETS["tiny"])
    cases = scene.answer([0])
    before = scene.vlm.counts.snapshot()
    scene.explain(cases, build_methods({name: dict(given or {}) for name, given in methods.items()}))
    after = scene.vlm.counts
    return after.trace - before.trace, after.backward - before.backward


def config() -> Gemma3Config:
    """The shape of MedGemma 4B."""
    shape = SHAPES["medgemma-4b"]
    return Gemma3Config(
        text_config=shape["text"] | {"vocab_size": VOCABULARY},
        vision_config=shape["vision"] | {"vision_use_head": False},
        mm_tokens_per_image=GRID[0] * GRID[1],
    )


def memory(micro_batch: int) -> dict[str, str]:
    """GB of 10⁹ bytes on the GPU while curves run; `benchmarks/memory.py` has what gradient maps keep."""
    shape = config()
    text, vision = shape.text_config, shape.vision_config
    with torch.device("meta"):
        weights = BYTES * sum(weight.numel() for weight in Gemma3ForConditionalGeneration(shape).parameters())
    cache = micro_batch * 2 * PREFIX * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * BYTES
    patches = (vision.image_size // vision.patch_size) ** 2
    # A tower layer: input, normalized input, queries, keys, values, output, and the MLP before and after GELU.
    layer = micro_batch * patches * (6 * vision.hidden_size + 2 * vision.intermediate_size) * BYTES
    return {
        "memory of a GPU, GB": "",
        "weights in bfloat16": f"{weights / 1e9:.1f}",
        f"curves: a tower layer of {micro_batch} pictures": f"{layer / 1e9:.1f}",
        f"curves: keys and values of {micro_batch} pictures": f"{cache / 1e9:.1f}",
        "curves, with the weights": f"{(weights + layer + cache) / 1e9:.1f}",
    }


def disk(options: argparse.Namespace, methods: Mapping[str, Any]) -> dict[str, str]:
    """GB of the records, and of a cache of gray pictures at the model's size."""
    rows = options.samples * (len(methods) + 1 + len(PER_IMAGE) + 2)  # a blurred copy; center and random
    size, cells = (ROW_BYTES, ROW_CELLS) if options.run_dir is None else row_of(options.run_dir)
    scaled = size * GRID[0] * GRID[1] / cells
    side = SHAPES["medgemma-4b"]["vision"]["image_size"]
    return {
        "disk": "",
        "rows of the records": f"{rows:,}",
        f"bytes of a row with {cells} cells, measured": f"{size:,.0f}",
        f"bytes of a row with {GRID[0] * GRID[1]} cells, at most": f"{scaled:,.0f}",
        "records, GB": f"{rows * scaled / 1e9:.2f}",
        "cache of the pictures (--data.cache), GB": f"{options.images * side**2 / 1e9:.2f}",
    }


def row_of(run_dir: Path) -> tuple[float, int]:
    """Bytes of a record in a run, and the cells of its map."""
    files = sorted((run_dir / "records").glob("*.parquet"))
    table = pq.read_table(files[0], columns=["grid_h", "grid_w"]).to_pylist()
    cells = next(row["grid_h"] * row["grid_w"] for row in table if row["grid_h"])
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    return sum(file.stat().st_size for file in files) / rows, cells


if __name__ == "__main__":
    main()
