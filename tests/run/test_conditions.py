"""A run under conditions: the records hold every sample once more, and the plain ones are those of a run without."""

import json

import numpy as np
import pandas as pd
import pytest

from cxr_faith.records import read_records
from tests.runs import VOLATILE, records, run_here, write_config

CONDITIONS = ["seed:1", "shift:2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(without conditions, with them) of three samples."""
    folder = tmp_path_factory.mktemp("conditions")
    config = write_config(folder, samples=3)
    assert run_here(config, folder / "plain") == 0
    assert run_here(config, folder / "both", "--model.protocol.conditions", json.dumps(CONDITIONS)) == 0
    return folder / "plain", folder / "both"


def test_the_plain_records_and_boards_are_those_of_a_run_without(runs):
    plain, both = (records(run) for run in runs)
    assert set(both["condition"]) == {"none", *CONDITIONS}
    kept = both[both["condition"].eq("none")].reset_index(drop=True)
    # Rows under a condition have no image use: beside them, its flags are read as objects.
    kept = kept.astype({"swap_opposite": plain["swap_opposite"].dtype})
    pd.testing.assert_frame_equal(kept, plain, check_exact=True)
    summaries = [json.loads((run / "summary.json").read_text()) for run in runs]
    assert summaries[0]["boards"] == summaries[1]["boards"] and summaries[0]["conditions"] is None


def test_conditions_change_what_they_should(runs):
    frame = read_records(runs[1]).drop(columns=VOLATILE)
    rows = {key: part.iloc[0] for key, part in frame.groupby(["condition", "method", "sample_id"])}
    sample = frame.loc[frame["map"].notna(), "sample_id"].iloc[0]
    plain, seeded, shifted = (rows[condition, "chefer", sample] for condition in ("none", *CONDITIONS))
    np.testing.assert_array_equal(plain["map"], seeded["map"])  # chefer draws nothing
    assert plain["margin"] == seeded["margin"] != shifted["margin"]
    assert not np.array_equal(plain["map"], shifted["map"])
    noise = [rows[condition, "random_map", sample]["map"] for condition in ("none", *CONDITIONS)]
    assert not np.array_equal(noise[0], noise[1]) and np.array_equal(noise[0], noise[2])


def test_the_panel_says_how_stable_answers_and_maps_are(runs):
    panel = json.loads((runs[1] / "summary.json").read_text())["conditions"]
    assert [entry["condition"] for entry in panel["answers"]] == CONDITIONS
    assert panel["answers"][0]["flip_rate"] == panel["answers"][0]["margin_shift"] == 0
    maps = {(entry["condition"], entry["method"]): entry for entry in panel["maps"]}
    assert maps["seed:1", "chefer"]["spearman"] == 1 and abs(maps["seed:1", "random_map"]["spearman"]) < 0.3
    assert maps["shift:2", "random_map"]["spearman"] == 1 and 0.2 < maps["shift:2", "chefer"]["spearman"] < 1
    text = (runs[1] / "summary.md").read_text()
    assert "## Do the maps survive a small change or another seed?" in text
