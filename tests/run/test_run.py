"""A run directory, whole: one rank and two give the same records, the same summary and the same means."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cxr_faith
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.data.sample import Sample
from cxr_faith.metrics.localization import LOCALIZATION_COLUMNS
from cxr_faith.protocol import Protocol
from cxr_faith.records import RECORD_SCHEMA
from cxr_faith.report.history import read_history
from cxr_faith.run.method_set import MethodSet
from cxr_faith.run.predict import failed
from cxr_faith.scoring import DEFINITIONS
from cxr_faith.summary.metric_rows import MetricRow, recorded_rows
from tests.forked import start_ranks, wait_for_ranks
from tests.runs import ROOT, VOLATILE, assert_same, command, environment, ranks, records, run_here

WATCHED = [sys.executable, str(ROOT / "tests" / "cli" / "no_network.py")]

CONFIG = """
trainer: {{accelerator: cpu, devices: 1}}
model:
  methods: {{chefer: {{}}, grad_x_input: {{}}, random_map: {{}}, oracle: {{}}}}
  protocol: {{steps: 2, random_orders: 2, substrates: ["blur:0.1", "mean"], controls: none}}
data: {{manifest: {manifest}, data_root: {root}, batch_size: 2}}
"""


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 7 samples of the bundled phantoms, all kinds of questions."""
    return some(7, tmp_path_factory.mktemp("manifests"))


def some(count: int, folder: Path) -> Path:
    """A manifest of the first yes/no questions and the first two others."""
    file = folder / f"{count}.parquet"
    table = pq.read_table(bundled_manifest())
    kinds = table.column("kind").to_pylist()
    closed = [row for row, kind in enumerate(kinds) if kind == "yes_no"]
    other = [row for row, kind in enumerate(kinds) if kind != "yes_no"]
    pq.write_table(table.take(pa.array(sorted([*closed[: count - 2], *other[:2]]))), file)
    return file


def config(manifest: Path, folder: Path) -> Path:
    file = folder / "config.yaml"
    file.write_text(CONFIG.format(manifest=manifest, root=bundled_manifest().parent))
    return file


@pytest.fixture(scope="module")
def alone(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of one uninterrupted rank."""
    folder = tmp_path_factory.mktemp("alone")
    assert run_here(config(samples, folder), folder / "run") == 0
    return folder / "run"


@pytest.fixture(scope="module")
def on_two_ranks(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of two ranks, of which Lightning starts the second; a call to another machine ends either."""
    folder = tmp_path_factory.mktemp("on_two_ranks")
    variables = environment()
    del variables["HF_HUB_OFFLINE"]  # a local model must work without it
    words = command(config(samples, folder), folder / "run", *ranks(2), "--data.batch_size", "3")[3:]
    done = subprocess.run([*WATCHED, *words], env=variables, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "output").write_text(done.stdout)
    return folder / "run"


def test_run_directory_is_complete(alone: Path) -> None:
    summary = json.loads((alone / "summary.json").read_text())
    assert summary["n_samples"] == 7 and not summary["partial"]
    frame = records(alone)
    assert list(frame.columns) == [name for name in RECORD_SCHEMA.names if name not in VOLATILE]
    assert set(frame["method"]) == {"center", "chefer", "grad_x_input", "random_map", "oracle", "random"}
    assert set(frame["substrate"]) == {"blur:0.1", "mean"}
    assert frame.groupby(["sample_id", "method", "substrate"]).size().eq(1).all()
    own = frame[frame["own_substrate"].eq(True)]
    assert set(zip(own["method"], own["substrate"], strict=True)) == {("grad_x_input", "blur:0.1")}
    for name in ("config.yaml", "provenance.json", "summary.md", "report/index.html"):
        assert (alone / name).stat().st_size > 0
    assert list((alone / "tensorboard").glob("events.out.tfevents.*"))
    assert not (alone / "report" / "pictures").exists()


def test_records_name_the_picture_by_its_content(alone: Path) -> None:
    """The decoded picture, before it is resized: two models of other input sizes give the same hash."""
    frame = records(alone)
    for row in frame.drop_duplicates("image_id").itertuples():
        pixels = load_image(row.image_path, bundled_manifest().parent)
        content = str(pixels.shape[:2]).encode() + pixels[..., 0].tobytes()
        scored = frame[frame["image_id"].eq(row.image_id) & frame["status"].ne("invalid")]
        assert set(scored["picture_hash"]) <= {hashlib.blake2b(content, digest_size=16).hexdigest()}
    assert frame["picture_hash"].nunique() == frame["image_id"].nunique() > 1


def test_a_run_notes_when_it_began_how_long_it_took_and_by_which_command(on_two_ranks: Path) -> None:
    """One start, whatever the number of ranks."""
    history = read_history(on_two_ranks)
    assert history is not None and (history.starts, history.ended) == (1, 1)
    assert history.command.startswith("cxr-faith evaluate --config ") and "--trainer.devices 2" in history.command
    age = (datetime.now(UTC) - datetime.fromisoformat(history.first)).total_seconds()
    assert 0 < history.seconds <= age + 1 < 3600
    page = (on_two_ranks / "report" / "index.html").read_text()
    assert history.text in page and history.text not in (on_two_ranks / "summary.md").read_text()


def test_two_ranks_equal_one(on_two_ranks: Path, alone: Path) -> None:
    assert_same(on_two_ranks, alone)
    assert len(list((on_two_ranks / "records").glob("*.parquet"))) == 2  # one file for each rank

    # torchmetrics, reduced over the two ranks, agree with the means over the merged records.
    frame = records(on_two_ranks)
    board = json.loads((on_two_ranks / "metrics.json").read_text())["rows"]
    settings = {(metrics["substrate"], metrics["method"]) for metrics in board}
    assert settings == set(zip(frame["substrate"], frame["method"], strict=True))
    for metrics in board:
        rows = frame[frame["substrate"].eq(metrics["substrate"]) & frame["method"].eq(metrics["method"])]
        assert metrics["coverage"] == pytest.approx(rows["status"].eq("ok").mean())
        faithful = ("deletion_auc", "insertion_auc", "srg", "drop_50", "gap_srg_random", "gap_deletion_center")
        for name in (*faithful, *LOCALIZATION_COLUMNS):
            value = np.nan if metrics[name] is None else metrics[name]
            known = rows[rows[name].notna()].astype({name: float, "effect": float})
            weights = known["effect"] if name in faithful else None  # in units of the effect: weighted by it
            mean = np.average(known[name], weights=weights) if len(known) else np.nan
            assert value == pytest.approx(mean, abs=1e-12, nan_ok=True), (metrics["substrate"], metrics["method"], name)


def test_the_verdict_comes_first_and_one_board_follows(on_two_ranks: Path) -> None:
    output = on_two_ranks.with_name("output").read_text()
    assert output.count("\nverdict ") == output.count("all samples ·") == 1  # from rank 0 only
    assert output.index("\nverdict ") < output.index("srg ↑")
    assert "torchmetrics over all ranks" not in output  # metrics.json has them
    assert "do not trust" not in output
    assert list((on_two_ranks / "tensorboard" / "chefer").glob("*.hparams"))


def test_a_run_says_where_torchmetrics_and_records_differ(
    samples: Path, alone: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def off_by_a_little(pieces: Iterable[pd.DataFrame]) -> dict[tuple[str, str], MetricRow]:
        rows = recorded_rows(pieces)
        row = rows["mean", "chefer"]
        return rows | {("mean", "chefer"): replace(row, coverage=row.coverage + 1e-8)}

    monkeypatch.setattr("cxr_faith.run.evaluate.recorded_rows", off_by_a_little)
    run_dir = shutil.copytree(alone, tmp_path / "run")
    assert run_here(config(samples, tmp_path), run_dir) == 0  # every sample is done: the records are read back
    warnings = [line for line in capfd.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1 and "coverage of chefer under mean" in warnings[0] and "do not trust" in warnings[0]


@pytest.mark.slow
def test_nothing_is_sent_anywhere(on_two_ranks: Path) -> None:
    probe = subprocess.run([*WATCHED, "probe"], env=environment(), capture_output=True, text=True)
    assert probe.returncode == 99 and "192.0.2.1" in probe.stderr  # the watch works
    assert (on_two_ranks / "report" / "index.html").exists()


@pytest.mark.slow
def test_two_ranks_equal_one_with_nine_samples(tmp_path: Path) -> None:
    file, run, alone = config(some(9, tmp_path), tmp_path), tmp_path / "run", tmp_path / "alone"
    assert run_here(file, alone) == 0
    wait_for_ranks(start_ranks(file, run, 2, tmp_path / "output"), tmp_path / "output")
    assert_same(run, alone)
    assert json.loads((run / "summary.json").read_text())["n_samples"] == 9


def test_another_runs_directory_is_refused(
    samples: Path, alone: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (alone / "provenance.json").read_bytes()
    assert run_here(config(samples, tmp_path), alone, "--model.protocol.seed", "1") == 2
    error = capfd.readouterr().err.strip()
    assert error.count("\n") == 0 and "other perturbation" in error
    assert (alone / "provenance.json").read_bytes() == before


def test_a_run_is_not_continued_with_scores_of_another_meaning(
    samples: Path, alone: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cxr_faith.run.identity.DEFINITIONS", DEFINITIONS + 1)
    before = (alone / "provenance.json").read_bytes()
    assert run_here(config(samples, tmp_path), alone) == 2
    error = capfd.readouterr().err.strip()
    assert error.count("\n") == 0 and "other perturbation" in error
    assert (alone / "provenance.json").read_bytes() == before


def test_the_library_gives_the_same_numbers(alone: Path) -> None:
    frame = records(alone)
    row = frame[frame["method"].eq("chefer") & frame["substrate"].eq("mean") & frame["map"].notna()].iloc[0]
    explainer = cxr_faith.Explainer.from_pretrained(cxr_faith.bundled_model(), device="cpu")
    picture = bundled_manifest().parent / row["image_path"]
    explanation = explainer.explain(picture, row["question"], "chefer", kind=row["kind"], image_id=row["image_id"])
    scores = explainer.evaluate(explanation, "mean", steps=2, random_orders=2)
    np.testing.assert_array_equal(explanation.map.ravel(), row["map"])
    np.testing.assert_array_equal(scores.order, row["order"])
    np.testing.assert_array_equal(scores.deletion_scores, row["deletion_scores"])
    assert scores.srg_logit == row["srg_logit"] and scores.status == row["status"]


def test_bad_samples_are_recorded_and_the_run_goes_on(samples: Path, tmp_path: Path) -> None:
    table = pq.read_table(samples).slice(0, 1)
    good = table.to_pylist()[0]
    root = tmp_path / "pictures"
    (root / "images").mkdir(parents=True)
    picture = (bundled_manifest().parent / good["image_path"]).read_bytes()
    (root / "images" / "good.jpg").write_bytes(picture)
    (root / "images" / "cut.jpg").write_bytes(picture[: len(picture) // 2])
    (tmp_path / "outside.jpg").write_bytes(picture)
    changes = {
        "good": {"image_path": "images/good.jpg"},
        "missing": {"image_path": "images/none.jpg"},
        "cut": {"image_path": "images/cut.jpg"},
        "outside": {"image_path": "../outside.jpg"},
        "kind": {"image_path": "images/good.jpg", "kind": "yesno"},
    }
    plain = good | {"finding_mask_path": None, "boxes": [], "anatomy_masks": []}
    rows = [plain | change | {"sample_id": name, "image_id": name} for name, change in changes.items()]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), tmp_path / "manifest.parquet")
    file = config(tmp_path / "manifest.parquet", tmp_path)
    assert run_here(file, tmp_path / "run", "--data.data_root", str(root)) == 0

    frame = records(tmp_path / "run")
    bad = frame[frame["sample_id"].ne("good")]
    assert bad["status"].eq("invalid").all() and frame.loc[frame["sample_id"].eq("good"), "status"].ne("invalid").all()
    reasons = bad.groupby("sample_id")["reason"].first()
    for name, words in {"missing": "none.jpg", "cut": "cut.jpg", "outside": "outside", "kind": "yesno"}.items():
        assert words in reasons[name] and "\n" not in reasons[name]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    failed = {row["sample_id"] for row in summary["failures"]["first"]}
    assert summary["n_samples"] == 5 and failed == set(reasons.index)


def test_records_name_the_space() -> None:
    for space, protocol in {"pixels": Protocol(), "tokens": Protocol(space="tokens")}.items():
        methods = MethodSet({"edges": {}}, protocol)
        rows = failed(methods, Sample("s", question="Is there a nodule?"), protocol, "no picture")
        assert {row["space"] for row in rows} == {space}
        assert [row["method"] for row in rows] == ["center", "edges", "random_map", "random"]
