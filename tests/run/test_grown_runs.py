"""A run directory takes more methods, substrates and conditions, and computes what is missing and nothing else."""

import json
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from cxr_faith.__main__ import main
from cxr_faith.app.pages import Pages
from cxr_faith.attribution import METHODS
from cxr_faith.perturb.engine import Engine
from cxr_faith.records import read_records
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.run.stop import StopRequest
from cxr_faith.summary.load import load_run
from cxr_faith.vlm.transformers_vlm import TransformersVLM
from tests.forked import start_ranks, wait_for_ranks
from tests.runs import assert_same, command, parts, records, run_here, wait_for, write_config

pytestmark = pytest.mark.slow

N = 2
"""Samples of each run."""

FIRST = "chefer: {}, random_map: {}"
MORE = "chefer: {}, gradient: {}, random_map: {}, oracle: {}, rise: {masks: 6}"


def config(folder: Path, name: str, methods: str = FIRST, protocol: str = "") -> Path:
    """A config over the folder's manifest."""
    text = (folder / "config.yaml").read_text()
    file = folder / f"{name}.yaml"
    file.write_text(text.replace(FIRST, methods).replace("controls: none", f"controls: none{protocol}"))
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grown")
    write_config(folder, samples=N)
    return folder


@pytest.fixture(scope="module")
def first(folder: Path) -> Path:
    """Run directory of two methods under one substrate."""
    assert run_here(config(folder, "first"), folder / "first") == 0
    return folder / "first"


@pytest.fixture(scope="module")
def everything(folder: Path) -> Path:
    """The config with all methods, substrates and conditions."""
    return config(folder, "everything", MORE, ", substrates: ['blur:0.1', mean], conditions: ['contrast:0.9']")


@pytest.fixture(scope="module")
def at_once(folder: Path, everything: Path) -> Path:
    """Run directory that had all of it from the start."""
    assert run_here(everything, folder / "at_once") == 0
    return folder / "at_once"


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts answers, maps by class, and perturbed pictures by question."""
    counts = Counter[str]()

    def watch(owner: Any, name: str, what: str) -> None:
        original = getattr(owner, name)

        def watched(self: Any, *args: Any, **options: Any) -> Any:
            counts[what] += 1
            return original(self, *args, **options)

        patch.setattr(owner, name, watched)

    run = Engine.run

    def watched_run(self: Engine, original: Any, removed: Any, plan: Any, *args: Any) -> Any:
        counts["pictures"] += plan.questions_asked
        return run(self, original, removed, plan, *args)

    with monkeypatch.context() as patch:
        watch(TransformersVLM, "answer", "answers")
        for name in ("chefer", "gradient", "random_map", "center", "rise", "oracle"):
            watch(METHODS[name], "attribute", name)
        patch.setattr(Engine, "run", watched_run)
        yield counts


def test_a_run_that_grew_has_the_bytes_of_one_made_at_once(
    first: Path, everything: Path, at_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It grew by methods, a substrate and a condition, and a stop came on the way."""
    run_dir, request, step = shutil.copytree(first, tmp_path / "run"), StopRequest(), FaithfulnessModule.predict_step

    def stopped(self: FaithfulnessModule, *args: Any) -> Any:
        request.set(signal.SIGUSR2)
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr("cxr_faith.run.stop.listening", lambda: nullcontext(request))
        patch.setattr(FaithfulnessModule, "predict_step", stopped)
        assert main(command(everything, run_dir)[3:]) == 75
    assert main(["report", str(run_dir)]) == 0
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["partial"] and summary["missing"] == N - 1 and summary["n_samples"] == N
    assert summary["warnings"][0] == f"Partial: 1 of {N} samples have all rows, {N - 1} lack some."
    assert run_here(everything, run_dir) == 0
    assert_same(run_dir, at_once)
    rows = sum(pq.read_metadata(path).num_rows for path in parts(run_dir))
    assert rows == len(records(at_once))  # each row was computed once


def test_only_what_is_missing_is_computed(
    folder: Path, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method: its map, and the inner points of its curves. A substrate: all curves, of the maps that are there."""
    run_dir = shutil.copytree(first, tmp_path / "run")
    with counted(monkeypatch) as counts:
        assert run_here(config(folder, "gradient", "chefer: {}, gradient: {}, random_map: {}"), run_dir) == 0
    assert counts == {"gradient": N, "pictures": N * 2}  # deletion and insertion at k = N/2
    substrate = config(folder, "mean", "chefer: {}, gradient: {}, random_map: {}", ", substrates: ['blur:0.1', mean]")
    with counted(monkeypatch) as counts:
        assert run_here(substrate, run_dir) == 0
    # The ends, and an inner point of both curves: three maps, the center, and a pair of random orders, one the other's
    # reverse. Then the findings' masks, and as many cells away from them.
    under_mean = read_records(run_dir).query("method == 'random' and substrate == 'mean'")
    regions = under_mean[["mask_removal_flips", "away_removal_keeps"]].notna().sum(axis=None)
    assert 0 < regions <= 2 * N and counts == {"pictures": N * (2 + 2 * (3 + 1 + 1)) + regions}
    with counted(monkeypatch) as counts:
        assert run_here(substrate, run_dir) == 0
    assert not counts


def test_a_method_that_is_taken_out_stays_in_the_records(
    folder: Path, first: Path, everything: Path, at_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = shutil.copytree(at_once, tmp_path / "run")
    with counted(monkeypatch) as counts:
        assert run_here(config(folder, "again"), run_dir) == 0
    assert not counts
    assert (run_dir / "summary.json").read_bytes() == (first / "summary.json").read_bytes()
    assert (run_dir / "metrics.json").read_text().count("gradient") == 0
    assert "gradient" not in (run_dir / "report" / "index.html").read_text().split("<footer")[0].split("provenance")[0]
    assert len(records(run_dir)) == len(records(at_once))
    assert run_here(everything, run_dir) == 0  # and back
    assert_same(run_dir, at_once)


@pytest.mark.parametrize(
    ("methods", "line"),
    [
        (
            "chefer: {}, rise: {masks: 8}",
            "methods.rise.masks is 6 in {run} and 8 here: give the changed method another",
        ),
        ("chefer: {class: gradient}", "methods.chefer.class is 'chefer' in {run} and 'gradient' here"),
    ],
)
def test_a_name_with_other_options_is_refused(
    methods: str, line: str, folder: Path, at_once: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also a name that the last config did not have."""
    before = read_records(at_once)
    assert run_here(config(folder, "changed", methods), at_once) == 2
    error = capfd.readouterr().err
    assert line.format(run=at_once) in error and error.count("\n") == 1
    pd.testing.assert_frame_equal(read_records(at_once), before)


def test_other_shapes_of_the_protocol_are_refused_with_both_values(
    first: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_here(config(folder, "seed"), first, "--model.protocol.seed", "5") == 2
    assert "belongs to a run with other perturbation (seed is 0 there and 5 here)" in capfd.readouterr().err
    spelled = config(folder, "spelled", "chefer: {ablated: false}, random_map: {}")
    assert run_here(spelled, first) == 0  # a default that is spelled out changes nothing


def test_an_uncertainty_of_another_kind_is_refused_with_both_values(
    first: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It may be added: maps that are there stay without it. It stays known where a later config is without it."""
    run_dir, added = shutil.copytree(first, tmp_path / "run"), ", uncertainty: {copies: 2}"
    assert run_here(config(folder, "sure", "chefer: {}, gradient: {}, random_map: {}", added), run_dir) == 0
    spreads = read_records(run_dir, ["map_std"]).groupby("method")["map_std"].count()
    assert spreads["gradient"] == N and not spreads["chefer"]
    assert run_here(config(folder, "unsure"), run_dir) == 0
    other = config(folder, "surer", "chefer: {}, rise: {masks: 6}", ", uncertainty: {copies: 3, source: seed}")
    capfd.readouterr()
    assert run_here(other, run_dir) == 2
    error = capfd.readouterr().err
    assert "'copies': 2, 'source': 'noise'" in error and "'copies': 3, 'source': 'seed'" in error
    assert error.count("\n") == 1


def test_a_report_of_a_part(at_once: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_dir = shutil.copytree(at_once, tmp_path / "run")
    assert main(["report", str(run_dir), "--methods", "gradient, rise"]) == 0
    assert set(load_run(run_dir).summary.methods) == {"gradient", "rise", "random", "center"}
    assert "chefer" not in capfd.readouterr().out
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(main(["report", str(run_dir), "--methods", "gradient,grad"]))
    assert stop.value.code == 2 and "the run has no method 'grad'; there are center" in capfd.readouterr().err
    assert main(["report", str(run_dir)]) == 0
    assert (run_dir / "summary.json").read_bytes() == (at_once / "summary.json").read_bytes()


def as_of_0_1_0(run_dir: Path) -> None:
    """Make a run directory look as version 0.1.0 left it: fewer columns and panels, all settings in one identity."""
    for path in parts(run_dir):
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["answer_tokens", "random_srgs", "end_scores"]), path)
    file = run_dir / "provenance.json"
    provenance = json.loads(file.read_text())
    rows, shape = provenance.pop("rows"), provenance["identity"]["perturbation"]
    scored = {spec: [name for name in names if name != "random"] for spec, names in rows["scored"].items()}
    shape |= {"substrates": list(scored), "conditions": [], "controls": "none", "scored": scored}
    file.write_text(json.dumps(provenance))
    summary = json.loads((run_dir / "summary.json").read_text())
    del summary["uncertainty"], summary["image_use"]
    (run_dir / "summary.json").write_text(json.dumps(summary))


def test_a_run_of_0_1_0_opens_and_grows(
    folder: Path, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens in `compare` and `view`, too.

    Its answers and baselines are measured again, since its records lack what later methods need of them.
    """
    run_dir = shutil.copytree(first, tmp_path / "run")
    as_of_0_1_0(run_dir)
    assert main(["compare", str(run_dir), str(first), "--out", str(tmp_path / "compared")]) == 0
    compared = json.loads((tmp_path / "compared" / "compare.json").read_text())
    assert compared["n_shared"] == N and len(compared["runs"]) == 2
    assert f"1–{N} of {N}" in Pages(run_dir).listing({})[1].decode()
    assert main(["report", str(run_dir)]) == 0
    assert (run_dir / "summary.json").read_bytes() == (first / "summary.json").read_bytes()
    assert main(["report", str(run_dir), "--methods", "chefer"]) == 0
    with counted(monkeypatch) as counts:
        assert run_here(config(folder, "old", "chefer: {}, gradient: {}, random_map: {}"), run_dir) == 0
    assert counts["answers"] == counts["gradient"] == N and not counts["chefer"]
    fresh = tmp_path / "fresh"
    assert run_here(config(folder, "old", "chefer: {}, gradient: {}, random_map: {}"), fresh) == 0
    assert (run_dir / "summary.json").read_bytes() == (fresh / "summary.json").read_bytes()


def wrote(run_dir: Path, before: set[Path], process: BaseProcess) -> bool:
    """Whether there is a new part, or none will come."""
    return bool(set(parts(run_dir)) - before) or not process.is_alive()


@pytest.mark.cluster
def test_a_run_grown_in_four_steps_over_two_world_sizes_with_kills(
    folder: Path, first: Path, everything: Path, at_once: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    steps = [
        (config(folder, "step1"), 2),
        (config(folder, "step2", "chefer: {}, gradient: {}, random_map: {}"), 1),
        (config(folder, "step3", "gradient: {}, chefer: {}, random_map: {}", ", substrates: ['blur:0.1', mean]"), 2),
        (everything, 1),
    ]
    for number, (file, count) in enumerate(steps):
        for turn in ("killed", "finished"):
            output, before = tmp_path / f"output-{number}-{turn}", set(parts(run_dir))
            started = start_ranks(file, run_dir, count, output)
            if turn == "killed":
                wait_for(partial(wrote, run_dir, before, started[0]))
                for process in started:
                    process.kill()
                    process.join()
            else:
                wait_for_ranks(started, output)
    assert_same(run_dir, at_once)
