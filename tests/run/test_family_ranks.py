"""Runs with other families than Gemma 3: two ranks write the records of one, in pixels and among image tokens."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from cxr_faith.bench.family_makers import MAKERS
from cxr_faith.bench.family_parts import save
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.vlm.loading import load_vlm
from tests.forked import start_ranks, wait_for_ranks
from tests.run.test_all_methods import write
from tests.runs import assert_same, parts, records, run_here

IN_PIXELS = ("llava", "paligemma")
"""The others are run among image tokens; both spaces are compared with each family's twin without a run."""


@pytest.mark.parametrize("family", sorted(MAKERS))
def test_two_ranks_equal_one(family: str, tmp_path: Path) -> None:
    made, space = MAKERS[family](), "pixels" if family in IN_PIXELS else "tokens"
    vlm = load_vlm(save(made, tmp_path / "model"), "cpu", image_size=made.image_size)
    with torch.no_grad():
        made.model.lm_head.weight[[*vlm.yes_ids, *vlm.no_ids]] *= 6  # so that it answers with yes or no
    if family == "gemma4":
        made.model.config.get_text_config().final_logit_softcapping *= 10  # bounded by 6, no logit could win
    model = ["--model.vlm.path", str(save(made, tmp_path / "model"))]
    model += ["--model.vlm.image_size", str(list(made.image_size))] if made.image_size else []
    rows = [row for row in pq.read_table(bundled_manifest()).to_pylist() if row["kind"] == "yes_no"]
    two = [rows[0], next(row for row in rows if row["image_id"] != rows[0]["image_id"])]
    config = write(tmp_path, two, {"gradient": {}, "attention": {}}, steps=2, space=space, max_new_tokens=1)
    assert run_here(config, tmp_path / "one", *model) == 0
    output = tmp_path / "output"
    wait_for_ranks(start_ranks(config, tmp_path / "two", 2, output, *model), output)
    assert_same(tmp_path / "two", tmp_path / "one")
    assert len(parts(tmp_path / "two")) == 2
    frame = records(tmp_path / "one")
    assert set(frame["space"]) == {space} and frame["map"].notna().sum() == 2 * 3
