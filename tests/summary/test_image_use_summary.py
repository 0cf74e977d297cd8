"""Image use in the summary: shares and intervals against loops, the board of answers that use it, what readers see."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr_faith.records import read_records
from cxr_faith.report.head import head_of
from cxr_faith.report.html import render
from cxr_faith.report.markdown import markdown
from cxr_faith.report.samples import sample_entries
from cxr_faith.report.trust import trust_tables
from cxr_faith.summary.board import Setting
from cxr_faith.summary.summarize import summarize
from cxr_faith.summary.summary import Summary
from tests.reference import image_use as slow

CLASS = ("uses", "uses", "mixed", "uses", "ignores", "uses", None)


@pytest.fixture
def frame(run_dir: Path) -> pd.DataFrame:
    """The synthetic run with image use; every seventh sample has none, masks are those of the present findings."""
    frame = read_records(run_dir)
    number, random = frame["sample_id"].str[1:].astype(int), frame["method"].eq("random")
    classes = number.map(lambda n: CLASS[n % 7])
    known, marked = classes.notna(), random & frame["present"].eq(True)
    yes = frame["predicted"].eq("yes")
    return frame.assign(
        image_use=classes,
        margin_blank=np.where(known, np.where(number % 3 == 0, 1.0, -1.0), np.nan),
        margin_swapped=np.where(known, -2.0, np.nan),
        margin_no_picture=np.where(known & yes, 3.0, np.nan),
        swap_opposite=np.where(known, number % 2 == 0, None),
        mask_removal_flips=np.where(marked, number % 4 == 0, None),
        away_removal_keeps=np.where(marked & (number % 8 != 0), number % 6 != 0, None),
    )


@pytest.fixture
def summary(frame: pd.DataFrame) -> Summary:
    return summarize(frame)


def of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per sample, that of the random orders."""
    rows: list[dict[str, Any]] = frame[frame["method"].eq("random")].to_dict("records")
    return rows


def same(share: Any, hits: list[bool], rows: list[dict[str, Any]]) -> None:
    patients = len({row["patient_id"] for row in rows})
    assert (share.n, share.n_patients) == (len(rows), patients)
    assert (share.share, share.low, share.high) == pytest.approx(slow.wilson(sum(hits), len(rows), patients), abs=1e-9)


def test_classes_are_those_of_a_loop(frame: pd.DataFrame, summary: Summary) -> None:
    use, rows = summary.image_use, of(frame)
    assert use is not None
    known = [row for row in rows if isinstance(row["image_use"], str)]
    assert (use.n, use.n_unknown) == (len(known), len(rows) - len(known))
    assert use.n_opposite == sum(row["swap_opposite"] is True for row in known)
    slices = {one.slice: one for one in use.slices}
    for name, mine in (
        ("all", known),
        ("present", [row for row in known if row["present"]]),
        ("answered_no", [row for row in known if row["predicted"] == "no"]),
    ):
        one, shown = slices[name], [row["image_use"] for row in mine]
        assert one.n == len(mine) and one.uses == pytest.approx(shown.count("uses") / len(mine))
        assert one.mixed == pytest.approx(shown.count("mixed") / len(mine))
        same(one.ignores, [each == "ignores" for each in shown], mine)
    assert use.whole is use.slices[0] and use.whole.slice == "all"


def test_changed_answers_and_grounding_are_those_of_a_loop(frame: pd.DataFrame, summary: Summary) -> None:
    use, rows = summary.image_use, of(frame)
    assert use is not None
    changed = {one.picture: one.changes for one in use.changed}
    for name, column in (("blank", "margin_blank"), ("no picture", "margin_no_picture")):
        mine = [row for row in rows if not np.isnan(row[column]) and not np.isnan(row["p_yes"])]
        same(changed[name], [(row[column] >= 0) != (row["predicted"] == "yes") for row in mine], mine)
    whole, yes = use.grounding
    assert [(one.substrate, one.slice) for one in use.grounding] == [("blur:0.1", "all"), ("blur:0.1", "answered_yes")]
    marked = [row for row in rows if row["mask_removal_flips"] is not None]
    away = [row for row in marked if row["away_removal_keeps"] is not None]
    same(whole.cgr, [row["mask_removal_flips"] for row in marked], marked)
    assert whole.uar is not None and 0 < len(away) < len(marked)
    same(whole.uar, [row["away_removal_keeps"] for row in away], away)
    same(
        yes.cgr,
        [r["mask_removal_flips"] for r in marked if r["predicted"] == "yes"],
        [r for r in marked if r["p_yes"] > 0],
    )


def test_answers_that_use_the_picture_have_a_board_of_their_own(frame: pd.DataFrame, summary: Summary) -> None:
    using = frame[frame["image_use"].eq("uses")]
    board, alone = summary.board("uses_image"), summarize(using)
    assert board.n_samples == using["sample_id"].nunique() < summary.board().n_samples
    for row in board.rows:
        expected = alone.board().row(row.method)
        assert expected is not None and (row.srg, row.n) == (expected.srg, expected.n)
    assert "uses_image" not in {one.slice for one in alone.boards}  # all of them: that is the board of all


def test_what_readers_see(frame: pd.DataFrame, summary: Summary) -> None:
    facts = dict(head_of(summary).facts)
    assert facts["image use"].startswith(
        "17% of 35 answers ignore the picture [4% to 48%], 66% use it, 17% mixed; CGR 50%"
    )
    text = markdown(summary, trust_tables(summary))
    assert text.index("17% of 35 answers ignore the picture") < 400 and "## Do the answers use the picture?" in text
    assert "Answers without a class: 5." in text and "## answers that use the picture" in text
    page = render(summary, frame, {})
    assert "answers ignore the picture" in page and "uses (margins: blank +1.00, swapped -2.00" in page
    setting = Setting("blur:0.1", "answer", "pixels")
    entries = {one.id: one for one in sample_entries(frame, [setting], list(summary.methods), 0)}
    assert entries["s06"].use is None and str(entries["s04"].use).startswith("ignores (margins: blank -1.00")
    assert Summary.from_dict(summary.to_dict()) == summary


def test_a_run_without_it_says_nothing_of_it(run_dir: Path) -> None:
    """So does one of an older version."""
    records = read_records(run_dir)
    summary = summarize(records.drop(columns=["image_use", "margin_blank", "mask_removal_flips"]))
    assert summary.image_use is None and "image use" not in dict(head_of(summary).facts)
    assert not any("use the picture" in table.title for table in trust_tables(summary))
    older = summary.to_dict()
    older.pop("image_use", None)
    assert Summary.from_dict(older) == replace(summary, image_use=None)
