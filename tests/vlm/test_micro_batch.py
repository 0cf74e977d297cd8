"""Running out of memory: which errors say so, what becomes smaller, and for how long."""

import pytest
import torch

from cxr_faith.vlm.micro_batch import MicroBatch, out_of_memory

ALLOCATION_FAILED = "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB"),
        RuntimeError(
            "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other call"
        ),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError(f"cuDNN error: {ALLOCATION_FAILED}"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
        MemoryError(),
    ],
    ids=str,
)
def test_errors_that_say_that_memory_ran_out(error):
    assert out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("shape '[2, 3]' is invalid for input of size 5"),
        ValueError("out of memory"),
    ],
    ids=str,
)
def test_other_errors_do_not(error):
    assert not out_of_memory(error)


def test_the_error_of_this_machines_allocator_says_so():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(caught.value)


class Device:
    """Fits at most `limit` pictures; notes what was tried, and what was done."""

    def __init__(self, limit):
        self.limit, self.tried, self.done = limit, [], []

    def work(self, start, stop, rows=None):
        self.tried.append(rows or stop - start)
        if self.tried[-1] > self.limit:
            raise RuntimeError("CUDA error: out of memory")
        self.done += range(start, stop)


def test_a_full_part_that_does_not_fit_halves_the_size_for_good():
    batch, device = MicroBatch(64), Device(20)
    batch.run(100, device.work)
    assert device.tried == [64, 32, 16, 16, 16, 16, 16, 16, 4] and device.done == list(range(100))
    assert batch.size == 16


def test_a_passing_shortage_in_a_last_part_changes_nothing_for_good():
    batch, device = MicroBatch(64), Device(64)

    def work(start, stop):
        device.limit = 6 if start == 64 else 64
        device.work(start, stop)

    batch.run(74, work)
    assert device.tried == [64, 10, 5, 5] and device.done == list(range(74))
    assert batch.size == 64


def test_a_shortage_that_comes_again_is_for_good():
    batch, device = MicroBatch(64), Device(6)
    batch.run(10, device.work)
    assert batch.size == 64
    batch.run(10, device.work)
    assert batch.size == 5 and device.tried == 2 * [10, 5, 5]


def test_padded_parts_are_full_parts():
    """A last part of 10 runs 64 rows: if they do not fit, no part does."""
    batch, device = MicroBatch(64, padded=True), Device(40)
    batch.run(10, lambda start, stop: device.work(start, stop, batch.rows(stop - start)))
    assert device.tried == [64, 32] and device.done == list(range(10))
    assert batch.size == 32


def test_a_single_picture_is_tried_twice():
    batch, device = MicroBatch(1), Device(0)

    def work(start, stop):
        device.limit = len(device.tried)
        device.work(start, stop)

    batch.run(1, work)
    assert device.done == [0]
    device.limit = 0
    with pytest.raises(RuntimeError, match="out of memory"):
        batch.run(1, device.work)
    assert device.tried == [1] * 4


def test_accelerators_pad_and_cpus_do_not():
    on_cpu, on_gpu = MicroBatch.of(torch.device("cpu")), MicroBatch.of(torch.device("cuda"))
    assert [on_cpu.size, on_cpu.rows(10), on_gpu.size, on_gpu.rows(10)] == [16, 10, 64, 64]
    assert MicroBatch.of(torch.device("cuda"), 8).rows(3) == 8
