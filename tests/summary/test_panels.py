"""Panels of the summary: against scipy and loops over the records, and on runs with a known fault."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from cxr_faith.metrics.regions import REGIONS
from cxr_faith.records import read_records
from cxr_faith.records.controls import first_setting
from cxr_faith.report.formats import number
from cxr_faith.report.markdown import markdown
from cxr_faith.report.results import write_results
from cxr_faith.report.samples import sample_entries
from cxr_faith.report.trust import pointing_ceilings, trust_tables
from cxr_faith.summary.agreement import agreement_panel
from cxr_faith.summary.board import Setting
from cxr_faith.summary.calibration import calibration_panel
from cxr_faith.summary.conditions import condition_panel
from cxr_faith.summary.localization import method_localization
from cxr_faith.summary.regions import region_panel
from cxr_faith.summary.sets import Sets
from cxr_faith.summary.stability import stability_panel, turn_panel
from cxr_faith.summary.substrates import substrate_panel
from cxr_faith.summary.summarize import summarize
from tests.summary.write_large_run import write

METHODS = ("chefer", "attention", "integrated_gradients", "random_map", "center", "oracle")


@pytest.fixture
def frame(run_dir: Path) -> pd.DataFrame:
    """The synthetic records with localization scores: `pointing_game` follows srg, `auprc` is random."""
    frame = read_records(run_dir)
    rng = np.random.default_rng(0)
    frame["pointing_game"] = frame["srg"].astype(float) + 0.3 * rng.standard_normal(len(frame))
    frame["auprc"] = rng.random(len(frame))
    return frame


def test_substrates_are_compared_by_kendalls_tau(frame: pd.DataFrame) -> None:
    other = frame.assign(substrate="mean", srg=-frame["srg"].astype(float))
    third = frame.assign(substrate="zero", srg=frame["srg"].astype(float) * 2)
    panel = substrate_panel([pd.concat([frame, other, third])], pd.Index(sorted(set(frame["sample_id"]))), boards=[])
    taus = {(pair.a, pair.b): pair.kendall_tau for pair in panel.pairs}
    assert taus == {("blur:0.1", "mean"): -1.0, ("blur:0.1", "zero"): 1.0, ("mean", "zero"): -1.0}
    assert panel.pairs[0].n_methods == 3  # controls do not count
    ok = frame[frame["status"].eq("ok") & frame["method"].isin(METHODS[:3])]
    assert panel.pairs[0].n_samples == ok["sample_id"].nunique()
    random = frame[frame["method"].eq("random") & frame["status"].eq("ok")]["deletion_auc"].astype(float)
    effect = frame.loc[random.index, "effect"].astype(float)
    assert panel.breaks_early["mean"] == pytest.approx(1 - 2 * np.average(random, weights=effect))


def test_a_substrate_that_lacks_methods_does_not_come_first(frame: pd.DataFrame) -> None:
    some = frame[frame["method"].isin(["attention", "center", "random"])].assign(substrate="a")
    both = pd.concat([some, frame], ignore_index=True)
    assert set(first_setting(both)["substrate"]) == {"blur:0.1"}
    assert summarize(both, METHODS).board().substrate == "blur:0.1"
    assert set(first_setting(both[both["method"].eq("center")])["substrate"]) == {
        "a"
    }  # equally many rows: the first by name


def test_localization_is_joined_with_srg_on_the_same_samples(frame: pd.DataFrame) -> None:
    panel = method_localization(frame, frame, "chefer")
    mine = frame[frame["method"].eq("chefer")]
    ok = mine[mine["status"].eq("ok") & mine["pointing_game"].notna()]
    expected = scipy.stats.spearmanr(ok["srg"].astype(float), ok["pointing_game"]).statistic
    assert panel.with_srg["blur:0.1"].pointing_game == pytest.approx(expected, abs=1e-9)
    assert panel.with_srg["blur:0.1"].n == len(ok)
    assert panel.with_srg["blur:0.1"].iou_otsu is None and panel.iou_otsu is None
    expected = np.average(ok["srg"].astype(float), weights=ok["effect"].astype(float))
    assert panel.srg_located == pytest.approx(expected, abs=1e-9)
    assert panel.auprc == pytest.approx(mine["auprc"].mean()) and panel.n == mine["pointing_game"].notna().sum()


def test_localization_across_methods_leaves_controls_out(frame: pd.DataFrame) -> None:
    summary = summarize(frame, METHODS)
    # The means are over the samples that all three have.
    has = frame[frame["method"].isin(METHODS[:3]) & frame["status"].eq("ok") & frame["pointing_game"].notna()]
    has = has[has.groupby("sample_id")["method"].transform("size").eq(3)].astype({"srg": float, "effect": float})
    mine = [has[has["method"].eq(name)] for name in METHODS[:3]]
    srg = [np.average(rows["srg"], weights=rows["effect"]) for rows in mine]
    placed = [rows["auprc"].astype(float).mean() for rows in mine]
    across = summary.localization_across
    assert across.n_methods == 3 and across.iou_otsu is None
    assert across.auprc == pytest.approx(scipy.stats.spearmanr(srg, placed).statistic, abs=1e-9)
    tables = trust_tables(summary)
    (table,) = (table for table in tables if table.title.startswith("Does srg predict"))
    assert table.rows[-1][:3] == ["the methods' means", "", "3 methods"]


def test_agreement_is_the_mean_over_samples(frame: pd.DataFrame) -> None:
    pairs = agreement_panel(frame, ["chefer", "attention", "oracle"])
    assert [(pair.a, pair.b) for pair in pairs] == list(combinations(["chefer", "attention", "oracle"], 2))
    maps = frame[frame["map"].notna()].set_index(["method", "sample_id"])["map"]
    shared = maps["chefer"].index.intersection(maps["oracle"].index)
    values = [scipy.stats.spearmanr(maps["chefer", s], maps["oracle", s]).statistic for s in shared]
    assert pairs[1].spearman == pytest.approx(np.mean(values), abs=1e-9) and pairs[1].n == len(shared) < 40
    assert abs(pairs[0].spearman) < 0.1 and pairs[0].ssim < 0.3 and pairs[0].top_overlap < 0.2  # noise
    copied = frame.assign(
        map=[a if m != "attention" else None for a, m in zip(frame["map"], frame["method"], strict=True)]
    )
    assert len(agreement_panel(copied, ["chefer", "attention"])) == 0


def test_regions_of_even_maps_are_even(frame: pd.DataFrame) -> None:
    [chefer, *_] = region_panel(frame, METHODS)
    assert sum(chefer.value(name) for name in REGIONS) == pytest.approx(1)
    assert chefer.right_upper == pytest.approx(1 / 6, abs=0.02)
    assert chefer.border == pytest.approx(1 - 0.9**2, abs=0.02)
    assert list(vars(chefer.enrichment)) == [*REGIONS, "border"]
    assert chefer.enrichment.border == pytest.approx(chefer.border / (1 - 0.9**2))
    assert max(abs(ratio - 1) for ratio in vars(chefer.enrichment).values()) < 0.1


def test_regions_of_mirrored_and_lateral_films_follow_the_patient(frame: pd.DataFrame) -> None:
    [usual, *_] = region_panel(frame, METHODS)
    flipped = [
        m.reshape(int(h), -1)[:, ::-1].ravel() if isinstance(m, np.ndarray) and h == h else m
        for m, h in zip(frame["map"], frame["grid_h"], strict=True)
    ]
    assert region_panel(frame.assign(map=flipped), METHODS)[0].right_upper == pytest.approx(usual.left_upper)
    [mirrored, *_] = region_panel(frame.assign(map=flipped, orientation="mirrored"), METHODS)
    for name in (*REGIONS, "border"):
        assert mirrored.value(name) == pytest.approx(usual.value(name)), name
    for lateral in ({"orientation": "other"}, {"view": "LATERAL"}):
        [entry, *_] = region_panel(frame.assign(**lateral), METHODS)
        assert {entry.value(name) for name in REGIONS} == {None}
        assert (entry.border, entry.n) == (usual.border, usual.n)


def test_pages_mark_the_sides_that_are_known(frame: pd.DataFrame) -> None:
    settings = [Setting(*row) for row in frame[list(Setting._fields)].drop_duplicates().itertuples(index=False)]
    methods = sorted(set(frame["method"]))
    for stated, sides in (
        ({}, "RL"),
        ({"orientation": None}, "RL"),
        ({"orientation": "mirrored"}, "LR"),
        ({"orientation": "other"}, ""),
        ({"view": "LATERAL"}, ""),
    ):
        entries = sample_entries(frame.assign(**stated), settings, methods, 0)
        assert {tuple(entry.sides) for entry in entries} == {(sides,)}


def test_calibration_takes_each_sample_once(frame: pd.DataFrame) -> None:
    panel = calibration_panel([frame], METHODS)
    assert panel.n == 39 and sum(b.n for b in panel.reliability) == 39
    # 20 present said with .9, 18 absent with .1, one absent with .1 answered yes by its label.
    assert 0.09 < panel.ece < 0.13
    assert panel.auroc == 1.0  # label and answer differ for one sample, which is as unsure as the absent ones
    assert panel.selective_accuracy["1"] == pytest.approx(38 / 39)
    ok = frame[frame["method"].eq("chefer") & frame["status"].eq("ok")]
    expected = scipy.stats.spearmanr(ok["margin"].abs(), ok["srg"].astype(float)).statistic
    assert panel.confidence_with_srg["chefer"] == pytest.approx(expected, abs=1e-9)
    assert panel.confidence_n["chefer"] == len(ok)


def paraphrased(frame: pd.DataFrame) -> pd.DataFrame:
    """Three questions, each reworded (same answer and map, `a`) and negated (answer flips, map turned, `b`)."""
    rows = []
    for _, row in frame[frame["sample_id"].isin(["s00", "s04", "s08"])].iterrows():
        base = row.to_dict() | {"question_group": f"g{row['sample_id']}", "strategy": None}
        rows.append(base)
        reworded = {"sample_id": row["sample_id"] + "a", "strategy": "reword", "margin": row["margin"] - 0.5}
        negated = {"sample_id": row["sample_id"] + "b", "strategy": "negate", "predicted": "no", "margin": -1.0}
        if row["map"] is not None:
            negated["map"] = row["map"][::-1]
            negated["gap_srg_random"] = (row["gap_srg_random"] or 0) - 0.25
        rows += [base | reworded, base | negated]
    return pd.DataFrame(rows)


def test_stability_compares_each_variant_with_its_baseline(frame: pd.DataFrame) -> None:
    panel = stability_panel(paraphrased(frame))
    assert panel is not None
    answers = {entry.strategy: entry for entry in panel.answers}
    assert (answers["reword"].n, answers["reword"].flip_rate, answers["negate"].flip_rate) == (3, 0, 1)
    assert answers["all"].flip_rate == 0.5 and answers["reword"].margin_shift == pytest.approx(0.5)
    chefer, reworded, negated = (
        next(entry for entry in panel.maps if (entry.strategy, entry.method) == (strategy, "chefer"))
        for strategy in ("all", "reword", "negate")
    )
    maps = [
        frame[frame["method"].eq("chefer") & frame["sample_id"].eq(s)]["map"].iloc[0] for s in ("s00", "s04", "s08")
    ]
    turned = [scipy.stats.spearmanr(m, m[::-1]).statistic for m in maps]
    assert chefer.n == 6 and chefer.spearman == pytest.approx((3 + sum(turned)) / 6)
    assert chefer.gap_change == pytest.approx(0.125)
    assert (reworded.n, reworded.spearman, reworded.gap_change) == (3, 1, 0)
    with_gap = frame[frame["method"].eq("chefer") & frame["sample_id"].isin(["s00", "s04", "s08"])]["gap_srg_random"]
    assert reworded.n_gap == with_gap.notna().sum() and answers["reword"].n_margin == 3
    assert negated.spearman == pytest.approx(sum(turned) / 3) and negated.gap_change == pytest.approx(0.25)
    assert stability_panel(frame) is None
    assert "random" not in [entry.method for entry in panel.maps]


def test_turns_are_compared_with_the_one_before(frame: pd.DataFrame) -> None:
    """Turn 1 keeps margin and map, turn 2 moves the margin and turns the map; a reworded turn 2 counts as a variant."""
    first = frame[frame["sample_id"].isin(["s00", "s04"])]
    first = first.assign(question_group="g" + first["sample_id"], strategy=None)
    second = first.assign(sample_id=first["sample_id"] + "b", turn=1)
    turned = [None if values is None else values[::-1] for values in first["map"]]
    third = first.assign(sample_id=first["sample_id"] + "a", turn=2, margin=first["margin"] - 0.5, map=turned)
    reworded = third.assign(sample_id=first["sample_id"] + "c", strategy="reword")
    rows = pd.concat([third, reworded, second, first], ignore_index=True)
    panel, wordings = turn_panel(rows), stability_panel(rows)
    assert panel is not None and wordings is not None and turn_panel(frame) is None
    answers = {entry.strategy: entry for entry in panel.answers}
    assert [*answers] == ["all", "turn 1", "turn 2"]
    assert (answers["turn 1"].n, answers["turn 1"].margin_shift, answers["turn 2"].margin_shift) == (2, 0, 0.5)
    maps = {entry.strategy: entry for entry in panel.maps if entry.method == "chefer"}
    own = [m for m in first.loc[first["method"].eq("chefer"), "map"]]
    expected = np.mean([scipy.stats.spearmanr(m, m[::-1]).statistic for m in own])
    assert (maps["turn 1"].spearman, maps["turn 1"].gap_change) == (1, 0)
    assert maps["turn 2"].spearman == pytest.approx(expected)
    assert [(entry.strategy, entry.n) for entry in wordings.answers] == [("all", 2), ("reword", 2)]
    assert summarize(rows, METHODS).turns == panel


def test_conditions_are_compared_sample_by_sample(frame: pd.DataFrame) -> None:
    drawn = frame["map"].notna()
    turned = frame.assign(
        condition="shift:2",
        margin=frame["margin"] + 0.25,
        predicted=frame["predicted"].where(frame["sample_id"].ne("s00"), "no"),
        gap_srg_random=frame["gap_srg_random"].astype(float) - 0.5,
        map=[values[::-1] if there else None for values, there in zip(frame["map"], drawn, strict=True)],
    )
    turned = turned[turned["sample_id"].lt("s10")]
    panel = condition_panel(pd.concat([turned, frame]))
    assert panel is not None and condition_panel(frame) is None
    [answers] = panel.answers
    answered = frame.loc[frame["sample_id"].lt("s10") & frame["predicted"].notna(), "sample_id"].nunique()
    assert (answers.condition, answers.n) == ("shift:2", answered)
    assert answers.flip_rate == pytest.approx(1 / answered) and answers.margin_shift == pytest.approx(0.25)
    oracle = next(entry for entry in panel.maps if entry.method == "oracle")
    maps = frame[frame["method"].eq("oracle") & frame["sample_id"].lt("s10") & drawn]["map"]
    expected = np.mean([scipy.stats.spearmanr(m, m[::-1]).statistic for m in maps])
    assert oracle.n == len(maps) == 5 and oracle.spearman == pytest.approx(expected)
    assert oracle.gap_change == pytest.approx(0.5)
    # The rest of the summary comes from the rows without a condition alone.
    plain, both = (summarize(rows, METHODS) for rows in (frame, pd.concat([turned, frame])))
    assert both.conditions == panel and replace(both, conditions=None) == plain


def test_a_substrate_that_harms_the_answer_by_itself_has_a_high_ood_score(frame: pd.DataFrame) -> None:
    """Under `mean` one replaced cell is enough to lose the whole effect; under `blur` curves fall as before."""
    curves, ends = ("deletion_scores", "insertion_scores"), frame["s_substrate"]
    broken = frame.assign(substrate="mean")
    for name in curves:
        broken[name] = [
            None if c is None else np.where(np.asarray(c) == max(c[0], c[-1]), c, e)
            for c, e in zip(broken[name], ends, strict=True)
        ]
    summary = summarize(pd.concat([frame, broken], ignore_index=True), METHODS)
    board = summary.board(substrate="blur:0.1")
    shared = [row.curves for row in board.rows if row.curves.n == board.n_common]
    expected = 1 - max(curves.insertion[4] for curves in shared)  # of 8 steps
    assert 0 < expected < 0.3
    assert summary.substrates.ood == {"blur:0.1": pytest.approx(expected), "mean": pytest.approx(1)}
    text = markdown(summary, trust_tables(summary))
    assert "## Does a substrate do harm by itself?" in text and "OOD score: What is lost" in text
    # A method counts only if every substrate has it, and the best one is missing under `mean`.
    fewer = pd.concat([frame, frame[frame["method"].ne("oracle")].assign(substrate="mean")], ignore_index=True)
    ood = summarize(fewer, METHODS).substrates.ood
    assert ood["blur:0.1"] == ood["mean"] > summary.substrates.ood["blur:0.1"]


def test_the_summary_holds_all_panels(frame: pd.DataFrame, run_dir: Path) -> None:
    both = pd.concat([frame, paraphrased(frame)])
    summary = summarize(both.drop_duplicates(["sample_id", "method"], ignore_index=True), METHODS)
    assert summary.substrates.ood and summary.localization and summary.agreement and summary.regions
    assert summary.calibration.n and summary.stability
    write_results(run_dir)
    text = (run_dir / "summary.md").read_text()
    for title in ("Do the methods agree? SSIM", "Is the model as sure", "Do surer answers have", "Does a substrate do"):
        assert f"## {title}" in text
    assert "## Do the answers survive another wording?" not in text  # no variants there


@pytest.mark.cluster
def test_a_hundred_thousand_rows(tmp_path: Path) -> None:
    """10 methods, 10,000 samples of 2,500 patients, 50 steps and 16 x 16 cells: summary and page in 2 GB.

    On an idle core they take less than a minute, but a test cannot rely on an idle core. What holds on any machine, in
    processor time: the cost grows no faster than the rows do, and is a small multiple of reading them.
    """
    import subprocess
    import sys

    script = """
import sys, time
from pathlib import Path
from cxr_faith.records import read_records
from cxr_faith.report.html import write_report
from cxr_faith.summary.summarize import write_summary

times = [time.process_time()]
for action in (read_records, write_summary, write_report):
    action(sys.argv[1])
    times.append(time.process_time())
# Not ru_maxrss: a process inherits its value from the process that started it.
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(*(end - begin for begin, end in zip(times, times[1:])), peak)
"""

    def costs(rows: int) -> list[float]:
        """Seconds of reading, summary and page, and KiB."""
        write(tmp_path / str(rows), rows)
        words = [sys.executable, "-c", script, str(tmp_path / str(rows))]
        done = subprocess.run(words, cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True)
        return list(map(float, done.stdout.split()))

    (_, *short, _), (read, *long, kibibytes) = costs(10_000), costs(100_000)
    assert sum(long) < 10 * sum(short), (short, long)
    gigabytes = kibibytes / 2**20
    print(read, short, long, gigabytes)
    assert sum(long) < 40 * read, (long, read)
    assert gigabytes < 2


def test_sets_are_counted_by_method_and_substrate(frame: pd.DataFrame) -> None:
    chefer = frame["method"].eq("chefer")
    few = chefer & frame["sample_id"].lt("s04")
    sets = frame.assign(set_size=np.where(few, 3, np.nan), set_removal_flips=None, set_keeps=None, verified=None)
    sets["set_removal_flips"] = [
        name > "s00" if there else None for name, there in zip(sets["sample_id"], few, strict=True)
    ]
    sets["set_keeps"] = [name > "s02" if there else None for name, there in zip(sets["sample_id"], few, strict=True)]
    summary = summarize(sets, METHODS)
    assert summary.sets == (Sets("chefer", "blur:0.1", n=4, size=3.0, removal_flips=0.75, keeps=0.25),)
    (table,) = (table for table in trust_tables(summary) if table.title.startswith("Are the explaining sets"))
    assert table.rows == [["chefer", "blur:0.1", "4", "3.000", "75.0%", "25.0%"]]
    assert summarize(frame, METHODS).sets == ()


def test_means_medians_and_the_pointing_ceiling_stand_in_tables(frame: pd.DataFrame) -> None:
    ceiling = frame["pointing_game"].where(frame["pointing_game"].isna(), 0.8)
    tables = trust_tables(summarize(frame.assign(pointing_ceiling=ceiling), METHODS))
    (means,) = (table for table in tables if table.title.startswith("Does the weight matter?"))
    row = summarize(frame, METHODS).board().row("chefer")
    shown = dict(zip(means.header, next(cells for cells in means.rows if cells[0] == "chefer"), strict=True))
    assert float(shown["srg"]) == pytest.approx(row.srg, abs=1e-3)
    assert float(shown["srg, plain"]) == pytest.approx(row.plain_means["srg"], abs=1e-3)
    assert float(shown["srg, median"]) == pytest.approx(row.medians["srg"], abs=1e-3)
    (placed,) = (table for table in tables if table.title.startswith("Do the maps lie on the finding?"))
    assert "pointing game above 0.800: " in placed.note


def test_the_most_hits_are_said_for_each_number_of_samples(frame: pd.DataFrame) -> None:
    """A row over fewer samples may have a higher limit than the others: none may seem to exceed its own."""
    low = frame["sample_id"].eq("s02")
    hits = frame["pointing_game"].mask(low & frame["method"].eq("oracle"))
    ceilings = pd.Series(np.where(low, 0.5, 0.8), frame.index).where(hits.notna())
    panel = summarize(frame.assign(pointing_game=hits, pointing_ceiling=ceilings), METHODS).localization
    few, many = (next(one for one in panel if one.method == name) for name in ("oracle", "chefer"))
    assert few.n < many.n and few.pointing_ceiling > many.pointing_ceiling
    assert pointing_ceilings(panel, number) == (
        f"{many.pointing_ceiling:.3f} (n = {many.n}) or {few.pointing_ceiling:.3f} (n = {few.n})"
    )
