"""Planted pairs from `prepare planted` to the boards of verified pairs, on the bundled model."""

from pathlib import Path

import pytest

from cxr_faith.__main__ import main
from cxr_faith.data.sources.phantom import questions, sample_phantom
from cxr_faith.data.sources.phantom_files import write_samples
from cxr_faith.summary.load import read_summary
from cxr_faith.summary.summary import Summary
from tests.runs import records, run_here

CONFIG = """
trainer: {{accelerator: cpu, devices: 1}}
model:
  methods: {{attention: {{}}, random_map: {{}}, oracle: {{}}}}
  protocol: {{steps: 4, random_orders: 2, substrates: [pair, "blur:0.1"], controls: none}}
data: {{manifest: {manifest}}}
"""

KNOWN = ("nodule", "consolidation", "pleural_effusion", "pneumothorax")
"""What the bundled model has learned and an object can be planted for."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two phantoms without findings, in each of which two objects were planted."""
    root = tmp_path_factory.mktemp("planted")
    normal = [sample_phantom(f"n{number}", 5, findings=[]) for number in range(2)]
    asked = [(phantom, [q for q in questions(phantom) if q.kind == "yes_no"][:1]) for phantom in normal]
    write_samples(root / "phantoms", asked, (320, 320), "test")
    options = ["--findings", "nodule,consolidation", "--per_image", "2", "--contrast", "0.2,2"]
    # Phantoms are drawn smaller than films, so their pixels count as smaller too.
    options += ["--spacing", "0.7", "--normal", "true", "--out", str(root / "pairs")]
    assert main(["prepare", "planted", str(root / "phantoms" / "manifest.parquet"), *options]) == 0
    (root / "config.yaml").write_text(CONFIG.format(manifest=root / "pairs"))
    assert run_here(root / "config.yaml", root / "run") == 0
    return root / "run"


@pytest.fixture(scope="module")
def summary(done: Path) -> Summary:
    return read_summary(done)


def test_every_finding_that_the_model_knows_has_verified_pairs(summary: Summary) -> None:
    assert summary.pairs is not None
    flips = {(one.finding, one.contrast): one for one in summary.pairs.flips}
    assert {finding for finding, _ in flips} == {"nodule", "consolidation"}
    for (finding, contrast), one in flips.items():
        assert one.n == 2 == one.n_patients
        assert one.n_verified == 0 if contrast == 0.2 else one.n_verified >= 1, (finding, contrast)


def test_the_mask_of_the_object_leads_on_verified_pairs(summary: Summary) -> None:
    """Under `pair` every cell but the object's is the same in both pictures, so no map can be ahead of the mask."""
    board = summary.board("verified", substrate="pair")
    srg = {row.method: row.value("srg") for row in board.rows}
    assert board.n_samples == summary.pairs.n_verified > 1
    assert srg["oracle"] == max(value for value in srg.values() if value is not None)
    assert srg["oracle"] > 0.5 > srg["random_map"] and abs(srg["random"]) < 1e-9
    located = {one.method: one.energy_inside for one in summary.pairs.localization}
    assert located["oracle"] > located["random_map"]


def test_a_film_is_scored_under_blur_and_has_no_pair(done: Path) -> None:
    rows = records(done)
    under_pair = rows[rows["substrate"].eq("pair")]
    films, copies = (under_pair[under_pair["planted"].eq(value)] for value in (False, True))
    assert set(films["status"]) == {"invalid"} and "invalid" not in set(copies["status"])
    assert "invalid" not in set(rows.loc[rows["substrate"].ne("pair"), "status"])
    assert rows.groupby("pair_id")["image_id"].nunique().eq(3).all() and rows["patient_id"].nunique() == 2


def test_the_page_says_that_the_objects_are_synthetic(done: Path) -> None:
    page = (done / "report" / "index.html").read_text(encoding="utf-8")
    assert "The objects are synthetic" in page and "What does the model see of planted objects?" in page
    assert "planted copies of verified pairs" in page


def test_a_counterfactual_edits_the_fewest_cells_of_the_object_and_films_get_an_estimate(done: Path) -> None:
    methods = "methods: {attention: {}, random_map: {}, oracle: {}}"
    text, config = (done.parent / "config.yaml").read_text(), done.parent / "counterfactual.yaml"
    assert methods in text
    config.write_text(text.replace(methods, "methods: {oracle: {}, counterfactual: {cells: 1}}"))
    assert run_here(config, done.parent / "edited") == 0
    under_pair = records(done.parent / "edited").query("substrate == 'pair'")
    rows = under_pair[under_pair["method"].eq("counterfactual")].set_index("sample_id")
    masked = under_pair[under_pair["method"].eq("oracle")].set_index("sample_id")["map"]
    said_yes = records(done).query("method == 'random' and substrate == 'pair'").set_index("sample_id")["predicted"]
    for name, row in rows.iterrows():
        assert row["edit"] == ("pair" if row["planted"] else "mirror")
        if row["planted"]:
            cells = row["order"][: int(row["set_size"])]
            assert all(masked[name][cell] > 0 for cell in cells)  # in a mask of every pixel that differs
            film = next(one for one in said_yes.index if one.startswith(row["pair_id"]) and one.endswith("film"))
            assert row["verified"] == (said_yes[name] != said_yes[film]) == bool(row["set_removal_flips"])
    assert rows["verified"].sum() >= 2


@pytest.mark.slow
def test_on_verified_pairs_the_mask_is_far_from_chance_and_random_maps_are_not(tmp_path: Path) -> None:
    """Twelve patients, so that srg has an interval: that of random maps holds 0, that of the object's mask does not."""
    normal = [sample_phantom(f"m{number}", 5, findings=[]) for number in range(12)]
    asked = [(phantom, [q for q in questions(phantom) if q.kind == "yes_no"][:1]) for phantom in normal]
    write_samples(tmp_path / "phantoms", asked, (320, 320), "test")
    options = ["--findings", ",".join(KNOWN), "--per_image", "2", "--contrast", "2", "--spacing", "0.7"]
    options += ["--normal", "true", "--out", str(tmp_path / "pairs")]
    assert main(["prepare", "planted", str(tmp_path / "phantoms" / "manifest.parquet"), *options]) == 0
    short = "{steps: 2, random_orders: 2, substrates: [pair], controls: none, image_use: false}"
    (tmp_path / "config.yaml").write_text(
        "trainer: {accelerator: cpu, devices: 1}\n"
        f"model: {{methods: {{random_map: {{}}, oracle: {{}}}}, protocol: {short}}}\n"
        f"data: {{manifest: {tmp_path / 'pairs'}}}\n"
    )
    assert run_here(tmp_path / "config.yaml", tmp_path / "run") == 0
    summary = read_summary(tmp_path / "run")
    assert summary.pairs is not None
    verified = {one.finding: one.n_verified for one in summary.pairs.flips}
    assert set(verified) == {name.replace("_", " ") for name in KNOWN} and min(verified.values()) >= 1, verified
    rows = {row.method: row.intervals["srg"].ends for row in summary.board("verified", substrate="pair").rows}
    assert rows["random_map"] is not None and rows["oracle"] is not None, "ten patients or more"
    assert rows["random_map"][0] < 0 < rows["random_map"][1] < rows["oracle"][0]
