"""Targets, lists and comparisons of the Explainer, on the bundled model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

import cxr_faith
from cxr_faith.attribution import METHODS
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.explainer.clinical import Known, _answer

LIST = "What findings are there?"


@pytest.fixture(scope="module")
def explainer() -> cxr_faith.Explainer:
    return cxr_faith.Explainer.from_pretrained(cxr_faith.bundled_model(), device="cpu")


@pytest.fixture(scope="module")
def pictures() -> list[Path]:
    return sorted((bundled_manifest().parent / "images").iterdir())


@pytest.fixture(scope="module")
def several(explainer: cxr_faith.Explainer, pictures: list[Path]) -> Path:
    """A picture of which the model names more than one token."""
    return next(p for p in pictures if len(explainer.explain(p, LIST, "center", kind="open").tokens) > 2)


def test_keyword(explainer: cxr_faith.Explainer, several: Path) -> None:
    answer = explainer.explain(several, LIST, "center", kind="open").answer
    last = answer.split()[-1]
    explained = explainer.explain_keyword(several, LIST, last.upper(), kind="open")
    assert "".join(explained.tokens[i] for i in explained.target.scored).strip() == last
    assert explained.target.name == f"keyword:{last.upper()}"
    assert any(text.get_text().endswith(f": {last}") for text in explained.plot().findobj(Text))
    with pytest.raises(ValueError, match=f"the keyword 'scoliosis' is not in the answer '{answer}'"):
        explainer.explain_keyword(several, LIST, "scoliosis", kind="open")


def test_tokens_add_up_to_the_answer(explainer: cxr_faith.Explainer, several: Path) -> None:
    """Chefer's map of an answer is the sum over its tokens, and one forward serves them all."""
    whole = explainer.explain(several, LIST, kind="open")
    before = explainer.vlm.counts.snapshot()
    tokens = explainer.explain_tokens(several, LIST, kind="open")
    assert explainer.vlm.counts.trace - before.trace == 1
    assert [one.target.scored for one in tokens] == [(i,) for i in whole.target.scored]
    np.testing.assert_allclose(sum(one.map for one in tokens), whole.map, rtol=1e-4, atol=1e-8)
    assert not np.allclose(tokens[0].map, tokens[-1].map, rtol=1e-2)
    alone = explainer.explain(several, LIST, target=1, kind="open")
    np.testing.assert_allclose(tokens[1].map, alone.map, rtol=1e-3, atol=1e-7)
    assert explainer.evaluate(tokens[1], steps=2, random_orders=2).status in ("ok", "degenerate", "inverted")


def test_a_clinical_page_compares_maps_of_the_same_token(explainer: cxr_faith.Explainer, several: Path) -> None:
    one = explainer.explain(several, LIST, "chefer", target=1, kind="open")
    others = _answer(explainer, one, None, Known()).others
    again = explainer.explain(one.picture, LIST, "attention", 1, "open", one.metadata["image_id"])
    np.testing.assert_array_equal(others["attention"], again.map)
    whole = explainer.explain(several, LIST, "attention", kind="open")
    assert not np.array_equal(others["attention"], whole.map)


def test_tokens_of_a_yes_no_answer(explainer: cxr_faith.Explainer, pictures: list[Path]) -> None:
    (only,) = explainer.explain_tokens(pictures[0], "Is there a nodule?")
    assert only.target.kind == "tokens" and only.tokens[0] == only.answer


def test_a_whole_answer(explainer: cxr_faith.Explainer, several: Path) -> None:
    whole = explainer.explain_answer(several, LIST, "gradient", kind="open")
    assert whole.target.scored == tuple(range(len(whole.tokens))) and len(whole.tokens) > 2
    assert np.array_equal(whole.map, explainer.explain(several, LIST, "gradient", "answer", "open").map)
    first = explainer.explain(several, LIST, "gradient", "first", "open")
    assert not np.allclose(whole.map, first.map, rtol=1e-2)
    asked = explainer.explain_answer(several, "Is there a nodule?")
    assert asked.target.kind == "margin" and asked.metadata["method"] == "chefer"


def test_picked_tokens(explainer: cxr_faith.Explainer, several: Path) -> None:
    picked = explainer.explain(several, LIST, "center", target="llr", kind="open")
    scores = [explainer.explain(several, LIST, "center", target=i, kind="open") for i in range(len(picked.tokens))]
    effects = [explainer.evaluate(one, steps=2, random_orders=2).effect for one in scores]
    assert picked.target.scored == (int(np.argmax(effects)),)
    assert explainer.explain(several, LIST, "center", target="decision", kind="open").target.scored == (0,)


def test_lists_share_encodes_and_give_the_same_maps(explainer: cxr_faith.Explainer, pictures: list[Path]) -> None:
    asked = ["Is there a nodule?", LIST, "Is there a pneumothorax?"]
    alone = [explainer.explain(pictures[0], question) for question in asked]
    before = explainer.vlm.counts.snapshot()
    together = explainer.explain(pictures[0], asked)
    assert explainer.vlm.counts.prefill - before.prefill == 1
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.map, other.map) and one.metadata["question"] == other.metadata["question"]
    pairs = explainer.explain([pictures[0], pictures[1], pictures[0]], asked)
    assert np.array_equal(pairs[2].map, alone[2].map) and pairs[1].metadata["image_id"] == pictures[1].name
    one_question = explainer.explain([pictures[1], pictures[0]], asked[0])
    assert np.array_equal(one_question[1].map, alone[0].map)
    with pytest.raises(ValueError, match="2 pictures and 3 questions"):
        explainer.explain([pictures[0], pictures[1]], asked)


def test_what_takes_one_picture_says_so(explainer: cxr_faith.Explainer, pictures: list[Path]) -> None:
    for call in (
        lambda: explainer.explain_tokens(pictures[:2], LIST),  # type: ignore[arg-type]
        lambda: explainer.compare(pictures[0], [LIST, LIST], ["edges"]),  # type: ignore[arg-type]
        lambda: explainer.text_relevancy(pictures[0], [LIST]),  # type: ignore[arg-type]
        lambda: explainer.layer_attention(pictures[:1], LIST),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="one picture and one question at a time: explain takes lists"):
            call()


def test_compare_explains_one_answer(explainer: cxr_faith.Explainer, pictures: list[Path]) -> None:
    before = explainer.vlm.counts.snapshot()
    explained = explainer.compare(pictures[0], "Is there a nodule?", ["attention", "chefer", "edges"])
    assert explainer.vlm.counts.prefill - before.prefill == 1
    assert list(explained) == ["attention", "chefer", "edges"]
    for name, explanation in explained.items():
        assert explanation.metadata["method"] == name
        assert np.array_equal(explanation.map, explainer.explain(pictures[0], "Is there a nodule?", name).map)
    deep = explainer.compare(pictures[0], "Is there a nodule?", {"deep": {"class": "attention", "layers": "deep"}})
    assert not np.array_equal(deep["deep"].map, explained["attention"].map)
    with pytest.raises(ValueError, match="did you mean 'chefer'"):
        explainer.compare(pictures[0], "Is there a nodule?", ["cheffer"])


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"oracle", "oracle_near", "file"}))
def test_every_method_is_offered(explainer: cxr_faith.Explainer, pictures: list[Path], name: str) -> None:
    cheap = {"igos_pp": {"iterations": 1, "path_steps": 1}, "rise": {"masks": 20}, "integrated_gradients": {"steps": 4}}
    cheap |= {"eagle": {"regions": 4, "budget": 8}, "multi_scale": {"tolerance": 0.5}}
    cheap |= {"greedy": {"cells": 2}, "counterfactual": {"cells": 1}, "smooth_grad": {"copies": 3}}
    options = {"class": name} | cheap.get(name, {})
    explained = explainer.explain(pictures[0], "Is there a nodule?", options)
    assert explained.metadata["method"] == name and explained.map.shape == explainer.vlm.grid
    assert explained.map.max() > explained.map.min()
    if name == "cleann":
        return  # the sets of an open answer take some hundred pictures for each token
    tokens = explainer.explain_tokens(pictures[0], LIST, options, kind="open")
    assert [one.target.scored for one in tokens] == [(i,) for i in range(len(tokens))]


def test_what_cannot_be_explained(
    explainer: cxr_faith.Explainer, pictures: list[Path], random_sae: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer, an autoencoder, gradients and an answer that do not serve: each says so."""

    def refused(method: str | dict[str, object], question: str = "Is there a nodule?") -> str:
        with pytest.raises(ValueError) as error:
            explainer.explain(pictures[0], question, method)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "layer must be 0 to 4, or -6 to -2, got 9" in refused({"class": "grad_cam", "layer": 9})
    assert "did you mean 'last'?" in refused({"class": "attention", "layers": "lasst"})
    assert "was trained for another vision tower" in refused({"class": "sae", "path": random_sae})
    assert "trained for tower layer 2, not 1" in refused({"class": "sae", "layer": 1})
    vlm = explainer.vlm
    trace, answer = vlm.trace, vlm.answer
    with monkeypatch.context() as patch:
        patch.setattr(vlm, "trace", lambda *a, **k: (scores := trace(*a, **k)) + (0 * scores).sqrt())
        for name in ("chefer", "igos_pp"):
            words = f"the map of {name} for {pictures[0].name} has values that are not finite"
            assert refused({"class": name} | ({"iterations": 1} if name == "igos_pp" else {})) == words
    with monkeypatch.context() as patch:
        patch.setattr(vlm, "answer", lambda *a: replace(answer(*a), token_ids=(), content=(), text=""))
        assert "is empty" in refused("attention", LIST)
        with pytest.raises(ValueError, match="is empty"):
            explainer.explain_tokens(pictures[0], LIST, kind="open")


def test_layer_attention(explainer: cxr_faith.Explainer, pictures: list[Path]) -> None:
    layers = explainer.layer_attention(pictures[0], "Is there a nodule?")
    assert [one.kind == "global" for one in layers] == [k == "full_attention" for k in explainer.vlm.layer_types]
    assert [one.layer for one in layers] == list(range(len(layers)))
    assert all(0 < one.share < 1 for one in layers)
    image = explainer.explain(pictures[0], "Is there a nodule?", {"class": "attention", "layers": "last"}).map
    assert layers[-1].share == pytest.approx(float(image.sum()), rel=1e-4)


def test_text_relevancy(explainer: cxr_faith.Explainer, pictures: list[Path]) -> None:
    rated = explainer.text_relevancy(pictures[0], "Is there a nodule?")
    assert "nodule" in "".join(token for token, _ in rated)
    assert rated == explainer.explain(pictures[0], "Is there a nodule?").text_relevancy
    with pytest.raises(ValueError, match="gradient rates the image alone"):
        explainer.text_relevancy(pictures[0], "Is there a nodule?", "gradient")
