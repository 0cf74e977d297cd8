"""The checklist: on the bundled model all the way, and each check on records or models with that fault."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cxr_faith.__main__ import main
from cxr_faith.attribution import Attribution, AttributionBatch
from cxr_faith.attribution import gradients as attribution_gradients
from cxr_faith.attribution.relevancy import Chefer
from cxr_faith.checks import doctor, model_checks
from cxr_faith.checks.checklist import Check, failed, graded, render_doctor
from cxr_faith.checks.doctor import _restart, _tensorboard, _unexplained
from cxr_faith.checks.model_checks import (
    _completeness,
    _dtype,
    _full_product,
    _image_attention,
    _mirror,
    _tokens,
    _yes_no,
)
from cxr_faith.checks.record_checks import record_checks
from cxr_faith.protocol import Protocol
from cxr_faith.records import RecordWriter, read_records
from cxr_faith.vlm import Target
from cxr_faith.vlm.reasoning import Reasoning, thought_advice
from tests.runs import write_config
from tests.synthetic import make_rows

METHODS = ("chefer", "attention", "integrated_gradients")


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    RecordWriter(tmp_path, rank=0, start=0).write([row for row in make_rows() if row["status"] != "invalid"])
    return read_records(tmp_path)


def checks(frame: pd.DataFrame) -> dict[str, Check]:
    return {check.name: check for check in record_checks(frame, METHODS)}


def test_good_records_pass(frame: pd.DataFrame) -> None:
    by_name = checks(frame)
    assert {
        by_name[name].status for name in ("accuracy", "rows valid", "curves finite", "methods score differently")
    } == {"pass"}
    assert by_name["agreement of the methods (Spearman)"].status == "warn"  # the maps of these records are noise
    assert not failed(list(by_name.values()))


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
    check = checks(frame.assign(**change))[name]
    assert check.status == status and check.advice


def test_two_methods_with_the_same_scores_are_named(frame: pd.DataFrame) -> None:
    copy = frame[frame["method"].eq("chefer")].assign(method="attention")
    by_name = checks(pd.concat([frame[frame["method"].ne("attention")], copy], ignore_index=True))
    assert by_name["methods score differently"].status == "warn"
    assert by_name["methods score differently"].figure == "the same AUCs: attention and chefer"


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


def test_advice_is_about_what_is_missing(frame: pd.DataFrame) -> None:
    alone = frame[frame["method"].isin(["chefer", "random", "center"])].assign(correct=None, p_yes=np.nan)
    by_name = {check.name: check for check in record_checks(alone, ["chefer"])}
    for name in ("agreement of the methods (Spearman)", "methods score differently"):
        assert by_name[name].figure == "not measured" and "two methods" in by_name[name].advice
    for name in ("accuracy", "calibration error (ECE)"):
        assert by_name[name].figure == "not measured" and "reference answer" in by_name[name].advice


def test_a_causal_image_block_and_shared_tokens_are_found(random_vlm, pictures, monkeypatch) -> None:
    pixels, prompt = pictures(random_vlm, 1), random_vlm.prompt("Is there a nodule?")
    batch, target = AttributionBatch(pixels, [prompt], ["a"]), Target("margin")
    assert _image_attention(random_vlm, batch, target).status == "pass"
    assert _full_product(random_vlm, batch, target).status == "pass"
    assert _yes_no(random_vlm).status == "pass"
    inner = random_vlm.model.model
    forward = inner.forward
    monkeypatch.setattr(inner, "forward", lambda *a, token_type_ids=None, **k: forward(*a, **k))
    assert _image_attention(random_vlm, batch, target).status == "fail"
    monkeypatch.setattr(random_vlm, "looks_ahead", False, raising=False)  # right for a family whose image is causal
    assert _image_attention(random_vlm, batch, target).status == "pass"
    monkeypatch.setattr(random_vlm, "no_ids", random_vlm.yes_ids)
    assert _yes_no(random_vlm).status == "fail"


def test_faults_of_the_prompt_are_found(random_vlm) -> None:
    prompt = random_vlm.prompt("Is there a nodule?")
    bos, *rest = prompt.prefix_ids
    split = (*prompt.prefix_ids[:-3], rest[0], *prompt.prefix_ids[-3:])  # a foreign token inside the block

    def judged(ids: tuple[int, ...], start: int) -> list[str]:
        changed = replace(prompt, prefix_ids=ids, image_start=start)
        case = SimpleNamespace(prompt=changed)
        return [check.status for check in _tokens(random_vlm, case)]

    assert judged(prompt.prefix_ids, prompt.image_start) == ["pass", "pass"]
    assert judged((bos, *prompt.prefix_ids), prompt.image_start + 1) == ["fail", "pass"]
    assert judged(split, prompt.image_start) == ["pass", "fail"]
    assert judged(prompt.prefix_ids[:-1], prompt.image_start) == ["pass", "fail"]


def test_faults_of_the_mathematics_are_found(random_vlm, pictures, monkeypatch) -> None:
    pixels, prompt = pictures(random_vlm, 1), random_vlm.prompt("Is there a nodule?")
    batch, target = AttributionBatch(pixels, [prompt], ["a"]), Target("margin")
    module = SimpleNamespace(protocol=Protocol(("mean",), steps=4, random_orders=2))
    assert _completeness(random_vlm, batch, target).status == "pass"
    assert _mirror(random_vlm, pixels[0], "a", module).status == "pass"
    gradients = attribution_gradients.token_gradients
    monkeypatch.setattr(attribution_gradients, "token_gradients", lambda *a: [one / 3 for one in gradients(*a)])
    assert _completeness(random_vlm, batch, target).status == "fail"
    masks = model_checks.keep_masks
    monkeypatch.setattr(model_checks, "keep_masks", lambda order, k, mode: masks(order, k, "deletion"))
    assert _mirror(random_vlm, pixels[0], "a", module).status == "fail"
    monkeypatch.setattr(Chefer, "attribute", lambda *a: Attribution(torch.rand(1, *random_vlm.grid)))
    assert _full_product(random_vlm, batch, target).status == "fail"


@pytest.mark.parametrize(
    ("dtype", "device", "status"),
    [
        ("float32", "cpu", "pass"),
        ("bfloat16", "cuda", "pass"),
        ("bfloat16", "cpu", "warn"),
        ("float16", "cuda", "fail"),
    ],
)
def test_number_formats(dtype: str, device: str, status: str) -> None:
    vlm = SimpleNamespace(model=SimpleNamespace(dtype=getattr(torch, dtype)), device=torch.device(device))
    assert _dtype(vlm).status == status


def test_faults_of_the_disk_are_found(frame: pd.DataFrame, tmp_path: Path, monkeypatch) -> None:
    assert _restart(frame, frame).status == "pass"
    assert _restart(frame, pd.concat([frame, frame])).status == "fail"
    assert _restart(frame, frame.assign(seconds=frame["seconds"].fillna(0) + 1)).status == "fail"
    assert _tensorboard(tmp_path / "good").status == "pass"
    monkeypatch.setattr(doctor, "SummaryWriter", lambda folder: nullcontext(SimpleNamespace(add_scalar=print)))
    assert _tensorboard(tmp_path / "bad").status == "fail"


def test_maps_on_the_border_are_found(frame: pd.DataFrame) -> None:
    name = "border share of the maps, highest"
    edge = np.zeros((12, 12))
    edge[0] = 1.0
    assert checks(frame)[name].status == "pass"
    assert checks(frame.assign(map=[edge.ravel()] * len(frame)))[name].status == "warn"


def test_the_trial_takes_the_configs_accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the GPU of this machine: `evaluate` would run elsewhere."""

    class TrainerAskedForError(Exception):
        pass

    def trainer(accelerator: str, **options: object) -> None:
        raise TrainerAskedForError(accelerator)

    config = write_config(tmp_path, samples=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(doctor.L, "Trainer", trainer)
    with pytest.raises(TrainerAskedForError, match="^cpu$"):
        main(["doctor", "--config", str(config), "--run_dir", str(tmp_path / "run"), "--samples", "2"])


@pytest.mark.slow
def test_the_command_on_the_bundled_model(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    status = main(["doctor", "--config", "configs/demo.yaml", "--run_dir", str(tmp_path), "--samples", "2"])
    out = capfd.readouterr().out
    result = json.loads((tmp_path / "doctor.json").read_text())
    assert status == 0 and result["ok"], out
    assert not [each for each in recwarn if "across ranks is zero" in str(each.message)]  # of the second start
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
def test_a_model_that_gives_no_answer_is_a_fault_to_tell(tmp_path: Path, capfd, monkeypatch) -> None:
    """A wrong template, say: every answer is neither yes nor no."""
    monkeypatch.setattr("cxr_faith.cases.OFF_FORMAT_MASS", 1.01)
    config = write_config(tmp_path, samples=2)
    assert main(["doctor", "--config", str(config), "--run_dir", str(tmp_path / "run"), "--samples", "2"]) == 1
    checks = {c["name"]: c for c in json.loads((tmp_path / "run" / "doctor.json").read_text())["checks"]}
    assert checks["model"]["status"] == "fail" and "prompt_template" in checks["model"]["advice"]
    assert checks["restart safe"]["status"] == "pass"


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


def test_a_thought_in_place_of_an_answer_is_found(frame: pd.DataFrame) -> None:
    name = "no thought in place of an answer"
    assert checks(frame)[name].status == "pass"
    reason = thought_advice(Reasoning("<unused94>thought\n", "<unused95>"))
    thinking = checks(frame.assign(reason=reason, status="off_format"))[name]
    assert _unexplained(frame.assign(reason=reason)).advice == reason
    assert thinking.status == "fail" and 'vlm.answer_prefix: "<unused94>thought' in thinking.advice
    total = frame["sample_id"].nunique()
    assert thinking.figure == f"{total} of {total} answers open a thought"
