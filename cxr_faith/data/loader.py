"""The `DataLoader` of samples, whose workers need no shared memory."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from cxr_faith.data.items import SampleItem
from cxr_faith.data.parent import end_with_parent

_ADVICE = "decoding workers cannot start, for lack of shared memory: set data.num_workers to 0, or make /dev/shm larger"


class SampleLoader(DataLoader[SampleItem]):
    """Batches as lists of `SampleItem`; its `collate_fn` must be `PackedBatch`.

    PyTorch hands tensors of workers on in `/dev/shm`. Containers often give it 64 MB, and a worker that finds it full
    loses the batch, for which the run then waits for ever. So pictures leave a worker as arrays, through a pipe, which
    takes about as long.

    Workers end with the process that started them, killed or not. By itself a worker would wait until somebody takes
    its last batch, and meanwhile hold what it has inherited, such as the lock of a run directory.
    """

    def __iter__(self) -> Iterator[list[SampleItem]]:  # type: ignore[override]  # only its iteration is used
        """The batches.

        Raises:
            OSError: the workers cannot be started.
        """
        self.worker_init_fn = partial(_end_with_parent, os.getpid())
        _notice_dead_workers()
        try:
            batches = super().__iter__()
        except OSError as error:  # of the semaphores of the queues
            raise OSError(errno.ENOMEM, _ADVICE, "/dev/shm") from error
        for batch in batches:
            yield batch.unpacked() if isinstance(batch, PackedBatch) else cast(list[SampleItem], batch)  # pinned


def _notice_dead_workers() -> None:
    """Let PyTorch set its handler of dead workers again where it is gone.

    PyTorch sets it once in a process, and Lightning puts back the handlers from before a run at its end. A worker that
    is killed in a later run, while it sends a batch, would be waited for in vain.
    """
    if hasattr(signal, "SIGCHLD") and not callable(signal.getsignal(signal.SIGCHLD)):
        signal_handling._SIGCHLD_handler_set = False


def _end_with_parent(parent: int, worker: int) -> None:
    end_with_parent(parent)


class PackedBatch:
    """A batch on its way from a worker: arrays in place of tensors; what items share is sent once."""

    def __init__(self, items: Sequence[SampleItem]) -> None:
        """Pack the items of a batch."""
        arrays: dict[int, npt.NDArray[Any]] = {}

        def array(tensor: Tensor) -> Tensor:
            return cast(Tensor, arrays.setdefault(id(tensor), tensor.numpy()))

        self.items = [item.map_tensors(array) for item in items]

    def unpacked(self) -> list[SampleItem]:
        """The batch with its tensors."""
        tensors: dict[int, Tensor] = {}

        def tensor(array: Any) -> Tensor:
            return tensors.setdefault(id(array), torch.from_numpy(array))

        return [item.map_tensors(tensor) for item in self.items]

    def pin_memory(self) -> list[SampleItem]:
        """The batch with pinned tensors; called by the `DataLoader`."""
        return [item.pin_memory() for item in self.unpacked()]
