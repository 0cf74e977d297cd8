"""Maps that say something against themselves, in a whole run and from the command line."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cxr_faith.__main__ import main
from cxr_faith.data.manifest import bundled_manifest
from tests.run.test_all_methods import write
from tests.runs import ROOT, records, run_here

METHODS = {
    "zeros": {"class": "integrated_gradients", "baseline": "zero_tokens", "steps": 8},
    "integrated_gradients": {},
    "last": {"class": "tam", "layer": "last"},
    "tam": {},
    "tam/ablated": {"class": "tam", "ablated": True},
}
UNREAD = "not assessable: nothing reads these states"


def test_a_run_says_which_maps_cannot_be_trusted(tmp_path: Path) -> None:
    rows = [row for row in pq.read_table(bundled_manifest()).to_pylist() if row["kind"] == "yes_no"][:3]
    model = ROOT / "training" / "checkpoints" / "own-order-0"  # saturated, so no sum reaches its effects from far away
    assert run_here(write(tmp_path, rows, METHODS), tmp_path / "run", "--model.vlm.path", str(model)) == 0
    frame = records(tmp_path / "run").set_index("method")
    assert (frame.loc["zeros", "completeness_residual"] > 0.1).all()
    assert (frame.loc["integrated_gradients", "completeness_residual"] < 0.1).all()
    assert frame.loc["last", "caution"].eq(UNREAD).all() and frame.loc[["tam", "tam/ablated"], "caution"].isna().all()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    warnings = "\n".join(summary["warnings"])
    assert "zeros: completeness residual above 0.1 in 100% of 3 maps (median" in warnings
    assert f"last: {UNREAD} (3 of 3 maps)." in warnings
    assert not any(line.startswith(("integrated_gradients:", "tam:", "tam/")) for line in summary["warnings"])
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert UNREAD in page and "zeros: completeness residual above 0.1" in page


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("tam", {"layer": "last"}, f"caution     {UNREAD}"),
        ("integrated_gradients", {"baseline": "zero_tokens"}, "caution     the map does not add up to the effect"),
        ("integrated_gradients", {}, None),
    ],
)
def test_explain_says_it_too(
    method: str, options: dict[str, str], said: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = sorted((bundled_manifest().parent / "images").iterdir())[4]
    arguments = ["--question", "Is there a pleural effusion?", "--method", method, "--out", str(tmp_path)]
    assert main(["explain", str(picture), *arguments, "--method_options", json.dumps(options)]) == 0
    printed = capsys.readouterr().out
    assert said in printed if said else "caution" not in printed
