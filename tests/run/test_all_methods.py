"""Runs with every method: the same on two ranks as on one, and bad samples and settings cost what they must."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from cxr_faith.attribution import METHODS, Attribution, AttributionBatch
from cxr_faith.attribution.gradients import Gradient
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.vlm import Gemma3VLM, Prompt, Reply
from tests.forked import start_ranks, wait_for_ranks
from tests.random_model import random_model
from tests.runs import assert_same, cheap_options, parts, records, run_here

PROTOCOL = {"steps": 4, "random_orders": 2, "max_new_tokens": 8, "controls": "none"}


def write(folder: Path, rows: list[dict[str, Any]], methods: dict[str, Any], **protocol: Any) -> Path:
    """A manifest of these rows, and a config of the shortest schedule."""
    schema = pq.read_schema(bundled_manifest())
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "manifest.parquet")
    settings = {
        "trainer": {"accelerator": "cpu", "devices": 1},
        "model": {"methods": methods, "protocol": PROTOCOL | protocol},
        "data": {"manifest": str(folder / "manifest.parquet"), "data_root": str(bundled_manifest().parent)},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder / "config.yaml"


@pytest.fixture(scope="module")
def sure_model(random_vlm: Gemma3VLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the random model, made to answer with yes or no."""
    folder = tmp_path_factory.mktemp("random_model")
    model = random_model(random_vlm.processor.tokenizer)
    model.load_state_dict(random_vlm.model.state_dict())
    with torch.no_grad():
        model.lm_head.weight[[*random_vlm.yes_ids, *random_vlm.no_ids]] *= 6
    model.save_pretrained(folder)
    random_vlm.processor.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_two_ranks_equal_one_with_every_method(sure_model: Path, random_sae: str, tmp_path: Path) -> None:
    table = pq.read_table(bundled_manifest()).to_pylist()
    masked = [row for row in table if row["kind"] == "yes_no" and row["finding_mask_path"]]
    rows = [*masked[:2], next(row for row in table if row["kind"] == "open")]
    assert len({row["image_id"] for row in rows}) >= 2
    options = cheap_options(random_sae)
    made = set(METHODS) - {"file"}  # that one reads maps
    methods = {name: options.get(name, {}) for name in METHODS if name in made - {"center"}}
    methods |= {"tam_attention": {"class": "tam", "source": "attention"}}
    config = write(tmp_path, rows, methods, steps=2)
    model = ("--model.vlm.path", str(sure_model))
    assert run_here(config, tmp_path / "one", *model) == 0
    output = tmp_path / "output"
    wait_for_ranks(start_ranks(config, tmp_path / "two", 2, output, *model, "--data.batch_size", "3"), output)
    assert_same(tmp_path / "two", tmp_path / "one")
    assert len(parts(tmp_path / "two")) == 2

    frame = records(tmp_path / "one")
    second = frame["substrate"].eq("mean")
    controls = {"random", "random_map", "center", "edges", "oracle", "oracle_near"}
    made_with_blur = {"igos_pp", "cleann", "occlusion", "rise", "greedy", "sae", "integrated_gradients", "grad_x_input"}
    made_with_blur |= {"eagle", "multi_scale"}
    assert set(frame.loc[second, "method"]) == made_with_blur | controls
    assert not frame.loc[second, "own_substrate"].any() and frame.loc[~second, "own_substrate"].any()
    frame = frame[~second]
    assert set(frame["method"]) == {*made, "tam_attention", "random"}
    assert frame["map"].notna().sum() == 3 * (len(made) + 1) - 2  # both oracles are for yes/no questions
    assert not frame["status"].isin(["invalid", "off_format"]).any()


def test_bad_samples_cost_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token outside the answer, an empty answer, gradients that are not finite: the others have their records."""
    table = pq.read_table(bundled_manifest()).to_pylist()
    where = next(row for row in table if row["kind"] == "open" and row["finding"] and len(row["answer"][0]) > 15)
    finding = where["finding"]
    texts = {
        "good": f"Where is the {finding}?",
        "empty": f"What is the location of the {finding}?",
        "steep": f"Where can you see the {finding}?",
        "short": "Is there a nodule?",
    }
    rows = [where | {"sample_id": name, "question": text} for name, text in texts.items()]
    rows[3] |= {"kind": "yes_no"}
    answer, trace = Gemma3VLM.answer, Gemma3VLM.trace

    def empty_for_one(self: Gemma3VLM, prefix: Any, prompt: Prompt, max_new_tokens: int) -> Reply:
        reply = answer(self, prefix, prompt, max_new_tokens)
        return replace(reply, token_ids=(), content=(), text="") if prompt.question == texts["empty"] else reply

    def steep_for_one(self: Gemma3VLM, tokens: Any, prompts: list[Prompt], *others: Any, **more: Any) -> torch.Tensor:
        scores = trace(self, tokens, prompts, *others, **more)
        return scores + (0 * scores).sqrt() if prompts[0].question == texts["steep"] else scores

    monkeypatch.setattr(Gemma3VLM, "answer", empty_for_one)
    monkeypatch.setattr(Gemma3VLM, "trace", steep_for_one)
    methods = {"attention": {}, "chefer": {}, "grad_x_input": {}, "igos_pp": {"iterations": 1, "path_steps": 1}}
    assert run_here(write(tmp_path, rows, methods, target=1, substrates=["mean"]), tmp_path / "run") == 0
    frame = records(tmp_path / "run").set_index(["sample_id", "method"])
    assert set(frame.index.get_level_values(0)) == set(texts) and set(frame["target"]) == {"1"}
    assert not frame.loc["good", "status"].eq("invalid").any()
    for name, reason in {"empty": "is empty", "short": "no answer token 1: the answer has 1"}.items():
        assert frame.loc[name, "status"].eq("invalid").all() and frame.loc[name, "reason"].str.contains(reason).all()
    steep = frame.loc["steep"]
    for name in ("chefer", "grad_x_input", "igos_pp"):
        assert steep.loc[name, "status"] == "invalid"
        assert steep.loc[name, "reason"] == f"the map of {name} has values that are not finite"
    assert not steep.loc[["attention", "center", "random"], "status"].eq("invalid").any()


def test_a_method_that_fails_costs_its_own_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pq.read_table(bundled_manifest()).slice(0, 2).to_pylist()
    rows[1] |= {"question": "Is there anything?"}
    attribute = Gradient.attribute

    def sometimes(self: Gradient, vlm: Any, batch: AttributionBatch, target: Any) -> Attribution:
        if batch.prompts[0].question == "Is there anything?":
            raise ValueError("no gradient\nhere")
        return attribute(self, vlm, batch, target)

    monkeypatch.setattr(Gradient, "attribute", sometimes)
    methods = {"gradient": {}, "rollout": {}}
    assert run_here(write(tmp_path, rows, methods, substrates=["mean"], controls="basic"), tmp_path / "run") == 0
    frame = records(tmp_path / "run").set_index(["sample_id", "method"])
    bad, good = frame.loc[rows[1]["sample_id"]], frame.loc[rows[0]["sample_id"]]
    assert (
        set(bad.index)
        == set(good.index) - {"oracle", "oracle_near"}
        > {"gradient", "gradient/blurred", "rollout", "center", "random"}
    )
    for name in ("gradient", "gradient/blurred"):
        assert bad.loc[name, "status"] == "invalid" and bad.loc[name, "reason"] == "gradient: no gradient here"
    assert not bad.loc[["rollout", "center", "random"], "status"].eq("invalid").any()
    assert not good["status"].eq("invalid").any()


def test_a_layer_that_the_model_does_not_have_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pq.read_table(bundled_manifest()).slice(0, 1).to_pylist()
    assert run_here(write(tmp_path, rows, {"grad_cam": {"layer": 9}}), tmp_path / "run") == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == "cxr-faith: error: grad_cam: layer must be 0 to 4, or -6 to -2, got 9"
