"""What the headers of weight files say: each tensor's number format and shape. No weights are read.

A safetensors file is 8 bytes with the length of a JSON header, the header, and the tensors' bytes without gaps.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.folder import INDEX, WEIGHTS, ModelFolder, shard_of_tensor

_LONGEST_HEADER = 16 * 2**20
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64, "C64": 64}
_BITS |= {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
_BITS |= {f"F8_{kind}": 8 for kind in ("E5M2", "E4M3", "E8M0", "E4M3FNUZ", "E5M2FNUZ")}


@dataclass(frozen=True)
class Tensor:
    """A tensor as a header describes it.

    Attributes:
        dtype: number format, such as `BF16`.
        shape: its shape.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def floating(self) -> bool:
        """Whether its numbers are floating-point numbers that need no scale."""
        return self.dtype in ("F64", "F32", "F16", "BF16")


def read_tensors(folder: ModelFolder) -> dict[str, Tensor]:
    """Name → tensor, over all weight files of a folder.

    Raises:
        ModelError: a file is damaged, or the files and their index do not agree.
    """
    tensors: dict[str, Tensor] = {}
    homes: dict[str, str] = {}
    for shard in folder.weights:
        for name, tensor in read_header(folder.files[shard], folder.path / shard).items():
            if name in tensors:
                raise ModelError(f"{folder.path}: both {homes[name]} and {shard} hold {name}")
            tensors[name], homes[name] = tensor, shard
    if folder.weights != (WEIGHTS,):
        for name, shard in shard_of_tensor(folder.path).items():
            if homes.get(name) != shard:
                raise ModelError(f"{folder.path / INDEX} says that {shard} holds {name}, which it does not")
    return tensors


def read_header(file: Path, named: Path) -> dict[str, Tensor]:
    """Name → tensor, for one file.

    Args:
        file: the file, with links resolved.
        named: what messages call it.

    Raises:
        ModelError: the file is damaged.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if start == b"version ":
            raise ModelError(f"{named} is a Git LFS pointer, not the weights: fetch them with git lfs pull")
        if len(start) < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise ModelError(f"{named} is damaged: {size} bytes, with a header of {length if len(start) == 8 else 0}")
        text = stream.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates)
        tensors = {name: _tensor(entry) for name, entry in header.items() if name != "__metadata__"}
        _check_offsets(header, tensors, size - 8 - length)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"{named} is damaged: {' '.join(str(error).split())[:200]}") from error
    return tensors


def _tensor(entry: Mapping[str, Any]) -> Tensor:
    dtype, shape = entry["dtype"], entry["shape"]
    if dtype not in _BITS:
        raise ValueError(f"unknown number format {dtype!r}")
    if not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"shape {shape}")
    return Tensor(dtype, tuple(shape))


def _check_offsets(header: Mapping[str, Any], tensors: Mapping[str, Tensor], size: int) -> None:
    """The tensors' bytes must follow each other without gaps, and fill the file."""
    position = 0
    for name in sorted(tensors, key=lambda name: tuple(header[name]["data_offsets"])):
        begin, end = header[name]["data_offsets"]
        tensor = tensors[name]
        if begin != position or (end - begin) * 8 != math.prod(tensor.shape) * _BITS[tensor.dtype]:
            raise ValueError(f"{name} of {tensor.dtype} {list(tensor.shape)} cannot lie at bytes {begin} to {end}")
        position = end
    if position != size:
        raise ValueError(f"{size} bytes of weights where the header has {position}")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a name stands twice in the header")
    return content
