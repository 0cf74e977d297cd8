"""How many pictures go through the model at once, and what happens when they are too many for its memory."""

from collections.abc import Callable

import torch


class MicroBatch:
    """A number of pictures; half of those that did not fit, for good, once memory has run out.

    Attributes:
        size: pictures in one pass.
    """

    def __init__(self, size: int) -> None:
        """Choose the number to begin with.

        Raises:
            ValueError: a size below 1.
        """
        if size < 1:
            raise ValueError(f"micro_batch must be at least 1, got {size}")
        self.size = size

    def run(self, count: int, work: Callable[[int, int], None]) -> None:
        """Call `work(start, stop)` for consecutive parts of `range(count)`.

        A part that does not fit into memory is done again in smaller ones, so `work` must leave nothing half done.

        Raises:
            RuntimeError: what `work` raised, other than memory that ran out for more than one picture.
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
                # Out here, since the error's traceback keeps the batch's tensors alive.
                self.size = (stop - start) // 2
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
            else:
                start = stop


def _ran_out_of_memory(error: RuntimeError) -> bool:
    """On a CPU, PyTorch says it in words only; so do CUDA's libraries of their own workspaces."""
    words = ("not enough memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)
