"""Training that survives an interruption: its state after every few minutes, and after every cycle."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn


@dataclass
class State:
    """What a cycle changes.

    Attributes:
        model: the model.
        head: predicts lesions from the tower's output; part of the cycles with a per-patch loss.
        optimizer: the optimizer of both.
        step: number of batches seen in this cycle.
    """

    model: nn.Module
    head: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0

    def save(self, path: Path) -> None:
        """Write everything; the file is replaced atomically."""
        fresh = path.with_suffix(".new")
        parts = {name: getattr(self, name).state_dict() for name in ("model", "head", "optimizer")}
        torch.save(parts | {"step": self.step}, fresh)
        os.replace(fresh, path)

    def load(self, path: Path) -> None:
        """Go on from a file that `save` wrote; without one, start at step 0."""
        if not path.exists():
            return
        saved = torch.load(path, map_location="cpu", weights_only=True)
        for name in ("model", "head", "optimizer"):
            getattr(self, name).load_state_dict(saved[name])
        self.step = saved["step"]
