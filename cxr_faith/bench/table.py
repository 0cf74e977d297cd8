"""The benchmark's table, its ratios and what is to be known about them, printed."""

from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.table import Table

from cxr_faith.bench.results import BenchResult
from cxr_faith.report.terminal import print_line


def render(preset: str, result: BenchResult, console: Console) -> None:
    """Print rows, ratios and notes."""
    console.print(_table(preset, result))
    for title, ratio in result.ratios.items():
        line = f"{title:32} {ratio.median:6.2f}   ({ratio.min:.2f} – {ratio.max:.2f})"
        print_line(console, line)
    for line in _notes(result):
        print_line(console, line)


def _table(preset: str, result: BenchResult) -> Table:
    host = result.machine
    threads = "1 thread" if host.threads == 1 else f"{host.threads} threads"
    title = f"{preset} · {host.parameters / 1e6:.1f} M parameters, {host.dtype} · {host.device}, "
    title += f"{threads} · matmul peak {result.matmul_peak_gflops:.0f} GFLOP/s"
    table = Table(title=title, box=None, header_style="bold")
    for name in ("contestant", "questions"):
        table.add_column(name)
    for name in ("forwards", "backwards", "seconds", "(min – max)", "peak MB", "GFLOP", "MFU", "studies/h"):
        table.add_column(name, justify="right")
    for row in result.rows:
        table.add_row(
            row.name,
            str(row.questions),
            _forwards(row.counts),
            f"{row.counts.get('backward', 0):,}",
            f"{row.seconds.median:.1f}",
            f"({row.seconds.min:.1f} – {row.seconds.max:.1f})",
            "–" if row.peak_memory is None else f"{row.peak_memory / 2**20:,.0f}",
            f"{row.gflop:,.0f}",
            f"{row.mfu:.0%}",
            f"{row.studies_per_hour:.1f}",
        )
    return table


def _forwards(counts: Mapping[str, int]) -> str:
    """Pictures through the decoder, and beside them the questions asked on a cache."""
    whole = counts.get("forward", 0) + counts.get("trace", 0)
    if "score" not in counts:
        return f"{whole:,}"
    return f"{counts['encode'] + counts.get('trace', 0):,} + {counts['score']:,}"


def _notes(result: BenchResult) -> Iterator[str]:
    plan = result.schedule
    yield (
        f"{len(plan.methods)} methods, {plan.random_orders} random orders, {plan.steps} steps, "
        f"{plan.ig_steps} points of integrated gradients, {plan.cells} cells; median of {plan.repeats} turns"
    )
    yield "forwards of engine and floor: pictures through tower and decoder + questions on their caches"
    yield "engine ÷ floor compares the curves alone; the libraries' seconds are those of one map times all maps"
    shares = ", ".join(f"{row.curves_mfu:.0%}" for row in result.rows if row.curves_mfu is not None)
    yield f"share of the matmul peak while perturbed pictures run: {shares}"
    if not result.exact:
        yield "sampled: some twenty forwards of each kind, multiplied by the exact counts of the full schedule"
    for reason in result.left_out:
        yield f"left out: {reason}"
    if result.variants is None:
        yield "adaptive and tokens are left out of a sample: both depend on trained weights"
    else:
        if error := result.variants.auc_error:
            yield f"adaptive: areas off by at most {error.largest:.4f} of the effect (stated: {error.stated:.4f})"
        spearman = result.variants.spearman
        yield (
            f"tokens: Spearman with pixels over the maps' srg {spearman.median:.2f} "
            f"({spearman.min:.2f} – {spearman.max:.2f} over the questions)"
        )
    agreement = result.agreement
    verdict = "agree" if agreement.passed else "DISAGREE"
    yield f"curves of naive and engine {verdict}: {agreement.difference:.1e} (allowed {agreement.tolerance:g})"
