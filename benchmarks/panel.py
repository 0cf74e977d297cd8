"""All methods on all checkpoints: `make panel`, or `python benchmarks/panel.py [options of cxr-faith evaluate]`.

    python benchmarks/panel.py                                       all of it; the same line goes on after a stop
    python benchmarks/panel.py --only random-0 plain-0               these checkpoints
    python benchmarks/panel.py --tables                              the tables of what there is
    python benchmarks/panel.py --panel benchmarks/families.yaml --out runs/families     `make families`
    python benchmarks/panel.py --trainer.accelerator gpu --trainer.devices 1 --trainer.strategy auto

Each checkpoint of benchmarks/panel.yaml gets four run directories below runs/panel: `tuning` chooses settings on
phantoms of their own, `main` scores every method, `substrates` compares substrates with the same picture without the
finding, `marker` compares the mask of the finding with that of the side marker. Exit status: 0 done, 2 a wrong config,
75 stopped on request with work left, 1 anything else.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from panel_data import write
from panel_tables import MARKER, settings_of, tables

from cxr_faith.summary.load import load_run
from cxr_faith.vlm import bundled_model

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "benchmarks" / "panel.yaml"
"""A file of other checkpoints takes from it what it does not say itself."""
PARTS = ("tuning", "main", "substrates", "marker")
Config = dict[str, Any]
Evaluate = Callable[[Sequence[str]], int]


def read(path: Path) -> Config:
    """A YAML mapping."""
    content: Config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def methods_for(methods: Mapping[str, Config | None], model: str) -> dict[str, Config]:
    """The methods of the config; `sae` with the checkpoint's own autoencoder, or left out where it has none."""
    own = (bundled_model() if model == "bundled" else Path(model)) / "sae"
    chosen = {name: dict(options or {}) for name, options in methods.items()}
    if "sae" in chosen:
        chosen["sae"]["path"] = str(own)
        if not own.is_dir():
            del chosen["sae"]
    return chosen


def part_config(part: str, base: Config, panel: Config, model: str, data: Path, chosen: Mapping[str, Config]) -> Config:
    """The config of one run.

    Args:
        part: one of `PARTS`.
        base: configs/panel.yaml.
        panel: benchmarks/panel.yaml.
        model: the checkpoint.
        data: folder with the phantoms of each part.
        chosen: method → options that tuning has chosen.
    """
    methods = methods_for(base["model"]["methods"], model)
    manifest = data / "phantoms" / "manifest.parquet"
    if part == "tuning":
        manifest = data / "tuning" / "manifest.parquet"
        methods = {
            f"{name}-{i}": {"class": name} | options
            for name, listed in panel["tuning"]["settings"].items()
            for i, options in enumerate(listed)
        }
    else:
        for name, options in chosen.items():
            methods[name] |= options
    if part == "marker":  # two masks and nothing else, so that more pictures cost little
        manifest = data / "marked" / "manifest.parquet"
        methods = {MARKER: base["model"]["methods"][MARKER]}
    if part == "substrates":
        manifest = data / "phantoms" / "pairs.parquet"
        methods = {name: options for name, options in methods.items() if name not in panel["substrates"]["without"]}
    protocol = base["model"]["protocol"] | panel[part].get("protocol", {})
    model_section = {"methods": methods, "vlm": base["model"]["vlm"] | {"path": model}, "protocol": protocol}
    return base | {"model": base["model"] | model_section, "data": base["data"] | {"manifest": str(manifest)}}


def run_checkpoint(
    name: str, model: str, base: Config, panel: Config, folder: Path, extra: Sequence[str], evaluate: Evaluate
) -> int:
    """The four runs of one checkpoint; the first status that is not 0 ends them."""
    chosen: dict[str, Config] = {}
    for part in PARTS:
        config = folder / name / f"{part}.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(yaml.safe_dump(part_config(part, base, panel, model, folder, chosen), sort_keys=False))
        print(f"\n{name}: {part}", flush=True)
        status = evaluate(["--config", str(config), "--run_dir", str(folder / name / part), *extra])
        if status:
            return status
        if part == "tuning":
            chosen = settings_of(load_run(folder / name / part).summary, panel["tuning"]["settings"])
            print(f"{name}: chosen {chosen}", flush=True)
    return 0


def evaluate_apart(arguments: Sequence[str]) -> int:
    """`cxr-faith evaluate` in a process of its own; what asks this process to stop, asks that one."""
    # It starts its own ranks on this machine, whatever job this is part of.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    threads = {"OMP_NUM_THREADS": "1"} if "OMP_NUM_THREADS" not in kept else {}
    child = subprocess.Popen([sys.executable, "-m", "cxr_faith", "evaluate", *arguments], env=kept | threads)
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}  # a terminal sends Ctrl-C to both
    for number in (signal.SIGTERM, signal.SIGUSR2):
        before[number] = signal.signal(number, lambda given, _: child.send_signal(given))
    try:
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_data(panel: Config, folder: Path) -> None:
    """Draw the phantoms of each split, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("tuning", panel["tuning"]), ("phantoms", panel["main"]), ("marked", panel["marker"])):
        if (folder / name).exists():
            continue
        fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
        write(fresh / name, part["patients"], part["seed"], both=name == "marked")
        with contextlib.suppress(OSError):  # another job of the panel was first
            (fresh / name).rename(folder / name)
        shutil.rmtree(fresh)


def usage_fault(options: argparse.Namespace, base: Config, panel: Config) -> str | None:
    """What is wrong with the command line or the panel's file; None if nothing is."""
    names, methods = list(panel["checkpoints"]), base["model"]["methods"]
    if unknown := sorted(set(options.only or ()) - set(names)):
        return f"no checkpoint {', '.join(unknown)} in {options.panel}"
    if options.number is not None and not 0 <= options.number < len(names):
        return f"--number must be from 0 to {len(names) - 1}, got {options.number}"
    named = {"tuning.settings": panel["tuning"]["settings"], "substrates.without": panel["substrates"]["without"]}
    for key, listed in named.items():
        if unknown := sorted(set(listed) - set(methods)):
            return f"{options.panel}: {key}: no method {', '.join(unknown)} in {options.base}"
    return None


def there(path: str) -> bool:
    """Whether a checkpoint's files are there."""
    return path == "bundled" or (ROOT / path).is_dir()


def main(arguments: Sequence[str] | None = None, evaluate: Evaluate = evaluate_apart) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--panel", type=Path, default=SHIPPED, help="the checkpoints")
    parser.add_argument("--base", type=Path, default=ROOT / "configs" / "panel.yaml", help="config of `evaluate`")
    parser.add_argument("--out", type=Path, default=Path("runs/panel"), help="folder for phantoms and runs")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these checkpoints alone")
    parser.add_argument("--number", type=int, metavar="I", help="checkpoint number I of the list alone, from 0")
    parser.add_argument("--tables", action="store_true", help="print the tables of what there is")
    options, extra = parser.parse_known_args(arguments)
    panel, base = read(SHIPPED) | read(options.panel), read(options.base)
    if fault := usage_fault(options, base, panel):
        print(f"panel: {fault}", file=sys.stderr)
        return 2
    checkpoints = {name: path for name, path in panel["checkpoints"].items() if there(path)}
    absent = [name for name in panel["checkpoints"] if name not in checkpoints]
    if absent:
        print(f"Left out, not trained yet: {', '.join(absent)} (see training/README.md)")
    wanted = options.only or list(panel["checkpoints"])
    if options.number is not None:
        wanted = wanted[options.number : options.number + 1]
    if not options.tables:
        write_data(panel, options.out)
        for name, path in checkpoints.items():
            if name not in wanted:
                continue
            model = path if path == "bundled" else str(ROOT / path)
            status = run_checkpoint(name, model, base, panel, options.out, extra, evaluate)
            if status:
                return status
    print(f"\n{tables(options.out, list(panel['checkpoints']))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
