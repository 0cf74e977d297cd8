"""Compares the engine with the usual recipe, other libraries and the floor, in one process, in contest."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from cxr_faith.bench.contest import Contest
from cxr_faith.bench.engine import run_engine, sample_engine
from cxr_faith.bench.floor import bare_seconds
from cxr_faith.bench.libraries import LIBRARIES, library_steps, missing, run_library
from cxr_faith.bench.naive import Naive
from cxr_faith.bench.presets import PRESETS
from cxr_faith.bench.recipe import run_naive, sample_naive
from cxr_faith.bench.results import BenchResult
from cxr_faith.bench.scene import Scene, build_scene
from cxr_faith.bench.summarize import summarize
from cxr_faith.bench.table import render
from cxr_faith.bench.variants import VARIANTS, run_variant
from cxr_faith.perturb.engine import Engine
from cxr_faith.report.terminal import print_line, wide_console
from cxr_faith.storage.atomic import write_atomic

LIBRARY_STEPS_SAMPLED = 4


@dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Attributes:
        preset: `tiny`, `small`, `medgemma-4b` or `families`.
        out: JSON file; default benchmarks/<preset>.json.
        threads: CPU threads; default: as PyTorch chooses.
    """

    preset: str = "tiny"
    out: str | None = None
    threads: int | None = None


class Disagreement(RuntimeError):
    """The engine's curves are not those of the usual recipe."""


def bench(options: BenchOptions) -> BenchResult:
    """Measure, print the table and write the JSON file.

    Raises:
        ValueError: no such preset, or one that cannot run here.
        Disagreement: the curves differ; the file is written all the same.
    """
    if options.preset not in PRESETS:
        raise ValueError(f"no preset {options.preset!r}; there are {', '.join(PRESETS)}")
    use_threads(options.threads)
    if options.preset == "medgemma-4b" and not torch.cuda.is_available():
        raise ValueError("the preset medgemma-4b needs a GPU, and there is none: use --preset tiny or small")
    transformers_logging.disable_progress_bar()
    result = measure(build_scene(PRESETS[options.preset]))
    path = Path(options.out or f"benchmarks/{options.preset}.json")
    content = {"preset": options.preset, **result.to_dict()}
    write_atomic(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    console = wide_console()
    render(options.preset, result, console)
    print_line(console, f"numbers  {path}")
    if not result.agreement.passed:
        raise Disagreement(
            f"the engine's curves differ from the usual recipe's by {result.agreement.difference:.2g} "
            f"(allowed: {result.agreement.tolerance:g})"
        )
    return result


def use_threads(threads: int | None) -> None:
    """Set the number of CPU threads; None: leave it as it is.

    Raises:
        ValueError: a number below 1.
    """
    if threads is not None:
        if threads < 1:
            raise ValueError(f"--threads must be at least 1, got {threads}")
        torch.set_num_threads(threads)


def measure(scene: Scene) -> BenchResult:
    """Run all contestants in turns, as often as the scene's preset says."""
    vlm, everything = scene.vlm, len(scene.cases)
    engine, naive, contest = Engine(vlm), Naive(scene), Contest(scene)
    for repeat in range(scene.preset.repeats):
        question = repeat % everything
        bare, peak = bare_seconds(scene)
        contest.bare.append(bare)
        contest.keep_peak("floor", peak)
        if scene.preset.exact:
            with contest.memory("engine"):
                whole, rows = run_engine(scene, engine, range(everything))
                # Questions need different numbers of pictures, so the row of one question is always the first one's.
                alone, _ = run_engine(scene, engine, [0])
            with contest.memory("naive"):
                usual = run_naive(scene, naive, question, rows)
            contest.exact = rows
            for name in VARIANTS:
                with contest.memory(name):
                    variant = run_variant(scene, engine, name, 0)
                contest.variants.setdefault(name, []).append(variant)
        else:
            with contest.memory("engine"):
                sampled = sample_engine(scene, engine)
            alone, whole = sampled[1], sampled[everything]
            with contest.memory("naive"):
                usual = sample_naive(scene, engine, naive, question)
        contest.engine.append((alone, whole))
        contest.naive.append(usual)
        for name in LIBRARIES:
            if missing(name) is None:
                with contest.memory(name):
                    seconds = library_forward(scene, name, question)
                contest.libraries.setdefault(name, []).append(seconds)
    return summarize(contest)


def library_forward(scene: Scene, name: str, question: int) -> float:
    """Seconds of one of a library's forwards, its own work included, from the curves of one map."""
    cells = scene.vlm.n_cells
    steps = library_steps(cells, scene.protocol.finest(cells) if scene.preset.exact else LIBRARY_STEPS_SAMPLED)
    seconds, forwards, _ = run_library(name, scene, question, steps)
    return seconds / forwards
