"""`cxr-faith plan`: its counts are those of the run, and what it cannot use is one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxr_faith.__main__ import main
from cxr_faith.attribution.base import Method
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.planning.operations import Shape
from cxr_faith.planning.options import PlanOptions
from cxr_faith.planning.plan import LONGEST_JOB, RunPlan, make_plan
from cxr_faith.planning.power import needs, patients_needed
from cxr_faith.planning.text import _hours, plan_lines
from cxr_faith.protocol import Protocol
from cxr_faith.records import read_records
from cxr_faith.report.history import read_entries
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.run.pace import Pace
from cxr_faith.vlm.config import ModelConfig
from tests.reference import power
from tests.runs import parts, run_here

N = 5
METHODS: dict[str, dict[str, Any] | None] = {"chefer": None, "gradient": None}
PROTOCOL = {"steps": 2, "random_orders": 4, "substrates": ("blur:0.1", "mean"), "conditions": ("seed:1",)}
CONFIG = """
trainer: {{accelerator: cpu, devices: 1}}
model:
  methods: {{chefer: , gradient: }}
  protocol: {{steps: 2, random_orders: 4, substrates: ['blur:0.1', mean], conditions: ['seed:1'], max_new_tokens: 4}}
data: {{manifest: {manifest}, data_root: {root}, batch_size: 2}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five questions about three pictures, one of which has more of them than fit into a batch."""
    folder, table = tmp_path_factory.mktemp("planned"), pq.read_table(bundled_manifest())
    counts = pd.Series(table.column("image_id").to_pylist()).value_counts()
    images = pd.Series(table.column("image_id").to_pylist())
    several = counts[counts >= 3].index[0]
    rows = [*images.index[images.eq(several)][:3], *images.index[images.ne(several)][: N - 3]]
    pq.write_table(table.take(pa.array(rows)), folder / "manifest.parquet")
    file = folder / "config.yaml"
    file.write_text(CONFIG.format(manifest=folder / "manifest.parquet", root=bundled_manifest().parent))
    return file


@pytest.fixture(scope="module")
def pilot(config: Path) -> Path:
    """A run of all samples."""
    assert run_here(config, config.parent / "run") == 0
    return config.parent / "run"


def planned(config: Path, limit: int | None = None, steps: int | str = 2, **options: Any) -> RunPlan:
    module = FaithfulnessModule(METHODS, ModelConfig(), Protocol(**PROTOCOL | {"steps": steps}))
    data = CXRVQADataModule(str(config.parent / "manifest.parquet"), str(bundled_manifest().parent), batch_size=2)
    data.limit = limit
    return make_plan(module, data, PlanOptions(**options))


@pytest.mark.slow
def test_counts_are_those_of_the_run(config: Path, pilot: Path) -> None:
    """Exact with the maps of all samples; without them nothing is counted short."""
    (end,) = [entry for entry in read_entries(pilot) if "pace" in entry]
    pace, records = Pace.from_dict(end["pace"]), read_records(pilot)
    exact, most = planned(config, pilot=str(pilot)).work, planned(config).work
    assert exact.known == 1 and most.known == 0 and (exact.samples, exact.images) == (N, records["image_id"].nunique())
    assert exact.forwards == pace.forwards and pace.samples == N
    assert exact.rows == most.rows == len(records) and 3 * N <= exact.use <= most.use
    assert exact.answers == most.answers == 2 * N  # once more under the condition
    assert exact.forwards <= most.forwards < 1.3 * exact.forwards
    part = planned(config, limit=4, pilot=str(pilot))
    assert part.work.samples == 4 and part.work.forwards < exact.forwards


@pytest.mark.slow
def test_a_pilot_of_some_samples_stands_for_the_rest(config: Path, pilot: Path, tmp_path: Path) -> None:
    """The first samples are read back, the rest counts as much as they took of their most."""
    part = shutil.copytree(pilot, tmp_path / "part")
    kept = sorted(read_records(pilot)["sample_id"].unique())[:3]
    for file in parts(part):
        table = pq.read_table(file)
        pq.write_table(table.filter(pa.compute.is_in(table["sample_id"], pa.array(kept))), file)
    plan, whole = planned(config, pilot=str(part)), planned(config, pilot=str(pilot))
    assert 0 < plan.work.known < 1 and plan.work.forwards == pytest.approx(whole.work.forwards, rel=0.1)
    assert plan.seconds is not None and whole.seconds is not None
    assert plan.seconds.low <= plan.seconds.expected <= plan.seconds.high
    assert plan.seconds.expected == pytest.approx(whole.seconds.expected, rel=0.1)


@pytest.mark.slow
def test_methods_that_the_pilot_lacks_count_at_most(config: Path, pilot: Path, tmp_path: Path) -> None:
    """As where a run grows after its pilot. With adaptive curves a pilot without them is of no use."""
    part = shutil.copytree(pilot, tmp_path / "part")
    for file in parts(part):
        table = pq.read_table(file)
        pq.write_table(table.filter(pa.compute.not_equal(table["method"], "gradient")), file)
    provenance = json.loads((part / "provenance.json").read_text())
    provenance["methods"].remove("gradient")
    (part / "provenance.json").write_text(json.dumps(provenance))
    plan, whole = planned(config, pilot=str(part)), planned(config, pilot=str(pilot))
    assert plan.lacking == ["gradient"] and not whole.lacking
    assert whole.work.forwards <= plan.work.forwards <= planned(config).work.forwards
    lines = list(plan_lines(plan, False, ["--config=c.yaml"]))
    assert lines[0] == "passes, expected" and any(line.endswith("at most: gradient") for line in lines)
    with pytest.raises(ValueError, match="lacks gradient of the config"):
        planned(config, steps="adaptive", pilot=str(part))


@pytest.mark.slow
def test_what_the_command_prints(config: Path, pilot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", "--config", str(config), "--pilot", str(pilot), "--gpus", "4", "--limit", "5"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("sbatch ")]
    assert line == f"sbatch --array=0-3 --time=00:10:00 slurm/eval.sh {config} --limit=5"
    assert "passes, exact" in printed and "rank-hours [95 %]" in printed and "ten patients or more" in printed
    assert not (config.parent / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "provenance.json").unlink(), "has no provenance.json"),
        (lambda run: (run / "history.jsonl").unlink(), "no start came to an end"),
        (lambda run: _other_model(run / "provenance.json"), "was run with another model (their-model)"),
        (lambda run: shutil.rmtree(run), "no such run directory"),
    ],
    ids=["no run", "older version", "other model", "missing"],
)
def test_a_pilot_that_is_of_no_use_is_one_line(
    config: Path,
    pilot: Path,
    tmp_path: Path,
    spoil: Callable[[Path], object],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = shutil.copytree(pilot, tmp_path / "run")
    spoil(run)
    assert main(["plan", "--config", str(config), "--pilot", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def _other_model(file: Path) -> None:
    content = json.loads(file.read_text())
    content["model"] |= {"hash": "0", "source": "their-model"}
    file.write_text(json.dumps(content))


def test_a_plan_without_data_is_one_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", str(config), "--data.manifest", "nowhere.parquet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "nowhere.parquet: manifest not found" in error
    assert main(["plan", "--config", str(config), "--gpus", "0"]) == 2
    assert "gpus must be at least 1" in capsys.readouterr().err


def test_a_method_that_the_bundled_model_cannot_run_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Method, vlm: Any) -> None:
        raise ValueError("another model's weights")

    monkeypatch.setattr("cxr_faith.attribution.gradients.Gradient.check", refuse)
    plan = planned(config, limit=1)
    assert plan.maps.unknown == ("gradient",) and plan.maps.measured({"gradient": (1.0, 1.0)}).unknown == ()
    assert any("gradient: its passes are not known" in line for line in plan_lines(plan, False, ["--config=c.yaml"]))


def test_a_long_run_goes_back_into_the_queue(config: Path) -> None:
    plan = planned(config, limit=1, peak=1e-9)
    assert plan.job_seconds == LONGEST_JOB
    lines = list(plan_lines(plan, True, ["--config=c.yaml"]))
    assert "sbatch --time=24:00:00 slurm/eval.sh c.yaml" in lines[-2] and "resumes" in lines[-1]
    assert "  adaptive curves stop before that; a pilot tells by how much" in lines
    assert Shape(ModelConfig(), 144).memory(64) > Shape(ModelConfig(), 144).memory(16) > 0


def test_rate_and_its_error() -> None:
    """A ratio of sums over batches, beside the same from the batches themselves."""
    rng = np.random.default_rng(0)
    forwards = rng.integers(100, 300, 12)
    seconds = 0.01 * forwards + rng.normal(0, 0.1, 12)
    batches = [Pace(2, 1, 4, f, s, s**2, f**2, s * f) for f, s in zip(forwards.tolist(), seconds.tolist(), strict=True)]
    pace = sum(batches, Pace())
    rate = seconds.sum() / forwards.sum()
    error = np.sqrt(12 / 11 * ((seconds - rate * forwards) ** 2).sum()) / forwards.sum()
    assert pace.rate == pytest.approx(rate, abs=1e-12) and pace.rate_error == pytest.approx(error, rel=1e-9)
    assert pace.batches == 12 and pace.samples == 48 and pace.ranks == 2
    assert Pace.from_dict(pace.to_dict() | {"later": 1}).rate == pytest.approx(rate, rel=1e-4)
    with pytest.raises(ValueError, match="not a number"):
        Pace.from_dict({"seconds": "many"})


def test_patients_needed_against_the_reference() -> None:
    """Against the sum patient by patient, and against a simulation: about four of five trials find the difference."""
    rng = np.random.default_rng(1)
    patients = np.array([f"p{n}" for n in rng.integers(0, 20, 90)])
    values, weights = rng.normal(0.1, 0.5, 90), rng.uniform(1, 9, 90)
    count = patients_needed(values, patients, weights, 0.1)
    assert count == power.patients_needed(values, patients, weights, 0.1)
    assert patients_needed(values, patients, weights, 0.05) == pytest.approx(4 * count, rel=0.01)
    spread = 0.3
    one_each = patients_needed(rng.normal(0, spread, 20_000), np.arange(20_000), np.ones(20_000), 0.05)
    trials = rng.normal(0.05, spread, (2_000, one_each))
    z = trials.mean(1) / trials.std(1, ddof=1) * np.sqrt(one_each)
    assert np.mean(z > 1.96) == pytest.approx(0.8, abs=0.03)


def test_needs_of_each_pair() -> None:
    """Pairs of methods, not of controls, on the samples that count for all of them; none for nine patients."""
    rng, rows = np.random.default_rng(2), []
    for patient in range(12):
        for method, spread in (("a", 0.1), ("b", 0.1), ("c", 0.6), ("center", 0.1)):
            srg = 0.5 + rng.normal(0, spread)
            status = "degenerate" if patient == 11 and method == "a" else "ok"
            setting = ("blur:0.1", "answer", "pixels", "none")
            rows.append((f"s{patient}", method, *setting, f"p{patient}", "i", status, srg, 2.0))
    names = ["sample_id", "method", "substrate", "target", "space", "condition", "patient_id", "image_id", "status"]
    frame = pd.DataFrame(rows, columns=[*names, "srg", "effect"])
    listed = needs(frame, ["a", "b", "c"], 0.1)
    assert [need.pair for need in listed][0] == ("a", "b") and len(listed) == 3
    wide = frame[frame["sample_id"].ne("s11")].pivot(index="sample_id", columns="method", values="srg")
    expected = power.patients_needed(list(wide["a"] - wide["b"]), list(wide.index), [2.0] * len(wide), 0.1)
    assert listed[0].patients == expected
    assert needs(frame[frame["patient_id"].isin([f"p{n}" for n in range(9)])], ["a", "b"], 0.1) == []


def test_hours_of_short_and_long_runs() -> None:
    assert [_hours(seconds) for seconds in (0.04, 36, 5400, 720_000)] == ["under 0.01", "0.01", "1.5", "200"]
