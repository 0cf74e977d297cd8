import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from cxr_faith.records import RecordWriter, read_records
from cxr_faith.report.costs import render_costs
from cxr_faith.report.formats import number
from cxr_faith.report.html import write_report
from cxr_faith.report.leaderboard import render_leaderboard
from cxr_faith.report.markdown import markdown
from cxr_faith.report.results import write_results
from cxr_faith.report.terminal import PlainConsole, show_summary
from cxr_faith.summary.bands import with_bands
from cxr_faith.summary.board_row import BoardRow
from cxr_faith.summary.cautions import cautions, urgent
from cxr_faith.summary.failures import Failure, Failures
from cxr_faith.summary.summarize import summarize, write_summary
from cxr_faith.summary.summary import Summary
from cxr_faith.summary.verdict import NO_EFFECT
from tests.reference import statistics

METHODS = ("chefer", "attention", "integrated_gradients", "random_map", "center", "oracle")


@pytest.fixture
def summary(run_dir: Path) -> Summary:
    return summarize(read_records(run_dir), METHODS)


def by_method(summary: Summary, slice: str = "all") -> dict[str, BoardRow]:
    return {row.method: row for row in summary.board(slice).rows}


def ok_everywhere(rows: list[dict[str, Any]]) -> set[str]:
    """The slow definition: samples whose rows are all ok."""
    return {row["sample_id"] for row in rows} - {row["sample_id"] for row in rows if row["status"] != "ok"}


def test_means_are_over_the_samples_that_are_ok_for_all(summary: Summary, rows: list[dict[str, Any]]) -> None:
    common = ok_everywhere(rows)
    assert 0 < len(common) < 40
    for method, entry in by_method(summary).items():
        mine = [row for row in rows if row["method"] == method]
        chosen = [row for row in mine if row["sample_id"] in common]
        assert (entry.n, entry.n_common) == (len(mine), len(chosen))
        assert entry.n_ok == sum(row["status"] == "ok" for row in mine)
        assert entry.coverage == entry.n_ok / len(mine)
        effects = [row["effect"] for row in chosen]
        for column in ("deletion_auc", "insertion_auc", "srg", "drop_50", "retained_50"):
            values = [row[column] for row in chosen]
            assert entry.value(column) == pytest.approx(np.average(values, weights=effects), abs=1e-12), column
            assert entry.plain_means[column] == pytest.approx(np.mean(values), abs=1e-12), column
            assert entry.medians[column] == pytest.approx(np.median(values), abs=1e-12), column
        for column in ("srg_logit", "tie_share"):  # not in units of the effect
            assert entry.value(column) == pytest.approx(np.mean([row[column] for row in chosen]), abs=1e-12), column
        ratio = sum(row["srg_logit"] for row in chosen) / sum(row["effect"] for row in chosen)
        assert entry.srg_ratio_of_sums == pytest.approx(ratio, abs=1e-12)


def test_one_answer_that_hardly_moves_does_not_carry_a_mean(rows: list[dict[str, Any]]) -> None:
    """An effect of .66 and an srg of 2.65 among samples whose effect is about ten: the plain mean moves, not ours."""
    changed = [dict(row) for row in rows]
    for row in changed:
        if row["method"] == "chefer" and row["sample_id"] == "s00":
            row |= {"srg": 2.65}
        if row["sample_id"] == "s00":
            row |= {"effect": 0.66}
    before, after = (by_method(summarize(pd.DataFrame(some), METHODS))["chefer"] for some in (rows, changed))
    assert after.plain_means["srg"] - before.plain_means["srg"] > 0.09
    assert abs(after.srg - before.srg) < 0.02 and abs(after.medians["srg"] - before.medians["srg"]) < 0.05
    assert after.intervals["srg"].mean == pytest.approx(after.srg)


def test_a_flat_map_counts_with_an_srg_of_zero(rows: list[dict[str, Any]]) -> None:
    """It stays among the common samples of all methods, and its share stands in the tables."""
    random = {row["sample_id"]: row for row in rows if row["method"] == "random"}
    changed, flat = [], {"s00", "s04"}
    for row in rows:
        if row["method"] == "attention" and row["sample_id"] in flat:
            row = row | {name: random[row["sample_id"]][name] for name in ("deletion_auc", "insertion_auc", "srg")}
            row |= {"status": "flat", "flat": True, "gap_srg_random": 0.0}
        changed.append(row)
    before, after = (summarize(pd.DataFrame(some), METHODS) for some in (rows, changed))
    old, new = (by_method(summary)["attention"] for summary in (before, after))
    assert (new.n_common, new.coverage, new.status["flat"]) == (old.n_common, old.coverage, 2)
    assert new.flat_share == 2 / new.n_common and by_method(after)["chefer"].flat_share == 0
    mine = [row for row in changed if row["method"] == "attention" and row["sample_id"] in ok_everywhere(rows)]
    expected = np.average([row["srg"] for row in mine], weights=[row["effect"] for row in mine])
    assert new.srg == pytest.approx(expected, abs=1e-12) and new.srg < old.srg
    assert by_method(after)["chefer"].srg == by_method(before)["chefer"].srg
    text = markdown(after)
    assert any(line.startswith("| attention ") and " 10% " in line for line in text.splitlines())


def test_a_method_without_rows_for_a_sample_does_not_block_the_others(rows: list[dict[str, Any]]) -> None:
    frame = pd.DataFrame(rows)
    keep = frame["method"].ne("oracle") | frame["sample_id"].lt("s10")
    summary = summarize(frame[keep].reset_index(drop=True), METHODS)
    entries = by_method(summary)
    assert entries["oracle"].n_common == 5 and entries["chefer"].n_common == 20
    assert {row.n_common for row in summary.board("with_oracle").rows} == {5}


def test_one_method_that_failed_on_a_sample_removes_it_from_every_mean(rows: list[dict[str, Any]]) -> None:
    changed = [dict(row) for row in rows]
    hit = next(row for row in changed if row["method"] == "attention" and row["sample_id"] == "s04")
    hit |= {"status": "invalid", "reason": "map is not finite", "srg": None}
    summary = summarize(pd.DataFrame(changed), METHODS)
    assert by_method(summary)["chefer"].n_common == 19
    assert by_method(summary)["chefer"].n_ok == 20
    expected = Failure(sample_id="s04", methods="attention", status="invalid", reason="map is not finite")
    assert expected in summary.failures.first


def test_a_method_that_failed_everywhere_removes_no_sample_from_the_others(
    run_dir: Path, rows: list[dict[str, Any]]
) -> None:
    before = summarize(read_records(run_dir), METHODS).board()
    lost = ("sample_id", "image_id", "patient_id", "substrate", "target", "space", "condition", "present", "finding")
    mine = [{name: row.get(name) for name in lost} for row in rows if row["method"] == "chefer"]
    broken = [row | {"method": "broken", "status": "invalid", "reason": "broken: no"} for row in mine]
    RecordWriter(run_dir, rank=1, start=0).write(broken)
    frame = read_records(run_dir)
    summary = summarize(frame, [*METHODS, "broken"])
    after = with_bands(summary, frame).board()
    assert after.n_common == before.n_common > 0
    others = {row.method: row for row in after.rows}
    broken_row = others.pop("broken")
    assert broken_row.coverage == 0 and broken_row.srg is None
    for row in before.rows:
        assert others[row.method].srg == row.srg and others[row.method].n_common == row.n_common
        assert others[row.method].curves.n == row.curves.n
        assert others[row.method].curves.bands is not None or row.method == "oracle"


def test_answered_no_is_ranked_by_scores_that_need_no_effect(summary: Summary, rows: list[dict[str, Any]]) -> None:
    board = summary.board("answered_no")
    assert (board.headline, board.n_common, board.n_scored) == ("srg_logit_scored", 0, 17)
    chefer = by_method(summary, "answered_no")["chefer"]
    chosen = [
        row["srg_logit"]
        for row in rows
        if row["method"] == "chefer" and row["predicted"] == "no" and row["status"] in ("inverted", "degenerate")
    ]
    assert len(chosen) == chefer.n_scored == 17
    assert chefer.srg_logit_scored == pytest.approx(np.mean(chosen), abs=1e-12)
    assert chefer.srg is None and chefer.srg_logit is None and chefer.curves is None


@pytest.mark.parametrize(("n_ok", "headline"), [(1, "srg_logit_scored"), (5, "srg_logit_scored"), (12, "srg")])
def test_a_few_ok_samples_do_not_rank_a_slice(run_dir: Path, n_ok: int, headline: str) -> None:
    """Of the 20 answers about absent findings some are ok, of too few patients for an interval; the others are not."""
    frame = read_records(run_dir)
    absent = sorted(frame.loc[frame["present"].eq(False) & frame["status"].isin(NO_EFFECT), "sample_id"].unique())
    changed = frame.copy()
    made_ok = changed["sample_id"].isin(absent[:n_ok]) & changed["status"].isin(NO_EFFECT)
    ends = ["s_original", "s_substrate"]
    changed.loc[made_ok, ends] = changed.loc[made_ok, ends[::-1]].to_numpy()  # ok samples have a positive effect
    changed.loc[made_ok, "status"] = "ok"
    board = summarize(changed, METHODS).board("absent")
    assert 0 < board.n_common <= n_ok < board.n_scored and board.headline == headline


def test_slices_split_by_reference_and_by_prediction(summary: Summary) -> None:
    sizes = {board.slice: board.n_samples for board in summary.boards}
    expected = {"all": 40, "present": 20, "absent": 20, "answered_yes": 21, "answered_no": 18}
    expected |= {"correct": 38, "wrong": 1}
    assert sizes == expected | {"finding:nodule": 20, "finding:<b>effusion</b>": 20}


def test_standard_errors_are_over_patients(summary: Summary, rows: list[dict[str, Any]]) -> None:
    """That of a weighted mean is its jackknife error, that of a plain mean comes from the patients' means."""
    chosen = [row for row in rows if row["method"] == "chefer" and row["sample_id"] in ok_everywhere(rows)]
    patients = [row["patient_id"] for row in chosen]
    gaps, effects = ([row[name] for row in chosen] for name in ("gap_deletion_random", "effect"))
    weighted = statistics.jackknife_error(statistics.weighted_by_cluster(gaps, effects, patients))
    assert by_method(summary)["chefer"].gap_deletion_random_se == pytest.approx(weighted, rel=1e-9)
    means = [np.mean(values) for values in statistics.by_cluster([row["srg_logit"] for row in chosen], patients)]
    plain = np.std(means, ddof=1) / math.sqrt(len(means))
    assert by_method(summary)["chefer"].srg_logit_se == pytest.approx(plain, rel=1e-9)


def test_statuses_flips_and_missing_baselines(summary: Summary) -> None:
    entries = by_method(summary)
    expected = {"ok": 20, "degenerate": 9, "inverted": 9, "off_format": 1, "invalid": 1, "flat": 0}
    assert entries["chefer"].status == expected
    assert entries["chefer"].substrate_flips == 1.0 and 0 < entries["oracle"].flip_deletion < 0.5
    assert entries["center"].gap_srg_center is None and entries["center"].gap_srg_center_se is None
    assert entries["random"].gap_srg_random is None
    assert entries["integrated_gradients"].own_substrate and not entries["chefer"].own_substrate


def test_mean_curves_are_normalized(summary: Summary, rows: list[dict[str, Any]]) -> None:
    common = ok_everywhere(rows)
    chosen = [row for row in rows if row["method"] == "oracle" and row["sample_id"] in common]
    curves = by_method(summary)["oracle"].curves
    normalized = [(row["deletion_scores"] - row["s_substrate"]) / row["effect"] for row in chosen]
    expected = np.average(normalized, axis=0, weights=[row["effect"] for row in chosen])
    np.testing.assert_allclose(curves.deletion, expected, atol=1e-12)
    assert (curves.n, curves.x[0], curves.x[-1]) == (20, 0.0, 1.0)
    assert curves.deletion[0] == pytest.approx(1) and curves.insertion[0] == pytest.approx(0)


def test_curves_at_different_steps_are_refused(rows: list[dict[str, Any]]) -> None:
    changed = [dict(row) for row in rows]
    hit = next(row for row in changed if row["method"] == "chefer" and row["sample_id"] == "s02")
    hit["k"] = hit["k"] + (np.arange(len(hit["k"])) == 3)
    with pytest.raises(ValueError, match="'s00' and 's02'.*different steps"):
        summarize(pd.DataFrame(changed), METHODS)


def test_answers_count_samples_not_rows(summary: Summary) -> None:
    answers = {entry.slice: entry for entry in summary.answers}
    assert (answers["all"].n_samples, answers["all"].n_known, answers["all"].n_patients) == (40, 39, 10)
    assert answers["all"].accuracy == pytest.approx(38 / 39)
    assert answers["all"].answer_mismatch == pytest.approx(1 / 40)
    assert answers["finding:nodule"].accuracy == 1.0


def test_an_answer_that_cannot_be_read_counts_neither_way(rows: list[dict[str, Any]]) -> None:
    """Neither in accuracy nor among the correct or the wrong ones; it has a count of its own."""
    unread = {"s00", "s01", "s02"}
    changed = [row | {"correct": None, "not_parsed": True} if row["sample_id"] in unread else row for row in rows]
    before, after = (summarize(pd.DataFrame(some), METHODS) for some in (rows, changed))
    known = {row["sample_id"]: row["correct"] for row in changed if row["correct"] is not None}
    answers = {entry.slice: entry for entry in after.answers}
    assert answers["all"].n_known == len(known) < {entry.slice: entry for entry in before.answers}["all"].n_known
    assert answers["all"].accuracy == pytest.approx(np.mean(list(known.values())))
    assert (answers["all"].n_samples, answers["all"].n_not_parsed) == (40, 3)
    assert answers["correct"].n_samples + answers["wrong"].n_samples == len(known)


def files_of(run_dir: Path) -> tuple[bytes, bytes]:
    write_results(run_dir)
    return (run_dir / "summary.json").read_bytes(), (run_dir / "summary.md").read_bytes()


@pytest.mark.parametrize("world", [2, 7])
def test_files_are_the_same_bytes_for_any_number_of_ranks(run_dir: Path, rows: Any, world: int) -> None:
    other = run_dir / "other"
    samples = sorted({row["sample_id"] for row in rows})
    random.Random(world).shuffle(samples)
    for rank in range(world):
        writer = RecordWriter(other, rank, start=rank % 3)
        for sample in samples[rank::world]:
            writer.write([dict(row, seconds=rank + 0.5) for row in rows if row["sample_id"] == sample][::-1])
        writer.compact()
    RecordWriter(other, 0, 3).write(rows[:20])  # a later start that did some again
    assert files_of(other) == files_of(run_dir)


def test_a_run_with_a_torn_part_is_partial(run_dir: Path, rows: list[dict[str, Any]]) -> None:
    (run_dir / "provenance.json").write_text(json.dumps({"methods": METHODS, "samples_total": 40}))
    assert write_summary(run_dir).partial is False
    part = next((run_dir / "records").glob("part-*"))
    part.unlink()
    RecordWriter(run_dir, 0, 1).write([row for row in rows if row["sample_id"] < "s30"])
    torn = RecordWriter(run_dir, 0, 2).write([row for row in rows if row["sample_id"] >= "s30"])
    assert torn is not None
    torn.write_bytes(torn.read_bytes()[:-100])
    summary = write_summary(run_dir)
    assert (summary.partial, summary.missing, summary.n_samples) == (True, 10, 30)
    assert summary.warnings[0] == "Partial: 30 of 40 samples have records, 10 are missing."
    assert json.loads((run_dir / "summary.json").read_text())["partial"] is True


def test_a_run_that_has_not_grown_to_the_end_says_so(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    """Also before the numbers, where urgent warnings stand."""
    kept = ["chefer", "attention", "center", "random"]
    half = [row for row in rows if row["method"] != "attention" or row["sample_id"] < "s10"]
    RecordWriter(tmp_path, 0, 0).write(half)
    shown = {"scored": {"blur:0.1": kept}, "conditions": ["none"], "masked": {}}
    (tmp_path / "provenance.json").write_text(json.dumps({"methods": kept, "samples_total": 40, "rows": shown}))
    summary = write_summary(tmp_path)
    assert (summary.partial, summary.missing, summary.n_samples) == (True, 30, 40)
    assert summary.warnings[0] == urgent(summary)[0] == "Partial: 10 of 40 samples have all rows, 30 lack some."


def test_warnings_name_low_coverage_random_auc_and_a_beaten_oracle(rows: list[dict[str, Any]]) -> None:
    changed = [dict(row) for row in rows if row["sample_id"] >= "s02"]
    for row in changed:
        if row["method"] == "random" and row["deletion_auc"] is not None:
            row["deletion_auc"] += 0.3
        if row["method"] == "chefer":
            row["srg"] += 0.5
    warnings = "\n".join(summarize(pd.DataFrame(changed), METHODS).warnings)
    assert "Random orders have a deletion AUC of 0.80 under blur:0.1" in warnings
    assert "Oracle is not the best under blur:0.1: on the 19 samples that both have, the srg of chefer is" in warnings
    few = pd.DataFrame(rows)
    few = few[few["present"].eq(False) | few["sample_id"].lt("s10")]
    assert "compare 5 of 25 samples (20%)" in "\n".join(summarize(few, METHODS).warnings)


def test_a_warning_says_when_the_finding_does_not_decide(rows: list[dict[str, Any]]) -> None:
    changed = [dict(row) for row in rows]
    for row in changed:
        if row["method"] == "oracle":
            row["srg"] -= 0.6
    warnings = "\n".join(summarize(pd.DataFrame(changed), METHODS).warnings)
    assert (
        "Localization and faithfulness disagree under blur:0.1: the mask of the finding has an srg of -0." in warnings
    )
    assert "so a map that lies on it is not faithful for that." in warnings
    for row in changed:  # still beaten, but with most of what the best method has
        if row["method"] == "oracle":
            row["srg"] += 0.3
    nearer = "\n".join(summarize(pd.DataFrame(changed), METHODS).warnings)
    assert "Oracle is not the best" in nearer and "disagree" not in nearer


def test_a_directory_of_other_things_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(ValueError, match="neither records nor"):
            write_summary(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_directory_gives_a_report_that_says_so(tmp_path: Path) -> None:
    assert any("No sample could be scored" in warning for warning in write_results(tmp_path).summary.warnings)
    assert "No sample could be scored" in (tmp_path / "summary.md").read_text()
    assert "No sample could be scored" in write_report(tmp_path).read_text()


def test_leaderboard_is_best_first_and_fits_the_terminal(summary: Summary) -> None:
    assert [row.method for row in summary.board().ranked()][:3] == ["oracle", "chefer", "integrated_gradients"]
    assert summary.methods == (*METHODS, "random")
    console = Console(width=200, record=True, file=open("/dev/null", "w"))
    for board in summary.boards:
        console.print(render_leaderboard(summary, board.slice))
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 110
    assert "integrated_gradients*" in text and "* the method perturbs with this substrate itself" in text
    assert "↓ lower is better, ↑ higher is better" in text and "Δdel ↑" in text
    with pytest.raises(KeyError, match="no board"):
        summary.board(substrate="mean")


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_narrow_terminal_shows_fewer_columns_and_whole_names(
    rows: list[dict[str, Any]], tmp_path: Path, width: int
) -> None:
    long = [row | {"method": "integrated_gradients_noise"} for row in rows if row["method"] == "integrated_gradients"]
    RecordWriter(tmp_path, rank=0, start=0).write([*rows, *long])
    summary = write_summary(tmp_path)
    with open("/dev/null", "w") as nowhere:
        console = Console(width=width, record=True, file=nowhere)
        show_summary(PlainConsole(width=width, record=True, file=nowhere), summary, tmp_path)  # every table is drawn
        console.print(render_leaderboard(summary, width=width))
        console.print(render_costs(summary, tmp_path, width))
    text = console.export_text()
    lines = [line for line in text.splitlines() if line.startswith("integrated_gradients_noise*")]
    assert len(lines) == 2 and max(map(len, text.splitlines())) <= width
    best = summary.board().row("integrated_gradients_noise")
    assert best is not None and number(best.srg) in lines[0] and number(best.gap_srg_center, signed=True) in lines[0]
    assert ("Some columns do not fit" in text) == (width < 110) and ("drop" in text) == (width > 60)


def test_substrates_and_targets_are_never_mixed(rows: list[dict[str, Any]]) -> None:
    more = [dict(row, target="first") for row in rows] + [dict(row, substrate="mean") for row in rows]
    tokens = [dict(row, condition="seed:1", srg=99.0) for row in rows]
    summary = summarize(pd.DataFrame([*rows, *more, *tokens]), METHODS)
    settings = {(board.substrate, board.target) for board in summary.boards}
    assert settings == {("blur:0.1", "answer"), ("blur:0.1", "first"), ("mean", "answer")}
    assert summary.board(substrate="mean").rows[0].n == 40
    assert "target first" in str(render_leaderboard(summary, target="first").title)
    assert summary.board(target="first").ranked()[0].srg < 1


def test_markdown_survives_hostile_names(run_dir: Path) -> None:
    write_results(run_dir)
    text = (run_dir / "summary.md").read_text()
    assert "<b>" not in text and "&lt;b&gt;effusion" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    blocks = text.split("\n\n")
    for block in (block for block in blocks if block.startswith("|")):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) == 1 and len({len(line) for line in lines}) == 1
    assert len(table) > 30


def test_the_most_common_reason_is_counted_without_file_names(run_dir: Path) -> None:
    summary = summarize(read_records(run_dir), METHODS)
    reasons = (
        "/data/a b/1.png: the picture is constant",
        "p/2.png: the picture is constant",
        "rise: RuntimeError: x: y",
    )
    first = tuple(Failure(f"s{at}", "all", "invalid", reason) for at, reason in enumerate(reasons))
    lines = cautions(replace(summary, failures=Failures(3, first)))
    assert any(line.endswith("Most often: the picture is constant.") for line in lines), lines
    lines = cautions(replace(summary, failures=Failures(1, first[2:])))
    assert any(line.endswith("Most often: rise: RuntimeError: x: y.") for line in lines), lines
