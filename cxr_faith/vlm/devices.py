"""The kind of device that a model runs on, and how its arithmetic is kept exact and repeatable there."""

import os

import torch

_NO_FLOAT64 = "mps cannot compute in float64, which scores need: use cpu"


def choose_accelerator(asked: str = "auto") -> str:
    """Lightning's name of the accelerator that a Trainer gets: `cuda` or `cpu`.

    Lightning's own `auto` and `gpu` take MPS on a Mac.

    Args:
        asked: `trainer.accelerator`; `auto` is CUDA if there is a GPU, else the CPU.

    Raises:
        ValueError: another kind of accelerator.
    """
    if asked not in ("auto", "cpu", "gpu", "cuda"):
        reason = _NO_FLOAT64 if asked == "mps" else f"must be auto, cpu, gpu or cuda, got {asked!r}"
        raise ValueError(f"trainer.accelerator: {reason}")
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return "cpu" if asked == "cpu" else "cuda"


def check_device(named: torch.device | str) -> torch.device:
    """The device, unless it is not there, or its kind cannot compute the scores.

    Raises:
        ValueError: no such name, MPS, or a GPU that this computer does not have.
    """
    try:
        device = torch.device(named)
    except RuntimeError as error:
        raise ValueError(f"device: {named!r} names no device, such as cpu, cuda or cuda:1") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: no {device}: this computer has {torch.cuda.device_count()} GPUs that torch can use")
    if device.type == "mps":
        raise ValueError(f"device: {_NO_FLOAT64}")
    return device


def default_dtype(device: torch.device) -> str:
    """Number format of the weights where none is asked for."""
    return "bfloat16" if device.type == "cuda" else "float32"


def exact_arithmetic(device: torch.device) -> None:
    """Settle, for this process, how a GPU computes: float32 in full, and the same bits each time where it can.

    cuDNN rounds inputs of float32 convolutions to TF32 by default. Operations that have no deterministic algorithm
    warn and run. On a CPU nothing changes.
    """
    if device.type != "cuda":
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    # cuBLAS reads this when it starts; without it, it chooses workspaces, and so algorithms, by what is free.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling memory that nothing reads costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
