"""Ensemble, attention without sinks, multi-scale, EAGLE and AnswerMap against plain loops and known answers."""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import AttributionBatch, build_methods
from cxr_faith.attribution.base import MethodError
from cxr_faith.attribution.eagle import superpixels
from cxr_faith.attribution.ensemble import shares_below
from cxr_faith.attribution.multi_scale import levels
from cxr_faith.perturb.schedule import stream
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.vlm import Target
from tests.analytic import MARGIN, LinearVLM, redundant
from tests.analytic import picture as analytic_picture
from tests.reference import blackbox, combined, gemma

QUESTION = "Is there a nodule?"


def explain(vlm, settings, pixels, target=MARGIN):
    (method,) = build_methods({"mine": settings}).values()
    method.check(vlm)
    batch = AttributionBatch(pixels, [vlm.prompt(QUESTION)] * len(pixels), [str(i) for i in range(len(pixels))], 3)
    return method.attribute(vlm, batch, [target] * len(pixels)).maps.double().numpy()


@pytest.fixture
def linear():
    return LinearVLM({QUESTION: np.random.default_rng(0).standard_normal((3, 5))}, cell=(8, 8))


def test_an_ensemble_is_the_mean_of_the_ranks(random_vlm, pictures):
    pixels = pictures(random_vlm, 2)
    members = {"attention": {}, "peaked": {"class": "attention", "heads": "max"}, "gradient": {}}
    maps = [explain(random_vlm, {"class": name} | options, pixels)[1] for name, options in members.items()]
    computed = explain(random_vlm, {"class": "ensemble", "methods": members}, pixels)[1]
    np.testing.assert_allclose(computed, combined.mean_ranks(maps), atol=1e-6)


def test_ties_count_one_half_and_what_is_not_finite_is_no_rank():
    values = torch.tensor([[3.0, 1.0, 1.0, 7.0, 3.0], [2.0, 2.0, 2.0, 2.0, 2.0], [1.0, torch.nan, 2.0, 3.0, 4.0]])
    shares = shares_below(values)
    expected = combined.mean_ranks([values[0].numpy()[None]])
    torch.testing.assert_close(shares[0], torch.from_numpy(expected[0]).float())
    assert (shares[1] == 0.5).all() and shares[2].isnan().all()


@pytest.mark.parametrize("factor", [1.05, 1.2, 1e6])
def test_attention_without_its_sinks(random_vlm, pictures, factor):
    pixels, twin = pictures(random_vlm, 2), gemma.twin_model(random_vlm.model)
    expected, sinks = combined.attention_without_sinks(random_vlm, twin, pixels[1], QUESTION, MARGIN, factor)
    assert (factor < 1e6) == sinks.any() and not sinks.all()
    computed = explain(random_vlm, {"class": "attention_sink_masked", "factor": factor}, pixels)[1]
    np.testing.assert_allclose(computed, expected, atol=1e-5 * expected.max())
    if factor == 1e6:
        np.testing.assert_array_equal(computed, explain(random_vlm, {"class": "attention"}, pixels)[1])


def test_a_token_that_draws_attention_on_a_blank_picture_is_left_out():
    """The answer attends to the sink most of all, and, where the picture shows something, to one cell more."""
    sink, evidence = 4, 9

    class Looking(LinearVLM):
        def trace(self, tokens, prompts, targets, observer=None, states=None):
            attention = torch.full((2, 17, 17), 0.01)
            attention[:, -1, 1 + sink] = 0.5
            if tokens.std(1).max() > 1e-3:
                attention[:, -1, 1 + evidence] = 0.2
            self.attention = attention
            return super().trace(tokens, prompts, targets, observer, states)

    vlm = Looking({QUESTION: np.ones((3, 5))}, cell=(8, 8))
    pixels = analytic_picture(vlm)[None]
    raw, without = (explain(vlm, {"class": name}, pixels) for name in ("attention", "attention_sink_masked"))
    assert raw.argmax() == sink and without.argmax() == evidence and without.ravel()[sink] == 0


def test_nested_grids_divide_every_block():
    for grid in [(3, 5), (8, 8), (1, 6), (14, 14)]:
        numbers = levels(grid)
        assert len(np.unique(numbers[-1])) == grid[0] * grid[1]
        for coarse, fine in zip(numbers, numbers[1:], strict=False):
            for block in np.unique(fine):
                assert len(np.unique(coarse[fine == block])) == 1


@pytest.mark.parametrize("tolerance", [0.0, 0.3, 100.0])
def test_multi_scale_by_recursion(linear, tolerance):
    pixels = analytic_picture(linear)
    truth = linear.contributions(pixels, torch.zeros_like(pixels), QUESTION)
    settings = {"class": "multi_scale", "inner": "edges", "tolerance": tolerance, "substrate": "zero"}
    inner, computed = explain(linear, {"class": "edges"}, pixels[None])[0], explain(linear, settings, pixels[None])[0]
    expected = combined.multi_scale(inner, lambda cells: sum(truth[cell] for cell in cells), tolerance)
    np.testing.assert_allclose(computed, expected, atol=1e-5 * np.abs(expected).max())
    assert computed.sum() == pytest.approx(truth.sum(), rel=1e-4)  # a linear model's effects add up
    if tolerance == 0:
        np.testing.assert_allclose(computed, truth, atol=1e-4)
    if tolerance == 100:
        assert np.array_equal(np.argsort(computed.ravel()), np.argsort(inner.ravel()))


def test_multi_scale_stays_coarse_where_cells_matter_only_together():
    """No single cell of a redundant pair has an effect: `occlusion` of single cells is flat, coarse blocks are not."""
    vlm, cells = redundant(QUESTION)
    pixels = torch.ones(1, 3, *vlm.image_size)
    computed = explain(vlm, {"class": "multi_scale", "inner": "center", "substrate": "zero"}, pixels)[0]
    assert computed.ravel()[list(cells)].min() > 0 and computed.std() > 0


@pytest.mark.parametrize("budget", [1000, 24])
def test_eagle_by_plain_loops(random_vlm, pictures, budget):
    pixels, twin = pictures(random_vlm, 1), gemma.twin_model(random_vlm.model)
    gray = torch.nn.functional.adaptive_avg_pool2d(pixels.mean(1, keepdim=True), random_vlm.grid)[0, 0].numpy()
    labels = superpixels(gray, 6, 1.0)
    removed = Substrate.parse("blur:0.1").apply(pixels, ["0"], 3)[0]

    def score(kept):
        gone = set(range(random_vlm.n_cells)) - set(kept)
        return blackbox.score_removed(random_vlm, twin, pixels[0], removed, gone, QUESTION, MARGIN)

    order = stream(3, "0", "ties", "Eagle").permutation(labels.max() + 1)
    expected = combined.eagle(labels, order, score, budget)
    settings = {"class": "eagle", "regions": 6, "budget": budget}
    computed = explain(random_vlm, settings, pixels)[0].ravel()
    assert {int(label): value for label, value in zip(labels, computed, strict=True)} == expected


def test_superpixels_by_plain_loops():
    levels = np.random.default_rng(0).random((6, 9))
    for compactness in (0.3, 2.0):
        expected = combined.superpixels(levels, 3, 4, compactness, 3).ravel()
        computed = superpixels(levels, 12, compactness, 3)
        assert np.array_equal(computed[:, None] == computed, expected[:, None] == expected)
    assert set(superpixels(levels, 54, 1e9)) == set(range(54)) and set(superpixels(np.ones((2, 2)), 99, 1.0)) == {
        0,
        1,
        2,
        3,
    }


def test_eagle_keeps_to_its_budget(linear):
    before = linear.counts.score
    explain(
        linear, {"class": "eagle", "regions": 15, "budget": 70, "substrate": "zero"}, analytic_picture(linear)[None]
    )
    assert linear.counts.score - before <= 2 * 15 + 2 * 14


@pytest.mark.parametrize("sign", [1, -1])
def test_answers_about_bands(random_vlm, pictures, sign):
    pixels, twin = pictures(random_vlm, 1), gemma.twin_model(random_vlm.model)
    target = Target("margin", sign=sign)
    computed = explain(random_vlm, {"class": "answer_map", "bands": (2, 3)}, pixels, target)[0]
    expected = combined.answer_map(random_vlm, twin, pixels[0], QUESTION.rstrip("?"), (2, 3), sign)
    np.testing.assert_allclose(computed, expected, rtol=1e-4)


def test_what_is_not_finite_gives_no_map():
    broken = LinearVLM({QUESTION: np.full((3, 5), np.nan)}, cell=(8, 8))
    pixels = analytic_picture(broken)[None]
    for settings in ({"class": "eagle", "regions": 4}, {"class": "multi_scale", "inner": "edges"}):
        assert np.isnan(explain(broken, settings, pixels)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class": "ensemble", "methods": ["attention"]}, "methods must name at least two methods"),
        ({"class": "ensemble", "methods": ["attention", "rize"]}, "no method class 'rize'; did you mean 'rise'"),
        ({"class": "ensemble", "methods": ["attention", "oracle"]}, "oracle is the mask of the finding"),
        ({"class": "ensemble", "methods": {"rise": {}, "occlusion": {"substrate": "mean"}}}, "the same substrate"),
        ({"class": "attention_sink_masked", "factor": 1}, "factor must be above 1, got 1"),
        ({"class": "multi_scale", "tolerance": -1}, "tolerance must be at least 0"),
        ({"class": "multi_scale", "inner": "oracle"}, "inner must explain the model"),
        ({"class": "multi_scale", "inner": {"class": "rise", "substrate": "mean"}}, "is not the inner method's, mean"),
        ({"class": "eagle", "regions": 1}, "regions must be at least 2"),
        ({"class": "eagle", "budget": 71}, "budget must be at least 2 × regions, 72, got 71"),
        ({"class": "eagle", "compactness": 0}, "compactness must be above 0"),
        ({"class": "answer_map", "bands": [1, 3]}, "bands must be numbers of at least 2"),
    ],
)
def test_wrong_options(settings, message):
    with pytest.raises(ValueError, match=f"^methods.mine: .*{message}"):
        build_methods({"mine": settings})


def test_more_bands_than_cells_are_refused(linear):
    with pytest.raises(MethodError, match="bands must be at most 3 on this model, got 5"):
        explain(linear, {"class": "answer_map"}, analytic_picture(linear)[None])
