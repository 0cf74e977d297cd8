"""On an accelerator, as far as a CPU can tell: no tensor of the host meets one of the device, and no loop waits.

`tests/pretended.py` is the accelerator. Kernels of a real one are tested where there is one: `make test-gpu`.
"""

import json
import subprocess
import sys
from typing import Any

import pytest

from cxr_faith.attribution import METHODS
from tests.runs import ROOT, environment


@pytest.fixture(scope="module")
def result(random_sae: str) -> dict[str, Any]:
    pytest.importorskip("torch.utils.backend_registration", reason="needs a device registered from Python")
    words = [sys.executable, "-m", "tests.on_accelerator", random_sae]
    done = subprocess.run(words, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_method_runs_and_gives_the_maps_of_a_cpu(result: dict[str, Any]) -> None:
    assert set(result["maps"]) == set(METHODS)
    for name, difference in result["maps"].items():
        assert difference <= 1e-4 * result["largest"][name], name


def test_every_substrate_runs_and_gives_the_scores_of_a_cpu(result: dict[str, Any]) -> None:
    assert set(result["scores"]) == {"blur", "mean", "zero", "noise", "road"}
    assert max(result["scores"].values()) < 1e-4


def test_the_engine_waits_twice_at_its_start_and_once_at_its_end(result: dict[str, Any]) -> None:
    """Masks and their places go in, scores come out, however many micro-batches there are."""
    assert result["engine"] == 3 * [{"copy to the device": 2, "copy to the host": 1}]
    assert result["padded"]


@pytest.mark.parametrize("name", ["integrated_gradients", "smooth_grad", "rise"])
def test_no_loop_of_a_method_waits(result: dict[str, Any], name: str) -> None:
    """Twice as many turns, and not one wait more."""
    fewer, more = result["loops"][name]
    assert fewer == more and fewer["copy to the host"] < 8


def test_the_pretended_accelerator_refuses_to_mix(result: dict[str, Any]) -> None:
    assert "tensors of the host meet tensors of the device" in result["mixing"]
