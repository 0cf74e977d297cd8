"""On an accelerator, as far as a CPU can tell: no tensor of the host meets one of the device, and no loop waits.

`tests/pretended.py` is the accelerator. Kernels of a real one are tested where there is one: `make test-gpu`.
"""

import json
import subprocess
import sys
from collections import Counter
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
    assert set(result["maps"]) == set(METHODS) - {"file"}
    for name, difference in result["maps"].items():
        assert difference <= 1e-4 * result["largest"][name], name


def test_every_substrate_runs_and_gives_the_scores_of_a_cpu(result: dict[str, Any]) -> None:
    assert set(result["scores"]) == {"blur", "mean", "zero", "noise", "road"}
    assert max(result["scores"].values()) < 1e-4


def test_the_engine_waits_twice_at_its_start_and_once_at_its_end(result: dict[str, Any]) -> None:
    """Masks and their places go in, scores come out, however many micro-batches there are."""
    assert result["engine"] == 3 * [{"copy to the device": 2, "copy to the host": 1}]
    assert result["padded"]


ABLATED = ["integrated_gradients ablated", "igos_pp ablated", "chefer ablated"]
LOOPS = ["integrated_gradients", "smooth_grad", "sae", "igos_pp", "rise", "occlusion"]


@pytest.mark.parametrize("name", LOOPS + ABLATED)
def test_no_loop_of_a_method_waits(result: dict[str, Any], name: str) -> None:
    """Twice as many turns, and not one wait more."""
    fewer, more = result["loops"][name]
    # `sae` first hashes the tower's weights, to see whether its autoencoder is for this model.
    assert fewer == more and fewer["waits"]["copy to the host"] < (48 if name == "sae" else 8)


@pytest.mark.parametrize("name", ["greedy", "cleann", "eagle", "multi_scale"])
def test_a_search_waits_for_the_scores_that_it_goes_on_from_and_for_nothing_else(
    result: dict[str, Any], name: str
) -> None:
    """Which pictures come next depends on the scores of those before: a run of the engine for each, of 3 waits."""
    outside = []
    for search in result["loops"][name]:
        waits = Counter(search["waits"])
        waits.subtract({"copy to the device": 2 * search["runs"], "copy to the host": search["runs"]})
        outside.append(waits)
    # Far fewer than the 64 image tokens, over which the graph of `cleann` loops.
    assert outside[0] == outside[1] and max(outside[0].values()) < 12
    assert result["loops"][name][0]["runs"] < result["loops"][name][1]["runs"]


def test_a_line_search_waits_once_a_try(result: dict[str, Any]) -> None:
    """Whether a shorter step is tried depends on the loss; all else is as with the other optimizer."""
    expected = result["loops"]["igos_pp"][0]["waits"]
    fewer, more = result["loops"]["igos_pp line_search"]
    for search in (fewer, more):
        waits = Counter(search["waits"])
        waits.subtract({"_local_scalar_dense": search["tries"]})
        assert waits == expected
    assert fewer["tries"] < more["tries"]


def test_the_pretended_accelerator_refuses_to_mix(result: dict[str, Any]) -> None:
    assert "tensors of the host meet tensors of the device" in result["mixing"]
