"""`cxr-faith bench`: the engine beside the usual recipe, other libraries and the floor, in one process, in turns."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers.utils import logging as transformers_logging

from cxr_faith.bench.engine import run_engine, run_naive, sample_engine, sample_naive
from cxr_faith.bench.floor import bare_seconds
from cxr_faith.bench.libraries import LIBRARIES, library_steps, missing, run_library
from cxr_faith.bench.naive import Naive
from cxr_faith.bench.ratios import Turns, summarize
from cxr_faith.bench.scene import PRESETS, Scene, build_scene
from cxr_faith.bench.table import render
from cxr_faith.bench.variants import VARIANTS, run_variant
from cxr_faith.perturb.engine import Engine
from cxr_faith.records import write_atomic

LIBRARY_STEPS_SAMPLED = 4


@dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Attributes:
        preset: `tiny`, `small` or `medgemma-4b`.
        out: JSON file; default benchmarks/<preset>.json.
        threads: CPU threads; default: as PyTorch chooses.
    """

    preset: str = "tiny"
    out: str | None = None
    threads: int | None = None


class Disagreement(RuntimeError):
    """The engine's curves are not those of the usual recipe."""


def bench(options: BenchOptions) -> dict[str, Any]:
    """Measure, print the table and write the JSON file.

    Returns:
        What the JSON file holds.

    Raises:
        ValueError: no such preset, or one that cannot run here.
        Disagreement: the curves differ; the file is written all the same.
    """
    if options.preset not in PRESETS:
        raise ValueError(f"no preset {options.preset!r}; there are {', '.join(PRESETS)}")
    if options.threads is not None:
        if options.threads < 1:
            raise ValueError(f"--threads must be at least 1, got {options.threads}")
        torch.set_num_threads(options.threads)
    if options.preset == "medgemma-4b" and not torch.cuda.is_available():
        raise ValueError("the preset medgemma-4b needs a GPU, and there is none: use --preset tiny or small")
    transformers_logging.disable_progress_bar()
    result = {"preset": options.preset} | measure(build_scene(PRESETS[options.preset]))
    path = Path(options.out or f"benchmarks/{options.preset}.json")
    write_atomic(path, json.dumps(result, indent=1, allow_nan=False) + "\n")
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    render(result, console)
    console.print(f"numbers  {path}", soft_wrap=True, highlight=False)
    if not result["agreement"]["passed"]:
        raise Disagreement(
            f"the engine's curves differ from the usual recipe's by {result['agreement']['difference']:.2g} "
            f"(allowed: {result['agreement']['tolerance']:g})"
        )
    return result


def measure(scene: Scene) -> dict[str, Any]:
    """Run every contestant in turns, as often as the scene's preset says."""
    vlm, everything = scene.vlm, len(scene.cases)
    engine, naive, turns = Engine(vlm), Naive(scene), Turns(scene)
    for repeat in range(scene.preset.repeats):
        question = repeat % everything
        bare, peak = bare_seconds(scene)
        turns.bare.append(bare)
        turns.keep_peak("floor", peak)
        if scene.preset.exact:
            with turns.memory("engine"):
                whole, rows = run_engine(scene, engine, range(everything))
                # Questions need different numbers of pictures: one row tells of one of them.
                alone, _ = run_engine(scene, engine, [0])
            with turns.memory("naive"):
                usual = run_naive(scene, naive, question, rows)
            turns.exact = rows
            for name in VARIANTS:
                with turns.memory(name):
                    variant = run_variant(scene, engine, name, 0)
                turns.variants.setdefault(name, []).append(variant)
        else:
            with turns.memory("engine"):
                sampled = sample_engine(scene, engine)
            alone, whole = sampled[1], sampled[everything]
            with turns.memory("naive"):
                usual = sample_naive(scene, engine, naive, question)
        turns.engine.append((alone, whole))
        turns.naive.append(usual)
        for name in LIBRARIES:
            if missing(name) is None:
                with turns.memory(name):
                    seconds = library_forward(scene, name, question)
                turns.libraries.setdefault(name, []).append(seconds)
    return summarize(turns)


def library_forward(scene: Scene, name: str, question: int) -> float:
    """Seconds of one of a library's forwards, its own work included, from the curves of one map."""
    cells = scene.vlm.n_cells
    steps = library_steps(cells, scene.protocol.finest(cells) if scene.preset.exact else LIBRARY_STEPS_SAMPLED)
    seconds, forwards, _ = run_library(name, scene, question, steps)
    return seconds / forwards
