"""The event files as TensorBoard reads them."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard import program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from cxr_faith.pipeline import tensorboard
from cxr_faith.pipeline.live import LiveScalars
from cxr_faith.pipeline.tensorboard import write_tensorboard
from cxr_faith.protocol import Protocol
from cxr_faith.records import RecordWriter, read_records
from cxr_faith.report.summary import write_summary
from tests.report.browser import chromium
from tests.report.conftest import make_rows
from tests.runs import SAMPLES, run_here


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    RecordWriter(folder, rank=0, start=0).write(make_rows())
    pictures = folder / "report" / "pictures"
    pictures.mkdir(parents=True)
    Image.new("RGB", (30, 20), (200, 10, 10)).save(pictures / "00-methods.png")
    return folder


def load(run_dir: Path, show_images: bool = False) -> EventAccumulator:
    module: Any = SimpleNamespace(protocol=Protocol(), model_config=SimpleNamespace(path="bundled"))
    write_tensorboard(run_dir, write_summary(run_dir), module, show_images)
    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0, "images": 0})
    return events.Reload()


def test_scalars_curves_and_bands(run_dir: Path) -> None:
    events = load(run_dir)
    summary = json.loads((run_dir / "summary.json").read_text())
    board = next(b for b in summary["boards"] if b["slice"] == "all")
    for row in board["rows"]:
        place = f"all/blur_0.1/{row['method']}"
        if row["srg"] is not None:
            (point,) = events.Scalars(f"srg/{place}")
            assert point.value == pytest.approx(row["srg"], abs=1e-6)
        curve = events.Scalars(f"deletion_curve/{place}")
        assert [e.step for e in curve] == [round(100 * x) for x in row["curves"]["x"]]
        low, high = (events.Scalars(f"deletion_curve/{place}/{end}") for end in ("low", "high"))
        assert all(a.value <= b.value + 1e-6 <= c.value + 2e-6 for a, b, c in zip(low, curve, high, strict=True))


def test_the_custom_layout_names_tags_that_exist(run_dir: Path) -> None:
    events = load(run_dir)
    layout = layout_pb2.Layout()
    layout.ParseFromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    tags, known = [], set(events.Tags()["scalars"])
    for category in layout.category:
        for chart in category.chart:
            for pattern in chart.multiline.tag:  # which TensorBoard takes as regular expressions
                (tag,) = (name for name in known if re.match(pattern, name))
                tags.append(tag)
            for series in chart.margin.series:
                tags += [series.value, series.lower, series.upper]
    assert {category.title for category in layout.category} == {"curves", "bands"}
    assert len(tags) > 20 and set(tags) <= known


def test_histograms_by_finding_and_settling_gaps(run_dir: Path) -> None:
    events = load(run_dir)
    records = read_records(run_dir)
    mine = records[records["method"].eq("chefer") & records["status"].eq("ok")]
    for name, rows in (("all", mine), ("finding_nodule", mine[mine["finding"].eq("nodule")])):
        (entry,) = events.Histograms(f"srg_distribution/{name}/blur_0.1/chefer")
        assert entry.histogram_value.num == len(rows)
        assert entry.histogram_value.sum == pytest.approx(rows["srg"].sum())
    settling = events.Scalars("settling_gap_srg_center/all/blur_0.1/chefer")
    gaps = mine.sort_values("sample_id")["gap_srg_center"].to_numpy()
    np.testing.assert_allclose([e.value for e in settling], [gaps[: i + 1].mean() for i in range(len(gaps))], rtol=1e-5)


def test_text_hparams_and_pictures_only_when_asked(run_dir: Path) -> None:
    events = load(run_dir)
    text = events.Tensors("leaderboard/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "# Faithfulness summary" in text and "integrated_gradients" in text
    assert "<b>" not in text and events.Tensors("alerts/text_summary")
    assert any(tag.startswith("_hparams_/") for tag in events.summary_metadata)
    assert "hparam/srg/chefer" in events.Tags()["scalars"]
    assert events.Tags()["images"] == []
    assert load(run_dir, show_images=True).Tags()["images"] == ["gallery/00-methods"]


@pytest.mark.slow
def test_a_run_shows_its_gaps_while_they_settle(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveScalars, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(tensorboard, "remove_live", lambda run_dir: None)  # as it is while the run goes
    alarmed = ("--monitor.window", "2", "--monitor.deletion_auc", "-9", "--show_images", "true")
    assert run_here(small, tmp_path, "--limit", "4") == 0
    assert run_here(small, tmp_path, *alarmed) == 0
    live = EventAccumulator(str(tmp_path / "tensorboard" / "live")).Reload()
    records = read_records(tmp_path)
    mine = records[records["method"].eq("chefer") & records["status"].eq("ok")]
    points = live.Scalars("live_gap_srg_center/blur_0.1/chefer")
    assert [point.step for point in points][-1] == SAMPLES
    assert points[-1].value == pytest.approx(mine["gap_srg_center"].mean(), rel=1e-5)
    coverage = {point.step: point.value for point in live.Scalars("live_coverage/blur_0.1/chefer")}
    assert set(coverage) >= {*range(1, SAMPLES + 1)} and coverage[SAMPLES] == pytest.approx(len(mine) / SAMPLES)
    assert live.Scalars("live/forwards_per_second")[-1].value > 0
    whole = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert "alerts/deletion_auc/text_summary" in whole.Tags()["tensors"] and whole.Tags()["images"]
    assert {"srg_distribution/all/blur_0.1/chefer"} <= set(whole.Tags()["histograms"])


@pytest.mark.slow
def test_tensorboard_shows_it_in_a_browser(run_dir: Path, tmp_path: Path) -> None:
    load(run_dir)
    server = program.TensorBoard()
    server.configure(argv=[None, "--logdir", str(run_dir / "tensorboard"), "--port", "0", "--host", "127.0.0.1"])
    address = server.launch()
    with chromium(tmp_path / "profile") as browser:
        browser.visit(f"{address}#timeseries")
        browser.until("document.body.innerText.includes('deletion_auc')", seconds=120)
        tags = browser.run("fetch('data/plugin/scalars/tags').then((answer) => answer.json())")
        (found,) = tags.values()
        assert "srg/all/blur_0.1/chefer" in found and "deletion_curve/all/blur_0.1/chefer/low" in found
        layout = browser.run("fetch('data/plugin/custom_scalars/layout').then((answer) => answer.json())")
        assert {category["title"] for category in layout["category"]} == {"curves", "bands"}
