"""The section on adding a method: its code, run as it stands there."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

import cxr_faith
from cxr_faith.attribution import METHODS, build_methods
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.records import read_records
from tests.docs.documents import blocks, document, section
from tests.runs import run_here

SECTION = section(document("docs/extending.md"), "Adding a method")


@pytest.fixture
def code():
    """The section's one example; what it registers is taken out again."""
    examples = blocks(SECTION, "python")
    assert len(examples) == 1 and len(examples[0].splitlines()) <= 25
    before = dict(METHODS)
    exec(examples[0], {})
    yield set(METHODS) - set(before)
    METHODS.clear()
    METHODS.update(before)


def test_the_example_is_a_method_with_an_option(code, bundled):
    assert code == {"layer_row"}
    assert build_methods({"first": {"class": "layer_row", "layer": 0}})["first"].layer == 0
    with pytest.raises(ValueError, match="did you mean 'layer'"):
        build_methods({"layer_row": {"layr": 0}})
    explainer = cxr_faith.Explainer(bundled)
    picture = np.random.default_rng(0).integers(0, 255, (90, 80), np.uint8)
    mine = explainer.explain(picture, "Is there a nodule?", "layer_row")
    theirs = explainer.explain(picture, "Is there a nodule?", {"class": "attention", "layers": "last"})
    np.testing.assert_allclose(mine.map, theirs.map, rtol=1e-5)
    first = explainer.explain(picture, "Is there a nodule?", {"class": "layer_row", "layer": 0})
    assert np.abs(first.map - mine.map).max() > 1e-3 * mine.map.max()
    scores = explainer.evaluate(mine, steps=2)
    assert scores.method == "layer_row" and len(scores.order) == bundled.n_cells


def test_a_run_scores_the_example(code, tmp_path):
    table = pq.read_table(bundled_manifest()).slice(0, 1)
    pq.write_table(table, tmp_path / "manifest.parquet")
    settings = {
        "trainer": {"accelerator": "cpu", "devices": 1},
        "model": {"methods": {"layer_row": {"layer": 0}}, "protocol": {"steps": 4, "random_orders": 2}},
        "data": {"manifest": str(tmp_path / "manifest.parquet"), "data_root": str(bundled_manifest().parent)},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    assert run_here(tmp_path / "config.yaml", tmp_path / "run") == 0
    records = read_records(tmp_path / "run").set_index("method")
    assert (
        records.loc["layer_row", "status"] in ("ok", "degenerate", "inverted")
        and records.loc["layer_row", "forwards"] == 1
    )


def test_the_section_names_what_exists():
    from cxr_faith.attribution.blackbox import Masker  # noqa: F401
    from cxr_faith.vlm.base import VLM

    for name in ("trace", "encode", "token_logits"):
        assert f"`{name}`" in SECTION and callable(getattr(VLM, name))
