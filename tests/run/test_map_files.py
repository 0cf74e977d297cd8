"""Maps that were made elsewhere, read from a file for each sample."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.runs import records, run_here, write_config


def test_maps_from_files_are_scored_as_any_method(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Large maps are averaged on the cells; a bad file costs its sample that map; other files are another run."""
    config, maps = write_config(tmp_path, samples=5), tmp_path / "maps"
    settings = yaml.safe_load(config.read_text())
    settings["model"]["methods"] = {"edges": {}, "mine": {"class": "file", "path": str(maps)}}
    config.write_text(yaml.safe_dump(settings))
    assert run_here(config, tmp_path / "run") == 2
    assert "methods.mine: " in capfd.readouterr().err
    maps.mkdir()
    assert run_here(config, tmp_path / "run") == 2
    assert "holds no map" in capfd.readouterr().err

    import pyarrow.parquet as pq

    ids = pq.read_table(tmp_path / "manifest.parquet")["sample_id"].to_pylist()
    values = np.random.default_rng(0).random((len(ids), 12, 12))
    np.save(maps / f"{ids[0]}.npy", values[0])
    np.save(maps / f"{ids[1]}.npy", np.kron(values[1], np.ones((5, 3)))[None])
    np.save(maps / f"{ids[2]}.npy", np.full((12, 12), np.nan))
    np.save(maps / f"{ids[3]}.npy", np.array([{}]), allow_pickle=True)
    assert run_here(config, tmp_path / "run") == 0
    frame = records(tmp_path / "run")
    mine = frame[frame["method"] == "mine"].set_index("sample_id")
    for number in (0, 1):
        stored = np.array(mine.loc[ids[number], "map"], np.float32)
        np.testing.assert_allclose(stored, values[number].ravel(), rtol=1e-6)
    assert (mine.loc[ids[:2], "status"] != "invalid").all() and (mine.loc[ids[2:], "status"] == "invalid").all()
    reasons = mine.loc[ids[2:], "reason"].tolist()
    assert "not finite" in reasons[0] and "cannot be read as an array" in reasons[1] and "file not found" in reasons[2]
    assert (frame[frame["method"] == "edges"]["status"] != "invalid").all()
    np.save(maps / f"{ids[0]}.npy", values[4])
    capfd.readouterr()
    assert run_here(config, tmp_path / "run") == 2
    assert "mine" in capfd.readouterr().err
