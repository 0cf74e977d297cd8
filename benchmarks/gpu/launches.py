"""Operations and memory traffic of ROAD's imputation, counted without a GPU: `python benchmarks/gpu/launches.py`.

On a GPU each operation is one kernel launch or a few, and reads its inputs from memory and writes its outputs there.
Tensors of the meta device have shapes and no values, so that pictures of any size can be counted in a second.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cxr_faith.perturb.road import impute

CELLS = (16, 16)


@dataclass(eq=False)
class Traffic(TorchDispatchMode):
    """Counts what runs inside its `with` block; views are free.

    Attributes:
        operations: of PyTorch's dispatcher.
        bytes_moved: read and written, each tensor of an operation once.
        peak_bytes: the most that results took in memory at once, without what an operation needs inside.
    """

    operations: int = 0
    bytes_moved: int = 0
    peak_bytes: int = 0
    _live: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Prepare the base class."""
        super().__init__()

    def __torch_dispatch__(
        self,
        operation: torch._ops.OpOverload,
        types: Sequence[type],
        arguments: Sequence[object] = (),
        options: Mapping[str, object] | None = None,
    ) -> object:
        """Run an operation and count it."""
        result = operation(*arguments, **(options or {}))
        if not operation.is_view:
            self.operations += 1
            self.bytes_moved += sum(map(_bytes, chain(_tensors((arguments, options)), _tensors(result))))
            for tensor in _tensors(result):
                self._hold(tensor.untyped_storage())
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        """Count a storage as long as it lives."""
        if id(storage) not in self._live:
            self._live[id(storage)] = storage.nbytes()
            weakref.finalize(storage, self._live.pop, id(storage))
            self.peak_bytes = max(self.peak_bytes, sum(self._live.values()))


def _tensors(tree: object) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _bytes(tensor: Tensor) -> int:
    """Bytes that a tensor takes in memory; a broadcast dimension takes none."""
    sizes = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride != 0)
    return tensor.element_size() * int(torch.Size(sizes).numel())


def counted(work: Callable[[], object]) -> Traffic:
    """What a call runs."""
    with Traffic() as traffic:
        work()
    return traffic


def road(side: int, channels: int, masks: int) -> Traffic:
    """What one imputation runs.

    Args:
        side: of the picture, in pixels.
        channels: planes that differ: 1 for a gray picture.
        masks: pictures in the batch.
    """
    pixels = torch.empty(channels, side, side, device="meta")
    keep = torch.empty(masks, CELLS[0] * CELLS[1], dtype=torch.bool, device="meta")
    return counted(lambda: impute(pixels, keep, CELLS))


def main() -> None:
    """Print the counts for pictures of 896 pixels, one and a batch of 64."""
    print("ROAD at 896 px, by count: operations · GB read and written for a picture · GB of memory at most")
    for name, channels, masks in (("gray", 1, 1), ("gray", 1, 64), ("color", 3, 64)):
        cost = road(896, channels, masks)
        moved, peak = cost.bytes_moved / masks / 1e9, cost.peak_bytes / 1e9
        print(f"{name:5} batch of {masks:2}  {cost.operations:6,} · {moved:4.1f} · {peak:3.1f}")


if __name__ == "__main__":
    main()
