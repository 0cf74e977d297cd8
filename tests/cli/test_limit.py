"""`--limit` is obeyed exactly by every command that has it, however questions, pictures and batches are grouped."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_faith.__main__ import main
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.records import read_records
from tests.runs import environment, write_config

OPTIONS = """
trainer: {accelerator: cpu, devices: 1}
model:
  methods: {attention: null}
  protocol: {steps: 2, random_orders: 2, max_new_tokens: 4, controls: none}
data: {manifest: bundled, batch_size: 8}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    """The bundled phantoms, which have several questions about a picture, in batches larger than the limits."""
    file = tmp_path / "config.yaml"
    file.write_text(OPTIONS)
    return str(file)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 3, 5])
def test_evaluate_takes_exactly_the_limit(limit: int, config: str, tmp_path: Path) -> None:
    words = ["--config", config, "--run_dir", str(tmp_path / "run"), "--limit", str(limit)]
    assert main(["evaluate", *words]) == 0
    assert read_records(tmp_path / "run", ["status"])["sample_id"].nunique() == limit


@pytest.mark.parametrize("limit", [2, 3])
def test_sanity_takes_no_more_than_the_limit(limit: int, config: str, tmp_path: Path) -> None:
    """Each of the first samples is about another picture, so that all of them can be compared."""
    write_config(tmp_path)
    data = ["--data.manifest", str(tmp_path / "manifest.parquet"), "--data.data_root", str(bundled_manifest().parent)]
    words = ["--config", config, *data, "--run_dir", str(tmp_path / "run"), "--limit", str(limit)]
    assert main(["sanity", *words]) == 0
    assert json.loads((tmp_path / "run" / "sanity.json").read_text())["samples"] == limit


def test_sanity_says_which_limit_is_too_small(config: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["sanity", "--config", config, "--run_dir", str(tmp_path / "run"), "--limit", "1"]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "--limit 1: sanity compares two pictures and needs a limit of at least 2" in error


def test_sanity_chooses_two_pictures_within_the_limit(config: str, tmp_path: Path) -> None:
    """The first two questions of the bundled phantoms are about one picture. No bar is drawn where nobody watches."""
    words = ["sanity", "--config", config, "--run_dir", str(tmp_path / "run"), "--limit", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "cxr_faith", *words], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "Loading weights" not in done.stderr and "\r" not in done.stderr
    assert json.loads((tmp_path / "run" / "sanity.json").read_text())["samples"] == 2


@pytest.mark.slow
def test_doctor_takes_no_more_than_the_limit(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cxr_faith.checks import doctor

    frames = []
    monkeypatch.setattr(doctor, "record_checks", lambda frame, *_: frames.append(frame) or [])
    main(["doctor", "--config", config, "--run_dir", str(tmp_path / "run"), "--limit", "3"])
    assert [frame["sample_id"].nunique() for frame in frames] == [3]
