"""Decoding workers need no shared memory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cxr_faith.data.geometry import Geometry
from cxr_faith.data.items import SampleItem
from cxr_faith.data.loader import PackedBatch
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.data.sample import Sample
from tests.runs import ROOT, environment

READS = """
from cxr_faith.data.module import CXRVQADataModule
data = CXRVQADataModule("bundled", num_workers=2)
data.image_size, data.limit = (896, 896), 24
print(sum(item.image.float().mean().item() > 0 for batch in data.loader() for item in batch))
"""


def read_on_a_small_disk(options: str, *then: str) -> "subprocess.CompletedProcess[str]":
    """Read pictures of 2.4 MB where /dev/shm is a disk of its own, which this process alone sees."""
    if os.geteuid() != 0:
        pytest.skip("a private /dev/shm needs root")
    mount = f"mount -t tmpfs -o {options} tmpfs /dev/shm"
    line = " && ".join([mount, *then, '"$0" -c "$1"'])
    words = ["unshare", "--mount", "sh", "-c", line, sys.executable, READS]
    done = subprocess.run(words, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=120)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    return done


def test_a_small_shared_memory_is_enough(tmp_path: Path) -> None:
    done = read_on_a_small_disk("size=1m")
    assert (done.returncode, done.stdout.strip()) == (0, "24"), done.stderr


def test_without_shared_memory_the_message_says_num_workers() -> None:
    done = read_on_a_small_disk("size=4k", "head -c 4096 /dev/zero > /dev/shm/full")
    line = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "set data.num_workers to 0, or make /dev/shm larger: '/dev/shm'" in line


def test_a_batch_of_workers_is_the_plain_one() -> None:
    batches = []
    for workers in (0, 2):
        data = CXRVQADataModule("bundled", num_workers=workers)
        data.image_size, data.limit = (64, 64), 12
        batches.append([item for batch in data.loader() for item in batch])
    for one, other in zip(*batches, strict=True):
        assert one.sample == other.sample and one.geometry == other.geometry and one.error == other.error
        assert torch.equal(one.image, other.image) and one.anatomy.keys() == other.anatomy.keys()
        assert all(torch.equal(mask, other.anatomy[name]) for name, mask in one.anatomy.items())


def test_a_later_run_of_a_process_notices_dead_workers_too() -> None:
    """PyTorch sets its handler once; Lightning takes it away at the end of a run."""
    before = signal.getsignal(signal.SIGCHLD)
    try:
        for _ in range(2):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            data = CXRVQADataModule("bundled", num_workers=1)
            data.image_size, data.limit = (64, 64), 2
            for _ in data.loader():
                assert callable(signal.getsignal(signal.SIGCHLD))
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_what_items_share_is_packed_once() -> None:
    picture, sample = torch.zeros(3, 4, 4, dtype=torch.uint8), Sample("a", image_path="a.png", question="Is it?")
    geometry = Geometry((4, 4), (0, 0, 4, 4), (4, 4))
    packed = PackedBatch([SampleItem(sample, picture, geometry), SampleItem(sample, picture, geometry)])
    assert packed.items[0].image is packed.items[1].image
    first, second = packed.unpacked()
    assert first.image is second.image and torch.equal(first.image, picture)
