"""A callback that tells what each batch took: pictures through each stage, and bytes of tensors that stay."""

import gc
import json
from pathlib import Path
from typing import Any

import lightning as L
import torch


class Work(L.Callback):
    """Writes a line for each batch: its samples, the counts of the model's stages, bytes of all living tensors."""

    def __init__(self, folder: str) -> None:
        """Write to a file for each rank in a folder."""
        self.folder = Path(folder)

    def on_predict_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, *_: Any) -> None:
        """Remember the counts so far."""
        self.before = pl_module.engine.vlm.counts.snapshot()

    def on_predict_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Write the line."""
        spent = {key: count - getattr(self.before, key) for key, count in vars(pl_module.engine.vlm.counts).items()}
        gc.collect()
        tensors = [found for found in gc.get_objects() if isinstance(found, torch.Tensor)]
        kept = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        line = {"samples": [item.sample.sample_id for item in batch], "spent": spent, "kept": sum(kept.values())}
        with (self.folder / f"rank-{trainer.global_rank}").open("a") as file:
            file.write(json.dumps(line) + "\n")
