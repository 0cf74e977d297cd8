"""The adapters against the real libraries, on the model that ships."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cxr_faith.adapters import MapAttribution, YesNoClassifier, explain_function, quantus_explain, records_dataset
from cxr_faith.data.geometry import fit
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.explainer import Explainer
from cxr_faith.records import RECORD_SCHEMA, RecordWriter, read_records

QUESTION = "Is there a nodule?"


@pytest.fixture(scope="module")
def file() -> Path:
    return sorted((bundled_manifest().parent / "images").iterdir())[0]


@pytest.fixture(scope="module")
def explainer(bundled) -> Explainer:
    return Explainer(bundled)


@pytest.fixture(scope="module")
def pixels(bundled, file) -> torch.Tensor:
    picture = load_image(file)
    both = torch.stack([fit(picture, bundled.image_size)[0], fit(picture[:, ::-1].copy(), bundled.image_size)[0]])
    return bundled.normalize(both)


@pytest.fixture(scope="module")
def classifier(explainer) -> YesNoClassifier:
    return YesNoClassifier(explainer, QUESTION)


def test_the_classifier_is_the_explainers_margin(explainer, classifier, pixels, file) -> None:
    margin = explainer.explain(file, QUESTION, "center").metadata["margin"]
    logits = classifier(pixels)
    assert logits.shape == (2, 2) and float(logits[0, 1] - logits[0, 0]) == pytest.approx(margin, abs=1e-4)
    assert logits[0, 1] != logits[1, 1]


@pytest.mark.parametrize("method", ["chefer", "grad_x_input"])
def test_attribute_is_the_explainers_map_of_each_pixels_cell(explainer, classifier, pixels, file, method) -> None:
    explanation = explainer.explain(file, QUESTION, method, image_id="image")
    spread = MapAttribution(classifier, method).attribute(pixels[:1])
    assert spread.shape == pixels[:1].shape
    np.testing.assert_allclose(
        spread[0, 2].numpy(), explanation.overlay(tuple(pixels.shape[-2:])), rtol=1e-4, atol=1e-6
    )


def test_the_other_class_is_the_other_sign(classifier, pixels) -> None:
    maps = MapAttribution(classifier, "grad_x_input")
    yes, no = maps.maps(pixels[:1], 1), maps.maps(pixels[:1], 0)
    torch.testing.assert_close(yes, -no, rtol=1e-4, atol=1e-6)
    own = maps.maps(pixels[:1])
    torch.testing.assert_close(own, yes if classifier(pixels[:1]).argmax() == 1 else no)
    both = maps.maps(pixels, torch.tensor([1, 0]))
    torch.testing.assert_close(both[:1], yes)


def test_oracle_is_refused(classifier) -> None:
    with pytest.raises(ValueError, match="needs a finding mask"):
        MapAttribution(classifier, "oracle")


def test_captum_metrics_run_on_it(classifier, pixels) -> None:
    metrics = pytest.importorskip("captum.metrics", reason="development dependency captum")
    maps = MapAttribution(classifier, "attention")
    still = metrics.sensitivity_max(maps.attribute, pixels[:1], perturb_radius=0.0, n_perturb_samples=1, target=1)
    moved = metrics.sensitivity_max(maps.attribute, pixels[:1], perturb_radius=0.5, n_perturb_samples=2, target=1)
    assert float(still) == pytest.approx(0, abs=1e-6) and float(moved) > 1e-3


def test_captum_ablation_agrees_on_which_half_matters(classifier, pixels) -> None:
    attr = pytest.importorskip("captum.attr", reason="development dependency captum")
    height = pixels.shape[-2]
    halves = (torch.arange(height) >= height // 2).long()[None, None, :, None].expand_as(pixels[:1])
    attribution = attr.FeatureAblation(classifier).attribute(pixels[:1], baselines=0.0, target=1, feature_mask=halves)
    without = [pixels[:1] * (halves != half) for half in (0, 1)]
    expected = [float(classifier(pixels[:1])[0, 1] - classifier(other)[0, 1]) for other in without]
    got = [float(attribution[0, 0, 0, 0]), float(attribution[0, 0, -1, 0])]
    assert got == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_quantus_calls_it(classifier, pixels) -> None:
    quantus = pytest.importorskip("quantus", reason="development dependency quantus")
    x, y = pixels.numpy(), classifier(pixels).argmax(1).numpy()
    common = {"model": classifier, "x_batch": x, "y_batch": y, "device": "cpu", "channel_first": True}
    metric = {"disable_warnings": True, "abs": False, "normalise": False}
    asked = quantus.Sparseness(**metric)(
        **common, a_batch=None, explain_func=quantus_explain, explain_func_kwargs={"method": "chefer"}
    )
    given = quantus.Sparseness(**metric)(
        **common, a_batch=MapAttribution(classifier, "chefer").attribute(pixels, torch.tensor(y))[:, :1].numpy()
    )
    assert asked == pytest.approx(given) and len(asked) == 2 and all(0 < value < 1 for value in asked)


def test_a_plain_function_for_paraphrases(explainer, file) -> None:
    explain = explain_function(explainer, "attention")
    maps = [explain(file, question) for question in (QUESTION, "Is a nodule present?", QUESTION)]
    np.testing.assert_array_equal(maps[0], maps[2])
    assert maps[0].shape == maps[1].shape == (12, 12) and not np.array_equal(maps[0], maps[1])


def test_records_as_a_dataset(tmp_path) -> None:
    key = {"substrate": "mean", "target": "answer", "space": "pixels", "condition": "none", "status": "ok"}
    values = np.arange(4, dtype=np.float32)
    rows = [key | {"sample_id": f"s{i}", "method": "chefer", "srg": i / 3, "map": values + i} for i in range(3)]
    rows[1] |= {"srg": None, "map": None, "finding": "nodule", "reference": ["yes"]}
    RecordWriter(tmp_path, rank=0, start=0).write(rows)
    dataset = records_dataset(tmp_path)
    assert dataset.column_names == RECORD_SCHEMA.names and len(dataset) == 3
    assert dataset["srg"][:] == [0.0, None, 2 / 3] and dataset[2]["map"] == [2, 3, 4, 5]
    assert dataset[1]["finding"] == "nodule" and dataset[0]["finding"] is None and dataset[1]["reference"] == ["yes"]
    small = records_dataset(tmp_path, ["srg"]).to_pandas()
    assert list(small.columns) == list(read_records(tmp_path, ["srg"]).columns)
    assert small["sample_id"].tolist() == ["s0", "s1", "s2"]
