"""The panel of checkpoints: a tiny one from the phantoms to the tables, and its numbers against slow twins."""

import json
import shutil
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from cxr_faith import bundled_model
from cxr_faith.__main__ import main as cxr_faith
from cxr_faith.cases import Case
from cxr_faith.curves import plan_curves
from cxr_faith.metrics.localization import LOCALIZATION_COLUMNS
from cxr_faith.protocol import Protocol
from cxr_faith.run.method_set import MethodSet
from cxr_faith.run.stop import StopRequest
from cxr_faith.summary.summarize import summarize
from cxr_faith.vlm import Prompt, Reply, Target
from cxr_faith.vlm.families import FAMILIES
from tests.reference import panel as reference
from tests.runs import ROOT
from tests.synthetic import make_rows

sys.path.insert(0, str(ROOT / "benchmarks"))

import panel  # noqa: E402
import panel_data  # noqa: E402
import panel_tables  # noqa: E402

BASE = """
trainer: {accelerator: cpu, devices: 1}
model:
  methods: {attention: , gradient: , oracle/marker: {class: oracle, mask: marker}}
  vlm: {path: bundled}
  protocol: {substrates: ["blur:0.1"], steps: 4, random_orders: 2}
data: {batch_size: 1}
"""
PANEL = """
checkpoints: {{own-order-0: bundled, other-0: {other}, gone-0: training/checkpoints/gone-0}}
tuning:
  {{patients: 2, seed: 4, protocol: {{steps: 2, controls: none}}, 
   settings: {{attention: [{{layers: mean}}, {{layers: deep}}]}}}}
main: {{patients: 3, seed: 5}}
substrates: {{protocol: {{substrates: [pair, mean], steps: 2}}, without: [gradient]}}
marker: {{patients: 2, seed: 6, protocol: {{steps: 2}}}}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A panel of two checkpoints: the bundled model, and the same with other weights in its decoder."""
    folder = tmp_path_factory.mktemp("panel")
    shutil.copytree(bundled_model(), folder / "other", ignore=shutil.ignore_patterns("sae"))
    weights = load_file(folder / "other" / "model.safetensors")
    torch.manual_seed(0)
    for name, weight in weights.items():
        if "layers.5.mlp" in name and "vision" not in name:
            weight += 0.3 * weight.std() * torch.randn(weight.shape)
    save_file(weights, folder / "other" / "model.safetensors", {"format": "pt"})
    (folder / "panel.yaml").write_text(PANEL.format(other=folder / "other"))
    (folder / "base.yaml").write_text(BASE)
    return folder


def run(files: Path, *arguments: str, stop_after: int | None = None) -> tuple[int, list[str]]:
    """The panel in this process, with its runs; status, and the run directories that were asked for."""
    asked: list[str] = []

    def evaluate(words):
        if stop_after is not None and len(asked) == stop_after:
            return 75
        asked.append("/".join(Path(words[3]).parts[-2:]))
        with patch("cxr_faith.run.stop.listening", lambda: nullcontext(StopRequest())):
            return cxr_faith(["evaluate", *words])

    words = ["--panel", str(files / "panel.yaml"), "--base", str(files / "base.yaml"), "--out", str(files / "runs")]
    return panel.main([*words, *arguments], evaluate), asked


@pytest.fixture(scope="module")
def done(files: Path) -> Path:
    """Stopped after two runs, and then run to its end."""
    assert run(files, stop_after=2) == (75, ["own-order-0/tuning", "own-order-0/main"])
    status, asked = run(files)
    assert status == 0
    assert asked == [f"{name}/{part}" for name in ("own-order-0", "other-0") for part in panel.PARTS]
    return files / "runs"


def test_a_panel_runs_to_its_tables_and_goes_on_after_a_stop(files, done, capsys) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*.parquet")}
    assert run(files, "--tables")[0] == 0
    printed = capsys.readouterr().out
    assert "Left out, not trained yet: gone-0" in printed
    for title in (
        "srg [95 %]",
        "Kendall's τ of the methods' ranking",
        "localization: average precision",
        "own-order-0: srg where",
        "mask of the finding",
    ):
        assert title in printed
    assert "out-of-distribution score" in printed and "other-0: srg under pair" in printed
    assert "between two checkpoints, under each substrate" in printed and "\nown-order-0, other-0 " in printed
    assert before == {path: path.stat().st_mtime_ns for path in done.rglob("*.parquet")}


def test_the_runs_of_a_checkpoint_differ_as_they_should(done) -> None:
    names = {name: set() for name in panel.PARTS}
    for name in ("own-order-0", "other-0"):
        for part in panel.PARTS:
            provenance = json.loads((done / name / part / "provenance.json").read_text())
            names[part].add(provenance["identity"]["model"]["hash"])
        tuned = yaml.safe_load((done / name / "tuning.yaml").read_text())
        reported = yaml.safe_load((done / name / "main.yaml").read_text())
        assert set(tuned["model"]["methods"]) == {"attention-0", "attention-1"}
        assert reported["model"]["methods"]["attention"]["layers"] in ("mean", "deep")
        tuning, test = (set(pd.read_parquet(config["data"]["manifest"])["sample_id"]) for config in (tuned, reported))
        assert tuning and test and tuned["data"]["manifest"] != reported["data"]["manifest"]
        under_pair = yaml.safe_load((done / name / "substrates.yaml").read_text())
        assert "gradient" not in under_pair["model"]["methods"]
        masks = yaml.safe_load((done / name / "marker.yaml").read_text())
        assert list(masks["model"]["methods"]) == ["oracle/marker"]
        both = pd.read_parquet(masks["data"]["manifest"])
        assert len(both) == 2 and both["answer"].eq("yes").all()
    assert all(len(hashes) == 2 for hashes in names.values())  # fingerprints tell the checkpoints apart


def test_what_a_panel_does_not_have_is_a_usage_error(files, tmp_path, capsys) -> None:
    assert run(files, "--only", "randon-0") == (2, [])
    assert "no checkpoint randon-0" in capsys.readouterr().err
    assert run(files, "--number", "3") == (2, [])
    assert capsys.readouterr().err == "panel: --number must be from 0 to 2, got 3\n"
    text = (files / "panel.yaml").read_text()
    (tmp_path / "typo.yaml").write_text(text.replace("without: [gradient]", "without: [gradients]"))
    assert run(files, "--panel", str(tmp_path / "typo.yaml")) == (2, [])
    assert "substrates.without: no method gradients in" in capsys.readouterr().err


def test_the_panel_of_families_says_what_is_not_trained_and_takes_the_rest_from_the_panel(tmp_path, capsys) -> None:
    families = panel.read(ROOT / "benchmarks" / "families.yaml")
    assert list(families) == ["checkpoints"] and set(families["checkpoints"]) <= set(FAMILIES)
    words = ["--panel", str(ROOT / "benchmarks" / "families.yaml"), "--out", str(tmp_path), "--tables"]
    assert panel.main(words) == 0
    absent = [name for name, path in families["checkpoints"].items() if not panel.there(path)]
    said = f"Left out, not trained yet: {', '.join(absent)}" if absent else ""
    printed = capsys.readouterr().out
    assert said in printed and "No run is done yet." in printed


def test_a_run_of_its_own_leaves_the_signals_as_they_were(tmp_path) -> None:
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in watched]
    assert panel.evaluate_apart(["--config", str(tmp_path / "gone.yaml")]) == 2
    assert [signal.getsignal(number) for number in watched] == before


def test_settings_are_chosen_by_the_tuning_run_alone() -> None:
    rows = pd.DataFrame(make_rows())
    names = {"chefer": "cam-0", "attention": "cam-1", "integrated_gradients": "cam-2"}
    summary = summarize(rows.assign(method=rows["method"].replace(names)))
    assert panel_tables.settings_of(summary, {"cam": [{"layer": 0}, {"layer": 1}, {"layer": 2}]}) == {
        "cam": {"layer": 0}
    }
    missing = panel_tables.settings_of(summary, {"gone": [{"a": 1}, {"a": 2}]})
    assert missing == {"gone": {"a": 1}}


def test_phantoms_marker_finding_and_answer_are_independent() -> None:
    drawn = [panel_data.draw(number, 5) for number in range(30)]
    counts: dict[tuple[str, str, bool], int] = {}
    for phantom, (question,) in drawn:
        shown = {lesion.finding for lesion in phantom.lesions}
        assert (question.finding in shown) == (question.answer == "yes") and shown
        key = (str(question.finding), question.answer, bool(phantom.marker))
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 20 and {counts[key] for key in counts if key[1] == "no"} == {1}
    assert {counts[key] for key in counts if key[1] == "yes"} == {2}


def test_phantoms_with_both_show_the_finding_and_a_marker(tmp_path) -> None:
    rows = pd.read_parquet(panel_data.write(tmp_path / "marked", 10, 6, both=True))
    assert len(rows) == 10 and rows["answer"].eq("yes").all()
    for number in rows["sample_id"].str[1:4].astype(int):
        phantom, (question,) = panel_data.draw(number, 6)
        assert phantom.marker and question.finding in {lesion.finding for lesion in phantom.lesions}


def test_the_bias_of_a_substrate_is_that_of_the_slow_twin() -> None:
    rows = []
    for substrate, shift in (("pair", 0.0), ("blur:0.1", 0.1), ("mean", -0.2)):
        for row in make_rows(24):
            status = "degenerate" if substrate == "mean" and row["sample_id"] == "s02" else row["status"]
            rows.append(row | {"substrate": substrate, "status": status, "srg": row["srg"] + shift})
    frame = pd.DataFrame(rows)[["sample_id", "method", "substrate", "status", "srg", "effect"]]
    table, n = panel_tables.bias_table(frame)
    samples = reference.ok_everywhere(rows)
    assert n == len(samples) > 3 and "s02" not in samples
    for method in table.index:
        for substrate in table.columns:
            assert table.loc[method, substrate] == pytest.approx(
                reference.weighted_srg(rows, method, substrate, samples), abs=1e-12
            )
    assert np.allclose(table["blur:0.1"] - table["pair"], 0.1) and np.allclose(table["mean"] - table["pair"], -0.2)


def test_tau_is_that_of_the_slow_twin() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = ({f"m{i}": float(rng.integers(5)) for i in range(8)} for _ in range(2))
        other.pop("m3")
        assert panel_tables.tau(one, other) == pytest.approx(reference.kendall_tau_b(one, other), abs=1e-12)
    assert panel_tables.tau({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}) is None


def test_rankings_are_compared_under_each_substrate() -> None:
    methods, rng = ["attention", "chefer", "gradient", "rollout", "center", "oracle"], np.random.default_rng(0)
    specs = ["pair", "mean"]
    tables = {f"{name}-0": pd.DataFrame(rng.random((6, 2)), index=methods, columns=specs) for name in "abc"}
    tables["c-0"] = tables["c-0"].drop(columns="mean")
    lines = {line[:22].strip(): line[22:].split() for line in panel_tables.rankings_by_substrate(tables) if line}
    assert lines[""] == specs
    explaining = {name: table.loc[methods[:4]].to_dict() for name, table in tables.items()}  # no center, no oracle
    for one, other in (("a-0", "b-0"), ("a-0", "c-0"), ("b-0", "c-0")):
        expected = [
            f"{reference.kendall_tau_b(explaining[one][spec], explaining[other][spec]):.2f}"
            if spec in explaining[other]
            else "–"
            for spec in specs
        ]
        assert lines[f"{one}, {other}"] == expected


def test_the_stated_number_of_pictures_is_that_of_the_plan() -> None:
    rng, grid = np.random.default_rng(0), (12, 12)
    maps = {f"m{i}": rng.random(grid).astype(np.float32) for i in range(5)}
    case = Case(Prompt("q", (), (), 0), "a", "yes_no", Reply((), (), "", 0.0, 1.0, True), Target("margin"), maps=maps)
    plan, _ = plan_curves(grid, "a", [case], Protocol(steps=50, random_orders=20))
    assert len(plan) == panel_tables.curve_pictures(methods=6, steps=50, orders=20)  # five maps and the center


def test_the_page_states_the_passes_of_the_shipped_panel() -> None:
    config = panel.read(ROOT / "configs" / "panel.yaml")["model"]
    method_set = MethodSet(config["methods"], Protocol(**config["protocol"]))
    assert list(method_set.scored) == ["blur:0.1"]  # no method is made with it, so there is no second substrate
    assert not any(method_set.uses_substrate(name, "blur:0.1") for name in method_set.names)
    maps = len(method_set.names)
    passes = panel_tables.curve_pictures(maps, config["protocol"]["steps"], config["protocol"]["random_orders"])
    page = (ROOT / "docs" / "panel.md").read_text(encoding="utf-8")
    assert f"{passes:,} passes in `main` ({maps} maps and 20 random orders)" in " ".join(page.split())
    shipped = panel.read(ROOT / "benchmarks" / "panel.yaml")
    assert f"`main`: {shipped['main']['patients']} phantoms" in page
    assert f"`tuning`: {shipped['tuning']['patients']} phantoms" in page
    assert f"marker, on {shipped['marker']['patients']} other phantoms" in page
    assert set(shipped["substrates"]["without"]) < set(config["methods"])


def test_the_first_table_counts_the_checkpoints_on_which_a_method_is_above_the_center() -> None:
    rows = pd.DataFrame(make_rows())
    worse = rows.copy()
    worse.loc[worse["method"].eq("chefer"), ["gap_srg_center", "srg"]] -= 0.5
    summaries = {"random-0": summarize(rows), "plain-0": summarize(worse)}
    lines = {line.split()[0]: line for line in panel_tables.scores(summaries) if line}
    assert lines["chefer"].endswith("1 of 2") and lines["oracle"].endswith("2 of 2")
    assert lines["center"].endswith("0 of 2") and lines["random"].endswith("0 of 2")


def test_the_table_of_places_has_the_means_of_the_records() -> None:
    rows, rng = pd.DataFrame(make_rows()), np.random.default_rng(0)
    rows = rows.assign(**{name: rng.random(len(rows)) for name in ("pointing_ceiling", *LOCALIZATION_COLUMNS)})
    center = rows[rows["method"].eq("center")]
    shown = "\n".join(panel_tables.locations({"llava": summarize(rows), "gone": summarize(center)}))
    for method, own in rows[rows["method"].ne("random")].groupby("method"):
        line = next(line for line in shown.splitlines() if line.split()[:1] == [method])
        other = f"{own['auprc'].mean():.3f}" if method == "center" else "–"
        assert line.split()[1:] == [f"{own['auprc'].mean():.3f}", other]


def test_the_words_when_the_marker_decides(capsys) -> None:
    rows = pd.DataFrame(make_rows())
    names = {"oracle": panel_tables.MARKER, "center": "oracle", "attention": "center"}
    changed = rows[rows["present"]].assign(method=rows["method"].replace(names))
    changed.loc[changed["method"].eq("oracle"), "srg"] = -0.02 + 0.001 * np.arange(changed["method"].eq("oracle").sum())
    summary = summarize(changed)
    text = "\n".join(panel_tables.marker_and_lesion({"shortcut-0": summary}))
    assert "localization and faithfulness disagree: the answers depend on the marker, not on the finding" in text
    plain = rows[rows["present"]].assign(method=rows["method"].replace({"attention": panel_tables.MARKER}))
    text = "\n".join(panel_tables.marker_and_lesion({"plain-0": summarize(plain)}))
    assert "the answers depend on the finding" in text and "disagree" not in text
    few = plain[plain["sample_id"].lt("s05")]
    text = "\n".join(panel_tables.marker_and_lesion({"plain-0": summarize(few)}))
    assert "these samples do not say which of them decides" in text
