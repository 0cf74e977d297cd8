"""The checklist: on the bundled model all the way, and each check on records or models with that fault."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxr_faith.__main__ import main
from cxr_faith.attribution import AttributionBatch
from cxr_faith.pipeline.doctor import Check, failed, graded, record_checks, render_doctor
from cxr_faith.pipeline.model_checks import _both_directions, _full_product, _yes_no
from cxr_faith.records import RecordWriter, read_records
from cxr_faith.vlm import Target
from tests.report.conftest import make_rows
from tests.runs import write_config

METHODS = ("chefer", "attention", "integrated_gradients")


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    RecordWriter(tmp_path, rank=0, start=0).write([row for row in make_rows() if row["status"] != "invalid"])
    return read_records(tmp_path)


def checks(frame: pd.DataFrame) -> dict[str, Check]:
    return {check.name: check for check in record_checks(frame, METHODS)}


def test_good_records_pass(frame: pd.DataFrame) -> None:
    found = checks(frame)
    assert {
        found[name].status for name in ("accuracy", "rows valid", "curves finite", "methods score differently")
    } == {"pass"}
    assert found["agreement of the methods (Spearman)"].status == "warn"  # the maps of these records are noise
    assert not failed(list(found.values()))


@pytest.mark.parametrize(
    ("name", "status", "change"),
    [
        ("accuracy", "warn", {"correct": False}),
        ("rows valid", "fail", {"status": "invalid"}),
        ("coverage", "fail", {"status": "degenerate"}),
        ("random deletion AUC", "warn", {"deletion_auc": 0.9}),
        ("moves the wrong way", "warn", {"monotonicity_violations": 0.45}),
        ("methods score differently", "fail", {"deletion_auc": 0.4, "insertion_auc": 0.6}),
        ("calibration error (ECE)", "warn", {"p_yes": 0.99}),
    ],
)
def test_each_fault_is_found(frame: pd.DataFrame, name: str, status: str, change: dict[str, object]) -> None:
    assert checks(frame)[name].status != status
    found = checks(frame.assign(**change))[name]
    assert found.status == status and found.advice


def test_two_methods_with_the_same_scores_are_named(frame: pd.DataFrame) -> None:
    copy = frame[frame["method"].eq("chefer")].assign(method="attention")
    found = checks(pd.concat([frame[frame["method"].ne("attention")], copy], ignore_index=True))
    assert found["methods score differently"].status == "warn"
    assert found["methods score differently"].figure == "the same AUCs: attention and chefer"


def test_curves_that_are_not_finite_fail(frame: pd.DataFrame) -> None:
    curves = [np.where(np.arange(9) == 3, np.nan, curve) for curve in frame["deletion_scores"]]
    assert checks(frame.assign(deletion_scores=curves))["curves finite"].status == "fail"


def test_what_cannot_be_measured_is_a_warning() -> None:
    assert graded("x", float("nan"), False, False, "").status == "warn"
    assert [graded("x", 1.0, *judged, "do").status for judged in ((True, True), (False, True), (False, False))] == [
        "pass",
        "warn",
        "fail",
    ]
    assert render_doctor([Check("x", "fail", "1", "do")]).row_count == 1


def test_a_causal_image_block_and_shared_tokens_are_found(random_vlm, pictures, monkeypatch) -> None:
    pixels, prompt = pictures(random_vlm, 1), random_vlm.prompt("Is there a nodule?")
    batch, target = AttributionBatch(pixels, [prompt], ["a"]), Target("margin")
    assert _both_directions(random_vlm, batch, target)[1] == "pass"
    assert _full_product(random_vlm, batch, target)[1] == "pass"
    assert _yes_no(random_vlm)[1] == "pass"
    inner = random_vlm.model.model
    forward = inner.forward
    monkeypatch.setattr(inner, "forward", lambda *a, token_type_ids=None, **k: forward(*a, **k))
    assert _both_directions(random_vlm, batch, target)[1] == "fail"
    monkeypatch.setattr(random_vlm, "no_ids", random_vlm.yes_ids)
    assert _yes_no(random_vlm)[1] == "fail"


@pytest.mark.slow
def test_the_command_on_the_bundled_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--config", "configs/demo.yaml", "--run_dir", str(tmp_path), "--samples", "2"])
    out = capfd.readouterr().out
    result = json.loads((tmp_path / "doctor.json").read_text())
    assert status == 0 and result["ok"], out
    names = {check["name"]: check["status"] for check in result["checks"]}
    for name in (
        "one BOS token",
        "mirror identity",
        "chefer row is the full product's",
        "restart safe",
        "curves finite",
    ):
        assert names[name] == "pass"
    assert {path.name for path in tmp_path.iterdir()} == {"doctor.json"}


@pytest.mark.slow
def test_a_failed_check_is_exit_status_1(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Three of five pictures are not there."""
    config, manifest = write_config(tmp_path, samples=5), tmp_path / "manifest.parquet"
    rows = pq.read_table(manifest)
    paths = [path if index < 2 else "gone.png" for index, path in enumerate(rows["image_path"].to_pylist())]
    column = rows.schema.get_field_index("image_path")
    pq.write_table(rows.set_column(column, "image_path", pa.array(paths)), manifest)
    assert main(["doctor", "--config", str(config), "--run_dir", str(tmp_path / "run"), "--samples", "5"]) == 1
    out, result = capfd.readouterr().out, json.loads((tmp_path / "run" / "doctor.json").read_text())
    assert not result["ok"] and "first reason" in out
    assert [check["name"] for check in result["checks"] if check["status"] == "fail"] == ["rows valid"]
