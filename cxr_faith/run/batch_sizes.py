"""How many pictures a run computes at once: the same on all ranks and after a restart."""

import json
import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch

from cxr_faith.run.module import PICTURES, FaithfulnessModule
from cxr_faith.storage.atomic import read_file, write_atomic
from cxr_faith.vlm.micro_batch import MicroBatch

FILE = "micro_batch.json"

logger = logging.getLogger(__name__)


class BatchSizes(L.Callback):
    """Notes in the run directory when a micro-batch has become smaller, and takes over what other ranks noted.

    The file holds the name of each micro-batch with its size: `pictures`, or a method that has its own. Where numbers
    depend on the rows of a pass (`MicroBatch.padded`), it exists from the first batch on; elsewhere only after memory
    has run out. Add this callback before the one that writes records: a restart then knows the size.
    """

    def __init__(self, run_dir: Path) -> None:
        self._file = run_dir / FILE

    def on_predict_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Take over sizes that this rank at an earlier start, or another rank, has noted."""
        assert isinstance(pl_module, FaithfulnessModule)
        noted = noted_sizes(self._file)
        for name, micro_batch in pl_module.micro_batches.items():
            micro_batch.size = min(micro_batch.size, noted.get(name, micro_batch.size))
        self._before = {name: micro_batch.size for name, micro_batch in pl_module.micro_batches.items()}
        if pl_module.engine.batches.padded and not self._before.keys() <= noted.keys():
            self._write(self._before | noted)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note sizes that this batch has made smaller."""
        assert isinstance(pl_module, FaithfulnessModule)
        sizes = {name: micro_batch.size for name, micro_batch in pl_module.micro_batches.items()}
        smaller = {name: size for name, size in sizes.items() if size < self._before[name]}
        if not smaller:
            return
        noted = noted_sizes(self._file)
        smallest = noted | {name: min(size, noted.get(name, size)) for name, size in smaller.items()}
        self._write(smallest)
        for name, size in smaller.items():
            logger.warning("out of memory: %s are computed %d at a time from here on", name, size)

    def _write(self, sizes: dict[str, int]) -> None:
        write_atomic(self._file, json.dumps(sizes, indent=1) + "\n")


def check_size(run_dir: Path, device: torch.device, asked: int | None) -> None:
    """Refuse to go on with smaller passes than the run began with, where numbers depend on them.

    Larger ones are no harm: the noted size is taken over.

    Args:
        run_dir: the run directory.
        device: the run's.
        asked: `model.micro_batch`.

    Raises:
        ValueError: the run has computed more pictures at once.
    """
    batches = MicroBatch.of(device, asked)
    noted = noted_sizes(run_dir / FILE).get(PICTURES, 0)
    if batches.padded and batches.size < noted:
        raise ValueError(
            f"model.micro_batch is {batches.size}, and {run_dir} was computed with {noted}, which round differently on "
            f"{device.type}: set it to {noted}"
        )


def noted_sizes(file: Path) -> dict[str, int]:
    """Name of each micro-batch → its size in a run; empty without a file, or with a damaged one."""
    try:
        content = json.loads(read_file(file))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        logger.warning("%s is damaged and not used", file)
        return {}
    sizes = content if isinstance(content, dict) else {}
    return {name: size for name, size in sizes.items() if type(size) is int and size > 0}
