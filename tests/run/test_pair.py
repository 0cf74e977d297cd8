"""The substrate `pair`: cells of the same picture without the finding, where a manifest names it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cxr_faith.__main__ import main
from cxr_faith.attribution import build_methods
from cxr_faith.data.check import check_manifest
from cxr_faith.data.items import ManifestDataset
from cxr_faith.data.manifest import open_manifest
from cxr_faith.data.sample import MANIFEST_SCHEMA
from cxr_faith.data.sources.phantom import questions, sample_phantom
from cxr_faith.data.sources.phantom_files import write_samples
from cxr_faith.perturb.substrate import Substrate
from tests.reference import gemma
from tests.reference.pairs import margin_without
from tests.runs import assert_same, records, run_here

CONFIG = """
trainer: {{accelerator: cpu, devices: 1}}
model:
  methods: {{grad_x_input: {{}}, oracle: {{}}, at_marker: {{class: oracle, mask: marker}}}}
  protocol: {{steps: 4, random_orders: 2, substrates: ["blur:0.1", pair], controls: none}}
data: {{manifest: {manifest}, batch_size: {batch}}}
"""
REASON = "the manifest names no pair_path: the substrate pair needs the same picture without the finding"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantoms, one with two lesions: a question about each, about one side, and about a finding that is absent."""
    drawn = [
        sample_phantom("both", 11, findings=["nodule", "pleural effusion"]),
        sample_phantom("large", 11, findings=["cardiomegaly"]),
    ]
    asked = []
    for phantom in drawn:
        own = [q for q in questions(phantom) if q.kind == "yes_no" and q.variant == 0]
        present = [q for q in own if q.answer == "yes"]
        asked.append((phantom, [*present, next(q for q in own if q.answer == "no")]))
    root = tmp_path_factory.mktemp("phantoms")
    write_samples(root, asked, (128, 144), "test", pairs=True, markers=True)
    return root


def run(phantoms: Path, folder: Path, *arguments: str, batch: int = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG.format(manifest=phantoms / "manifest.parquet", batch=batch))
    assert run_here(folder / "config.yaml", folder / "run", *arguments) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def done(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(phantoms, tmp_path_factory.mktemp("done"))


def rows(run_dir: Path, method: str, substrate: str = "pair") -> pd.DataFrame:
    table = records(run_dir)
    return table[table["method"].eq(method) & table["substrate"].eq(substrate)].set_index("sample_id")


def test_removing_everything_gives_the_picture_without_the_finding(bundled, phantoms, done) -> None:
    """And every step on the way is the slow composition of the two files."""
    twin, scored = gemma.twin_model(bundled.model), 0
    for name, row in rows(done, "oracle").iterrows():
        if row["pair_path"] is None:
            continue
        files, sign = (
            (phantoms / row["image_path"], phantoms / row["pair_path"]),
            1 if row["predicted"] == "yes" else -1,
        )
        for step, count in enumerate(row["k"]):
            expected = sign * margin_without(bundled, twin, *files, row["order"][:count], row["question"])
            assert row["deletion_scores"][step] == pytest.approx(expected, abs=2e-3), (name, step)
        healthy = sign * margin_without(bundled, twin, files[1], files[1], [], row["question"])
        assert row["s_substrate"] == pytest.approx(healthy, abs=2e-3)
        scored += 1
    assert scored >= 4


def test_a_question_about_one_lesion_keeps_the_other(phantoms, done) -> None:
    """The pair of the nodule's question shows the effusion, and the other way round; a side has a pair of its own."""
    manifest = pq.read_table(phantoms / "manifest.parquet").to_pylist()
    pairs = {row["question"]: row["pair_path"] for row in manifest if row["image_id"] == "both"}
    assert pairs["Is there a nodule?"] == "images/both-without-nodule.jpg"
    assert pairs["Is there a pleural effusion?"] == "images/both-without-pleural_effusion.jpg"
    picture, nodule, effusion = (
        np.asarray(Image.open(phantoms / path), float)
        for path in ("images/both.jpg", *(pairs[f"Is there a {name}?"] for name in ("nodule", "pleural effusion")))
    )
    assert np.abs(picture - nodule).max() > 20 < np.abs(picture - effusion).max()
    # Each pair differs from the picture at its own lesion, so the two differences do not overlap.
    assert np.minimum(np.abs(picture - nodule), np.abs(picture - effusion)).max() < 12
    assert {row["pair_path"] is None for row in manifest if row["answer"] == ["no"]} == {True}


def test_a_sample_without_a_pair_loses_its_scores_under_pair_alone(done) -> None:
    for method in ("grad_x_input", "center", "random"):
        under_pair, under_blur = rows(done, method), rows(done, method, "blur:0.1")
        lone = under_pair["pair_path"].isna()
        assert lone.sum() == 2 and set(under_pair.loc[lone, "status"]) == {"invalid"}
        assert set(under_pair.loc[lone, "reason"]) == {REASON}
        assert not set(under_pair.loc[~lone, "status"]) & {"invalid"}
        assert not set(under_blur["status"]) & {"invalid"}
        assert len(under_blur) == len(under_pair)


def test_batches_a_cache_and_a_restart_change_nothing(phantoms, done, tmp_path) -> None:
    run(phantoms, tmp_path, "--limit", "2", batch=1)
    assert_same(run(phantoms, tmp_path, "--data.cache", str(tmp_path / "cache"), batch=1), done)


def test_an_oracle_can_use_another_mask(phantoms, done) -> None:
    """Its row is there wherever the picture has the marker, also where the finding is absent and has no mask."""
    manifest = pq.read_table(phantoms / "manifest.parquet").to_pylist()
    marked = {row["sample_id"] for row in manifest if "marker" in {mask["label"] for mask in row["anatomy_masks"]}}
    marker = rows(done, "at_marker", "blur:0.1")
    assert marked and set(marker.index) == marked
    for _, row in marker.iterrows():
        enrichment = {organ["label"]: organ["enrichment"] for organ in row["anatomy"]}
        assert enrichment["marker"] > 5 and enrichment["heart"] == 0


def test_pairs_that_cannot_be_used(phantoms) -> None:
    """Gone or of another size: the sample stays, with the reason; `prepare check` finds it."""
    table = pq.read_table(phantoms / "manifest.parquet")
    Image.fromarray(np.arange(2500, dtype=np.uint8).reshape(50, 50)).save(phantoms / "small.jpg")
    (phantoms.parent / "outside.jpg").write_bytes((phantoms / "small.jpg").read_bytes())
    faulty = ["gone.jpg", "small.jpg", "../outside.jpg", *[None] * (len(table) - 3)]
    place = table.schema.get_field_index("pair_path")
    pq.write_table(table.set_column(place, "pair_path", pa.array(faulty)), phantoms / "faulty.parquet")
    dataset = ManifestDataset(open_manifest(phantoms / "faulty.parquet"), range(3), phantoms, (64, 64), 0.0, pairs=True)
    reasons = [dataset[row].no_pair for row in range(3)]
    assert [dataset[row].error for row in range(3)] == [None] * 3
    assert "file not found" in reasons[0] and "outside the data root" in reasons[2]
    assert reasons[1] == "small.jpg: the pair is 50×50 px, its picture 128×144"
    checked, faults = check_manifest(phantoms / "faulty.parquet", phantoms)
    assert sum(fault is not None for fault in faults) == checked.faults == 3


def test_a_manifest_may_leave_the_column_out(phantoms, tmp_path) -> None:
    table = pq.read_table(phantoms / "manifest.parquet").drop_columns(["pair_path"])
    pq.write_table(table, tmp_path / "old.parquet")
    opened = open_manifest(tmp_path / "old.parquet")
    assert opened.column_names == MANIFEST_SCHEMA.names and set(opened["pair_path"]) == {None}


def test_pair_is_for_scoring_alone() -> None:
    with pytest.raises(ValueError, match="methods.occlusion: substrate pair only scores maps"):
        build_methods({"occlusion": {"substrate": "pair"}})
    with pytest.raises(ValueError, match="pair takes no parameter"):
        Substrate.parse("pair:1")
    with pytest.raises(ValueError, match="substrate pair needs the same picture without the finding"):
        Substrate.parse("pair").apply(torch.zeros(1, 3, 8, 8), ["a"], 0)


def test_a_film_without_a_manifest_has_no_pair(phantoms, tmp_path, capsys) -> None:
    words = [str(phantoms / "images" / "both.jpg"), "--question", "Is there a nodule?", "--out", str(tmp_path)]
    assert main(["explain", *words, "--method", "center", "--evaluate", "true", "--substrate", "pair"]) == 2
    assert "--substrate pair needs --pair, the same picture without the finding" in capsys.readouterr().err
