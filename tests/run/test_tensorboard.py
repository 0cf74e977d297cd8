"""The event files as TensorBoard reads them."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard import program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from cxr_faith.metrics.board import COLUMNS, MetricBoard
from cxr_faith.protocol import Protocol
from cxr_faith.records import RecordWriter, read_records
from cxr_faith.report.columns import slice_title
from cxr_faith.report.formats import number
from cxr_faith.run import tensorboard
from cxr_faith.run.live import LiveScalars, run_name
from cxr_faith.run.measured import write_hparams
from cxr_faith.run.tensorboard import UNSMOOTHED, write_tensorboard
from cxr_faith.summary.load import read_summary as load_summary
from cxr_faith.summary.metric_rows import metric_rows
from cxr_faith.summary.summarize import write_summary
from tests.report.browser import chromium
from tests.runs import SAMPLES, run_here
from tests.synthetic import STEPS, make_rows

QUESTION = "Is there a nodule, or a mass: yes or no?"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    RecordWriter(folder, rank=0, start=0).write(make_rows())
    pictures = folder / "report" / "pictures"
    pictures.mkdir(parents=True)
    Image.new("RGB", (30, 20), (200, 10, 10)).save(pictures / "00-methods.png")
    listed = {"file": "00.jpg", "methods": "00-methods.png", "question": QUESTION, "region": [0, 0, 1, 1]}
    (pictures / "pictures.json").write_text(json.dumps({"p1/s00": listed}))
    return folder


def write(run_dir: Path, show_images: bool = False) -> None:
    module: Any = SimpleNamespace(protocol=Protocol(), model_config=SimpleNamespace(path="bundled"))
    frame = read_records(run_dir, COLUMNS)
    board = MetricBoard(dict.fromkeys(zip(frame["substrate"], frame["method"], strict=True)), STEPS)
    board.update_frame(frame)
    write_hparams(run_dir, module, metric_rows(board.compute(torch.device("cpu"))))
    write_tensorboard(run_dir, write_summary(run_dir), show_images)


def load(run_dir: Path, run: str = ".") -> EventAccumulator:
    guidance = {"scalars": 0, "tensors": 0, "images": 0}
    return EventAccumulator(str(run_dir / "tensorboard" / run), size_guidance=guidance).Reload()


@pytest.fixture(scope="module")
def written(run_dir: Path) -> Path:
    write(run_dir)
    return run_dir


def test_scalars_curves_and_bands(written: Path) -> None:
    summary = json.loads((written / "summary.json").read_text())
    board = next(b for b in summary["boards"] if b["slice"] == "all")
    assert len(board["rows"]) > 4
    for row in board["rows"]:
        events = load(written, row["method"])
        curve = events.Scalars("deletion_curve/all/blur_0.1")
        assert [e.step for e in curve] == [round(100 * x) for x in row["curves"]["x"]]
        assert [e.value for e in curve] == pytest.approx(row["curves"]["deletion"])
        low, high = (events.Scalars(f"deletion_curve/all/blur_0.1/{end}") for end in ("low", "high"))
        assert all(a.value <= b.value + 1e-6 <= c.value + 2e-6 for a, b, c in zip(low, curve, high, strict=True))


def test_every_scalar_is_a_series(written: Path) -> None:
    """A single number is a cell of a table, not a chart with one dot; only the HPARAMS tab needs it as a scalar."""
    for path in (written / "tensorboard").iterdir():
        events = load(written, path.name) if path.is_dir() else load(written)
        series = {tag: len(events.Scalars(tag)) for tag in events.Tags()["scalars"] if not tag.startswith("hparam/")}
        assert all(points > 1 for points in series.values()), series


def text_of(run_dir: Path, tag: str) -> str:
    return load(run_dir).Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()


def test_the_slices_are_one_table(written: Path) -> None:
    summary = load_summary(written)
    lines = text_of(written, "slices").splitlines()
    header, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    table = {tuple(cells[:2]): dict(zip(header, cells, strict=True)) for cells in body[1:]}
    assert len(table) == len(summary.boards) > 8 and set(header[4:]) == set(summary.methods)
    for board in summary.boards:
        cells = table[slice_title(board.slice), board.substrate]
        assert cells["samples"].endswith(f"of {board.n_samples}")
        assert cells["score"] == ("srg logit" if board.by_scored else "srg")
        for row in board.rows:
            assert cells[row.method] == number(row.value(board.headline))


@pytest.mark.parametrize("tag", ["verdict", "leaderboard", "slices", "alerts"])
def test_text_is_wrapped_between_words(written: Path, tag: str) -> None:
    """TensorBoard squeezes a Markdown table until its words break; it never breaks a line of code."""
    html = markdown_to_safe_html(text_of(written, tag))
    assert "<table" not in html
    if tag in ("verdict", "alerts"):
        assert "<pre>" not in html
        return
    assert "<p>" not in html and "<li>" not in html  # a wide table would carry paragraphs beyond the page
    blocks = [block.split("</code>")[0].splitlines() for block in html.split("<pre><code>")[1:]]
    assert all(len(line) <= 100 for lines in blocks for line in lines if not line.startswith("|"))
    assert sum(lines[0].startswith("| ") for lines in blocks) == {"leaderboard": 9, "slices": 1}[tag]
    assert "Believe" not in html and "Note:" not in html


def test_the_custom_layout_names_tags_that_exist(written: Path) -> None:
    layout = layout_pb2.Layout()
    layout.ParseFromString(load(written).Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    tags, known = [], set(load(written, "chefer").Tags()["scalars"])
    for category in layout.category:
        for chart in category.chart:
            for pattern in chart.multiline.tag:  # which TensorBoard takes as regular expressions
                (tag,) = (name for name in known if re.match(pattern, name))
                tags.append(tag)
            for series in chart.margin.series:
                tags += [series.value, series.lower, series.upper]
    assert [category.title.split()[0] for category in layout.category] == ["curves", "bands"]
    assert len(tags) > 7 and set(tags) <= known


def test_histograms_by_finding_and_settling_gaps(written: Path) -> None:
    events, records = load(written, "chefer"), read_records(written)
    mine = records[records["method"].eq("chefer") & records["status"].eq("ok")]
    for name, rows in (("all", mine), ("finding_nodule", mine[mine["finding"].eq("nodule")])):
        (entry,) = events.Histograms(f"srg_distribution/{name}/blur_0.1")
        assert entry.histogram_value.num == len(rows)
        assert entry.histogram_value.sum == pytest.approx(rows["srg"].sum())
    settling = events.Scalars("settling_gap_srg_center/all/blur_0.1")
    gaps, effects = mine.sort_values("sample_id")[["gap_srg_center", "effect"]].to_numpy(float).T
    expected = [np.average(gaps[: i + 1], weights=effects[: i + 1]) for i in range(len(gaps))]
    np.testing.assert_allclose([e.value for e in settling], expected, rtol=1e-5)


def test_text_hparams_and_pictures_only_when_asked(run_dir: Path) -> None:
    write(run_dir)
    events = load(run_dir)
    head, text = (
        events.Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()
        for tag in ("verdict", "leaderboard")
    )
    assert "# Faithfulness summary" in head and "integrated_gradients" in text
    html = markdown_to_safe_html(text)  # the finding's name is shown as it is
    assert "<b>" not in html and "&lt;b&gt;effusion" in html and events.Tensors("alerts/text_summary")
    assert events.Tags()["images"] == []
    write(run_dir, show_images=True)
    assert load(run_dir).Tags()["images"] == [f"gallery/p1/s00 · {QUESTION}"]
    for method in ("chefer", "random"):
        events = load(run_dir, method)
        content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        start = HParamsPluginData.FromString(content).session_start_info
        assert start.hparams["method"].string_value == method and start.hparams["steps"].number_value == 50
        frame = read_records(run_dir, ["srg", "effect"])
        mine = frame[frame["method"].eq(method) & frame["srg"].notna()]
        [srg] = events.Scalars("hparam/srg")  # written anew: nothing of the run before is left
        assert srg.value == pytest.approx(np.average(mine["srg"], weights=mine["effect"]), abs=1e-6)


def test_a_name_is_a_folder_below_tensorboard() -> None:
    assert run_name("attention/blurred") == "attention-blurred"
    assert run_name("../../other") == "-other" and run_name("Grad CAM") == "Grad-CAM"


@pytest.mark.slow
def test_a_run_shows_its_gaps_while_they_settle(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveScalars, "SECONDS_BETWEEN", 0.0)
    shown = tmp_path / "shown" / "tensorboard" / "live"  # what stands there while the run goes

    def keep(run: Path) -> None:
        shutil.copytree(run / "tensorboard" / "live", shown, dirs_exist_ok=True)

    monkeypatch.setattr(tensorboard, "remove_live", keep)
    alarmed = ("--monitor.window", "2", "--monitor.deletion_auc", "-9", "--show_images", "true")
    assert run_here(small, tmp_path, "--limit", "4") == 0
    assert run_here(small, tmp_path, *alarmed) == 0
    live = load(tmp_path / "shown", "live/chefer")
    records = read_records(tmp_path)
    mine = records[records["method"].eq("chefer") & records["status"].eq("ok")]
    points = live.Scalars("live_gap_srg_center/blur_0.1")
    assert [point.step for point in points][-1] == SAMPLES
    mean = np.average(mine["gap_srg_center"], weights=mine["effect"])
    assert points[-1].value == pytest.approx(mean, rel=1e-5)
    coverage = {point.step: point.value for point in live.Scalars("live_coverage/blur_0.1")}
    assert set(coverage) >= {*range(1, SAMPLES + 1)} and coverage[SAMPLES] == pytest.approx(len(mine) / SAMPLES)
    assert load(tmp_path / "shown", "live").Scalars("live/forwards_per_second")[-1].value > 0
    whole = load(tmp_path)
    assert "alerts/deletion_auc/text_summary" in whole.Tags()["tensors"] and whole.Tags()["images"]
    assert "srg_distribution/all/blur_0.1" in load(tmp_path, "chefer").Tags()["histograms"]


EVERYWHERE = """
(name) => { const found = [], look = (root) => { for (const one of root.querySelectorAll('*')) {
  if (one.localName === name) found.push(one); if (one.shadowRoot) look(one.shadowRoot); } };
  look(document); for (const frame of document.querySelectorAll('iframe')) look(frame.contentDocument); return found; }
"""
"""Elements of a name in the page, in its frames and shadows."""


@pytest.mark.slow
def test_tensorboard_shows_it_in_a_browser(written: Path, tmp_path: Path) -> None:
    server = program.TensorBoard()
    server.configure(argv=[None, "--logdir", str(written / "tensorboard"), "--port", "0", "--host", "127.0.0.1"])
    address = server.launch()
    with chromium(tmp_path / "profile") as browser:
        browser.visit(f"{address}#timeseries")
        browser.until("document.body.innerText.includes('deletion_curve')", seconds=120)
        tags = browser.run("fetch('data/plugin/scalars/tags').then((answer) => answer.json())")
        assert {"chefer", "random", "integrated_gradients"} <= tags.keys()  # each a run, with a color of its own
        assert {"settling_gap_srg_center/all/blur_0.1", "deletion_curve/all/blur_0.1/low"} <= tags["chefer"].keys()
        layout = browser.run("fetch('data/plugin/custom_scalars/layout').then((answer) => answer.json())")
        assert [category["title"].split()[0] for category in layout["category"]] == ["curves", "bands"]
        # The charts of the layout are drawn: a line for each method that is ticked.
        browser.visit(f"{address}{UNSMOOTHED}")
        browser.until(f"({EVERYWHERE})('tf-custom-scalar-multi-line-chart-card').length >= 2", seconds=120)
        titles = browser.run(f"({EVERYWHERE})('tf-custom-scalar-multi-line-chart-card').map((one) => one.title)")
        assert "deletion · all/blur_0.1" in titles
        smoothing = f"({EVERYWHERE})('tf-custom-scalar-dashboard')[0]._smoothingWeight"
        assert browser.run(smoothing) == 0  # as the address asks: lines are drawn as they are
        # A table of the text is as wide as its lines, and no word of it is broken.
        browser.visit(f"{address}?text#text")
        browser.until(f"({EVERYWHERE})('pre').length > 3", seconds=120)
        wrapped = f"({EVERYWHERE})('pre').filter((one) => getComputedStyle(one).whiteSpace !== 'pre').length"
        assert browser.run(wrapped) == 0
        browser.screenshot(tmp_path / "text.png")
