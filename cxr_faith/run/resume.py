"""What a start does not compute, since earlier starts have: whole samples, and parts of samples after a run grew."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from cxr_faith.records import Progress, Shown, read_progress
from cxr_faith.records.known import KnownRecords
from cxr_faith.run.module import FaithfulnessModule


class TakeOver(Callback):
    """Tells the data module which samples are done, and the module what is known about the others of this rank.

    Every rank reads this before any rank writes.

    Args:
        run_dir: the run directory.
        shown: the rows that each sample must have.
    """

    def __init__(self, run_dir: Path, shown: Shown) -> None:
        self._run_dir, self._shown = run_dir, shown
        self.progress = Progress(frozenset(), frozenset())

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Read which samples are done."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.progress = read_progress(self._run_dir, self._shown)
        data.skip = self.progress.done

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the records of this rank's samples that have some."""
        assert isinstance(pl_module, FaithfulnessModule)
        if self.progress.begun:
            loader: Any = trainer.predict_dataloaders
            ids = loader.dataset.table.data.column("sample_id").take(loader.dataset.rows).to_pylist()
            pl_module.known = KnownRecords(self._run_dir, self.progress.begun.intersection(ids))
