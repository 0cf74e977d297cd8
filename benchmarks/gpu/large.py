"""The shape of MedGemma 4B with random weights in bfloat16: `python benchmarks/gpu/large.py OUT.json [--dry]`.

Milliseconds, share of the measured matmul peak and peak memory of each stage, of the engine and of every method, and
the hours that MIMIC's test set would take. `--dry` runs the bundled model on the CPU instead.
"""

import json
import sys
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from benchmarks.budget import CONFIG, count_work
from cxr_faith import bundled_model
from cxr_faith.attribution import build_methods
from cxr_faith.bench.flops import Stages, stage_flops
from cxr_faith.bench.presets import QUESTIONS
from cxr_faith.bench.random_model import random_vlm
from cxr_faith.bench.timing import matmul_peak, peak_memory, wall
from cxr_faith.cases import compute_maps, read_answers
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.vlm import Gemma3VLM, Target
from cxr_faith.vlm.config import FASTER
from cxr_faith.vlm.kernels import use_kernels

IMAGES, QUESTIONS_TOTAL = 500, 13_793
"""Of the test set, as `benchmarks/budget.py` assumes."""
METHODS: dict[str, dict[str, Any]] = {
    **{
        name: {}
        for name in ("attention", "rollout", "chefer", "chefer_global", "gradient", "grad_cam", "tam", "cleann")
    },
    "grad_x_input": {"baseline": "mean"},
    "integrated_gradients": {"baseline": "mean"},
    "smooth_grad": {"copies": 4},
    "igos_pp": {"iterations": 2},
}
DRY_METHODS: dict[str, dict[str, Any]] = {
    "chefer": {},
    "integrated_gradients": {"baseline": "mean", "steps": 2},
}


class Check:
    """The model, a picture, its substrate, and the file of results; each result is written at once.

    Args:
        out: the JSON file.
        dry: the bundled model on the CPU, a few passes.
    """

    def __init__(self, out: Path, dry: bool) -> None:
        self.out, self.dry, self.result = out, dry, dict[str, Any]()
        self.vlm = Gemma3VLM.from_pretrained(bundled_model(), "cpu") if dry else random_vlm("medgemma-4b")
        self.device, dtype = self.vlm.device, self.vlm.model.dtype
        self.peak = matmul_peak(self.device, dtype)
        coarse = torch.randn(1, 3, *self.vlm.grid, generator=torch.Generator().manual_seed(0))
        self.pixels = torch.nn.functional.interpolate(coarse, self.vlm.image_size)[0].to(self.device)
        self.removed = Substrate.parse("blur:0.1").apply(self.pixels[None], ["a"], 0)[0]
        self.prompt = self.vlm.prompt(QUESTIONS[0])
        self.flops = stage_flops(self.vlm, self.prompt)
        weights = sum(weight.numel() * weight.element_size() for weight in self.vlm.model.parameters())
        self.say("model", {"dtype": str(dtype), "weights_gb": weights / 1e9, "matmul_peak_tflops": self.peak / 1e12})

    def say(self, name: str, value: Any) -> None:
        """Print a result and write all of them."""
        self.result[name] = value
        print(f"{name}: {value}", flush=True)
        self.out.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")

    def attempt(self, name: str, work: Callable[[], Any]) -> None:
        """Keep what some work gives; an error costs this measurement alone."""
        try:
            self.say(name, work())
        except (RuntimeError, ValueError) as error:
            self.say(name, {"failed": f"{type(error).__name__}: {str(error)[:300]}"})
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def timed(self, work: Callable[[], Any], pictures: int, flops: float) -> dict[str, float | None]:
        """Milliseconds a picture, share of the peak, and peak memory, after one pass that does not count."""
        work()
        with peak_memory(self.device) as peak:
            seconds = min(wall(self.device, work) for _ in range(2)) / pictures
        return {
            "ms": 1e3 * seconds,
            "share_of_peak": flops / seconds / self.peak,
            "peak_gb": None if peak.value is None else peak.value / 1e9,
        }

    def plan(self, pictures: int) -> Plan:
        """Random masks, half of the cells removed."""
        plan = Plan(self.vlm.n_cells)
        plan.add(0, np.random.default_rng(0).random((pictures, self.vlm.n_cells)) < 0.5)
        return plan


@torch.no_grad()
def stages(check: Check, batch: int) -> dict[str, dict[str, float | None]]:
    """Tower, prefill and suffix of a batch."""
    vlm = check.vlm
    embedded = vlm.embed(check.pixels[None])
    assert embedded is not None
    half = embedded.expand(batch, -1, -1, -1).contiguous()
    tokens: Tensor = vlm.encode_embedded(half)
    prefix = vlm.prefill(tokens)
    works = {
        "tower": (lambda: vlm.encode_embedded(half), check.flops.tower),
        "prefill": (lambda: vlm.prefill(tokens), check.flops.prefill),
        "suffix": (lambda: vlm.score(prefix, check.prompt, Target("margin")), check.flops.suffix),
    }
    return {name: check.timed(work, batch, flops) for name, (work, flops) in works.items()}


def engine(check: Check, micro_batch: int, target: Target) -> dict[str, float | None]:
    """The engine on pictures of one question: the perturbation phase of a run."""
    pictures = 8 if check.dry else 256
    ran, plan = Engine(check.vlm, micro_batch=micro_batch), check.plan(pictures)
    arguments = (check.pixels, check.removed, plan, [check.prompt], [target])
    return check.timed(lambda: ran.run(*arguments), pictures, check.flops.total(1, 1))


def maps(check: Check) -> dict[str, dict[str, float | None]]:
    """Seconds and peak memory of each method, the second time that it runs."""
    settings = DRY_METHODS if check.dry else METHODS
    protocol = Protocol(max_new_tokens=4)
    cases = read_answers(check.vlm, check.pixels, "a", [QUESTIONS[0]], ["yes_no"], protocol)
    for _ in range(2):
        compute_maps(check.vlm, build_methods(settings), [check.pixels], cases, 0, only_in_format=False, forgive=True)
    costs = cases[0].costs.items()
    shown = {n: {"seconds": c["seconds"], "peak_gb": (c["peak_memory"] or 0) / 1e9} for n, c in costs}
    if cases[0].failed:
        raise RuntimeError(f"methods without a map: {cases[0].failed}")
    return shown


def mimic_hours(seconds: Stages, map_seconds: float) -> dict[str, float]:
    """Hours that MIMIC's test set takes on one GPU, from measured seconds and the exact counts of its config."""
    settings = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["model"]
    per_image = ceil(QUESTIONS_TOTAL / IMAGES)
    work = count_work(per_image, settings["methods"], Protocol(**settings["protocol"]))
    images = QUESTIONS_TOTAL / per_image
    curves = images * seconds.total(work.pictures, work.questions) / 3600
    return {
        "curves": curves,
        "maps": QUESTIONS_TOTAL * map_seconds / 3600,
        "images_an_hour": images / (curves + QUESTIONS_TOTAL * map_seconds / 3600),
    }


def main() -> None:
    """Measure, most important first."""
    check = Check(Path(sys.argv[1]), "--dry" in sys.argv)
    best, margin = (4 if check.dry else 64), Target("margin")
    check.attempt("engine", lambda: engine(check, best, margin))
    check.attempt("stages", lambda: stages(check, best))
    check.attempt("maps", lambda: maps(check))
    if "tower" in check.result["stages"] and "chefer" in check.result["maps"]:
        spent = Stages(*(value["ms"] / 1e3 for value in check.result["stages"].values()))
        config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["model"]["methods"]
        mapped = sum(value["seconds"] for name, value in check.result["maps"].items() if name in config)
        check.attempt("mimic_hours", lambda: mimic_hours(spent, mapped))
    answer_ids = tuple(range(20, 24 if check.dry else 52))
    tokens = Target("tokens", answer_ids=answer_ids, scored=tuple(range(len(answer_ids))))
    check.attempt("open_question_of_32_tokens", lambda: engine(check, best, tokens))
    check.attempt("engine_small_batch", lambda: engine(check, 3 if check.dry else 22, margin))
    for name in FASTER:  # last, since each changes the model and stays
        use_kernels(check.vlm.model, [name], check.vlm.decoder.norm_offset)
        check.attempt(f"stages_{name}", lambda: stages(check, best))


if __name__ == "__main__":
    main()
