"""The results of a contest."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from cxr_faith.bench.contest import Contest, map_peaks
from cxr_faith.bench.flops import Stages
from cxr_faith.bench.libraries import LIBRARIES, missing
from cxr_faith.bench.presets import METHODS
from cxr_faith.bench.ratios import ratios
from cxr_faith.bench.results import Agreement, BenchResult, Machine, Schedule, Spread, Variants
from cxr_faith.bench.rows import bench_rows
from cxr_faith.bench.timing import matmul_peak
from cxr_faith.bench.variants import area_errors, rank_agreement
from cxr_faith.perturb.engine import TOKENS
from cxr_faith.protocol import ADAPTIVE
from cxr_faith.vlm.pretrained import FamilyVLM

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.5}
"""Largest difference in logits between the curves of engine and usual recipe; bfloat16 rounds logits to .125."""


def summarize(contest: Contest) -> BenchResult:
    """Everything that was measured."""
    scene, model = contest.scene, contest.scene.vlm.model
    protocol, preset = scene.protocol, scene.preset
    peak = matmul_peak(scene.vlm.device, model.dtype)
    medians = (Spread.of([getattr(bare, name) for bare in contest.bare]).median for name in vars(contest.bare[0]))
    return BenchResult(
        machine=machine(scene.vlm),
        exact=preset.exact,
        schedule=Schedule(
            protocol.steps, protocol.random_orders, METHODS, preset.ig_steps, scene.vlm.n_cells, preset.repeats
        ),
        matmul_peak_gflops=peak / 1e9,
        rows=[row for several in (False, True) for row in bench_rows(contest, several, peak)],
        ratios=ratios(contest),
        bare_ms=Stages(*(1e3 * median for median in medians)),
        weights_bytes=sum(weight.numel() * weight.element_size() for weight in model.parameters()),
        map_peaks=map_peaks(scene),
        left_out=[reason for name in LIBRARIES if (reason := missing(name))],
        variants=_variants(contest),
        agreement=Agreement(max(turn.difference for turn in contest.naive), TOLERANCE[model.dtype]),
    )


def _variants(contest: Contest) -> Variants | None:
    """Accuracy of the cheaper schedules; None where the forwards were sampled."""
    rows = {name: variants[-1].rows for name, variants in contest.variants.items()}
    if not rows:
        return None
    return Variants(area_errors(contest.exact, rows[ADAPTIVE]), Spread.of(rank_agreement(contest.exact, rows[TOKENS])))


def machine(vlm: FamilyVLM) -> Machine:
    """The hardware and the versions that the numbers belong to."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    cpu = names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()
    on_gpu = vlm.device.type == "cuda"
    return Machine(
        device=torch.cuda.get_device_name(vlm.device) if on_gpu else cpu,
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        dtype=str(vlm.model.dtype).removeprefix("torch."),
        parameters=sum(weight.numel() for weight in vlm.model.parameters()),
        torch=version("torch"),
        transformers=version("transformers"),
    )
