"""`cxr-faith bench`: the speed of the engine beside the usual recipe, two libraries and the floor."""

from cxr_faith.bench.presets import FAMILIES, PRESETS
from cxr_faith.cli.errors import UsageError, nearest, print_error, usage_errors
from cxr_faith.cli.parser import Command
from cxr_faith.cli.signatures import options_of
from cxr_faith.cli.startup import quick_imports
from cxr_faith.cli.typed import typed

DESCRIPTION = """Measure speed: the engine beside the usual recipe, two libraries and the floor.

The libraries are torchcam and Quantus; the floor is the bare forward passes.
All run in one process, in turns, on the same picture, three questions, six
methods, 20 random orders and 50 steps. Prints medians with their spread and
ratios, and writes the same as JSON. The curves of the engine and of the usual
recipe must agree to 1e-4, else the exit status is 1.

presets:
  tiny         the bundled model, every forward for real (a quarter of
               an hour on two cores), and beside it adaptive curves
               (protocol.steps: adaptive) and the space of tokens
               (protocol.space: tokens)
  small        82 M parameters with the vocabulary of Gemma 3, random weights;
               some twenty forwards of each kind, multiplied by the exact
               counts of the full schedule (five minutes on two cores)
  medgemma-4b  the shape of MedGemma 4B, random weights, bfloat16, sampled
               likewise; needs a GPU
  families     a small model of each family, random weights: the engine's
               curves beside the floor alone

examples:
  cxr-faith bench
  cxr-faith bench --preset small --out benchmarks/small.json
"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    options = {"options": options_of("cxr_faith.bench.compare:BenchOptions")}
    given = Command("bench", DESCRIPTION, options).read(arguments)
    preset = str(given.values.get("preset", "tiny"))
    if preset not in (names := (*PRESETS, FAMILIES)):
        raise UsageError(f"no preset {preset!r}{nearest(preset, names)}; there are {', '.join(names)}")
    with quick_imports():
        from cxr_faith.bench.compare import BenchOptions, Disagreement, bench
        from cxr_faith.bench.families import bench_families

    chosen = typed(BenchOptions, given)
    try:
        with usage_errors(ValueError):
            (bench_families if preset == FAMILIES else bench)(chosen)
    except Disagreement as error:
        print_error(str(error))
        return 1
    return 0
