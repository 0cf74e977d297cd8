"""TensorBoard during a run: running means of the gaps, coverage and speed, as rank 0 sees them.

Each method is a TensorBoard run below `tensorboard/live`. At the end of the run, scalars from the records of all ranks
replace them.
"""

import logging
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L
import pyarrow as pa

from cxr_faith.metrics.functional import MEASURED
from cxr_faith.perturb.condition import NONE
from cxr_faith.records import scan_records
from cxr_faith.run.event_file import EventWriter, open_event_file
from cxr_faith.run.module import FaithfulnessModule

logger = logging.getLogger(__name__)

FOLDER = "live"
SETTLING = ("gap_srg_random", "gap_srg_center")
"""Columns whose running means are shown."""
_KEY = ("method", "substrate", "status", "effect")


class LiveScalars(L.Callback):
    """Writes running means every few seconds; a callback of rank 0.

    The step is the number of samples behind the means: all samples that had records when this start began, and those
    that this rank has done since.
    """

    SECONDS_BETWEEN = 10.0

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._writers: dict[tuple[str, ...], EventWriter] = {}
        self._files = ExitStack()
        self._failed = False
        self._sums: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._samples = set[str]()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the records of earlier starts."""
        assert isinstance(pl_module, FaithfulnessModule)
        try:
            for piece in scan_records(self._run_dir, (*_KEY, *SETTLING), shown=pl_module.method_set.shown):
                piece = piece[piece["condition"].eq(NONE)]
                self._samples.update(piece["sample_id"])
                self._add([{str(name): value for name, value in row.items()} for row in piece.to_dict("records")])
        except (OSError, pa.ArrowException) as error:
            logger.warning("TensorBoard leaves out records of earlier starts until the end of the run: %s", error)
        self._begin, self._forwards = time.monotonic(), _forwards(pl_module)
        self._due = self._begin

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the records of a batch; write if the last write is long enough ago."""
        assert isinstance(pl_module, FaithfulnessModule)
        self._samples.update(row["sample_id"] for row in outputs)
        self._add(outputs)
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self.SECONDS_BETWEEN
            self._write(pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write the last means and close the files."""
        assert isinstance(pl_module, FaithfulnessModule)
        if self._writers:
            self._write(pl_module)
            self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Close the files: the run ends here."""
        self._close()

    def _add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            substrate = row["substrate"].replace(":", "_")
            ok = row["status"] in MEASURED
            values = {"coverage": float(ok)} | {name: row.get(name) if ok else None for name in SETTLING}
            for name, value in values.items():
                if value is not None and value == value:  # NaN: this method has no such gap
                    weight = float(row["effect"]) if name in SETTLING else 1.0
                    entry = self._sums[row["method"], name, substrate]
                    entry[0] += weight * float(value)
                    entry[1] += weight

    def _write(self, module: FaithfulnessModule) -> None:
        """Write all means; an error ends these scalars and not the run, whose records say it all."""
        if self._failed:
            return
        try:
            self._add_scalars(module)
        except OSError as error:
            self._failed = True
            logger.warning("TensorBoard cannot be written, and is not until the end of the run: %s", error)
            self._close()

    def _close(self) -> None:
        self._writers = {}
        try:
            self._files.close()
        except OSError as error:  # of what was still in a buffer
            logger.debug("closing the event files: %s", error)

    def _add_scalars(self, module: FaithfulnessModule) -> None:
        speed = (_forwards(module) - self._forwards) / max(time.monotonic() - self._begin, 1e-9)
        for (method, name, substrate), (total, count) in sorted(self._sums.items()):
            self._run(run_name(method)).add_scalar(f"live_{name}/{substrate}", total / count, len(self._samples))
        self._run().add_scalar("live/forwards_per_second", speed, len(self._samples))
        for writer in self._writers.values():
            writer.flush()

    def _run(self, *name: str) -> EventWriter:
        if name not in self._writers:
            file = self._files.enter_context(open_event_file(self._run_dir, FOLDER, *name))
            self._writers[name] = EventWriter(file)
        return self._writers[name]


def run_name(method: str) -> str:
    """Folder of a method below `tensorboard/`: its name with every odd character, such as a slash, as a dash."""
    return re.sub(r"[^\w+-]+", "-", method)


def remove_live(run_dir: Path) -> None:
    """Remove the scalars that rank 0 showed during the run, or during earlier starts."""
    if not (run_dir / "tensorboard").is_symlink():  # a link is refused by who writes there
        shutil.rmtree(run_dir / "tensorboard" / FOLDER, ignore_errors=True)


def _forwards(module: FaithfulnessModule) -> int:
    return module.engine.vlm.counts.forwards
