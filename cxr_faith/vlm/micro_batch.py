"""How many pictures go through the model at once; fewer after the device has run out of memory."""

from collections.abc import Callable

import torch

CPU_BATCH = 16
"""With larger batches, temporary tensors of a small model exceed 32 MB. glibc returns those to the system each time,
and page faults then take a tenth of the time."""
GPU_BATCH = 64

_MESSAGES = (
    "out of memory",  # of the CUDA runtime and driver, which is no `OutOfMemoryError`
    "cudaErrorMemoryAllocation",
    "STATUS_ALLOC_FAILED",  # of cuBLAS, and of cuDNN before 9
    "ALLOCATION_FAILED",  # of cuDNN 9
    "CUBLAS_STATUS_NOT_INITIALIZED",  # cuBLAS finds no memory for its handle
    "CUDNN_STATUS_NOT_INITIALIZED",
    "can't allocate memory",  # of a CPU
    "not enough memory",
)


class MicroBatch:
    """Runs work on a number of pictures in parts of at most `size`; takes fewer when memory runs out.

    A part that does not fit is done again in halves. A full part's half is the new size for good. A last part, which is
    smaller, is halved for this time only, since the shortage may pass; for good when it happens again. A single picture
    is tried twice, since memory that PyTorch keeps for later is given back before.

    Args:
        size: pictures in one pass, at first.
        padded: a pass always has `size` rows; `work` fills up a last part.

    Attributes:
        size: pictures in one pass, now.
        padded: as given.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(self, size: int, padded: bool = False) -> None:
        if size < 1:
            raise ValueError(f"micro_batch must be at least 1, got {size}")
        self.size, self.padded = size, padded
        self._was_short = False

    @classmethod
    def of(cls, device: torch.device, size: int | None = None) -> "MicroBatch":
        """Micro-batches for a device, 16 pictures on a CPU and 64 elsewhere if nothing else is asked for.

        On a CPU a picture's numbers do not depend on how many are in its pass, and nothing is padded. An accelerator
        chooses its kernels by the number of rows, so there every pass has the same number.
        """
        on_cpu = device.type == "cpu"
        return cls(size or (CPU_BATCH if on_cpu else GPU_BATCH), padded=not on_cpu)

    def rows(self, pictures: int) -> int:
        """Rows of a pass with so many pictures."""
        return self.size if self.padded else pictures

    def run(self, count: int, work: Callable[[int, int], None]) -> None:
        """Call `work(start, stop)` for consecutive parts of `range(count)`.

        A part may be done again, so `work` must leave nothing half done.

        Raises:
            RuntimeError: raised by `work`, other than running out of memory with more than one picture.
        """
        start, at_once, again = 0, self.size, True
        while start < count:
            stop = min(start + at_once, count)
            rows = self.rows(stop - start)
            if _fits(work, start, stop, must=rows == 1 and not again):
                start, again = stop, True
            elif rows == 1:
                again = False
            else:
                at_once = rows // 2
                if rows == self.size:
                    self.size = at_once
        if at_once < self.size:
            if self._was_short:
                self.size = at_once
            self._was_short = True


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or the host, has too little memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MESSAGES)


def _fits(work: Callable[[int, int], None], start: int, stop: int, must: bool) -> bool:
    """Do the work; False if memory runs out, which is an error if it must fit."""
    try:
        work(start, stop)
        return True
    except (RuntimeError, MemoryError) as error:
        if must or not out_of_memory(error):
            raise
    # After the except block: the error's traceback keeps the batch's tensors alive.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return False
