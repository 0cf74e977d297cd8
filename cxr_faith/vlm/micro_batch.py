"""How many pictures go through the model at once; fewer after the device has run out of memory."""

from collections.abc import Callable

import torch


class MicroBatch:
    """Runs work on a number of pictures in parts of at most `size`; halves `size` when memory runs out.

    Args:
        size: pictures in one pass, at first.

    Attributes:
        size: pictures in one pass, now.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"micro_batch must be at least 1, got {size}")
        self.size = size

    def run(self, count: int, work: Callable[[int, int], None]) -> None:
        """Call `work(start, stop)` for consecutive parts of `range(count)`.

        A part that does not fit into memory is done again in smaller parts, so `work` must leave nothing half done.

        Raises:
            RuntimeError: raised by `work`, other than running out of memory with more than one picture.
        """
        start = 0
        while start < count:
            stop, out_of_memory = min(start + self.size, count), False
            try:
                work(start, stop)
            except RuntimeError as error:
                if stop - start == 1 or not _ran_out_of_memory(error):
                    raise
                out_of_memory = True
            if out_of_memory:
                # After the except block: the error's traceback keeps the batch's tensors alive.
                self.size = (stop - start) // 2
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
            else:
                start = stop


def _ran_out_of_memory(error: RuntimeError) -> bool:
    """On a CPU, only PyTorch's message says so; the same holds for the workspaces of CUDA libraries."""
    words = ("not enough memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)
