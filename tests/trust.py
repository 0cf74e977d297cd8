"""How far can the numbers be trusted? Methods that are broken on purpose, noise and the truth go through the pipeline.

`python -m tests.trust` prints the tables of docs/trust.md (some minutes on two cores). The checkpoint `own-order-0`
answers questions about findings that are there: its training made it look at the finding alone, so the finding's mask
is the truth. The bundled model looks at other cells too.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cxr_faith.attribution import METHODS, Attribution, Method, build_methods
from cxr_faith.attribution.attention import Attention
from cxr_faith.attribution.relevancy import Chefer
from cxr_faith.checks.randomization import random_stages, randomize
from cxr_faith.checks.samples import read_cases
from cxr_faith.checks.sanity import sanity
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.schedule import stream
from cxr_faith.protocol import Protocol
from cxr_faith.report.formats import p_value, with_interval
from cxr_faith.summary.board import Board
from cxr_faith.summary.interval import Difference
from cxr_faith.summary.load import load_run
from cxr_faith.summary.summary import Summary
from cxr_faith.vlm import Gemma3VLM
from tests.runs import ROOT, run_here

MODEL = ROOT / "training" / "checkpoints" / "own-order-0"
INTACT = {"attention": {}, "chefer": {}, "integrated_gradients": {}}
CONTROLS = {"oracle": {}, "random_map": {}, "edges": {}}
PROTOCOL = {"steps": 8, "random_orders": 8, "max_new_tokens": 4, "controls": "none"}  # but those of its methods


class Transposed(Chefer):
    """Rows taken for columns."""

    def attribute(self, vlm, batch, target):
        return Attribution(super().attribute(vlm, batch, target).maps.transpose(1, 2).contiguous())


class AtP(Attention):
    """The row of the answer's first token, at p, which predicts what comes after it; the answer is read at p − 1."""

    def attribute(self, vlm, batch, target):
        answer = (vlm.yes_ids if target[0].sign > 0 else vlm.no_ids)[0]
        after = replace(target[0], kind="tokens", answer_ids=(answer, answer), scored=(1,))
        return super().attribute(vlm, batch, [after])


class ReluNoise(Method):
    """Noise with its negative half cut off, so that half of the cells tie."""

    def attribute(self, vlm, batch, target):
        noise = [torch.from_numpy(stream(batch.seed, i, "relu").standard_normal(vlm.grid)) for i in batch.image_ids]
        return Attribution(torch.stack(noise).float().clamp_min(0))


class RandomModel(Chefer):
    """Maps of a model whose decoder, projector and tower are shuffled, for the answers of the trained one."""

    shuffled: Gemma3VLM | None = None

    def attribute(self, vlm, batch, target):
        if self.shuffled is None:
            self.shuffled = Gemma3VLM.from_pretrained(MODEL, device="cpu")
            for _, names in random_stages(self.shuffled):
                randomize(self.shuffled, names, batch.seed)
        return super().attribute(self.shuffled, replace(batch, shared=None), target)


class Brightness(Method):
    """Mean of each cell: a map that never looks at the model, and is not known to be a control."""

    def attribute(self, vlm, batch, target):
        return Attribution(torch.nn.functional.adaptive_avg_pool2d(batch.pixels.mean(1, keepdim=True), vlm.grid)[:, 0])


BROKEN: dict[str, tuple[type[Method], str]] = {
    "chefer transposed": (Transposed, "chefer"),
    "attention at p": (AtP, "attention"),
    "chefer, random model": (RandomModel, "chefer"),
    "noise, ReLU": (ReluNoise, "chefer"),
}
"""Name → class, and the method that it is a broken form of, or must lose against."""


def write_manifest(file: Path, samples: int) -> None:
    """The first questions about findings that are there, one after the other from each finding."""
    table = pq.read_table(bundled_manifest()).to_pandas()
    shown = table[table["kind"].eq("yes_no") & table["finding_mask_path"].notna()]
    shown = shown[[answer[0] == "yes" for answer in shown["answer"]]]
    turn = shown.groupby("finding").cumcount()
    schema = pq.read_schema(bundled_manifest())
    chosen = shown.loc[turn.sort_values(kind="stable").index[:samples]].sort_index()
    pq.write_table(pa.Table.from_pandas(chosen, schema=schema, preserve_index=False), file)


def run(folder: Path, samples: int, methods: dict[str, Any], **protocol: Any) -> Summary:
    """Evaluate on the bundled phantoms; the summary."""
    METHODS.update({kind.__name__: kind for kind, _ in BROKEN.values()})
    folder.mkdir(parents=True)
    write_manifest(folder / "manifest.parquet", samples)
    config = {
        "trainer": {"accelerator": "cpu", "devices": 1},
        "model": {"methods": methods, "protocol": PROTOCOL | protocol, "vlm": {"path": str(MODEL)}},
        "data": {"manifest": str(folder / "manifest.parquet"), "data_root": str(bundled_manifest().parent)},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    try:
        status = run_here(folder / "config.yaml", folder / "run")
    finally:
        for kind, _ in BROKEN.values():
            del METHODS[kind.__name__]
    assert status == 0
    return load_run(folder / "run").summary


def meta(folder: Path, samples: int, methods: dict[str, Any], **protocol: Any) -> Summary:
    """The truth and noise, the given methods and the broken ones, on one board."""
    broken = {name: {"class": kind.__name__} for name, (kind, _) in BROKEN.items()}
    return run(folder, samples, methods | broken, **protocol)


def loss(board: Board, name: str, than: str) -> Difference:
    """The paired difference `than` − `name`, with its interval and p."""
    [pair] = [pair for pair in board.differences if {pair.a, pair.b} == {name, than}]
    if pair.a == than:
        return pair
    turned = {f"{kind}low": _minus(getattr(pair, f"{kind}high")) for kind in ("t_", "bca_", "")}
    turned |= {f"{kind}high": _minus(getattr(pair, f"{kind}low")) for kind in ("t_", "bca_", "")}
    return replace(pair, a=than, b=name, mean=-pair.mean, **turned)


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def table(lines: Sequence[Sequence[str]]) -> str:
    """Columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def board_lines(summary: Summary) -> list[list[str]]:
    """Each method's srg with its interval; for a broken one, what it loses and p of that difference."""
    board = summary.board()
    lines = [["method", "srg [95 %]", "p", "loses", "p of the loss"]]
    for row in board.ranked():
        name, against = row.method, []
        if name in BROKEN:
            lost = loss(board, name, BROKEN[name][1])
            against = [f"{lost.mean:.3f} to {BROKEN[name][1]}", p_value(lost.p_holm)]
        p = p_value(row.intervals["srg"].p_holm)
        lines.append([name, with_interval(row, "srg"), p, *(against or ["", ""])])
    return lines


def sanity_lines(samples: int, methods: dict[str, Any]) -> list[list[str]]:
    """Spearman to the trained model's maps with all layers random, and the verdict of `cxr-faith sanity`."""
    vlm, protocol = Gemma3VLM.from_pretrained(MODEL, device="cpu"), Protocol()
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Path(folder) / "manifest.parquet", samples)
        data = CXRVQADataModule(str(Path(folder) / "manifest.parquet"), str(bundled_manifest().parent))
        data.image_size, data.cache_dir = vlm.image_size, Path(folder)
        pictures, cases = read_cases(Engine(vlm), data, protocol, samples)
    checked = build_methods(methods) | {"brightness": Brightness()}
    result = sanity(Engine(vlm), checked, pictures, cases, protocol)
    lines = [["method", "random pairs", ".95 quantile", "random model [95 %]", "verdict"]]
    for name, method in result.methods.items():
        last = list(method.cascade.values())[-1].spearman
        low, high = method.interval or (float("nan"), float("nan"))
        pairs = [f"{method.random_pairs.spearman:.3f}", f"{method.chance:.3f}"]
        lines.append([name, *pairs, f"{last:.3f} [{low:.3f}, {high:.3f}]", "FAIL" if method.failed else "pass"])
    return lines


def substrate_lines(summary: Summary) -> list[list[str]]:
    """The out-of-distribution score of each substrate."""
    lines = [["substrate", "OOD score", "breaks early"]]
    panel = summary.substrates
    return lines + [[n, f"{panel.ood[n]:.3f}", f"{v:.3f}"] for n, v in panel.breaks_early.items()]


def substrates(folder: Path, samples: int) -> Summary:
    """A few methods under substrates that the model has seen in training (blur) and those it has not."""
    others = ["blur:0.1", "mean", "zero", "noise"]
    return run(folder, samples, {"attention": {}, "chefer": {}, "oracle": {}}, substrates=others)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        first = meta(Path(scratch) / "meta", 24, INTACT | CONTROLS)
        second = substrates(Path(scratch) / "substrates", 8)
    print(f"\n{first.n_samples} samples of {first.n_patients} patients\n\n{table(board_lines(first))}")
    print(f"\n{table(sanity_lines(4, INTACT))}\n\n{table(substrate_lines(second))}")
