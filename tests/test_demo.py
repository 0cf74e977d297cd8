"""`make demo` keeps its word: known evidence and real methods beat the controls, and noise scores like noise."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from cxr_faith.records import read_records
from tests.forked import start_ranks, wait_for_ranks
from tests.runs import ROOT

pytestmark = pytest.mark.slow
REAL = ["attention", "rollout", "chefer", "chefer_global", "gradient", "grad_x_input", "integrated_gradients"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    run_dir, output = folder / "run", folder / "output"
    wait_for_ranks(start_ranks(ROOT / "configs" / "demo.yaml", run_dir, 2, output), output, seconds=1500)
    for word in ("report", "tensorboard --logdir", "records", "forwards/s", "oracle"):
        assert word in output.read_text()
    return run_dir


@pytest.fixture(scope="module")
def common(run: Path) -> pd.DataFrame:
    """Records of the samples that are ok for every method and have a mask, so that all means cover the same ones."""
    frame = read_records(run)
    frame = frame[frame["sample_id"].isin(frame.loc[frame["method"].eq("oracle"), "sample_id"])]
    ok = frame.groupby("sample_id")["status"].transform(lambda status: status.eq("ok").all())
    return frame[ok]


def test_enough_samples_are_ok(run: Path, common: pd.DataFrame) -> None:
    assert common["sample_id"].nunique() >= 40
    summary = json.loads((run / "summary.json").read_text())
    assert not summary["partial"] and summary["failures"]["first"] == []
    everything = next(board for board in summary["boards"] if board["slice"] == "all")
    controls = {"random", "random_map", "center", "edges", "oracle", "attention/blurred"}
    assert {row["method"] for row in everything["rows"]} == {*REAL, *controls}


def test_the_summary_says_what_is_better_than_the_known_evidence(run: Path) -> None:
    """The bundled model looks at more than the finding. Where it does not, test_trust.py lets nothing beat the mask."""
    summary = json.loads((run / "summary.json").read_text())
    everything = next(board for board in summary["boards"] if board["slice"] == "all")
    pairs = [pair for pair in everything["differences"] if "oracle" in (pair["a"], pair["b"])]
    better = [pair for pair in pairs if (pair["mean"] > 0) == (pair["b"] == "oracle") and pair["p_holm"] < 0.05]
    assert len(pairs) >= len(REAL)
    assert {pair["a"] if pair["b"] == "oracle" else pair["b"] for pair in better} <= set(REAL) | {"attention/blurred"}
    assert any("Oracle is not the best" in note for note in summary["warnings"]) == bool(better)


def test_the_known_evidence_beats_every_control(common: pd.DataFrame) -> None:
    srg = common.groupby("method")["srg"].mean()
    assert srg["oracle"] > 0.7 and srg["oracle"] > srg[["center", "edges", "random_map"]].max() + 0.1
    assert srg["center"] < srg[REAL].max() - 0.1
    assert srg["random"] == pytest.approx(0, abs=1e-12)


def test_a_real_method_beats_random_clearly(common: pd.DataFrame) -> None:
    for method in ("chefer", "integrated_gradients"):
        low, _ = interval(common[common["method"].eq(method)], "gap_srg_random", 0.999)
        assert low > 0.1, method


@pytest.mark.parametrize("gap", ["gap_deletion_random", "gap_insertion_random"])
def test_noise_scores_like_random_orders(run: Path, gap: str) -> None:
    frame = read_records(run)
    low, high = interval(frame[frame["method"].eq("random_map") & frame["status"].eq("ok")], gap, 0.999)
    assert low <= 0 <= high


def test_integrated_gradients_are_complete(run: Path) -> None:
    frame = read_records(run)
    rows = frame[frame["method"].eq("integrated_gradients")].set_index("kind")["completeness_residual"]
    assert rows.notna().all() and rows.median() < 0.005 and (rows < 0.05).mean() > 0.95
    # Log-odds do not saturate, so a choice that flips between two points of the path costs more; 64 steps end that.
    assert rows["yes_no"].max() < 0.06 and rows.max() < 0.15


def interval(rows: pd.DataFrame, column: str, level: float) -> tuple[float, float]:
    """Plain t interval over patients' means."""
    means = rows.groupby("patient_id")[column].mean().to_numpy()
    half = t.ppf((1 + level) / 2, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
    return means.mean() - half, means.mean() + half


def test_the_page_of_numbers_shows_the_line_on_image_use_that_is_printed(run: Path) -> None:
    (shown,) = re.findall(r"(?m)^image use .*$", (ROOT / "docs" / "numbers.md").read_text())
    assert shown in (run.parent / "output").read_text().splitlines()


def test_the_readme_shows_the_leaderboard_that_is_printed(run: Path) -> None:
    """Numbers may differ in their last digits: other processors add in another order."""
    printed = (run.parent / "output").read_text()
    printed = printed[printed.index("samples ok, by srg") :]
    readme = (ROOT / "README.md").read_text()
    readme = readme[readme.index("samples ok, by srg") :]
    rows, shown = (dict(re.findall(r"(?m)^ *([\w/]+) +(\d+ +\d+% .*)$", text)) for text in (printed, readme))
    assert len(shown) == 13 and list(shown) == list(rows)[: len(shown)]
    for method, cells in shown.items():
        for mine, theirs in zip(cells.split(), rows[method].split(), strict=True):
            same = mine == theirs or float(mine) == pytest.approx(float(theirs), abs=0.002, rel=0.002)
            assert same, (method, mine, theirs)
