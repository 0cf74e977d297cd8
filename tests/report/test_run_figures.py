from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from cxr_faith.records import RecordWriter
from cxr_faith.report.figures import COLUMN_WIDTH
from cxr_faith.report.run_figures import run_figures
from cxr_faith.summary.summarize import write_summary


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> Path:
    folder = tmp_path_factory.mktemp("run")
    located = {"pointing_game": 1.0, "energy_inside": 0.25}
    RecordWriter(folder, rank=0, start=0).write(
        [row | (located if row["present"] and row["method"] != "random" else {}) for row in rows]
    )
    write_summary(folder)
    return folder


def test_a_runs_figures_are_one_column_wide_and_share_their_colors(made: Path) -> None:
    figures = run_figures(made)
    assert set(figures) == {"curves", "forest", "forest_findings", "scatter", "reliability"}
    assert {figure.get_figwidth() for figure in figures.values()} == {COLUMN_WIDTH}
    legend = figures["curves"].legends[0]
    curves = {
        text.get_text().split(" (")[0]: to_hex(line.get_color())
        for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    for name in ("forest", "forest_findings"):
        axes = figures[name].axes[0]
        at = {tick.get_position()[1]: tick.get_text().split(" (")[0] for tick in axes.get_yticklabels()}
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        assert len(dots) > 3
        assert all(to_hex(dot.get_markeredgecolor()) == curves[at[float(dot.get_ydata()[0])]] for dot in dots)


def test_curves_have_their_bands_and_files_of_each_kind_are_written(made: Path, tmp_path: Path) -> None:
    figures = run_figures(made)
    panel = figures["curves"].axes[0]
    assert len(panel.collections) == 7 and all(np.isfinite(line.get_ydata()).all() for line in panel.lines)
    for ending, begin in (("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")):
        figures["forest"].savefig(tmp_path / f"forest.{ending}")
        assert (tmp_path / f"forest.{ending}").read_bytes().startswith(begin)


def test_figures_without_data_are_left_out(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    RecordWriter(tmp_path, rank=0, start=0).write([row for row in rows if row["status"] != "ok"])
    write_summary(tmp_path)
    assert set(run_figures(tmp_path)) == {"reliability"}
