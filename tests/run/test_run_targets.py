"""Runs with a keyword as target, with methods that tell more than a record holds, and with a file of weights."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxr_faith.__main__ import main
from cxr_faith.attribution.sae import SAE
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.records import read_records

CONFIG = """
trainer: {{accelerator: cpu, devices: 1}}
model:
  methods: {{igos_pp: {{iterations: 1, path_steps: 1}}, sae: {{{sae}}}}}
  protocol: {{steps: 2, random_orders: 2, target: "keyword:nodule", controls: none}}
data: {{manifest: {manifest}, data_root: {root}}}
"""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Open questions about all findings: one picture with a nodule, one without."""
    table = pq.read_table(bundled_manifest())
    rows = table.to_pandas()
    listed = rows[(rows.kind == "open") & rows.question.str.contains("findings")]
    named = listed.answer.map(lambda answer: "nodule" in ",".join(answer))
    chosen = [listed.index[named][0], listed.index[~named][0]]
    file = tmp_path_factory.mktemp("manifest") / "two.parquet"
    pq.write_table(table.take(pa.array(sorted(chosen))), file)
    return file


def run(manifest: Path, folder: Path, sae: str = "") -> int:
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(manifest=manifest, root=bundled_manifest().parent, sae=sae))
    return main(["evaluate", "--config", str(config), "--run_dir", str(folder / "run")])


def test_keyword_target(manifest: Path, tmp_path: Path) -> None:
    assert run(manifest, tmp_path) == 0
    records = read_records(tmp_path / "run")
    assert set(records.target) == {"keyword:nodule"} and {"igos_pp", "sae"} <= set(records.method)
    holds = records.generated.str.contains("nodule")
    assert set(holds) == {True, False}
    absent = records[~holds]
    assert (absent.status == "invalid").all()
    assert absent.reason.str.contains("the keyword 'nodule' is not in the answer").all()
    under = records[records.substrate.eq("mean")]
    assert set(records.substrate) == {"blur:0.1", "mean"}
    assert set(under.method) == {"igos_pp", "sae", "center", "random"}
    own = records[holds & records.method.eq("igos_pp")].set_index("substrate")
    assert own.loc["blur:0.1", "own_substrate"] and not own.loc["mean", "own_substrate"]
    assert own.loc["blur:0.1", "s_substrate"] != own.loc["mean", "s_substrate"]
    assert list(own.loc["blur:0.1", "order"]) == list(own.loc["mean", "order"])
    there = records[holds & records.method.isin(["igos_pp", "sae"])]
    assert there.status.isin(["ok", "degenerate", "inverted"]).all() and there["map"].map(len).eq(144).all()
    assert pd.notna(there.s_original).all() and SAE().weights in (tmp_path / "run" / "provenance.json").read_text()


def test_an_sae_for_another_model_stops_the_run(
    manifest: Path, tmp_path: Path, random_sae: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(manifest, tmp_path, f"path: {random_sae}") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert "was trained for another vision tower" in lines[-1] and lines[-1].startswith("cxr-faith: error: ")
