"""What maps say against themselves, and methods beside their ablations: from the records to table, summary and page."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_faith.metrics.statistics import estimate
from cxr_faith.records import read_records
from cxr_faith.report.columns import method_label
from cxr_faith.report.html import render
from cxr_faith.report.leaderboard import render_leaderboard
from cxr_faith.report.markdown import markdown
from cxr_faith.report.terminal import show_summary, wide_console
from cxr_faith.report.trust import trust_tables
from cxr_faith.summary.summarize import summarize
from cxr_faith.summary.summary import Summary

METHODS = ("chefer", "chefer/ablated", "attention", "attention/ablated", "integrated_gradients", "center", "oracle")
UNREAD = "not assessable: nothing reads these states"


@pytest.fixture
def frame(run_dir: Path) -> pd.DataFrame:
    return read_records(run_dir)


def of(frame: pd.DataFrame, method: str) -> "pd.Series[bool]":
    return frame["method"].eq(method)


def with_residuals(frame: pd.DataFrame, values: np.ndarray) -> pd.DataFrame:
    frame = frame.copy()
    frame.loc[of(frame, "integrated_gradients"), "completeness_residual"] = values
    return frame


def tables(summary: Summary) -> dict[str, list[list[str]]]:
    return {table.title: table.rows for table in trust_tables(summary)}


def test_large_residuals_are_told_wherever_the_method_is_shown(frame: pd.DataFrame) -> None:
    n = int(of(frame, "integrated_gradients").sum())
    residuals = np.linspace(0.0, 0.4, n)
    summary = summarize(with_residuals(frame, residuals), METHODS)
    (entry,) = summary.caveats
    assert (entry.method, entry.n, entry.n_residuals, entry.caution) == ("integrated_gradients", n, n, None)
    assert entry.residual == pytest.approx(np.median(residuals))
    assert entry.residual_above == pytest.approx(sum(value > 0.1 for value in residuals) / n)
    said = f"integrated_gradients: completeness residual above 0.1 in {entry.residual_above:.0%} of {n} maps"
    assert any(line.startswith(said) for line in summary.warnings) and said in markdown(summary)
    assert {row.method for board in summary.boards for row in board.rows if row.caveat} == {"integrated_gradients"}
    page = render(summary, with_residuals(frame, residuals), {})
    label = method_label(summary.board().row("integrated_gradients"))
    assert label.endswith("‡") and said in page and f'"label":"{label}"' in page
    (rows,) = (rows for title, rows in tables(summary).items() if title.startswith("Do the maps add up"))
    assert rows == [["integrated_gradients", str(n), "0.200", f"{entry.residual_above:.1%}", "–", "0.0%"]]
    assert Summary.from_dict(json.loads(json.dumps(summary.to_dict()))).caveats == summary.caveats


def test_small_residuals_are_in_the_table_alone(frame: pd.DataFrame) -> None:
    n = int(of(frame, "integrated_gradients").sum())
    summary = summarize(with_residuals(frame, np.full(n, 0.02)), METHODS)
    assert [entry.sentence for entry in summary.caveats] == [None]
    assert not any("residual" in line for line in summary.warnings)
    assert not any(row.caveat for board in summary.boards for row in board.rows)
    assert any(title.startswith("Do the maps add up") for title in tables(summary))
    assert summarize(frame, METHODS).caveats == ()


def test_maps_that_are_not_assessable_say_so_beside_their_row(frame: pd.DataFrame) -> None:
    said = frame.assign(caution=np.where(of(frame, "attention"), UNREAD, None))
    said.loc[of(frame, "attention/ablated"), "caution"] = UNREAD  # of an ablation nobody needs to know
    summary, n = summarize(said, METHODS), int(of(frame, "attention").sum())
    sentence = f"attention: {UNREAD} ({n} of {n} maps)."
    assert sentence in summary.warnings
    assert [row.caveat for row in summary.board().rows if row.method == "attention"] == [sentence]
    assert "attention‡" in [str(cell) for cell in render_leaderboard(summary).columns[0].cells]
    assert "attention‡" in markdown(summary) and "‡ its maps say something against themselves" in markdown(summary)


def ablated(frame: pd.DataFrame) -> pd.DataFrame:
    """Chefer loses .3 without its idea, attention nothing; small noise on both."""
    rng, copies = np.random.default_rng(0), []
    for method, loss in (("chefer", 0.3), ("attention", 0.0)):
        rows = frame[of(frame, method)].copy()
        rows["method"] = f"{method}/ablated"
        rows["srg"] = rows["srg"].astype(float) - loss + 0.01 * rng.standard_normal(len(rows))
        copies.append(rows)
    return pd.concat([frame, *copies], ignore_index=True)


def test_a_method_passes_if_it_beats_its_ablation(
    frame: pd.DataFrame, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ablated(frame)
    board = (summary := summarize(both, METHODS)).board()
    ok = both.groupby("sample_id")["status"].transform(lambda status: status.eq("ok").all())
    wide = both[ok].pivot(index=["patient_id", "sample_id"], columns="method", values="srg").astype(float)
    weights = both[ok & of(both, "chefer")].set_index("sample_id")["effect"].astype(float)
    weights = weights.loc[wide.index.get_level_values("sample_id")].to_numpy()[:, None]
    pairs = {pair.a: pair for pair in board.differences if "/ablated" in pair.b}
    assert [(pair.a, pair.b) for pair in board.differences if "/ablated" in pair.a + pair.b] == [
        (name, f"{name}/ablated") for name in ("chefer", "attention")
    ]
    for name, pair in pairs.items():
        difference = (wide[name] - wide[f"{name}/ablated"]).to_numpy()[:, None]
        expected = estimate(difference, wide.index.get_level_values("patient_id").to_numpy(), weights)
        assert pair.mean == pytest.approx(expected.mean[0]) and pair.n == len(wide)
    assert pairs["chefer"].ends[0] > 0 > pairs["attention"].ends[0]
    (rows,) = (rows for title, rows in tables(summary).items() if title.startswith("Does a method's idea matter?"))
    passes = {row[0]: (row[-1], row[4]) for row in rows}
    assert passes["chefer"] == ("yes", f"{pairs['chefer'].mean:+.3f}") and passes["attention"][0] == "no"
    show_summary(wide_console(), summary, run_dir)
    assert "Does a method's idea matter? blur:0.1" in capsys.readouterr().out


def test_runs_without_ablations_have_no_such_table(frame: pd.DataFrame) -> None:
    assert not any(title.startswith("Does a method's idea matter?") for title in tables(summarize(frame, METHODS)))
