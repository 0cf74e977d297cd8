"""`doctor`: are model, data and machine fit for a benchmark? A few samples go all the way; each line is a check."""

import json
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import pandas as pd
from lightning.pytorch.callbacks import Callback
from torch.utils.tensorboard import SummaryWriter

from cxr_faith.checks.checklist import Check, as_json, judged
from cxr_faith.checks.model_checks import model_checks, weights_check
from cxr_faith.checks.record_checks import record_checks
from cxr_faith.checks.samples import read_cases
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.records import done_samples, read_records
from cxr_faith.run.callbacks import RecordsWriter
from cxr_faith.run.cautions import run_cautions
from cxr_faith.run.evaluate import RunOptions, trainer_defaults
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.run.ranks import cluster_plugins
from cxr_faith.run.stop import StopRequest
from cxr_faith.storage.atomic import write_atomic
from cxr_faith.vlm.reasoning import OPENS

OTHER_MODEL = "take a model that was trained on radiographs: --model.vlm.path google/medgemma-4b-it"


@dataclass(frozen=True)
class DoctorOptions:
    """How much `doctor` looks at.

    Attributes:
        samples: number of samples, the first ones, that go all the way from picture to score.
    """

    samples: int = 8

    def __post_init__(self) -> None:
        """Check the value."""
        if self.samples < 2:
            raise ValueError(f"doctor needs --samples of at least 2, got {self.samples}")


def run_doctor(
    module: FaithfulnessModule, data: CXRVQADataModule, run_dir: Path, options: DoctorOptions, accelerator: str
) -> list[Check]:
    """Go through the list, and write `doctor.json` into the run directory.

    Args:
        module: the checked configuration.
        data: its samples; only the first ones are used, and none beyond its limit.
        run_dir: where the result goes; the trial's records go there too for a while, so that its disk is tested.
        options: how many samples.
        accelerator: that of the run.
    """
    data.limit = options.samples if data.limit is None else min(options.samples, data.limit)
    module.check_model()
    run_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run_dir, prefix="doctor-") as folder:
        trial = Path(folder)
        data.cache_dir = trial / "cache"
        frame = _predict(module, data, trial, accelerator)
        again = _predict(module, data, trial, accelerator)
        data.skip = frozenset()
        pictures, cases = read_cases(module.engine, data, module.protocol, 1)
        checks = [
            *(Check("model and data", "warn", line, OTHER_MODEL) for line in run_cautions(module, data)),
            weights_check(module.engine.vlm),
            *(check for case in zip(pictures, cases, strict=True) for check in model_checks(module, *case)),
            *([] if cases else [_unexplained(frame)]),
            *record_checks(frame, module.method_set.explaining),
            _restart(frame, again),
            _tensorboard(trial / "tensorboard"),
        ]
    write_atomic(run_dir / "doctor.json", json.dumps(as_json(checks), indent=1) + "\n")
    return checks


def _predict(module: FaithfulnessModule, data: CXRVQADataModule, folder: Path, accelerator: str) -> pd.DataFrame:
    """Run the samples without records as `evaluate` would, on one device; returns all records."""
    data.skip = done_samples(folder)
    callbacks: list[Callback] = [RecordsWriter(folder, StopRequest())]
    needed = trainer_defaults(RunOptions(folder)) | {"plugins": cluster_plugins()}
    trainer = L.Trainer(accelerator=accelerator, devices=1, callbacks=callbacks, **needed)
    with warnings.catch_warnings():  # the second start has nothing left to do
        warnings.filterwarnings("ignore", message="Total length of `SampleLoader`")
        trainer.predict(module, datamodule=data, return_predictions=False)
    return read_records(folder)


def _unexplained(frame: pd.DataFrame) -> Check:
    """No answer can be explained, and what to do."""
    thought = next((str(reason) for reason in frame["reason"].dropna() if str(reason).startswith(OPENS)), None)
    advice = "no answer can be explained: check model.vlm.prompt_template, and what the records' reasons say"
    return Check("model", "fail", "not measured", thought or advice)


def _restart(first: pd.DataFrame, second: pd.DataFrame) -> Check:
    same = len(first) == len(second) and first["seconds"].equals(second["seconds"])
    advice = "a second start computed samples again: is the run directory on a file system that keeps its files?"
    return judged("restart safe", same, f"{len(second) - len(first)} new rows", advice)


def _tensorboard(folder: Path) -> Check:
    with SummaryWriter(str(folder)) as writer:
        writer.add_scalar("doctor", 1.0, 0)
    size = sum(file.stat().st_size for file in folder.glob("events.out.tfevents.*"))
    return judged("TensorBoard writable", size > 0, f"{size} bytes", "check disk and quota")
