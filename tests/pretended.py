"""An accelerator that is not there: its tensors hold values of the CPU, and refuse to meet tensors of the host.

What it runs is right only if each tensor is on the device where it is needed, as on a GPU. It counts what the host
would wait for: numbers that Python reads, results whose shape depends on values, and copies from pageable memory.
"""

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

ATEN = torch.ops.aten
WAITS = (ATEN._local_scalar_dense, ATEN.nonzero, ATEN.masked_select, ATEN._unique2, ATEN.unique_dim, ATEN.equal)


class There(torch.Tensor):
    """A tensor on the pretended device; `here` has its values."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor, requires_grad: bool = False) -> "There":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        tensor.here = here
        return tensor

    def tolist(self) -> Any:
        """PyTorch has it for no subclass."""
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"There({self.here!r})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {}, Counter())


class Pretended(TorchDispatchMode):
    """While it is entered, tensors can be made on `DEVICE`.

    Attributes:
        waits: operations that the host waits for → how often each ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __enter__(self) -> "Pretended":
        # `torch.tensor` otherwise makes its tensor on the device before this mode sees it.
        self._before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(self._before)
        super().__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {}, self.waits)


def run(function: Any, args: Any, kwargs: dict[str, Any], waits: Counter[str]) -> Any:
    """One operation, on the CPU's values."""
    inputs = [tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)]
    # A tensor without values is nothing to wait for.
    there = {id(tensor.here): tensor for tensor in inputs if isinstance(tensor, There)}
    device = kwargs.get("device")
    to_there = bool(there) if device is None else torch.device(device).type == DEVICE.type
    copies = function.overloadpacket in (ATEN._to_copy, ATEN.copy_)
    strangers = [tensor for tensor in inputs if not isinstance(tensor, There) and tensor.ndim and tensor.numel()]
    if there and strangers and not copies:
        raise RuntimeError(f"{function}: tensors of the host meet tensors of the device")
    if (
        copies
        and there
        and (not to_there or (function.overloadpacket is ATEN.copy_ and not isinstance(args[0], There)))
    ):
        waits["copy to the host"] += 1
    elif copies and to_there and any(not isinstance(tensor, There) and tensor.numel() for tensor in inputs):
        waits["copy to the device"] += 1
    elif there and (function.overloadpacket in WAITS or has_bool_index(function, inputs)):
        waits[function.overloadpacket.__name__] += 1
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    result = function(*tree_map(unwrapped, args), **tree_map(unwrapped, kwargs))
    if copies and not to_there and there and function.overloadpacket is ATEN._to_copy:
        return tree_map(lambda value: value.clone() if isinstance(value, torch.Tensor) else value, result)
    if not to_there:
        return result

    def placed(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        known = there.get(id(value))
        return There(value) if known is None else known

    return tree_map(placed, result)


def has_bool_index(function: Any, inputs: list[torch.Tensor]) -> bool:
    """Whether an operation must count the true values of an index first."""
    indexing = (ATEN.index, ATEN.index_put, ATEN.index_put_, ATEN._index_put_impl_)
    return function.overloadpacket in indexing and any(tensor.dtype == torch.bool for tensor in inputs[1:])


def unwrapped(value: Any) -> Any:
    """The values of a tensor on the device; all else as it is."""
    return value.here if isinstance(value, There) else value


def move(module: torch.nn.Module) -> None:
    """Move a module's weights and buffers to the device."""
    moved: dict[int, torch.nn.Parameter] = {}
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            if id(weight) not in moved:
                moved[id(weight)] = torch.nn.Parameter(There(weight.detach()), requires_grad=False)
            part._parameters[name] = moved[id(weight)]
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = There(buffer)


_setup_privateuseone_for_python_backend("pretended")
DEVICE = torch.device("pretended", 0)
