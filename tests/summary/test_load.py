"""Opening a run directory, and what the numbers import."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from cxr_faith.records import read_records
from cxr_faith.records.controls import SETTING, first_setting
from cxr_faith.summary.load import load_run
from cxr_faith.summary.summarize import summarize, write_summary


def test_a_run_gives_its_summary_records_provenance_and_config(run_dir: Path) -> None:
    written = write_summary(run_dir)
    (run_dir / "provenance.json").write_text(json.dumps({"methods": ["chefer"]}))
    (run_dir / "config.yaml").write_text(yaml.safe_dump({"model": {"methods": ["chefer"]}}))
    run = load_run(str(run_dir))
    assert run.summary == written and run.summary is run.summary
    assert run.records(["srg"]).equals(read_records(run_dir, ["srg"])) and "deletion_scores" in run.records().columns
    assert run.provenance == {"methods": ["chefer"]} and run.config == {"model": {"methods": ["chefer"]}}


def test_what_a_run_lacks_is_said_in_one_line(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = load_run(run_dir)
    assert run.provenance == {} and run.config == {}
    with pytest.raises(FileNotFoundError, match=r"summary\.json: missing; `cxr-faith report .*` writes it") as missing:
        _ = run.summary
    (run_dir / "summary.json").write_text("{")
    with pytest.raises(ValueError, match=r"summary\.json: not JSON") as torn:
        _ = run.summary
    (run_dir / "summary.json").write_text('{"schema_version": 99}')
    with pytest.raises(ValueError, match=r"summary\.json: written by a newer version") as newer:
        _ = run.summary
    (run_dir / "config.yaml").write_text("a: [1,\nb")
    with pytest.raises(ValueError, match=r"config\.yaml: not YAML") as broken:
        _ = load_run(run_dir).config
    with pytest.raises(ValueError, match="records have no column 'sgr'") as column:
        run.records(["sgr"])
    with pytest.raises(ValueError, match="not a run directory.*`cxr-faith evaluate` first") as other:
        load_run(tmp_path_factory.mktemp("other"))
    errors = (missing, torn, newer, broken, column, other)
    assert all("\n" not in str(error.value) for error in errors)
    assert str(torn.value).count("summary.json") == 1


def test_the_first_boards_are_those_of_the_first_setting(run_dir: Path) -> None:
    """One definition: the setting with most rows comes first, by name where two have as many."""
    frame = read_records(run_dir)
    frame = frame[frame["sample_id"].lt("s08")]
    some = frame[frame["method"].isin(["attention", "center", "random"])]
    many = [frame, frame.assign(target="first"), some.assign(substrate="a"), some.assign(space="tokens")]
    for order in (many, many[::-1]):
        for chosen in (order, order[1:], order[2:]):
            records = pd.concat(chosen, ignore_index=True)
            summary = summarize(records)
            first = first_setting(records)[list(SETTING)].drop_duplicates()
            assert [tuple(row) for row in first.to_numpy()] == [summary.settings[0]]
            assert summary.first_boards == [board for board in summary.boards if board.setting == summary.settings[0]]
            assert summary.board() is summary.first_boards[0]


def test_numbers_import_neither_drawing_nor_a_trainer() -> None:
    modules = "cxr_faith.summary.summarize, cxr_faith.summary.bands, cxr_faith.summary.load"
    script = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded & {"rich", "matplotlib", "lightning", "torchmetrics", "transformers", "datasets"} == set()
    assert not any(name.startswith(("cxr_faith.report", "cxr_faith.run")) for name in loaded)
