"""Counterfactuals against plain loops and known answers: with a pair, with an estimate, and where none is there."""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import AttributionBatch, build_methods
from cxr_faith.attribution.counterfactual import changed_cells
from tests.analytic import MARGIN, LinearVLM
from tests.analytic import picture as analytic_picture
from tests.reference.counterfactual import edited_score, greedy_edit, is_minimal

QUESTION = "Is there a nodule?"


def model(seed=0, bias=0.0):
    weights = np.random.default_rng(seed).standard_normal((3, 5))
    vlm = LinearVLM({QUESTION: weights}, bias={QUESTION: bias}, cell=(8, 8))
    vlm.combine = lambda contributions: contributions.sum(-1) + contributions[:, 3] * contributions[:, 7]
    return vlm


def explain(vlm, pixels, pair=None, **options):
    (method,) = build_methods({"counterfactual": options}).values()
    pairs = None if pair is None else pair[None]
    batch = AttributionBatch(pixels[None], [vlm.prompt(QUESTION)], ["image"], 3, pairs=pairs)
    result = method.attribute(vlm, batch, [MARGIN])
    return result.maps[0].double().numpy().ravel(), {key: values[0] for key, values in result.extras.items()}


def with_margin(vlm, pixels, margin):
    """The model, biased so that it gives this picture that margin."""
    before = float(vlm.logit(vlm.encode(pixels[None]), vlm.prompt(QUESTION))[0])
    vlm.bias[QUESTION] += margin - before
    return vlm


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pair", [True, False])
def test_the_set_is_the_greedy_one_without_what_is_not_needed(seed, pair):
    vlm = model(seed)
    pixels = analytic_picture(vlm)
    edited = -pixels if pair else pixels.flip(-1)
    prompt = with_margin(vlm, pixels, 99.0).prompt(QUESTION)

    def standing(cells):
        return edited_score(vlm, pixels, edited, cells, prompt, MARGIN)

    candidates = [cell for cell in range(15) if pair or cell % 5 != 2]  # a mirror leaves the middle as it is
    order = greedy_edit(candidates, standing, 15)
    margin = 0.6 * (99.0 - min(standing(order[:count]) for count in range(15)))
    with_margin(vlm, pixels, margin)
    greedy = greedy_edit(candidates, standing, 15)
    values, extras = explain(vlm, pixels, edited if pair else None, cells=15)
    cells = np.flatnonzero(values >= 1).tolist()
    assert extras["edit"] == ("pair" if pair else "mirror") and extras["set_size"] == len(cells)
    assert extras["verified"] and set(cells) <= set(greedy) and is_minimal(cells, standing)
    assert extras["score_drop"] == pytest.approx(margin - standing(cells), abs=1e-4)
    drops = np.array([margin - standing([cell]) for cell in range(15)]).clip(0)
    np.testing.assert_allclose(values - (values >= 1), drops / drops.max() / 2, atol=1e-4)


def test_cells_that_matter_only_together_are_found_from_the_whole_edit():
    """Each of three cells is enough for the answer: no single edit has an effect, and all three have to go."""
    weights = np.zeros((3, 5))
    weights.flat[[1, 8, 12]] = 1.0
    vlm = LinearVLM({QUESTION: weights}, bias={QUESTION: -0.5}, cell=(8, 8))
    vlm.combine = lambda contributions: contributions.amax(-1)
    pixels = torch.ones(3, *vlm.image_size)
    values, extras = explain(vlm, pixels, torch.zeros_like(pixels), cells=1)
    assert np.flatnonzero(values).tolist() == [1, 8, 12] and extras["verified"] and extras["set_size"] == 3


def test_only_cells_in_which_the_pair_differs_are_asked_about():
    vlm = model()
    pixels = analytic_picture(vlm)
    pair = pixels.clone()
    pair[:, 9, 17] += 1e-3  # one pixel: row 1, column 2
    pair[0, 23, 39] -= 1.0  # the last pixel, in one channel
    assert np.flatnonzero(changed_cells(pixels, pair, vlm.grid)).tolist() == [7, 14]
    with_margin(vlm, pixels, 50.0)
    before = vlm.counts.score
    values, extras = explain(vlm, pixels, pair)
    assert set(np.flatnonzero(values)) <= {7, 14} and not extras["verified"]
    assert vlm.counts.score - before <= 6  # intact, two, one, all, and the set


def test_an_answer_that_no_edit_changes_is_not_verified():
    vlm = model()
    pixels = analytic_picture(vlm)
    for edited in (pixels, None):
        mirrored = pixels if edited is not None else (pixels + pixels.flip(-1)) / 2  # its mirror image is itself
        with_margin(vlm, mirrored, 1.0)
        values, extras = explain(vlm, mirrored, edited)
        assert not values.any() and extras["set_size"] == 0 and not extras["verified"] and extras["score_drop"] == 0
    broken = LinearVLM({QUESTION: np.full((3, 5), np.nan)}, cell=(8, 8))
    assert np.isnan(explain(broken, pixels)[0]).all()


def test_its_ablation_edits_cells_at_random_and_puts_none_back():
    weights = np.zeros((3, 5))
    weights[1, 3] = 4.0
    vlm = LinearVLM({QUESTION: weights}, bias={QUESTION: -1.0}, cell=(8, 8))
    pixels = torch.ones(3, *vlm.image_size)
    true, _ = explain(vlm, pixels, edit="zero")
    noise, extras = explain(vlm, pixels, edit="zero", ablated=True)
    assert np.flatnonzero(true).tolist() == [8] and extras["edit"] == "zero"
    assert (noise >= 1).sum() == extras["set_size"] > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": 0}, "cells must be at least 1, got 0"),
        ({"edit": "mirrored"}, "substrate 'mirrored': the name must be one of"),
        ({"edit": "pair"}, "a method does not get the picture"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        build_methods({"counterfactual": options})
