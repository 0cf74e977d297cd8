"""Blocks that are kept: page faults of large temporary tensors, by count."""

import resource
import subprocess
import sys

import pytest
import torch

from cxr_faith.pipeline.allocator import large_blocks_kept

SCRIPT = """
import resource, torch
from cxr_faith.pipeline.allocator import large_blocks_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(20_000_000)  # 80 MB, 19,531 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6

torch.set_num_threads(1)
faults()
print(faults(), resident())
with large_blocks_kept(torch.device("cpu")):
    faults()
    print(faults(), resident())
print(faults(), resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_freed_blocks_are_used_again_and_given_back_at_the_end():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    before, inside, after = ([float(value) for value in line.split()] for line in done.stdout.splitlines())
    assert inside[0] < 0.02 * before[0] and after[0] > 0.5 * before[0]
    assert inside[1] > before[1] + 70 and after[1] < before[1] + 20


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_gpus_host_and_a_tuned_allocator_are_left_alone(device, monkeypatch):
    faults = []
    if device == "cpu":
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    with large_blocks_kept(torch.device(device)):
        for _ in range(2):
            start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(20_000_000)
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start)
    assert min(faults) > 100
