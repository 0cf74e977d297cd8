"""Greedy removal against plain loops, and as a bound of what other maps reach."""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import AttributionBatch
from cxr_faith.attribution.greedy import Greedy
from cxr_faith.perturb.substrate import Substrate
from tests.analytic import MARGIN, LinearVLM, blind
from tests.analytic import picture as analytic_picture
from tests.reference import blackbox, gemma

QUESTION = "Is there a nodule?"


def explain(vlm, method, pixels):
    batch = AttributionBatch(pixels, [vlm.prompt(QUESTION)] * len(pixels), [str(i) for i in range(len(pixels))])
    return method.attribute(vlm, batch, [MARGIN] * len(pixels)).maps


def test_a_linear_model_is_ordered_by_its_contributions():
    """Effects do not interact there, so the first step alone gives the whole order."""
    vlm = LinearVLM({QUESTION: np.random.default_rng(0).standard_normal((3, 5))}, cell=(8, 8))
    pixels = analytic_picture(vlm)
    truth = vlm.contributions(pixels, torch.zeros_like(pixels), QUESTION, 1).ravel()
    for cells in (None, 1, 4, 99):
        values = explain(vlm, Greedy(cells, substrate="zero"), pixels[None])[0].flatten().numpy()
        assert np.array_equal(np.argsort(-values), np.argsort(-truth))
        assert sorted(values) == list(range(1, 16))


def test_redundant_cells_against_plain_loops(random_vlm, pictures):
    """On a real model, where effects interact."""
    pixels, twin = pictures(random_vlm, 1), gemma.twin_model(random_vlm.model)
    removed = Substrate.parse("blur:0.1").apply(pixels, ["0"], 0)[0]
    gone = []
    for _ in range(3):
        left = [cell for cell in range(random_vlm.n_cells) if cell not in gone]
        scores = [
            blackbox.score_removed(random_vlm, twin, pixels[0], removed, {*gone, cell}, QUESTION, MARGIN)
            for cell in left
        ]
        gone.append(left[int(np.argmin(scores))])
    values = explain(random_vlm, Greedy(3), pixels)[0].flatten()
    assert values.argsort(descending=True)[:3].tolist() == gone


def test_forwards_are_counted_and_nothing_finite_is_made_up():
    vlm = LinearVLM({QUESTION: np.random.default_rng(0).standard_normal((3, 5))}, cell=(8, 8))
    explain(vlm, Greedy(2, substrate="zero"), analytic_picture(vlm)[None])
    n = vlm.n_cells
    assert vlm.counts.score == n + n - 1
    broken = LinearVLM({QUESTION: np.full((3, 5), np.nan)}, cell=(8, 8))
    assert explain(broken, Greedy(1), analytic_picture(broken)[None]).isnan().all()
    with pytest.raises(ValueError, match="cells must be at least 1, got 0"):
        Greedy(0)


def test_cells_of_equal_effect_are_not_ordered_by_their_place():
    """A model that ignores the picture has a flat map; of 14 cells that change nothing, none is preferred."""
    vlm = blind(QUESTION)
    assert np.ptp(explain(vlm, Greedy(substrate="zero"), analytic_picture(vlm)[None]).numpy()) == 0
    weights = np.zeros((3, 5))
    weights[1, 3] = 4.0
    one = LinearVLM({QUESTION: weights}, cell=(8, 8))
    pixels = torch.ones(2, 3, *one.image_size)
    whole = explain(one, Greedy(substrate="zero"), pixels).flatten(1)
    assert whole.argmax(1).tolist() == [8, 8] and whole.unique().tolist() == [14, 15]
    first = explain(one, Greedy(1, substrate="zero"), pixels).flatten(1)
    assert first.argmax(1).tolist() == [8, 8] and not torch.equal(first[0], first[1])
