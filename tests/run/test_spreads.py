"""The spread of maps in the records of runs, against maps that are made copy by copy, and in runs that grow."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cxr_faith.attribution import AttributionBatch, build_methods
from cxr_faith.cases import read_answers
from cxr_faith.data.manifest import bundled_manifest, open_manifest, write_manifest
from cxr_faith.data.paraphrases import Paraphrases
from cxr_faith.data.sample import Sample, Turn
from cxr_faith.metrics.uncertainty import stable_share
from cxr_faith.perturb.condition import Condition
from cxr_faith.perturb.copies import Copies
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.records import read_records
from cxr_faith.summary.load import load_run
from cxr_faith.uncertainty import SPREAD, measure_spread
from tests.reference.pairs import model_pixels
from tests.runs import run_here

pytestmark = pytest.mark.slow

N = 6
"""Samples of each run."""
CONFIG = """
trainer: {accelerator: cpu, devices: 1}
model:
  methods: {METHODS}
  protocol: {steps: 2, random_orders: 2, max_new_tokens: 8, controls: none, image_use: false, MORE}
data: {manifest: bundled, batch_size: 4}
"""
NOISE = "uncertainty: {copies: 3, size: 0.05}"
SEED = "uncertainty: {copies: 2, source: seed}"


def run(folder: Path, methods: str, more: str = NOISE, status: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG.replace("MORE", more).replace("METHODS", methods))
    assert run_here(folder / "config.yaml", folder / "run", "--limit", str(N)) == status
    return folder / "run"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    methods = "gradient: {}, attention: {}, random_map: {}"
    return run(tmp_path_factory.mktemp("spread"), methods, f"{NOISE}, conditions: ['contrast:0.95']")


def of(run_dir: Path, method: str, condition: str = "none") -> pd.DataFrame:
    frame = read_records(run_dir)
    return frame[frame["method"].eq(method) & frame["condition"].eq(condition)].set_index("sample_id")


def test_spread_is_that_of_maps_made_copy_by_copy(bundled, measured: Path) -> None:
    rows, method = of(measured, "gradient"), build_methods({"gradient": {}})["gradient"]
    assert len(rows) == N and rows["stable_share"].between(0, 1).all() and rows["stable_share"].nunique() > 1
    for _, row in rows.iloc[:2].iterrows():
        pixels = model_pixels(bundled, bundled_manifest().parent / row["image_path"])
        (case,) = read_answers(bundled, pixels, row["image_id"], [row["question"]], [row["kind"]], Protocol())
        maps = []
        for number in (1, 2, 3):
            noisy = Condition("noise", 0.05).apply(pixels, row["image_id"], number)
            assert 0.03 < float((noisy - pixels).std() / pixels.std()) < 0.07
            batch = AttributionBatch(noisy[None], [case.prompt], [row["image_id"]], 0)
            maps.append(method.attribute(bundled, batch, [case.target]).maps[0].double().numpy().ravel())
        np.testing.assert_allclose(row["map_std"], np.std(maps, axis=0, ddof=1), rtol=1e-4, atol=1e-7)


def test_only_methods_that_see_the_model_have_one_and_only_for_the_plain_picture(measured: Path) -> None:
    for method in ("random", "center", "random_map"):
        assert of(measured, method)["map_std"].isna().all()
    assert of(measured, "attention")["map_std"].notna().all()
    assert of(measured, "attention", "contrast:0.95")["map_std"].isna().all()


def test_the_summary_says_how_sure_each_method_is(measured: Path) -> None:
    panel, rows = load_run(measured).summary.uncertainty, of(measured, "attention")
    assert [one.method for one in panel] == ["gradient", "attention"]
    ok = rows[rows["status"].eq("ok")]
    assert (panel[1].n, panel[1].n_srg) == (N, len(ok))
    assert panel[1].stable_share == pytest.approx(rows["stable_share"].mean(), abs=1e-6)
    assert panel[1].with_srg == pytest.approx(ok["stable_share"].rank().corr(ok["srg"].rank()), abs=1e-6)
    assert panel[1].low is None or panel[1].low < panel[1].with_srg < panel[1].high
    assert "Are the maps sure" in (measured / "summary.md").read_text()


def test_another_seed_moves_methods_with_masks_of_their_own_alone(tmp_path: Path) -> None:
    run_dir = run(tmp_path, "rise: {masks: 8}, gradient: {}", SEED)
    still, moved = of(run_dir, "gradient"), of(run_dir, "rise")
    assert (still["stable_share"] == 1).all() and all(np.abs(values).max() == 0 for values in still["map_std"])
    assert (moved["stable_share"] < 1).all() and all(np.max(values) > 0 for values in moved["map_std"])


def test_a_grown_run_has_the_spreads_of_one_made_at_once(measured: Path, tmp_path: Path) -> None:
    """Grown by a method, then by a substrate, whose rows have the spreads of the maps that are known."""
    run(tmp_path, "gradient: {}")
    run(tmp_path, "gradient: {}, attention: {}")
    grown = run(tmp_path, "gradient: {}, attention: {}", f"{NOISE}, substrates: ['blur:0.1', mean]")
    for method in ("gradient", "attention"):
        rows, once = of(grown, method), of(measured, method)
        assert sorted(rows["substrate"].unique()) == ["blur:0.1", "mean"]
        for _, mine in rows.groupby("substrate"):
            assert mine["stable_share"].equals(once["stable_share"])
            assert all(map(np.array_equal, mine["map_std"], once["map_std"]))


def test_copies_are_checked_and_keep_the_picture() -> None:
    for wrong in ({"copies": 1}, {"source": "luck"}, {"size": 0.0}, {"size": 2.0}, {"wordings": ("{question}",)}):
        with pytest.raises(ValueError, match="uncertainty"):
            Copies(**wrong)
    pixels = torch.rand(3, 8, 8)
    noisy = list(Copies(3).of(pixels, ["a"], 5, (2, 2)))
    assert [seed for _, seed in noisy] == [5, 5, 5] and not torch.equal(noisy[0][0], noisy[1][0])
    kept = list(Copies(2, "seed").of(pixels, ["a"], 5, (2, 2)))
    assert [seed for _, seed in kept] == [6, 7] and all(torch.equal(picture, pixels) for picture, _ in kept)


def test_a_masked_copy_has_a_share_of_its_cells_blurred(bundled) -> None:
    """Two pictures below each other, cell by cell: so many cells of each are those of the blurred picture."""
    pixels = torch.rand(3, 48, 24, generator=torch.Generator().manual_seed(0))
    blurred = torch.cat([Substrate.parse("blur:0.1").apply(part[None], ["a"], 0)[0] for part in pixels.chunk(2, 1)], 1)
    copies, seen = list(Copies(3, "mask", 0.2).of(pixels, ["a", "b"], 5, (4, 6))), set()
    assert [seed for _, seed in copies] == [5, 5, 5]
    for copy, _ in copies:
        gone = []
        for row, column in np.ndindex(8, 6):  # cells of 6 x 4 pixels
            cell = (slice(None), slice(6 * row, 6 * row + 6), slice(4 * column, 4 * column + 4))
            changed = bool((copy[cell] != pixels[cell]).any())
            assert torch.equal(copy[cell], (blurred if changed else pixels)[cell])
            gone.append(changed)
        assert sum(gone[:24]) == sum(gone[24:]) == 5, "a fifth of 24 cells"
        seen.add(tuple(gone))
    assert len(seen) == 3, "others in each copy"
    again = list(Copies(3, "mask", 0.2).of(pixels, ["a", "b"], 5, (4, 6)))
    assert all(torch.equal(one, other) for (one, _), (other, _) in zip(copies, again, strict=True))


def test_wordings_are_those_of_the_config_or_the_manifest() -> None:
    named = Copies(3, "paraphrase", wordings=("{question} Look closely.", "{question}", "Say: {question}"))
    assert named.worded("Is it?", ["Or not?"]) == ["Is it? Look closely.", "Say: Is it?"], "not the question again"
    assert Copies(2, "paraphrase").worded("Is it?", ["a", "b", "a", "c"]) == ["a", "b"], "up to the number of copies"
    assert Copies(3).worded("Is it?", ["a"]) == [] and list(named.of(torch.rand(3, 8, 8), ["a"], 0, (2, 2))) == []


def test_paraphrases_are_those_of_the_group_wherever_they_stand(tmp_path: Path) -> None:
    def row(name: str, **columns: object) -> Sample:
        asked = Sample(name, image_id="x", image_path="x.png", question=name, kind="yes_no", question_group="g")
        return replace(asked, **columns)

    samples = [row("q0"), row("other", question_group="h"), row("q1"), row("y", image_id="y", image_path="y.png")]
    samples += [row("open", kind="open"), row("later", turns=(Turn("q", "a"),)), row("q2"), row("again", question="q1")]
    samples += [row("none", question_group=None), row("none2", question_group=None)]
    write_manifest(samples, tmp_path / "manifest.parquet")
    paraphrases = Paraphrases(open_manifest(tmp_path / "manifest.parquet"))
    expected = {
        sample.sample_id: tuple(
            dict.fromkeys(
                other.question
                for other in samples
                if sample.question_group
                and all(
                    getattr(sample, name) == getattr(other, name)
                    for name in ("question_group", "image_id", "kind", "turns")
                )
                and other.question != sample.question
            )
        )
        for sample in samples
    }
    assert {sample.sample_id: paraphrases.of(place) for place, sample in enumerate(samples)} == expected
    assert expected["q0"] == ("q1", "q2") and expected["none"] == expected["later"] == ()


def test_spread_over_paraphrases_is_that_of_maps_made_question_by_question(bundled, tmp_path: Path) -> None:
    """Two samples, the second without a paraphrase; the maps explain the picture's own answer in each wording."""
    first, second = (Sample.from_row(row) for row in islice(open_manifest(bundled_manifest()), 2))
    texts = [first.question, "Please look: " + first.question, "Tell me. " + first.question]
    worded = [replace(first, sample_id=f"p{n}", question=text, question_group="g") for n, text in enumerate(texts)]
    write_manifest([worded[0], replace(second, question_group="alone"), *worded[1:]], tmp_path / "manifest.parquet")
    config = CONFIG.replace("MORE", "uncertainty: {source: paraphrase}").replace("METHODS", "gradient: {}")
    data = f"data: {{manifest: {tmp_path / 'manifest.parquet'}, data_root: {bundled_manifest().parent},"
    (tmp_path / "config.yaml").write_text(config.replace("data: {manifest: bundled,", data))
    assert run_here(tmp_path / "config.yaml", tmp_path / "run", "--limit", "2") == 0
    rows, method = of(tmp_path / "run", "gradient"), build_methods({"gradient": {}})["gradient"]
    pixels, maps = model_pixels(bundled, bundled_manifest().parent / str(first.image_path)), []
    cases = read_answers(bundled, pixels, first.image_id, texts, [first.kind] * 3, Protocol())
    for case in cases:
        batch = AttributionBatch(pixels[None], [case.prompt], [first.image_id], 0)
        maps.append(method.attribute(bundled, batch, [cases[0].target]).maps[0].double().numpy().ravel())
    np.testing.assert_allclose(rows.loc["p0", "map_std"], np.std(maps, axis=0, ddof=1), rtol=1e-4, atol=1e-7)
    assert rows.loc["p0", "stable_share"] == stable_share(maps) < 1
    assert rows["map_std"].isna().tolist() == [name != "p0" for name in rows.index]


def test_a_map_that_compares_the_picture_with_its_pair_has_no_spread(bundled) -> None:
    """A copy's noise would count as what the picture and the pair differ by."""
    row = next(iter(open_manifest(bundled_manifest())))
    pixels = model_pixels(bundled, bundled_manifest().parent / row["image_path"])
    (case,) = read_answers(bundled, pixels, row["image_id"], [row["question"]], [row["kind"]], Protocol())
    case.maps["counterfactual"], case.pair = np.zeros(bundled.grid, np.float32), pixels
    methods, before = build_methods({"counterfactual": {}}), bundled.counts.snapshot()
    measure_spread(bundled, methods, pixels, case, [row["image_id"]], 0, Copies(2))
    assert SPREAD not in case.extras.get("counterfactual", {}) and (bundled.counts - before).forwards == 0
