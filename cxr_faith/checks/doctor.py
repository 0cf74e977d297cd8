"""`doctor`: are model, data and machine fit for a benchmark? A few samples go all the way; each line is a check."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

import lightning as L
import numpy as np
import pandas as pd
from lightning.pytorch.callbacks import Callback
from rich import box
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from cxr_faith.checks.model_checks import model_checks
from cxr_faith.checks.sanity import read_cases
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.perturb.condition import NONE
from cxr_faith.records import done_samples, read_records, write_atomic
from cxr_faith.records.controls import first_setting
from cxr_faith.run.callbacks import RecordsWriter
from cxr_faith.run.evaluate import RunOptions, trainer_defaults
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.run.ranks import cluster_plugins
from cxr_faith.run.stop import StopRequest
from cxr_faith.summary.agreement import agreement_panel
from cxr_faith.summary.calibration import calibration_panel
from cxr_faith.summary.regions import region_panel

Status = Literal["pass", "warn", "fail"]

SAME_AUC = 1e-6


@dataclass(frozen=True)
class DoctorOptions:
    """How `doctor` looks.

    Attributes:
        samples: so many of the first samples go all the way.
    """

    samples: int = 8

    def __post_init__(self) -> None:
        """Check the value."""
        if self.samples < 2:
            raise ValueError(f"doctor needs at least 2 samples, got {self.samples}")


@dataclass(frozen=True)
class Check:
    """One line of the list.

    Attributes:
        name: what was looked at.
        status: `fail`: do not trust a benchmark with it; `warn`: know about it.
        figure: what was found.
        advice: what to do about it; empty for a pass.
    """

    name: str
    status: Status
    figure: str
    advice: str = ""


TOO_FEW = "too few samples of the right kind: give --samples a larger number"
NO_REFERENCES = "it needs yes/no questions with a reference answer, which these samples lack"
ONE_METHOD = "it needs two methods or more, with maps of the same samples"


def graded(
    name: str, value: float, good: bool, fair: bool, advice: str, unit: str = "", missing: str = TOO_FEW
) -> Check:
    """A check of a number: pass if good, warn if fair, else fail; a number that does not exist is a warning."""
    if not np.isfinite(value):
        return Check(name, "warn", "not measured", missing)
    status: Status = "pass" if good else "warn" if fair else "fail"
    return Check(name, status, f"{value:.3g}{unit}", "" if good else advice)


def run_doctor(
    module: FaithfulnessModule, data: CXRVQADataModule, run_dir: Path, options: DoctorOptions
) -> list[Check]:
    """Go through the list, and write `doctor.json` into the run directory.

    Args:
        module: the checked configuration.
        data: its samples; only the first ones are used.
        run_dir: where the result goes, and for as long as it takes the records of the check: its disk is what is tried.
        options: how many samples.
    """
    data.limit = options.samples
    module.check_model()
    run_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run_dir, prefix="doctor-") as folder:
        trial = Path(folder)
        data.cache_dir = trial / "cache"
        frame = _predict(module, data, trial)
        again = _predict(module, data, trial)
        data.skip = frozenset()
        pictures, cases = read_cases(module.engine.vlm, data, module.protocol, 1)
        advice = "no answer can be explained: check model.vlm.prompt_template, and what the records' reasons say"
        checks = [
            *(Check(*found) for case in zip(pictures, cases, strict=True) for found in model_checks(module, *case)),
            *([] if cases else [Check("model", "fail", "not measured", advice)]),
            *record_checks(frame, module.method_set.explaining),
            _restart(frame, again),
            _tensorboard(trial / "tensorboard"),
        ]
    text = json.dumps({"ok": not failed(checks), "checks": [asdict(check) for check in checks]}, indent=1)
    write_atomic(run_dir / "doctor.json", text + "\n")
    return checks


def failed(checks: Sequence[Check]) -> bool:
    """Whether a check failed."""
    return any(check.status == "fail" for check in checks)


def _predict(module: FaithfulnessModule, data: CXRVQADataModule, folder: Path) -> pd.DataFrame:
    """Run what is not done yet as `evaluate` would, on one device; all records."""
    data.skip = done_samples(folder)
    callbacks: list[Callback] = [RecordsWriter(folder, StopRequest())]
    needed = trainer_defaults(RunOptions(folder)) | {"plugins": cluster_plugins()}
    trainer = L.Trainer(accelerator="auto", devices=1, callbacks=callbacks, **needed)
    trainer.predict(module, datamodule=data, return_predictions=False)
    return read_records(folder)


def _restart(first: pd.DataFrame, second: pd.DataFrame) -> Check:
    same = len(first) == len(second) and first["seconds"].equals(second["seconds"])
    advice = "a second start computed samples again: is the run directory on a file system that keeps its files?"
    return Check(
        "restart safe", "pass" if same else "fail", f"{len(second) - len(first)} new rows", "" if same else advice
    )


def _tensorboard(folder: Path) -> Check:
    with SummaryWriter(str(folder)) as writer:
        writer.add_scalar("doctor", 1.0, 0)
    size = sum(file.stat().st_size for file in folder.glob("events.out.tfevents.*"))
    return Check(
        "TensorBoard writable", "pass" if size else "fail", f"{size} bytes", "" if size else "check disk and quota"
    )


def record_checks(frame: pd.DataFrame, methods: Sequence[str]) -> Iterator[Check]:
    """Checks of the records of a few samples.

    Args:
        frame: all records.
        methods: names of the methods that are no controls.
    """
    frame = frame[frame["condition"].eq(NONE)]
    first = first_setting(frame)
    samples = first.drop_duplicates("sample_id")
    accuracy = samples["correct"].dropna().astype(float).mean()
    advice = "explanations of wrong answers say little about findings: check prompt_template and the questions"
    yield graded("accuracy", accuracy, accuracy >= 0.7, True, advice, missing=NO_REFERENCES)
    valid = frame["status"].ne("invalid").mean()
    reasons = frame.loc[frame["status"].eq("invalid"), "reason"].dropna()
    yield graded(
        "rows valid", valid, valid == 1, valid > 0.5, f"first reason: {reasons.iloc[0] if len(reasons) else ''}"
    )
    yield _finite_curves(frame)
    coverage = frame["status"].eq("ok").mean()
    advice = "few answers depend on the picture, or the substrate leaves it: see the statuses, try another substrate"
    yield graded("coverage", coverage, coverage >= 0.5, coverage > 0, advice)
    ok = first[first["status"].eq("ok")]
    random = ok.loc[ok["method"].eq("random"), "deletion_auc"].mean()
    advice = "the answer saturates or breaks early: read gaps to random, not AUCs"
    yield graded("random deletion AUC", random, 0.4 <= random <= 0.6, True, advice)
    mine = ok[ok["method"].isin(list(methods))]
    moves = mine["monotonicity_violations"].mean()
    yield graded(
        "moves the wrong way", moves, moves <= 0.3, True, "curves are noisy: more samples, or a softer mask", ""
    )
    yield from _map_checks(first, methods)
    ece = calibration_panel(first, methods).ece
    ece = np.nan if ece is None else ece
    advice = "p(yes) is no probability: rank by margin instead"
    yield graded("calibration error (ECE)", ece, ece < 0.15, True, advice, missing=NO_REFERENCES)
    yield _different(mine)


def _finite_curves(frame: pd.DataFrame) -> Check:
    scored = frame[frame["status"].isin(("ok", "degenerate", "inverted"))]
    curves = [np.asarray(c, dtype=np.float64) for side in ("deletion", "insertion") for c in scored[f"{side}_scores"]]
    share = float(np.mean([np.isfinite(curve).all() for curve in curves])) if curves else np.nan
    return graded("curves finite", share, share == 1, False, "logits overflow: use bfloat16 or float32, never float16")


def _map_checks(first: pd.DataFrame, methods: Sequence[str]) -> Iterator[Check]:
    border = [r.border for r in region_panel(first, methods) if r.border is not None]
    worst = max(border, default=np.nan)
    advice = "maps lie on the edge of the picture: burnt-in text or collimator? try data.border_crop"
    yield graded("border share of the maps, highest", worst, worst < 0.4, True, advice)
    found = [pair.spearman for pair in agreement_panel(first, methods) if pair.spearman is not None]
    mean = float(np.mean(found)) if found else np.nan
    advice = "methods contradict each other: look at the maps, and trust none before the gaps tell them apart"
    yield graded("agreement of the methods (Spearman)", mean, mean > 0.3, True, advice, missing=ONE_METHOD)


def _different(rows: pd.DataFrame) -> Check:
    """Different methods must not get the same scores: where all do, the maps do not reach the curves."""
    name, means = "methods score differently", rows.groupby("method")[["deletion_auc", "insertion_auc"]].mean()
    spread = float((means.max() - means.min()).max()) if len(means) > 1 else np.nan
    alike = [
        f"{a} and {b}"
        for a, b in combinations(means.index, 2)
        if np.abs(means.loc[a].to_numpy() - means.loc[b].to_numpy()).max() <= SAME_AUC
    ]
    if alike and spread > SAME_AUC:
        return Check(name, "warn", f"the same AUCs: {', '.join(alike)}", "two names of one method, or equal maps?")
    return graded(name, spread, spread > SAME_AUC, False, "all methods score alike: maps are not used", "", ONE_METHOD)


def render_doctor(checks: Sequence[Check]) -> Table:
    """The list for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, title="doctor", title_justify="left")
    for column in ("check", "", "figure", "what to do"):
        table.add_column(column, overflow="fold")
    color = {"pass": "green", "warn": "yellow", "fail": "bold red"}
    for check in checks:
        table.add_row(check.name, f"[{color[check.status]}]{check.status}[/]", check.figure, check.advice)
    return table
