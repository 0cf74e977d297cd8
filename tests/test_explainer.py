"""The library's front door on the bundled model, on phantoms and on a real radiograph."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cxr_faith
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.records import RECORD_SCHEMA
from cxr_faith.vlm.micro_batch import MicroBatch
from cxr_faith.vlm.prefix_cache import Prefix

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def explainer() -> cxr_faith.Explainer:
    return cxr_faith.Explainer.from_pretrained(cxr_faith.bundled_model(), device="cpu")


@pytest.fixture(scope="module")
def picture() -> Path:
    return sorted((bundled_manifest().parent / "images").iterdir())[0]


def test_explanation_of_a_yes_no_answer(explainer: cxr_faith.Explainer, picture: Path) -> None:
    explanation = explainer.explain(picture, "Is there a nodule?")
    assert explanation.map.shape == (12, 12) and explanation.map.dtype == np.float32
    assert explanation.answer == ("yes" if explanation.metadata["margin"] >= 0 else "no")
    assert explanation.metadata["p_yes"] == pytest.approx(1 / (1 + np.exp(-explanation.metadata["margin"])))
    first = explainer.explain(picture, "Is there a nodule?", target="first")
    assert np.array_equal(first.map, explanation.map)  # the same target for yes/no questions


def test_every_kind_of_picture_gives_the_same_map(explainer: cxr_faith.Explainer, picture: Path) -> None:
    with Image.open(picture) as image:
        gray = np.asarray(image.convert("L"))
        maps = [
            explainer.explain(given, "Is there a nodule?", "gradient").map
            for given in (picture, str(picture), image, gray, np.stack([gray] * 3, -1))
        ]
    for other in maps[1:]:
        np.testing.assert_array_equal(maps[0], other)


def test_passes_are_as_large_as_those_of_a_run(
    explainer: cxr_faith.Explainer, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An accelerator's kernels depend on the rows: the answer, and what methods score, take whole micro-batches."""
    whole, rows, prefill = cxr_faith.Explainer(explainer.vlm), list[int](), explainer.vlm.prefill
    whole._engine.batches = MicroBatch(3, padded=True)
    asked = picture, "Is there a nodule?", {"class": "rise", "masks": 4}
    expected = explainer.explain(*asked)

    def counting(tokens: torch.Tensor) -> Prefix:
        rows.append(len(tokens))
        return prefill(tokens)

    monkeypatch.setattr(explainer.vlm, "prefill", counting)
    explanation = whole.explain(*asked)
    assert rows == [3, 3, 3]  # the answer, and four pictures in two passes
    assert explanation.answer == expected.answer
    np.testing.assert_array_equal(explanation.map, expected.map)
    whole.compare(picture, asked[1], {"rise": {"masks": 4}})
    whole.explain_tokens(*asked)
    assert rows == 9 * [3]


def test_evaluation_carries_the_record_columns(explainer: cxr_faith.Explainer, picture: Path) -> None:
    explanation = explainer.explain(picture, "Is there a nodule?", "grad_x_input")
    scores = explainer.evaluate(explanation, substrate="mean", steps=6, random_orders=2)
    assert set(vars(scores)) <= set(RECORD_SCHEMA.names)
    assert scores.substrate == "mean" and len(scores.deletion_scores) == 7
    assert sorted(scores.order) == list(range(144))
    assert scores.deletion_scores[0] == pytest.approx(abs(explanation.metadata["margin"]), abs=1e-5)
    assert scores.deletion_scores[0] == scores.insertion_scores[-1]
    with pytest.raises(ValueError, match="steps=200"):
        explainer.evaluate(explanation, steps=200)


def test_explanations_of_one_answer_are_evaluated_together_as_alone(
    explainer: cxr_faith.Explainer, picture: Path
) -> None:
    options = {"substrate": "mean", "steps": 4, "random_orders": 2}
    question, methods = "Is there a nodule?", ["attention", "center"]
    both = list(explainer.compare(picture, question, methods).values())
    together = explainer.evaluate_together(both, **options)
    assert list(together) == methods and [one.scores for one in both] == list(together.values())
    alone = {one.method: explainer.evaluate(one, **options).to_dict() for one in both}
    for name, scores in together.items():
        values = scores.to_dict()
        assert values.keys() == alone[name].keys()
        for column, value in values.items():
            if isinstance(value, float):
                assert value == pytest.approx(alone[name][column], rel=1e-4, abs=1e-5), (name, column)
            elif column != "deletion_scores" and column != "insertion_scores":
                assert value == alone[name][column], (name, column)
        np.testing.assert_allclose(values["deletion_scores"], alone[name]["deletion_scores"], rtol=1e-4, atol=1e-4)
    other = explainer.explain(picture, "Is there a mass?", "center")
    with pytest.raises(ValueError, match="different answers"):
        explainer.evaluate_together([both[0], other])


def test_an_answer_off_format_has_the_columns_too(explainer: cxr_faith.Explainer, picture: Path) -> None:
    explanation = explainer.explain(picture, "Is there a nodule?", "attention")
    unsure = replace(explanation._case, reply=replace(explanation._case.reply, yes_no_mass=0.2))
    scores = explainer.evaluate(replace(explanation, _case=unsure))
    assert scores.status == "off_format" and "0.200" in scores.reason
    assert scores.srg is None and scores.random_p is None and scores.deletion_scores is None


def test_tokens_of_an_open_answer(explainer: cxr_faith.Explainer, picture: Path) -> None:
    explanation = explainer.explain(picture, "What findings are there?", kind="open")
    assert "".join(explanation.tokens).strip() == explanation.answer
    one = explainer.explain(picture, "What findings are there?", kind="open", target=0)
    assert one.target.scored == (0,)
    assert explanation.text_relevancy is not None
    assert all(np.isfinite(value) for _, value in explanation.text_relevancy)
    with pytest.raises(ValueError, match="no answer token 99"):
        explainer.explain(picture, "What findings are there?", kind="open", target=99)


def test_overlay_and_plot_are_upright(explainer: cxr_faith.Explainer, picture: Path) -> None:
    explanation = explainer.explain(picture, "Is there a nodule?", "center")
    values = explanation.overlay((24, 48))
    assert values.shape == (24, 48)
    np.testing.assert_array_equal(values[::2, ::4], explanation.map)
    assert explanation.plot().axes


def test_bad_pictures_and_methods(explainer: cxr_faith.Explainer) -> None:
    with pytest.raises(ValueError, match="uint8"):
        explainer.explain(np.zeros((4, 4)), "Is there a nodule?")
    with pytest.raises(ValueError, match="did you mean 'chefer'"):
        explainer.explain(np.zeros((4, 4), np.uint8), "Is there a nodule?", "cheffer")


def test_a_real_radiograph(explainer: cxr_faith.Explainer) -> None:
    folder = pytest.importorskip("data_store", reason="development dependency pydicom-data").__path__[0]
    file = next(Path(folder).rglob("RG1_UNCR.dcm"))
    explanation = explainer.explain(file, "Is there a nodule?")
    assert explanation.picture.shape == (1955, 1841, 3)
    assert np.isfinite(explanation.map).all() and explanation.map.max() > 0
    figure = explanation.plot()
    axes = figure.axes[0].get_position()
    shown = axes.height * figure.get_figheight() / (axes.width * figure.get_figwidth())
    assert shown == pytest.approx(1955 / 1841, rel=0.01)


def readme_code(word: str) -> str:
    """The README's Python example that holds a word."""
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    return next(code for code in examples if word in code)


def test_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with Image.open(picture) as image:
        image.save("chest.png")
    exec(readme_code("Explainer").replace("steps=50", "steps=2"), {})
    assert (tmp_path / "explanation.png").stat().st_size > 0
