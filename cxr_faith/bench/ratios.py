"""What the benchmark's turns come to: rows and ratios."""

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxr_faith.bench.engine import Rows, Turn, deletion_pictures, exact_counts
from cxr_faith.bench.floor import (
    Stages,
    decoder_flops,
    embedding_flops,
    last_layer_flops,
    logits_flops,
    matmul_peak,
    peak_memory,
    stage_flops,
)
from cxr_faith.bench.libraries import LIBRARIES, library_steps, missing
from cxr_faith.bench.scene import METHODS, Scene
from cxr_faith.bench.variants import VARIANTS, Variant, area_errors, rank_agreement
from cxr_faith.perturb.engine import TOKENS
from cxr_faith.protocol import ADAPTIVE

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.5}
"""Largest difference in logits between the curves of engine and usual recipe; bfloat16 rounds logits to .125."""


@dataclass
class Turns:
    """What every contestant did in every repeat.

    Attributes:
        scene: what they ran on.
        engine: (one question, all questions) of each repeat.
        naive: one question of each repeat; more questions take so many times as long, since nothing is shared.
        bare: seconds of the bare stages.
        exact: the engine's rows of all questions, of the last repeat; where every forward was run.
        variants: name -> each repeat's turn; where every forward was run.
        libraries: name -> seconds of a forward.
        peaks: name -> bytes, where memory can be measured.
    """

    scene: Scene
    engine: list[tuple[Turn, Turn]] = field(default_factory=list)
    naive: list[Turn] = field(default_factory=list)
    bare: list[Stages] = field(default_factory=list)
    exact: Rows = field(default_factory=list)
    variants: dict[str, list[Variant]] = field(default_factory=dict)
    libraries: dict[str, list[float]] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def memory(self, name: str) -> Iterator[None]:
        """Keep the peak memory of a block under a contestant's name."""
        with peak_memory(self.scene.vlm.device) as peak:
            yield
        # On a GPU each of the engine's maps measures its own peak, and so ends a measurement that is going on.
        makes_maps = name in ("engine", *VARIANTS)
        maps = [p for p in _map_peaks(self.scene).values() if p is not None] if makes_maps else []
        if peak.value is not None:
            self.keep_peak(name, int(max(peak.value, *maps)) if maps else peak.value)

    def keep_peak(self, name: str, peak: int | None) -> None:
        """Keep a contestant's highest peak memory, in bytes."""
        if peak is not None:
            self.peaks[name] = max(peak, self.peaks.get(name, 0))


def summarize(turns: Turns) -> dict[str, Any]:
    """Everything as it goes into the JSON file."""
    scene = turns.scene
    peak = matmul_peak(scene.vlm.device, scene.vlm.model.dtype)
    rows = [
        row | {"peak_memory": turns.peaks.get(row["name"])}
        for several in (False, True)
        for row in _rows(turns, several, peak)
    ]
    difference = max(turn.difference for turn in turns.naive)
    tolerance = TOLERANCE[scene.vlm.model.dtype]
    return {
        "machine": machine(scene),
        "exact": scene.preset.exact,
        "schedule": {
            **{"steps": scene.protocol.steps, "random_orders": scene.protocol.random_orders, "methods": list(METHODS)},
            **{"ig_steps": scene.preset.ig_steps, "cells": scene.vlm.n_cells, "repeats": scene.preset.repeats},
        },
        "matmul_peak_gflops": peak / 1e9,
        "rows": rows,
        "ratios": ratios(turns),
        "bare_ms": {
            name: 1e3 * _spread([getattr(b, name) for b in turns.bare])["median"] for name in vars(turns.bare[0])
        },
        "memory": {"weights": _weight_bytes(scene), "maps": _map_peaks(scene)},
        "left_out": [reason for name in LIBRARIES if (reason := missing(name))],
        "variants": _accuracy(turns),
        "agreement": {"difference": difference, "tolerance": tolerance, "passed": difference <= tolerance},
    }


def _accuracy(turns: Turns) -> dict[str, Any]:
    """What the variants' numbers are worth; nothing where the forwards were sampled."""
    rows = {name: found[-1].rows for name, found in turns.variants.items()}
    if not rows:
        return {}
    return {
        "auc_error": area_errors(turns.exact, rows[ADAPTIVE]),
        "spearman": _spread(rank_agreement(turns.exact, rows[TOKENS])),
    }


def _weight_bytes(scene: Scene) -> int:
    return sum(weight.numel() * weight.element_size() for weight in scene.vlm.model.parameters())


def _map_peaks(scene: Scene) -> dict[str, float | None]:
    """Highest peak memory of each method's maps, weights included, in bytes; None where it is not measured."""
    peaks = {name: [case.costs[name]["peak_memory"] for case in scene.cases] for name in METHODS}
    return {name: max((p for p in found if p is not None), default=None) for name, found in peaks.items()}


def machine(scene: Scene) -> dict[str, Any]:
    """The hardware and the versions that the numbers belong to."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    cpu = names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()
    on_gpu = scene.vlm.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(scene.vlm.device) if on_gpu else cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "dtype": str(scene.vlm.model.dtype).removeprefix("torch."),
        "parameters": sum(weight.numel() for weight in scene.vlm.model.parameters()),
        **{name: version(name) for name in ("torch", "transformers")},
    }


def ratios(turns: Turns) -> dict[str, dict[str, float]]:
    """Quotients within each repeat, as median, smallest and largest."""
    scene, count = turns.scene, len(turns.scene.cases)
    result = {}
    for label, index, questions in (("one question", 0, 1), (f"{count} questions", 1, count)):
        pairs = list(zip(turns.naive, (turn[index] for turn in turns.engine), turns.bare, strict=True))
        counts = exact_counts(scene, range(questions))
        result[f"naive ÷ engine, {label}"] = _spread([questions * n.total / e.total for n, e, _ in pairs])
        for name, variants in turns.variants.items():
            ours = [(variant.alone, variant.whole)[index].total for variant in variants]
            usual = [questions * turn.total for turn in turns.naive]
            result[f"naive ÷ {name}, {label}"] = _spread([n / o for n, o in zip(usual, ours, strict=True)])
        result[f"engine ÷ floor, {label}"] = _spread([e.seconds["curves"] / b.total(*counts) for _, e, b in pairs])
    for name, forward in turns.libraries.items():
        share = _library_share(scene, name)
        job = count * _library_forwards(scene, name)
        ours = [share * whole.seconds["curves"] for _, whole in turns.engine]
        result[f"{name} ÷ engine, {count} questions"] = _spread(
            [job * f / o for f, o in zip(forward, ours, strict=True)]
        )
    return result


def _library_share(scene: Scene, name: str) -> float:
    """Share of the engine's pictures in the job that a library can do: its number of steps, Quantus deletion alone."""
    questions, cells = range(len(scene.cases)), scene.vlm.n_cells
    steps = library_steps(cells, scene.protocol.finest(cells))
    job = replace(scene, protocol=replace(scene.protocol, steps=steps))
    pictures = deletion_pictures(job) if name == "quantus" else exact_counts(job, questions)[0]
    return pictures / exact_counts(scene, questions)[0]


def _library_forwards(scene: Scene, name: str) -> int:
    """Forwards of a library for the curves of one question: those of the maps, the random orders and the center."""
    steps = library_steps(scene.vlm.n_cells, scene.protocol.finest(scene.vlm.n_cells))
    return (len(METHODS) + 1 + scene.protocol.random_orders) * (2 * steps if name == "torchcam" else steps)


def _rows(turns: Turns, several: bool, peak: float) -> Iterator[dict[str, Any]]:
    scene = turns.scene
    questions = len(scene.cases) if several else 1
    naive = {key: questions * value for key, value in turns.naive[0].counts.items()}
    ours = [turn[several] for turn in turns.engine]
    pictures, asked = exact_counts(scene, range(questions))
    yield _row(
        "naive", questions, [questions * turn.total for turn in turns.naive], peak, naive_flops(scene, naive)
    ) | {
        "counts": naive,
        "phases": _phases(turns.naive, questions),
    }
    for name, forward in turns.libraries.items():
        forwards = questions * _library_forwards(scene, name)
        flops = forwards * whole_forward_flops(scene, 1)
        yield _row(name, questions, [forwards * f for f in forward], peak, flops) | {"counts": {"forward": forwards}}
    curves = engine_flops(
        scene, {"embed": 2, "encode": pictures, "prefill": pictures, "score": asked, "trace": 0, "backward": 0}
    )
    yield _row("engine", questions, [turn.total for turn in ours], peak, engine_flops(scene, ours[0].counts)) | {
        "counts": ours[0].counts,
        "phases": _phases(ours, 1),
        "curves_mfu": curves / _phases(ours, 1)["curves"] / peak,
    }
    for name, variants in turns.variants.items():
        found = [(variant.alone, variant.whole)[several] for variant in variants]
        flops = engine_flops(scene, found[0].counts)
        yield _row(name, questions, [turn.total for turn in found], peak, flops) | {
            "counts": found[0].counts,
            "phases": _phases(found, 1),
        }
    bare = [stages.total(pictures, asked) for stages in turns.bare]
    flops = stage_flops(scene.vlm, scene.cases[0].prompt).total(pictures, asked)
    yield _row("floor", questions, bare, peak, flops) | {"counts": {"encode": pictures, "score": asked}}


def _row(name: str, questions: int, seconds: Sequence[float], peak: float, flops: float) -> dict[str, Any]:
    spread = _spread(seconds)
    return {
        "name": name,
        "questions": questions,
        "seconds": spread,
        "gflop": flops / 1e9,
        "mfu": flops / spread["median"] / peak,
        "studies_per_hour": 3600 / spread["median"],
    }


def _phases(turns: Sequence[Turn], times: int) -> dict[str, float]:
    return {phase: times * float(np.median([turn.seconds[phase] for turn in turns])) for phase in turns[0].seconds}


def engine_flops(scene: Scene, counts: dict[str, int]) -> float:
    """Operations of the engine's counts: few pictures are cut into patches, and a prefix ends in its last layer."""
    vlm, prompt = scene.vlm, scene.cases[0].prompt
    stages = stage_flops(vlm, prompt)
    forward, backward = (decoder_flops(vlm, prompt.length, prompt.length, products) for products in (2, 4))
    embedding, unfinished = embedding_flops(vlm), last_layer_flops(vlm, len(prompt.prefix_ids))
    shared = counts["encode"] * (stages.tower - embedding) + counts["embed"] * embedding
    shared += counts["prefill"] * (stages.prefill - unfinished) + counts["score"] * stages.suffix
    return shared + counts["trace"] * forward + counts["backward"] * backward


def naive_flops(scene: Scene, counts: dict[str, int]) -> float:
    """Operations of the usual recipe's counts."""
    vlm, length = scene.vlm, scene.cases[0].prompt.length
    logits = logits_flops(vlm, length)
    forward, backward = (decoder_flops(vlm, length, length, products) + logits for products in (2, 4))
    whole = counts["forward"] * whole_forward_flops(scene, length)
    tower = counts["encode"] * stage_flops(vlm, scene.cases[0].prompt).tower
    return whole + tower + counts["trace"] * forward + counts["backward"] * backward


def whole_forward_flops(scene: Scene, positions: int) -> float:
    """Operations of one picture and question through the whole model, with the logits of so many positions."""
    vlm, prompt = scene.vlm, scene.cases[0].prompt
    decoder = decoder_flops(vlm, prompt.length, prompt.length)
    return stage_flops(vlm, prompt).tower + decoder + logits_flops(vlm, positions)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "min": float(np.min(values)), "max": float(np.max(values))}
