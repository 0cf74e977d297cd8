"""Does an answer use its picture? Measured by runs: against slow twins, for a model that does not look, and off."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from cxr_faith.checks.record_checks import record_checks
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.records import read_records
from cxr_faith.records.schema import IMAGE_USE
from cxr_faith.report.head import head_of
from cxr_faith.summary.load import load_run
from cxr_faith.vlm import Target
from cxr_faith.vlm.pretrained import FamilyVLM
from tests.reference import gemma
from tests.reference import image_use as slow
from tests.reference.pairs import model_pixels
from tests.runs import assert_same, records, run_here

pytestmark = pytest.mark.slow

N = 8
"""Samples of each run; the third is no yes/no question."""
GROUNDED = ["mask_cells", "mask_removal_flips", "away_removal_keeps"]
CONFIG = """
trainer: {accelerator: cpu, devices: 1}
model:
  methods: {METHODS}
  protocol: {steps: 2, random_orders: 2, max_new_tokens: 8, controls: none, image_use: USE}
data: {manifest: bundled, batch_size: 4}
"""


def run(folder: Path, use: bool = True, *arguments: str, methods: str = "random_map: {}") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG.replace("USE", str(use).lower()).replace("METHODS", methods))
    assert run_here(folder / "config.yaml", folder / "run", "--limit", str(N), *arguments) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("measured"))


@pytest.fixture(scope="module")
def off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("off"), use=False)


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run of a model that answers from the question alone: each picture reaches it as the same gray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FamilyVLM, "normalize", lambda self, images: torch.zeros(images.shape))
        return run(tmp_path_factory.mktemp("blind"))


def samples(run_dir: Path) -> pd.DataFrame:
    frame = read_records(run_dir)
    return frame[frame["method"].eq("random")].set_index("sample_id")


def forwards(run_dir: Path) -> int:
    lines = map(json.loads, (run_dir / "history.jsonl").read_text().splitlines())
    return sum(line["pace"]["forwards"] for line in lines if "pace" in line)


def test_margins_and_classes_are_those_of_whole_forwards(bundled, measured: Path) -> None:
    twin, root, checked = gemma.twin_model(bundled.model), bundled_manifest().parent, 0
    paths = dict(pq.read_table(bundled_manifest(), columns=["image_id", "image_path"]).to_pandas().to_numpy())
    rows = samples(measured)
    assert len(rows) == N and rows["image_use"].notna().all()
    for _, row in rows[rows["kind"].eq("yes_no")].iloc[:4].iterrows():
        question, other = row["question"], root / paths[row["swapped_with"]]
        blank = slow.margin_blank(bundled, twin, root / row["image_path"], question)
        swapped = slow.margin_on(bundled, twin, other, question)
        assert row["margin_blank"] == pytest.approx(blank, abs=2e-3)
        assert row["margin_swapped"] == pytest.approx(swapped, abs=2e-3)
        assert row["margin_no_picture"] == pytest.approx(slow.margin_text_only(bundled, twin, question), abs=2e-3)
        assert row["image_use"] == slow.use_of(row["margin"], blank, swapped)
        checked += 1
    assert checked == 4 and set(rows["image_use"]) >= {"uses", "mixed"}
    words = rows[rows["kind"].ne("yes_no")].iloc[0]
    target = Target(
        "tokens", answer_ids=tuple(words["answer_tokens"]), scored=tuple(range(len(words["answer_tokens"])))
    )
    pictures = [
        slow.blank(bundled, root / words["image_path"]),
        model_pixels(bundled, root / paths[words["swapped_with"]]),
    ]
    scores = [gemma.score(bundled, twin, picture, words["question"], target) for picture in pictures]
    assert words["margin_blank"] == pytest.approx(scores[0][0], abs=2e-3)
    assert words["margin_swapped"] == pytest.approx(scores[1][0], abs=2e-3)
    assert words["image_use"] == slow.use_of_tokens(words["s_original"], *((s, standing) for s, _, standing in scores))


def test_all_rows_of_a_sample_agree_and_the_picture_is_another_patients(measured: Path) -> None:
    frame = read_records(measured)
    assert (frame.groupby("sample_id")[list(IMAGE_USE)].nunique(dropna=False) == 1).all(axis=None)
    manifest = pq.read_table(bundled_manifest()).to_pylist()
    for row in manifest[:N]:
        opposite, others = slow.stand_ins(manifest, row)
        mine = samples(measured).loc[row["sample_id"]]
        assert mine["swapped_with"] in (opposite or others) and mine["swap_opposite"] == bool(opposite)


def test_batches_workers_and_a_restart_change_nothing(measured: Path, tmp_path: Path) -> None:
    run(tmp_path, True, "--limit", "3", "--data.batch_size", "1")
    assert_same(run(tmp_path, True, "--data.batch_size", "1", "--data.num_workers", "1"), measured)


def test_off_saves_its_forwards_and_changes_no_score(measured: Path, off: Path) -> None:
    """One forward for each number: three pictures, the intact one of a question without margin, two for a mask."""
    rows = samples(measured)
    pictures = rows[["margin_blank", "margin_swapped", "margin_no_picture"]].notna().sum(axis=None)
    spent = pictures + rows["margin"].isna().sum() + rows[GROUNDED[1:]].notna().sum(axis=None)
    assert forwards(measured) - forwards(off) == spent >= 3 * N
    columns = [*IMAGE_USE, *GROUNDED]
    assert records(off)[columns].isna().all(axis=None) and load_run(off).summary.image_use is None
    pd.testing.assert_frame_equal(
        records(off).drop(columns=columns), records(measured).drop(columns=columns), check_exact=True
    )
    identities = [json.loads((each / "provenance.json").read_text())["fingerprint"] for each in (off, measured)]
    assert identities[0] == identities[1]  # the same run: it may be switched on or off on the way


def test_a_run_that_grew_measures_what_it_lacks_and_nothing_twice(measured: Path, tmp_path: Path) -> None:
    methods, before = "random_map: {}, edges: {}", tmp_path / "run"
    run(tmp_path, False, "--limit", "3")
    grown = run(tmp_path, True, "--limit", "3", methods=methods)
    mine, expected = samples(grown), samples(measured)
    assert mine["image_use"].isna().all()  # these rows are done
    edges = read_records(before).query("method == 'edges'").set_index("sample_id")
    for column in IMAGE_USE:
        assert edges[column].tolist() == expected.loc[edges.index, column].tolist()
    use = load_run(grown).summary.image_use
    assert use is not None and use.n == 3
    spent = forwards(grown)
    run(tmp_path, True, "--limit", "3", methods=f"{methods}, center: {{}}, oracle: {{}}")
    oracle = read_records(before).query("method == 'oracle'")
    # An inner point of both curves for each map, and nothing else.
    assert len(oracle) and forwards(grown) - spent == 2 * len(oracle)
    assert oracle["image_use"].notna().all()


def test_a_model_that_does_not_look_is_told_from_one_that_does(measured: Path, blind: Path) -> None:
    seeing, not_seeing = samples(measured), samples(blind)
    assert seeing["image_use"].eq("uses").mean() >= 0.5 and not seeing["image_use"].eq("ignores").all()
    assert not_seeing["image_use"].eq("ignores").all()
    yes_no = not_seeing[not_seeing["kind"].eq("yes_no")]
    assert np.allclose(yes_no["margin_blank"], yes_no["margin"], atol=1e-4)
    assert np.allclose(yes_no["margin_swapped"], yes_no["margin"], atol=1e-4)
    assert not_seeing["mask_removal_flips"].dropna().eq(False).all()
    assert not_seeing["away_removal_keeps"].dropna().eq(True).all()
    use, none = (load_run(each).summary.image_use for each in (measured, blind))
    assert use is not None and none is not None
    assert none.whole.ignores.share == 1 and use.whole.ignores.share < use.whole.uses
    assert {one.cgr.share for one in none.grounding} == {0} and max(one.cgr.share for one in use.grounding) > 0.5
    facts = dict(head_of(load_run(blind).summary, blind).facts)
    assert facts["image use"].startswith(f"100% of {N} answers ignore the picture [")
    assert "100% of 8 answers ignore the picture" in "".join((blind / "summary.md").read_text().split("\n\n")[:3])
    checks = [
        next(one for one in record_checks(read_records(each), ["random_map"]) if "ignore the picture" in one.name)
        for each in (measured, blind)
    ]
    assert [check.status for check in checks] == ["pass", "warn"] and "uses_image" in checks[1].advice


def test_answers_that_use_the_picture_have_a_board(measured: Path) -> None:
    summary, rows = load_run(measured).summary, samples(measured)
    board = summary.board("uses_image")
    assert board.n_samples == rows["image_use"].eq("uses").sum() < N
    assert "answers that use the picture" in (measured / "summary.md").read_text()
    page = (measured / "report" / "index.html").read_text()
    assert "Do the answers use the picture?" in page and "Do the answers depend on the finding" in page
