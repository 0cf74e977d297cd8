"""Everything that must be known on the first day with a GPU: `make gpu-check`, at most fifteen minutes.

Each part runs in a process of its own with a limit of time, so that a failure costs that part alone. Results go to
`benchmarks/gpu/results/<card>.json`, and the targets are printed as met, missed or not measured. `--dry` runs small
versions of the parts on the CPU and keeps nothing: it only shows that the parts work.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import torch

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
SECONDS = {"agree": 180, "tests": 120, "large": 240, "road": 60, "adaptive": 60, "bench": 240}
"""Parts in their order, and the most that each may take."""
TESTS = ("tests/test_gpu.py", "tests/perturb/test_road.py", "tests/metrics/test_curves.py")
"""Files with tests that are marked `gpu`. To collect all files takes a minute."""
DRY = ("agree", "large", "road", "adaptive")


def command(part: str, out: Path, dry: bool) -> list[str]:
    """What runs a part and writes its numbers to a file."""
    if part == "tests":
        return [sys.executable, "-m", "pytest", "-q", "-rs", "-m", "gpu", *(str(ROOT / file) for file in TESTS)]
    if part == "bench":
        return [sys.executable, "-m", "cxr_faith", "bench", "--preset", "medgemma-4b", "--out", str(out)]
    return [sys.executable, str(FOLDER / f"{part}.py"), str(out), *(["--dry"] if dry else [])]


def run(part: str, folder: Path, dry: bool, left: float) -> dict[str, Any]:
    """Run a part and return its numbers, and how it ended."""
    out, begin = folder / f"{part}.json", monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    limit = left if dry else min(SECONDS[part], left)
    print(f"== {part}, at most {limit:.0f} s", flush=True)
    try:
        status = subprocess.run(command(part, out, dry), cwd=ROOT, env=environment, timeout=limit).returncode
        ended = "ok" if status == 0 else f"failed, status {status}"
    except subprocess.TimeoutExpired:
        ended = f"stopped after {limit:.0f} s"
    numbers = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else None
    return {"ended": ended, "seconds": round(monotonic() - begin, 1), "numbers": numbers}


def targets(parts: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, bool | None]]:
    """Each target, and whether it is met; None where a number is missing."""

    def number(part: str, *keys: str) -> float | None:
        value = parts.get(part, {}).get("numbers")
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value if isinstance(value, float | int) else None

    weights = number("large", "model", "weights_gb")
    methods = [number("large", "maps", name, "peak_gb") for name in ("chefer", "integrated_gradients")]
    known = [peak for peak in methods if peak is not None]
    beside = max(known) - weights if weights is not None and len(known) == len(methods) else None
    checks = (
        (
            "share of the matmul peak while perturbed pictures run ≥ 0.60",
            number("large", "engine", "share_of_peak"),
            1,
            0.6,
        ),
        (
            "engine ÷ floor, one question ≤ 1.05",
            number("bench", "ratios", "engine ÷ floor, one question", "median"),
            -1,
            1.05,
        ),
        ("chefer and integrated_gradients: GB beside the weights ≤ 6", beside, -1, 6.0),
        ("road at 448 px: times faster than spsolve ≥ 20", number("road", "448", "times_faster"), 1, 20.0),
        ("adaptive: times fewer questions about pictures ≥ 4", number("adaptive", "times_fewer"), 1, 4.0),
    )
    return [
        (f"{text}: {'not measured' if value is None else f'{value:.2f}'}", _met(value, sign, limit))
        for text, value, sign, limit in checks
    ]


def _met(value: float | None, sign: int, limit: float) -> bool | None:
    return None if value is None else sign * value >= sign * limit


def main() -> int:
    """Run all parts; 0 if each of them ended well, else 1. A target that is missed is a result, no failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="on the CPU, small, nothing is kept")
    parser.add_argument("--seconds", type=float, default=900, help="for all parts together")
    parser.add_argument("--only", nargs="+", choices=SECONDS, help="these parts alone")
    options = parser.parse_args()
    if not options.dry and not torch.cuda.is_available():
        print("gpu-check needs a GPU, and there is none; --dry runs small versions on the CPU", file=sys.stderr)
        return 2
    card = "cpu" if options.dry else torch.cuda.get_device_name()
    end, parts = monotonic() + options.seconds, dict[str, Any]()
    with tempfile.TemporaryDirectory() as name:
        for part in options.only or (DRY if options.dry else SECONDS):
            left = end - monotonic()
            parts[part] = run(part, Path(name), options.dry, left) if left > 10 else {"ended": "no time left"}
            if not options.dry:
                keep(card, parts)
    for part, values in parts.items():
        print(f"{part:<10} {values['ended']}, {values.get('seconds', 0)} s")
    for text, met in () if options.dry else targets(parts):
        print(f"{'      ' if met is None else 'met   ' if met else 'MISSED'} {text}")
    return 0 if all(values["ended"] == "ok" for values in parts.values()) else 1


def keep(card: str, parts: Mapping[str, Any]) -> None:
    """Write the numbers of a card, after each part."""
    file = FOLDER / "results" / f"{card.replace(' ', '-').replace('/', '-')}.json"
    file.parent.mkdir(exist_ok=True)
    content = {"card": card, "torch": torch.__version__, "cuda": torch.version.cuda, "parts": parts}
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
