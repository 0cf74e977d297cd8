"""Planted pairs in the summary: which are verified, shares by finding and contrast, and boards of the verified ones."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from cxr_faith.metrics.shares import wilson
from cxr_faith.records import read_records
from cxr_faith.records.schema import IMAGE_USE
from cxr_faith.report.markdown import markdown
from cxr_faith.report.pairs import psychometric
from cxr_faith.report.trust import trust_tables
from cxr_faith.summary.pairs import pair_table, verified
from cxr_faith.summary.samples import sample_table
from cxr_faith.summary.summarize import summarize
from cxr_faith.summary.summary import Summary


@pytest.fixture(scope="module")
def samples() -> pd.DataFrame:
    """Pairs a to f of two contrasts with random answers, an unreadable one and one whose film was not asked about."""
    rng, rows = np.random.default_rng(0), []
    for patient in range(30):
        for contrast in (None, 0.5, 2.0):
            rows.append(
                {
                    "sample_id": f"{patient:02d}/{contrast}",
                    "patient_id": f"p{patient // 2}",
                    "image_id": f"i{patient}/{contrast}",
                    "finding": "nodule" if patient % 3 else "mass",
                    "predicted": "yes" if rng.random() < (0.2 if contrast is None else 0.3 + 0.3 * contrast) else "no",
                    "yes_no_mass": 0.2 if patient == 4 and contrast == 2.0 else 0.99,
                    "pair_id": f"{patient}/x",
                    "planted": contrast is not None,
                    "contrast": contrast,
                }
            )
    rows = [row for row in rows if row["sample_id"] != "07/None"] + [{"sample_id": "real", "image_id": "r"}]
    frame = pd.DataFrame(rows).assign(method="center")
    columns = ("kind", "present", "p_yes", "correct", "not_parsed", "answer_mismatch", "sex", "age", "view")
    return sample_table(frame.assign(**dict.fromkeys((*columns, *IMAGE_USE))))


def said(samples: pd.DataFrame, name: str) -> str | None:
    """A readable answer, the slow way."""
    if name not in samples.index or samples.loc[name, "yes_no_mass"] < 0.5:
        return None
    return str(samples.loc[name, "predicted"])


def test_a_pair_is_verified_when_the_answer_goes_from_no_to_yes(samples: pd.DataFrame) -> None:
    expected, pairs = [], 0
    for name in samples.index:
        film, copy = said(samples, f"{name[:2]}/None"), said(samples, name)
        whole = name != "real" and not name.endswith("None") and film is not None and copy is not None
        pairs += whole
        expected.append(whole and (film, copy) == ("no", "yes"))
    assert list(verified(samples)) == expected and 10 < sum(expected) < 50
    assert len(pair_table(samples)) == pairs == 60 - 1 - 2


def test_shares_are_those_of_a_loop_with_the_intervals_of_scipy(samples: pd.DataFrame) -> None:
    from cxr_faith.summary.pairs import _flips

    pairs = pair_table(samples)
    flips = {(one.finding, one.contrast): one for one in _flips(pairs)}
    assert set(flips) == {(finding, contrast) for finding in ("mass", "nodule") for contrast in (0.5, 2.0)}
    for (finding, contrast), one in flips.items():
        mine = pairs[pairs["finding"].eq(finding) & pairs["contrast"].eq(contrast)]
        turned = [(bool(film), bool(copy)) for film, copy in zip(mine["film"], mine["copy"], strict=True)]
        assert one.n == len(turned) and one.n_patients == mine["patient"].nunique()
        assert one.n_verified == turned.count((False, True)) and one.n_lost == turned.count((True, False))
        assert one.verified == pytest.approx(one.n_verified / one.n) and one.n_said_no == sum(not f for f, _ in turned)
        assert one.low < one.verified < one.high
    assert flips["nodule", 2.0].verified > flips["nodule", 0.5].verified
    for hits, n in ((0, 5), (3, 7), (20, 20)):
        interval = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits / n, n) == pytest.approx((interval.low, interval.high), abs=1e-12)


@pytest.fixture
def summary(run_dir: Path) -> Summary:
    """Samples 0, 2, 4, … of the synthetic run, answered yes, are planted in those before them, answered no."""
    frame = read_records(run_dir)
    index = frame["sample_id"].str[1:].astype(int)
    return summarize(
        frame.assign(
            pair_id=(index // 2).astype(str),
            planted=(index % 2 == 0),
            contrast=np.where(index % 2 == 0, 1.0, np.nan),
            pointing_game=0.25,
        )
    )


def test_verified_pairs_have_boards_a_table_and_a_curve(summary: Summary) -> None:
    assert summary.pairs is not None
    # The answers to s03 and s05 cannot be read, and s07, a film, was answered with yes.
    assert (summary.pairs.n, summary.pairs.n_unread, summary.pairs.n_verified) == (18, 2, 17)
    board = summary.board("verified")
    assert board.n_samples == 17
    assert {one.method for one in summary.pairs.localization} >= {"chefer", "oracle"}
    assert all(one.n == 17 and one.pointing_game == 0.25 for one in summary.pairs.localization)
    assert Summary.from_dict(summary.to_dict()) == summary
    text = markdown(summary, trust_tables(summary))
    assert "## planted copies of verified pairs" in text and "The objects are synthetic" in text
    assert "Planted copies without a pair of readable answers: 2." in text
    assert psychometric(summary.pairs) is not None


def test_a_run_without_pairs_has_none_of_it(run_dir: Path) -> None:
    summary = summarize(read_records(run_dir))
    assert summary.pairs is None and "pairs" not in summary.to_dict()
    assert psychometric(None) is None and "verified" not in {board.slice for board in summary.boards}
