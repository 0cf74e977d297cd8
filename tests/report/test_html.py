import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxr_faith.records import RecordWriter, read_records
from cxr_faith.report import html
from cxr_faith.report.choice import Listed
from cxr_faith.report.gallery import gallery
from cxr_faith.report.html import write_report
from cxr_faith.report.results import write_results
from cxr_faith.summary.summarize import write_summary
from tests.report.browser import Browser, choose
from tests.synthetic import NASTY


class Page(HTMLParser):
    """Tags, their attributes, whether every tag was closed, and the data of the script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text, self.source = "", ""
        self.feed(text)
        self.data: dict[str, Any] = json.loads(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "link", "input", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.source = self.source or data
        elif self.open[-1:] != ["style"]:
            self.text += data


def write(run_dir: Path) -> Page:
    page = Page(write_results(run_dir).page.read_text())
    assert page.open == []
    return page


@pytest.fixture
def page(run_dir: Path) -> Page:
    provenance = {"methods": ["chefer"], "samples_total": 44, "model": {"id": "<img src=x>", "revision": None}}
    (run_dir / "provenance.json").write_text(json.dumps(provenance))
    checks = [
        {"name": "model", "status": "pass", "figure": "1", "advice": ""},
        {"name": "disk", "status": "fail", "figure": "<b>12 GB</b>", "advice": "make room"},
    ]
    (run_dir / "doctor.json").write_text(json.dumps({"ok": False, "checks": checks}))
    (run_dir / "sanity.json").write_text(json.dumps({"methods": {"attention": {"failed": True}}}))
    return write(run_dir)


def test_page_needs_nothing_from_outside(page: Page) -> None:
    assert not {tag for tag, _ in page.tags} & {"iframe", "object", "base", "img"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, attributes)
            if name in ("src", "href", "xlink:href"):
                assert value is not None and value.startswith(("data:", "#"))
            assert tag == "svg" or name.startswith("xmlns") or "://" not in (value or "")
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'")


def test_faithfulness_against_localization_is_drawn_where_there_are_boxes(
    page: Page, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    assert "Faithful or merely well placed?" not in page.text
    located = {"pointing_game": 1.0, "energy_inside": 0.25}
    boxed = [row | (located if row["present"] and row["method"] != "random" else {}) for row in rows]
    RecordWriter(tmp_path / "boxed", rank=0, start=0).write(boxed)
    text = write(tmp_path / "boxed").text
    assert "Faithful or merely well placed?" in text and "share of the map inside (localization)" in text


def test_text_of_others_stays_text(page: Page, run_dir: Path) -> None:
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert "<img src=x>" in page.text and "<b>12 GB</b>" in page.text and "truncated <JPEG>" in page.text
    assert page.data["samples"][0]["question"] == NASTY
    assert "<script>alert" not in (run_dir / "report" / "index.html").read_text()


def test_warnings_and_checks_come_first(page: Page) -> None:
    partial = page.text.index("Partial: 40 of 44 samples have records, 4 are missing.")
    assert partial < page.text.index("12 GB") < page.text.index("Leaderboard") < page.text.index("How the model")
    assert page.text.index("faildisk<b>12 GB</b>make room") < page.text.index("passmodel1")
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags


def test_boards_carry_intervals_and_bands(page: Page) -> None:
    whole = next(board for board in page.data["boards"] if board["slice"] == "all")
    rows = {row["method"]: row for row in whole["rows"]}
    for row in rows.values():
        for key, (low, high) in row["ci"].items():
            assert low <= row["values"][key] <= high
    assert rows["chefer"]["ci"]["gap_srg_center"][0] > 0
    assert (rows["attention"]["label"], rows["chefer"]["label"]) == ("attention†", "chefer")
    assert "† failed the sanity check" in page.text and "Only 10 patients here" in whole["note"]
    curves = rows["chefer"]["curves"]
    for side in ("deletion", "insertion"):
        assert all(
            a <= b <= c for a, b, c in zip(curves[f"{side}_low"], curves[side], curves[f"{side}_high"], strict=True)
        )
    assert max(np.subtract(curves["deletion_high"], curves["deletion_low"])) > 0.001


def test_bands_are_the_plain_bootstrap_over_patients(run_dir: Path) -> None:
    from cxr_faith.summary.bands import RESAMPLES, SEED, curve_bands

    records = read_records(run_dir)
    band = curve_bands(records)["chefer"]
    ok = {name for name, rows in records.groupby("sample_id") if rows["status"].eq("ok").all()}
    mine = records[records["method"].eq("chefer") & records["sample_id"].isin(ok)]
    patients = sorted(set(mine["patient_id"]))
    curves = {
        patient: [(np.array(row.deletion_scores) - row.s_substrate, row.effect) for row in rows.itertuples()]
        for patient, rows in mine.groupby("patient_id")
    }
    rng, means = np.random.default_rng(SEED), []
    for _ in range(RESAMPLES):
        numbers = rng.integers(len(patients), size=len(patients))
        drawn = [curve for number in numbers for curve in curves[patients[number]]]
        means.append(sum(curve for curve, _ in drawn) / sum(effect for _, effect in drawn))  # weighted by the effect
    np.testing.assert_allclose(band.deletion_low, np.percentile(means, 2.5, axis=0), atol=1e-9)
    np.testing.assert_allclose(band.deletion_high, np.percentile(means, 97.5, axis=0), atol=1e-9)
    assert curve_bands(records[records["patient_id"].isin(patients[:9])]) == {}


def test_the_gallery_holds_what_it_says(run_dir: Path) -> None:
    records = read_records(run_dir)
    examples = gallery(records, 4)
    real = records[records["method"].isin(("chefer", "attention", "integrated_gradients")) & records["status"].eq("ok")]
    mean, effect = real.groupby("sample_id")["srg"].mean(), real.groupby("sample_id")["effect"].first().abs()
    mean = mean[effect >= effect.median() / 4]
    assert examples["best"] == list(mean.sort_values(ascending=False).index[:4])
    assert examples["worst"] == list(mean.sort_values().index[:4])
    statuses = records.drop_duplicates("sample_id").set_index("sample_id")["status"]
    assert set(statuses[examples["degenerate"]]) <= {"degenerate", "inverted"} and len(examples["degenerate"]) == 4
    worst = {}
    for sample, rows in records[records["method"].isin(("chefer", "attention", "integrated_gradients"))].groupby(
        "sample_id"
    ):
        maps = pd.DataFrame([values for values in rows["map"] if values is not None]).T
        if maps.shape[1] > 1:
            matrix = maps.corr("spearman").to_numpy()
            worst[sample] = matrix[np.triu_indices(len(matrix), 1)].mean()
    assert examples["disagreeing"] == sorted(worst, key=worst.__getitem__)[:4]


def test_an_answer_with_hardly_any_effect_is_no_example() -> None:
    """Its srg is large because it is divided by next to nothing."""
    effects, srg = [8.0, 8.5, 9.0, 0.9], [0.5, 0.9, 0.2, 2.6]
    rows = [
        {"sample_id": f"s{n}", "method": "chefer", "status": "ok", "effect": effects[n], "srg": srg[n], "map": None}
        for n in range(4)
    ]
    examples = gallery(pd.DataFrame(rows), 2)
    assert examples["best"] == ["s1", "s0"] and examples["worst"] == ["s2"]


def test_the_page_is_the_same_bytes_each_time(run_dir: Path) -> None:
    write_summary(run_dir)
    first = write_report(run_dir).read_bytes()
    assert write_report(run_dir).read_bytes() == first
    assert b"no provenance.json" in first


def test_no_thumbnail_unless_asked_for(page: Page, run_dir: Path) -> None:
    assert page.data["thumbs"] == {}
    assert "image/jpeg" not in (run_dir / "report" / "index.html").read_text()


def test_the_page_warns_of_one_method_and_of_no_ok_sample(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    bad = [r for r in rows if r["method"] in ("chefer", "random") and r["status"] in ("degenerate", "inverted")]
    RecordWriter(tmp_path, rank=0, start=0).write(bad)
    page = write(tmp_path)
    assert "No sample is ok under any substrate" in page.text and "Only one method besides the baselines" in page.text
    assert page.data["gallery"]["best"] == [] and page.data["gallery"]["degenerate"]


def test_only_failures(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    RecordWriter(tmp_path, rank=0, start=0).write([r for r in rows if r["status"] == "invalid"])
    page = write(tmp_path)
    assert "could not be scored" in page.text and page.data["samples"][0]["detail"] is None


def test_records_of_a_newer_schema(run_dir: Path) -> None:
    part = next((run_dir / "records").glob("*.parquet"))
    table = pq.read_table(part)
    changed = table.append_column("novel", pa.array(["x"] * len(table))).drop_columns(["random_p", "anatomy"])
    pq.write_table(changed, part, write_page_checksum=True)
    page = write(run_dir)
    assert len(page.data["samples"]) == 40
    assert "Written by a newer version: columns novel of the records are not shown here." in page.text
    assert "the records lack anatomy, random_p." in page.text


def test_records_without_their_key_are_refused(run_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    part = next((run_dir / "records").glob("*.parquet"))
    pq.write_table(pq.read_table(part).drop_columns(["sample_id"]), part, write_page_checksum=True)
    with pytest.raises(ValueError, match="neither records nor"):
        write_summary(run_dir)
    assert part.name in caplog.text


def test_a_page_needs_a_summary_and_a_summary_a_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"summary\.json: missing"):
        write_report(tmp_path)
    (tmp_path / "notes.txt").write_text("not a run")
    with pytest.raises(ValueError, match="neither records nor"):
        write_summary(tmp_path)


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text('{"samples_total": 72, "methods": ["chefer", "random"]}')
    page = write(tmp_path)
    assert "0 of 72 samples have records" in page.text and "This run has no scores yet." in page.text
    assert "How the model answered" not in page.text and "patients: " not in page.text
    assert page.data["samples"] == []


@pytest.mark.parametrize("name", ["provenance.json", "doctor.json", "report/pictures/pictures.json"])
def test_broken_files_are_named(run_dir: Path, name: str) -> None:
    write_summary(run_dir)
    (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
    (run_dir / name).write_text("{")
    with pytest.raises(ValueError, match=re.escape(Path(name).name) + ": not JSON"):
        write_report(run_dir)


@pytest.fixture(scope="module")
def large_page(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> Path:
    """2,000 of 10,000 samples: twelve methods, 16x16 maps of noise, which hardly compress, and 51 points a curve."""
    folder = tmp_path_factory.mktemp("large")
    RecordWriter(folder, rank=0, start=0).write(rows)
    summary, records = write_summary(folder), read_records(folder)
    rng, ok = np.random.default_rng(0), records[records["status"].eq("ok")]
    one = ok[ok["sample_id"].eq(ok["sample_id"].iloc[0])]
    names = [*summary.methods, *(f"m{i}" for i in range(12 - len(summary.methods)))]
    twelve = pd.concat([one.iloc[[0]].assign(method=name) for name in names])
    many = pd.concat([twelve] * 2000, ignore_index=True)
    many["sample_id"] = np.repeat([f"s{i:04d}" for i in range(2000)], 12)
    many["map"] = list(rng.random((len(many), 256), np.float32))
    many["grid_h"] = many["grid_w"] = 16
    steps = np.arange(51)
    many["k"] = [steps] * len(many)
    for side in ("deletion", "insertion"):
        many[f"{side}_scores"] = list(rng.standard_normal((len(many), 51)).cumsum(axis=1))
    part = Listed(n_samples=10_000, n_records=120_000, records=many, answers=records.drop_duplicates("sample_id"))
    page = folder / "index.html"
    page.write_text(html.render(replace(summary, methods=tuple(names)), many, {}, part=part), encoding="utf-8")
    return page


@pytest.mark.slow
def test_two_thousand_samples_stay_below_15_mb(large_page: Path) -> None:
    text = large_page.read_text(encoding="utf-8")
    assert 5_000_000 < len(text.encode()) < 15_000_000
    assert len(Page(text).data["samples"]) == 2000


@pytest.mark.slow
def test_the_page_of_ten_thousand_samples_opens_and_answers(browser: Browser, large_page: Path) -> None:
    browser.size(1200, 900)
    browser.errors.clear()
    browser.open(large_page)
    count = "document.getElementById('sample-count').textContent"
    assert "2,000 of 10,000 samples are listed" in browser.run("document.body.textContent")
    assert (
        browser.run(count) == "1–50 of 2000"
        and browser.run("document.querySelectorAll('#sample-rows tr').length") == 50
    )
    choose(browser, "sample-search", "s1999", "input")
    assert browser.run(count) == "1–1 of 1"
    browser.run("document.querySelector('#sample-rows a').click()")
    browser.until("document.querySelector('#sample h2')?.textContent === 'Sample s1999'")
    assert "sample=s1999" in browser.run("location.hash") and "list-search=s1999" in browser.run("location.hash")
    choose(browser, "sample-search", "", "input")
    spent = "(() => { const t = performance.now(); samples(); leaderboard(); return performance.now() - t; })()"
    assert browser.run(spent) < 2000  # milliseconds: to search, to sort
    assert browser.errors == []
