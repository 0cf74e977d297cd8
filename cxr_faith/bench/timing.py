"""Seconds, peak memory, and the speed of the hardware's matrix products."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


def wall(device: torch.device, work: Callable[[], Any]) -> float:
    """Seconds that some work takes, on an accelerator until its queue is empty."""
    _wait(device)
    begin = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - begin


def processor(work: Callable[[], Any]) -> float:
    """Seconds of processor time that some work on the CPU takes, of all its threads."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of the best of some large square matrix products."""
    side = 8192 if device.type == "cuda" else 1536
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    left @ right
    return 2 * side**3 / min(wall(device, lambda: left @ right) for _ in range(7))


class PeakMemory:
    """Peak memory of a piece of work in bytes, on the accelerator or else of the process.

    Attributes:
        value: None where it cannot be measured: Linux must allow to reset the peak of a process.
    """

    value: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Measure the peak inside the block; None where an earlier peak cannot be reset."""
    result, clear = PeakMemory(), Path("/proc/self/clear_refs")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield result
        result.value = torch.cuda.max_memory_allocated(device)
        return
    try:
        clear.write_text("5")
    except OSError:
        yield result
        return
    yield result
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    result.value = int(peak.split()[1]) * 1024
