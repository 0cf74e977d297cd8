"""How many pictures a run computes at once after memory ran out: the same on all ranks and after a restart."""

import json
import logging
from pathlib import Path
from typing import Any

import lightning as L

from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.storage.atomic import read_file, write_atomic

FILE = "micro_batch.json"

logger = logging.getLogger(__name__)


class BatchSizes(L.Callback):
    """Notes in the run directory when a micro-batch has become smaller, and takes over what other ranks noted.

    The file holds the name of each micro-batch with its size: `pictures`, or a method that has its own. It exists only
    after memory has run out. Add this callback before the one that writes records: a restart then knows the size.
    """

    def __init__(self, run_dir: Path) -> None:
        self._file = run_dir / FILE

    def on_predict_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Take over sizes that this rank at an earlier start, or another rank, has noted."""
        assert isinstance(pl_module, FaithfulnessModule)
        noted = self._noted()
        for name, micro_batch in pl_module.micro_batches.items():
            micro_batch.size = min(micro_batch.size, noted.get(name, micro_batch.size))
        self._before = {name: micro_batch.size for name, micro_batch in pl_module.micro_batches.items()}

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
        noted = self._noted()
        smallest = noted | {name: min(size, noted.get(name, size)) for name, size in smaller.items()}
        write_atomic(self._file, json.dumps(smallest, indent=1) + "\n")
        for name, size in smaller.items():
            logger.warning("out of memory: %s are computed %d at a time from here on", name, size)

    def _noted(self) -> dict[str, int]:
        try:
            content = json.loads(read_file(self._file))
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError):
            logger.warning("%s is damaged and not used", self._file)
            return {}
        sizes = content if isinstance(content, dict) else {}
        return {name: size for name, size in sizes.items() if type(size) is int and size > 0}
