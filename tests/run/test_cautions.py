"""The bundled model on pictures that are no phantoms: every result says so in its first lines."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxr_faith.__main__ import main
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.data.phantoms_only import PHANTOMS_ONLY
from cxr_faith.run.cautions import run_cautions
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.vlm import bundled_model
from cxr_faith.vlm.bundled_weights import has_bundled_weights
from cxr_faith.vlm.config import ModelConfig
from tests.runs import CONFIG, bundled_manifest, run_here


def manifest(folder: Path, *sources: str | None) -> Path:
    """A manifest of a few phantoms, which says that they come from somewhere else."""
    table = pq.read_table(bundled_manifest()).slice(0, len(sources))
    place = table.schema.get_field_index("source")
    pq.write_table(table.set_column(place, "source", pa.array(sources, pa.string())), folder / "manifest.parquet")
    return folder / "manifest.parquet"


@pytest.mark.parametrize(
    ("sources", "warns"),
    [
        (["phantom", "phantom"], False),
        (["mimic-cxr", "mimic-cxr"], True),
        (["phantom", None], True),
        (["phantom", "table"], True),
    ],
)
def test_the_data_decide(sources: list[str | None], warns: bool, tmp_path: Path) -> None:
    module = FaithfulnessModule(methods={"attention": {}})
    data = CXRVQADataModule(str(manifest(tmp_path, *sources)))
    assert run_cautions(module, data) == ([PHANTOMS_ONLY] if warns else [])
    assert run_cautions(module, CXRVQADataModule("bundled")) == []


def test_the_weights_decide_whatever_the_folder_is_called(tmp_path: Path) -> None:
    copy = tmp_path / "chest-expert"
    shutil.copytree(bundled_model(), copy)
    (copy / "README.md").unlink()
    assert has_bundled_weights(str(copy)) and has_bundled_weights(ModelConfig().source)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert not has_bundled_weights(str(copy)) and not has_bundled_weights("google/medgemma-4b-it")


def test_every_result_warns_in_its_first_lines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config, run_dir, copy = tmp_path / "config.yaml", tmp_path / "run", tmp_path / "model"
    shutil.copytree(bundled_model(), copy)
    made = manifest(tmp_path, "vindr-cxr", "vindr-cxr")
    config.write_text(CONFIG.format(steps=2, manifest=made, root=bundled_manifest().parent))
    assert run_here(config, run_dir, "--model.vlm.path", str(copy)) == 0
    assert capfd.readouterr().out.startswith(f"note         {PHANTOMS_ONLY}\n")
    assert main(["report", str(run_dir)]) == 0
    first = capfd.readouterr().out.split("samples ok", 1)[0].splitlines()  # what stands above the board
    assert f"note         {PHANTOMS_ONLY}" in first and len(first) < 20
    assert json.loads((run_dir / "summary.json").read_text())["warnings"][0] == PHANTOMS_ONLY
    assert PHANTOMS_ONLY in (run_dir / "summary.md").read_text().split("\n## ", 1)[0]  # above the first board
    page = (run_dir / "report" / "index.html").read_text()
    assert page.index(PHANTOMS_ONLY) < page.index("<h2")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["doctor", "sanity"])
def test_doctor_and_sanity_warn_first(command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    sources = ["vindr-cxr"] * 12
    config.write_text(CONFIG.format(steps=2, manifest=manifest(tmp_path, *sources), root=bundled_manifest().parent))
    main([command, "--config", str(config), "--run_dir", str(tmp_path / "run"), "--samples", "4"])
    out = capfd.readouterr().out
    assert "The bundled model knows drawn" in "".join(out.splitlines()[:6])
    if command == "doctor":
        first = json.loads((tmp_path / "run" / "doctor.json").read_text())["checks"][0]
        assert (first["status"], first["figure"]) == ("warn", PHANTOMS_ONLY)
