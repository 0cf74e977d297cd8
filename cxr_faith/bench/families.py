"""The engine beside its floor, on a model of each family with random weights.

Only curves are run, of two maps, the center prior and some random orders, so that all families do the same job. The
floor is as `floor` has it: the distinct pictures and the questions about them × the bare time of each stage at its best
batch size. A family whose image tokens see the question shares nothing between questions, so its floor is whole passes.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor
from transformers.utils import logging as transformers_logging

from cxr_faith.bench.compare import BenchOptions, Disagreement, use_threads
from cxr_faith.bench.family_makers import MAKERS
from cxr_faith.bench.family_parts import CPU, ModelSize, save
from cxr_faith.bench.presets import FAMILIES, QUESTIONS
from cxr_faith.bench.results import Spread
from cxr_faith.bench.scene import noise
from cxr_faith.bench.summarize import machine
from cxr_faith.bench.timing import processor
from cxr_faith.cases import Case, read_answers
from cxr_faith.curves import plan_curves
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.report.terminal import print_line, wide_console
from cxr_faith.scoring import score_image
from cxr_faith.storage.atomic import write_atomic
from cxr_faith.vlm import bundled_model
from cxr_faith.vlm.loading import load_vlm
from cxr_faith.vlm.pretrained import FamilyVLM

GEMMA = "gemma3"
"""Needs no random model: the bundled one is small."""
BATCHES = (8, 16)
"""Batch sizes of which each stage of the floor takes the best."""
REPEATS = 3
TARGET = 1.10
"""Largest engine ÷ floor that is asked for."""


@dataclass(frozen=True)
class FamilyRow:
    """What was measured on one family.

    Attributes:
        family: its `model_type`.
        parameters: of the model.
        tokens: image tokens.
        cells: cells of the picture.
        pictures: distinct perturbed pictures, which the engine ran once each.
        asked: questions about them, which the engine asked once each.
        engine: processor seconds of the curves.
        floor: processor seconds of the bare passes.
        ratio: engine ÷ floor within each turn.
    """

    family: str
    parameters: int
    tokens: int
    cells: int
    pictures: int
    asked: int
    engine: Spread
    floor: Spread
    ratio: Spread


def bench_families(options: BenchOptions) -> list[FamilyRow]:
    """Measure all families, print the table and write the JSON file.

    Raises:
        ValueError: the number of threads is below 1.
        Disagreement: the engine ran other numbers of passes than the schedule has.
    """
    use_threads(options.threads)
    transformers_logging.disable_progress_bar()
    protocol, rows = Protocol(steps=10, random_orders=2, max_new_tokens=1), list[FamilyRow]()
    for family in (GEMMA, *sorted(MAKERS)):
        vlm = load_family(family)
        rows.append(measure_family(family, vlm, protocol))
    host = machine(vlm)
    path = Path(options.out or f"benchmarks/{FAMILIES}.json")
    content = {"preset": FAMILIES, "machine": asdict(host), "rows": [asdict(row) for row in rows]}
    write_atomic(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    console = wide_console()
    threads = "1 thread" if host.threads == 1 else f"{host.threads} threads"
    console.print(family_table(f"{FAMILIES} · random weights, {host.dtype} · {host.device}, {threads}", rows))
    print_line(console, f"{protocol.steps} steps, {protocol.random_orders} random orders, two maps, two questions")
    print_line(console, f"seconds of processor time, median of {REPEATS} turns, so that other work counts less")
    print_line(console, "pictures + questions: of the engine, which are those of the schedule exactly")
    missed = [row.family for row in rows if row.ratio.median > TARGET]
    print_line(console, f"engine ÷ floor at most {TARGET:.2f}: {'missed by ' + ', '.join(missed) if missed else 'all'}")
    print_line(console, f"numbers  {path}")
    return rows


def load_family(family: str, size: ModelSize = CPU) -> FamilyVLM:
    """A model of a family, read from its folder as any other one."""
    if family == GEMMA:
        return load_vlm(bundled_model(), "cpu")
    parts = MAKERS[family](size)
    with TemporaryDirectory() as folder:
        return load_vlm(save(parts, Path(folder)), "cpu", image_size=parts.image_size)


def measure_family(
    family: str, vlm: FamilyVLM, protocol: Protocol, repeats: int = REPEATS, batches: Sequence[int] = BATCHES
) -> FamilyRow:
    """Curves of the engine and bare passes of the floor, in turns.

    Raises:
        Disagreement: the engine ran other numbers of passes than the schedule has.
    """
    pixels, asked = noise(vlm), list(QUESTIONS[:2])
    cases = read_answers(vlm, pixels, "bench", asked, ["yes_no"] * len(asked), protocol)
    random = np.random.default_rng(0)
    for case in cases:
        case.maps = {name: random.random(vlm.grid).astype(np.float32) for name in ("first", "second")}
    plan, _ = plan_curves(vlm.grid, "bench", cases, protocol)
    engine, substrate = Engine(vlm), Substrate.parse(protocol.substrates[0])
    spent, bare = list[float](), list[float]()
    for _ in range(repeats):
        bare.append(_floor(vlm, pixels, cases, len(plan), plan.questions_asked, batches))
        before = vlm.counts.snapshot()
        spent.append(processor(partial(score_image, engine, pixels, "bench", cases, substrate, protocol)))
        done = vlm.counts - before
        if (done.encode, done.score - done.padding) != (len(plan), plan.questions_asked):
            raise Disagreement(
                f"{family}: the engine ran {done.encode} pictures and asked {done.score} questions; "
                f"the schedule has {len(plan)} and {plan.questions_asked}"
            )
    return FamilyRow(
        family=family,
        parameters=sum(weight.numel() for weight in vlm.model.parameters()),
        tokens=vlm.layout.n_tokens,
        cells=vlm.n_cells,
        pictures=len(plan),
        asked=plan.questions_asked,
        engine=Spread.of(spent),
        floor=Spread.of(bare),
        ratio=Spread.of([ours / least for ours, least in zip(spent, bare, strict=True)]),
    )


def _floor(
    vlm: FamilyVLM,
    pixels: Tensor,
    cases: Sequence[Case],
    pictures: int,
    asked: int,
    batches: Sequence[int],
    trials: int = 2,
) -> float:
    """Seconds of the bare passes, each stage at its best batch size."""
    best: dict[str, float] = {}
    with torch.no_grad():
        for batch in batches:
            for name, work in _bare_stages(vlm, pixels, cases[0], batch).items():
                work()
                seconds = fmean(processor(work) for _ in range(trials)) / batch
                best[name] = min(best.get(name, seconds), seconds)
    counts = {"tower": pictures, "prefill": pictures, "question": asked}
    return sum(counts[name] * seconds for name, seconds in best.items())


def _bare_stages(vlm: FamilyVLM, pixels: Tensor, case: Case, batch: int) -> dict[str, Callable[[], Any]]:
    """Tower, prefix and question by transformers' own passes: no mask that was made before, no early stop."""
    decoder, prompt = vlm.decoder, case.prompt
    pictures = pixels.expand(batch, -1, -1, -1).contiguous()
    rows = vlm.model.lm_head.weight[[*vlm.yes_ids, *vlm.no_ids]]
    tokens = vlm.encode(pictures)

    def whole() -> Tensor:
        hidden = decoder.whole(tokens, [prompt.ids] * batch, prompt.image_starts, prompt.length)
        logits: Tensor = hidden[:, -1] @ rows.T
        return logits

    tower = partial(vlm.encode, pictures)
    if not vlm.shares_prefix:
        return {"tower": tower, "question": whole}
    embedded = decoder.embed(tokens, [prompt.prefix_ids] * batch, prompt.image_starts)
    prefill = partial(decoder.prefill, embedded, prompt.image_starts, shortcuts=False)
    prefix = prefill()

    def question() -> Tensor:
        hidden = decoder.extend(prefix, prompt.suffix_ids, batch, shortcuts=False)
        logits: Tensor = hidden[:, -1] @ rows.T
        return logits

    return {"tower": tower, "prefill": prefill, "question": question}


def family_table(title: str, rows: Sequence[FamilyRow]) -> Table:
    """A row for each family."""
    table = Table(title=title, box=None, header_style="bold")
    table.add_column("family")
    for name in ("parameters", "tokens", "cells", "pictures + questions", "engine s", "floor s", "engine ÷ floor"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.family,
            f"{row.parameters / 1e6:.1f} M",
            str(row.tokens),
            str(row.cells),
            f"{row.pictures:,} + {row.asked:,}",
            f"{row.engine.median:.1f}",
            f"{row.floor.median:.1f}",
            f"{row.ratio.median:.2f} ({row.ratio.min:.2f} – {row.ratio.max:.2f})",
        )
    return table
