"""Subgroups by sex, age and view: which have numbers, and how far they are apart."""

import itertools

import numpy as np
import pandas as pd
import pytest

from cxr_faith.metrics.groups import contrast
from cxr_faith.metrics.statistics import estimate
from cxr_faith.report.markdown import markdown
from cxr_faith.report.trust import trust_tables
from cxr_faith.summary.subgroups import ACCURACY, subgroup_slices
from cxr_faith.summary.summarize import summarize
from cxr_faith.summary.summary import Summary
from tests.reference.statistics import contrast as slow_contrast
from tests.synthetic import make_rows

PATIENTS = 26


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    """104 samples of 26 patients, 12 women and 14 men; two views of each; three patients of 80 and older."""
    table = pd.DataFrame(make_rows(4 * PATIENTS))
    patient = table["patient_id"].str[1:].astype(int)
    table["sex"] = np.where(patient < 12, "F", "M")
    table["age"] = np.select([patient < 3, patient % 2 == 0], [85, 30], 50)
    table["view"] = np.where(table["image_id"].str[1:].astype(int) % 2 == 0, "AP", "PA")
    worse = table["sex"].eq("M") & table["method"].eq("chefer")
    table.loc[worse, "srg"] -= 0.2
    return table


@pytest.fixture(scope="module")
def summary(records: pd.DataFrame) -> Summary:
    return summarize(records)


@pytest.mark.parametrize("paired", [True, False])
def test_contrast_is_its_slow_twin(paired: bool) -> None:
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 12, 60)
    first = rng.random(60) < 0.5 if paired else clusters < 5
    values, weights = rng.normal(size=60), rng.uniform(0.5, 3, 60)
    values[::7] = np.nan
    rows = list(zip(clusters.tolist(), values.tolist(), weights.tolist(), first.tolist(), strict=True))
    expected = slow_contrast([row for row in rows if np.isfinite(row[1])])
    given = contrast(values, clusters, weights, first, ~first)
    np.testing.assert_allclose(
        [given[name] for name in sorted(expected)], [expected[name] for name in sorted(expected)]
    )
    assert np.isfinite(given).sum() == len(expected)
    known = np.isfinite(values)
    means = [np.average(values[g & known], weights=weights[g & known]) for g in (first, ~first)]
    assert np.nanmean(given) == pytest.approx(means[0] - means[1])


def test_contrast_of_a_group_of_one_patient_has_no_value() -> None:
    values, clusters = np.arange(5.0), np.array([0, 1, 1, 2, 2])
    assert np.isnan(contrast(values, clusters, np.ones(5), clusters == 0, clusters > 0)).all()


@pytest.mark.parametrize("paired", [True, False])
def test_groups_that_do_not_differ_are_rarely_told_apart(paired: bool) -> None:
    """Skewed values of 60 patients, each in one group or in both: at 5 %, 1 to 10 % of 300 comparisons."""
    rng = np.random.default_rng(1)
    columns = []
    for _ in range(300):
        clusters = np.repeat(np.arange(60), 4)
        values = np.repeat(rng.normal(size=60) * 0.5, 4) - rng.exponential(0.4, 240)
        first = np.arange(240) % 2 == 0 if paired else clusters < 25
        columns.append(contrast(values, clusters, rng.uniform(0.5, 4, 240), first, ~first))
    p = estimate(np.stack(columns, axis=1), np.arange(60), tests=2000).p
    assert 0.01 <= (p < 0.05).mean() <= 0.1


def test_slices_of_large_groups_and_counts_of_all(summary: Summary) -> None:
    names = {board.slice for board in summary.boards}
    assert {"sex:F", "sex:M", "age:<40", "age:40-59", "view:AP", "view:PA"} <= names and "age:≥80" not in names
    assert summary.subgroups is not None
    assert {group.name: group.n_patients for group in summary.subgroups.groups} == {
        "sex:F": 12,
        "sex:M": 14,
        "age:<40": 11,
        "age:40-59": 12,
        "age:≥80": 3,
        "view:AP": 26,
        "view:PA": 26,
    }
    board = summary.board("sex:F")
    assert board.n_samples == 48 and not board.differences and board.rows[0].intervals["srg"].t_low is not None


def test_the_method_that_is_worse_for_men_is_found(summary: Summary) -> None:
    assert summary.subgroups is not None
    found = {(one.a, one.b, one.of): one for one in summary.subgroups.differences}
    pairs = {("sex:F", "sex:M"), ("age:<40", "age:40-59"), ("view:AP", "view:PA")}
    methods = {"chefer", "attention", "integrated_gradients", ACCURACY}
    assert set(found) == {(a, b, of) for (a, b), of in itertools.product(pairs, methods)}, "controls are not compared"
    worse = found["sex:F", "sex:M", "chefer"]
    assert worse.mean == pytest.approx(0.2, abs=0.05) and worse.p_holm is not None and worse.p_holm < 0.05
    assert worse.t_low is not None and worse.t_low > 0 and (worse.patients_a, worse.patients_b) == (12, 14)
    boards = {sex: summary.board(f"sex:{sex}").row("chefer") for sex in "FM"}
    assert boards["F"] and boards["M"] and worse.mean == pytest.approx(boards["F"].srg - boards["M"].srg)
    others = [one for key, one in found.items() if key[2] == "attention"]
    assert all(one.p_holm is not None and one.p_holm > 0.05 for one in others)
    assert all(one.p_holm >= one.p for one in found.values() if one.p is not None and one.p_holm is not None)


def test_a_run_without_groups_has_none(records: pd.DataFrame) -> None:
    plain = records.drop(columns=["sex", "age", "view"])
    summary = summarize(plain)
    assert summary.subgroups is not None and not summary.subgroups.groups and not summary.subgroups.differences
    alone = records.assign(sex="F", age=None, view=None)
    samples = alone.groupby("sample_id")[["sex", "age", "view"]].first()
    assert subgroup_slices(samples) == {}, "one group is everybody"


def test_pages_show_groups_in_tables_of_their_own(summary: Summary) -> None:
    text = markdown(summary, trust_tables(summary))
    assert "## srg by sex · blur:0.1" in text and "## srg by view" in text and "## Who are the patients?" in text
    assert "## Do answers and maps depend on sex, age or view?" in text
    assert not any(line.startswith("## sex") for line in text.splitlines()), "no board for each group"
    assert Summary.from_dict(summary.to_dict()) == summary
