"""Questions with options, through a whole run: the letter's margin is what is explained and perturbed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from cxr_faith import Explainer
from cxr_faith.__main__ import main
from cxr_faith.data.manifest import bundled_manifest, write_manifest
from cxr_faith.data.sample import Sample
from cxr_faith.summary.load import load_run
from cxr_faith.vlm import bundled_model
from cxr_faith.vlm.config import ModelConfig
from cxr_faith.vlm.loading import load_configured
from tests.runs import assert_same, records, run_here

OPTIONS = ("a nodule", "an effusion", "a fracture")
QUESTION = "Which finding is seen?\nA. a nodule\nB. an effusion\nC. a fracture"
CONFIG = """
trainer: {{accelerator: cpu, devices: 1}}
model:
  vlm: {{path: {model}}}
  methods: {methods}
  protocol: {{steps: 4, random_orders: 2, max_new_tokens: 1, controls: none}}
data: {{manifest: {folder}/m.parquet, data_root: {root}, batch_size: 2}}
"""


def pictures(count: int) -> list[tuple[str, str]]:
    """(id, path) of bundled phantoms."""
    table = pq.read_table(bundled_manifest(), columns=["image_id", "image_path"]).to_pylist()
    return list({row["image_id"]: row["image_path"] for row in table}.items())[:count]


@pytest.fixture(scope="module")
def lettered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, but it says letters: their rows of the head are larger copies of what it says now."""
    folder = tmp_path_factory.mktemp("lettered")
    shutil.copytree(bundled_model(), folder, dirs_exist_ok=True)
    vlm = load_configured(ModelConfig(), "cpu")
    rows = vlm.model.get_output_embeddings().weight
    prompt = vlm.prompt(QUESTION, 3)
    with torch.no_grad():
        said = vlm.answer(vlm.prefill(vlm.encode(torch.zeros(1, 3, *vlm.image_size))), prompt, 1).token_ids[0]
        yes, no = (rows[list(ids)].mean(0) for ids in (vlm.yes_ids, vlm.no_ids))
        for ids, own in zip(prompt.letters, (yes - no, no - yes, 0 * no), strict=True):
            rows[list(ids)] = 2 * rows[said] + own
    vlm.model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    samples = [
        Sample(
            f"s{i}", image_id=name, image_path=path, question=QUESTION, kind="option", options=OPTIONS, answer=("A",)
        )
        for i, (name, path) in enumerate(pictures(2))
    ]
    write_manifest(samples, folder / "m.parquet")
    return folder


def config(folder: Path, name: str, model: Path | str, methods: str) -> Path:
    file = folder / f"{name}.yaml"
    root = bundled_manifest().parent
    file.write_text(CONFIG.format(model=model, methods=methods, folder=folder, root=root))
    return file


@pytest.fixture(scope="module")
def at_once(folder: Path, lettered: Path) -> Path:
    file = config(folder, "at_once", lettered, "{chefer: {}, gradient: {}, tam: {}}")
    assert run_here(file, folder / "at_once") == 0
    return folder / "at_once"


def test_records_hold_the_letters_and_their_margin(at_once: Path) -> None:
    rows: pd.DataFrame = records(at_once)
    assert {*rows["kind"]} == {"option"} and {*rows["status"]} <= {"ok", "degenerate", "inverted", "flat"}
    for row in rows.to_dict("records"):
        probs: Any = row["option_probs"]
        assert len(probs) == 3 and sum(probs) == pytest.approx(1) and row["option_mass"] > 0.5
        assert row["predicted"] == "ABC"[max(range(3), key=lambda place: probs[place])]
        assert row["correct"] == (row["predicted"] == "A")
        assert list(row["options"]) == list(OPTIONS) and row["margin"] is None or row["margin"] != row["margin"]
        second, first = sorted(probs)[-2:]
        expected = float(torch.tensor(first / second, dtype=torch.float64).log())
        assert row["s_original"] == pytest.approx(expected, abs=1e-4), "s is the margin over the best other letter"
    chefer = rows[rows["method"] == "chefer"].iloc[0]
    assert chefer["deletion_scores"][0] == pytest.approx(chefer["insertion_scores"][-1])
    assert chefer["deletion_probs"][0] == pytest.approx(max(chefer["option_probs"]), abs=1e-6)
    summary = load_run(at_once)
    assert summary is not None


def test_a_run_that_grows_takes_the_letters_from_its_records(folder: Path, lettered: Path, at_once: Path) -> None:
    few, all_of_them = "{chefer: {}}", "{chefer: {}, gradient: {}, tam: {}}"
    assert run_here(config(folder, "few", lettered, few), folder / "grown") == 0
    assert run_here(config(folder, "more", lettered, all_of_them), folder / "grown") == 0
    assert_same(folder / "grown", at_once)


def test_a_model_that_says_no_letter_is_off_format(folder: Path) -> None:
    """The bundled model answers yes or no, whatever it is asked."""
    run = folder / "plain"
    assert run_here(config(folder, "plain", "bundled", "{random_map: {}}"), run) == 0
    rows = records(run)
    assert {*rows["status"]} == {"off_format"}
    assert rows["reason"].str.startswith("the letters of the options have a probability of 0.").all()


def test_explain_with_options(lettered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(bundled_manifest().parent / pictures(1)[0][1])
    asked = ["explain", picture, "--question", "Which finding is seen?", "--options", json.dumps(OPTIONS)]
    assert main([*asked, "--model", str(lettered), "--prompt_template", "{question}", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "letters     A 0." in printed and "answer      " in printed
    assert main([*asked, "--target", "tokens", "--out", str(tmp_path)]) == 2
    explainer = Explainer(load_configured(ModelConfig(path=str(lettered), prompt_template="{question}"), "cpu"))
    explanation = explainer.explain(picture, "Which finding is seen?", options=OPTIONS)
    assert explanation.answer in "ABC" and explanation.target.kind == "letter"
    assert explainer.evaluate(explanation, steps=4, random_orders=2).s_original >= 0
    for wrong, message in ((["left"], "2 to 26 texts"), (["left", " "], "2 to 26 texts")):
        with pytest.raises(ValueError, match=message):
            explainer.explain(picture, "Which side?", options=wrong)
    with pytest.raises(ValueError, match="of the kind option"):
        explainer.explain(picture, "Which side?", kind="open", options=["left", "right"])
