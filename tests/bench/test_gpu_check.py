"""The check for machines with a GPU: its parts run on the CPU, and its targets are told."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks.gpu.agree import compare
from benchmarks.gpu.check import DRY, TESTS, targets
from cxr_faith.records import KEY

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_part_runs_dry_on_the_cpu():
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "check.py"), "--dry"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=ROOT)
    ended = [line for line in done.stdout.splitlines() if ", " in line and line.split(" ")[0] in DRY]
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert [line.split()[0] for line in ended] == list(DRY) and all(" ok, " in line for line in ended)
    assert "'failed'" not in done.stdout  # a measurement that failed inside a part
    assert "float32_micro_batch_22" in done.stdout and "'same_bits': True" in done.stdout


def test_without_a_gpu_the_check_is_one_line():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "check.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1


def test_all_gpu_tests_are_run():
    mark = re.compile(r"^(@|pytestmark = \[)pytest\.mark\.gpu\b", re.M)
    files = (file for file in (ROOT / "tests").rglob("test_*.py") if mark.search(file.read_text(encoding="utf-8")))
    assert {str(file.relative_to(ROOT)) for file in files} == set(TESTS)


def test_targets_are_met_missed_or_not_measured():
    maps = {"chefer": {"peak_gb": 14.0}, "integrated_gradients": {"peak_gb": 15.0}}
    large = {"engine": {"share_of_peak": 0.61}, "maps": maps, "model": {"weights_gb": 8.6}}
    bench = {"ratios": {"engine ÷ floor, one question": {"median": 1.06}}}
    parts = {
        "large": {"ended": "ok", "numbers": large},
        "bench": {"ended": "ok", "numbers": bench},
        "road": {"ended": "stopped after 60 s", "numbers": None},
    }
    assert [met for _, met in targets(parts)] == [True, False, False, None, None]
    del maps["chefer"]
    assert [met for _, met in targets(parts)][2] is None


def test_records_are_compared_to_the_bit():
    row = dict.fromkeys(KEY, "a") | {"method": "chefer", "status": "ok", "generated": "yes"}
    ours = pd.DataFrame([row | {"map": [0.0, 2.0], "deletion_scores": [1.0, 4.0], "insertion_scores": None}])
    theirs = ours.copy()
    assert compare(ours, theirs)["same_bits"]
    theirs["deletion_scores"] = [[2.0, 4.0]]
    changed = compare(ours, theirs)
    assert not changed["same_bits"] and changed["curves"]["deletion_scores"] == 0.25
    assert changed["maps"] == {"chefer": 0.0} and changed["statuses"] == 0
    theirs["status"] = "flat"
    assert compare(ours, theirs)["statuses"] == 1
    with pytest.raises(ValueError, match="other rows"):
        compare(ours, theirs.assign(method="tam"))
