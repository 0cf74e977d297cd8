"""CLEANN's tests, graphs and sets against brute force, and its sets on models with a known answer."""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import METHODS, AttributionBatch
from cxr_faith.attribution.cleann import Cleann
from cxr_faith.attribution.cleann_graph import dependent, depths, independence_graph, shuffled
from cxr_faith.attribution.cleann_search import attention_mass_set, prefixes, rankings, reduce_set, smallest_change
from cxr_faith.data.geometry import fit
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.vlm import Gemma3VLM, PictureScores, Target
from tests.analytic import MARGIN, blind, one_cell, picture, redundant
from tests.reference import blackbox, gemma
from tests.reference import cleann as reference
from tests.runs import ROOT

QUESTION = "Is there a nodule?"


def random_attention(heads, size, seed=0, sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    scores = sharpness * torch.randn(heads, size, size, generator=generator)
    return scores.masked_fill(torch.ones(size, size).triu(1).bool(), -torch.inf).softmax(-1)


def chain_attention(size, correlation=0.8):
    """A dense lower triangle whose A·Aᵀ is the covariance of a chain: each token depends on the one before it."""
    places = np.arange(size)
    factor = np.linalg.cholesky(correlation ** np.abs(places[:, None] - places))
    return torch.from_numpy(factor / factor.sum(1, keepdims=True)).float()


def attribute(vlm, method, pixels, target=MARGIN, names=("a", "b")):
    batch = AttributionBatch(pixels, [vlm.prompt(QUESTION)] * len(pixels), names[: len(pixels)], 3)
    return method.attribute(vlm, batch, [target] * len(pixels))


def members(values):
    return set((values.flatten() >= 1).nonzero().flatten().tolist())


@pytest.mark.parametrize("samples", [8, 64, 400])
def test_graph_is_that_of_single_tests(samples):
    attention = random_attention(3, 14)
    computed = independence_graph(attention, samples, 0.01)
    for head, single in zip(computed, attention, strict=True):
        expected = reference.graph(single.double().numpy(), samples, 0.01)
        assert np.array_equal(head.numpy(), expected)
        distances = depths(head[None], [13, 6], 3)
        assert distances[0].tolist() == reference.depths(expected, 13, 3)
        assert distances[1].tolist() == reference.depths(expected, 6, 3)


def test_the_reference_cases_differ():
    """Neither empty nor full: else the comparison above would say nothing."""
    edges = independence_graph(random_attention(3, 14), 64, 0.01).float().mean()
    assert 0.02 < edges < 0.6


def test_a_dense_attention_is_not_a_dense_graph():
    """Every token attends to all before it; the tests leave the chain alone, so depth is distance."""
    attention = chain_attention(12)
    assert (attention.tril() > 0).sum() == 12 * 13 / 2
    graph = independence_graph(attention[None], 2000, 0.01)[0]
    places = torch.arange(12)
    assert torch.equal(graph, (places[:, None] - places).abs() == 1)
    assert depths(graph[None], [11], 4)[0].tolist() == [5] * 7 + [4, 3, 2, 1, 0]


def test_equal_rows_explain_each_other():
    attention = random_attention(1, 9)
    attention[0, 5] = attention[0, 4]
    graph = independence_graph(attention, 200, 0.01)[0]
    assert graph[4, 5] and not graph[[4, 5]][:, [i for i in range(9) if i not in (4, 5)]].any()


def test_fisher_bound():
    values = torch.linspace(-0.99, 0.99, 199).double()
    for samples, given in [(20, 0), (128, 1), (4, 1)]:
        expected = [reference.fisher_p_value(float(r), samples, given) < 0.01 for r in values]
        assert dependent(values, samples, given, 0.01).tolist() == expected


def test_rankings_and_their_prefixes():
    depth = np.array([[1, 2, 4, 3], [1, 1, 4, 4]])
    mass = np.array([[0.1, 0.2, 0.9, 0.1], [0.1, 0.3, 0.9, 0.2]])
    ranked = rankings(depth, mass, radius=3)
    # Cell 2 is too deep in every head, whatever its attention; equal depths go by attention.
    assert [ranking.tolist() for ranking in ranked] == [[0, 1, 3], [0, 1, 3], [1, 0]]
    expected = [[0], [0], [1], [0, 1], [0, 1], [1, 0], [0, 1, 3], [0, 1, 3]]
    assert [cells.tolist() for cells in prefixes(ranked)] == expected
    assert [len(cells) for cells in prefixes([np.arange(20)])] == [1, 2, 3, 4, 6, 8, 11, 16, 20]
    assert [len(cells) for cells in prefixes([np.arange(1)])] == [1] and prefixes([np.arange(0)]) == []


@pytest.mark.parametrize("seed", range(5))
def test_sets_of_an_additive_model(seed):
    """Every cell of a set is needed; and the graph alone says which sets are tried, not what single cells do."""
    random = np.random.default_rng(seed)
    contributions = random.random(10)
    score = np.sort(contributions)[-3:].sum() - 0.02  # the three largest are needed
    depth, tried = random.integers(1, 3, (2, 10)), []

    def removal(removed):
        tried.append(removed)
        s = torch.from_numpy(score - removed @ contributions)
        return PictureScores(s, s, s)

    ranked = rankings(depth, random.random((2, 10)), 3)
    computed = smallest_change(ranked, 10, removal)
    assert contributions[computed].sum() > score
    assert all(contributions[np.delete(computed, place)].sum() <= score for place in range(len(computed)))
    # A set of ten has no smaller one than three cells, and the first sets to be tried are prefixes.
    assert len(computed) >= min(map(len, reference.smallest_sets(10, lambda c: contributions[list(c)].sum() > score)))
    assert [set(np.flatnonzero(cells)) for cells in tried[0]] == [set(cells) for cells in prefixes(ranked)]


def test_the_graph_matters():
    """A graph that puts the two cells that decide first finds them; the same graph, shuffled, seldom does."""
    contributions, depth = np.zeros(64), np.full((1, 64), 4)
    contributions[[9, 41]] = 1.0
    depth[0, [9, 41]] = 1
    depth[0, 10:14] = 2

    def removal(removed):
        s = torch.from_numpy(1.5 - removed @ contributions)
        return PictureScores(s, s, s)

    mass = np.ones((1, 64))
    assert set(smallest_change(rankings(depth, mass, 3), 64, removal).tolist()) == {9, 41}
    orders = [np.random.default_rng(seed).permutation(64) for seed in range(10)]
    assert sum(len(smallest_change(rankings(depth[:, order], mass, 3), 64, removal)) > 0 for order in orders) <= 1


def test_shuffled_graphs_keep_their_density():
    graph = independence_graph(random_attention(3, 14), 64, 0.01)
    noise = shuffled(graph, np.random.default_rng(0))
    assert torch.equal(noise.sum((1, 2)), graph.sum((1, 2))) and not torch.equal(noise, graph)
    assert torch.equal(noise, noise.mT) and not noise.diagonal(dim1=1, dim2=2).any()


@pytest.mark.parametrize("make", [one_cell, redundant])
def test_known_sets(make):
    vlm, cells = make(QUESTION)
    cells = {cells} if isinstance(cells, int) else set(cells)
    if len(cells) == 1:
        vlm.bias[QUESTION] = -0.5
    vlm.attention = random_attention(3, vlm.n_cells + 2, sharpness=0.5)
    pixels = torch.ones(1, 3, *vlm.image_size)
    result = attribute(vlm, Cleann(samples=50, radius=9, alpha=0.5, substrate="zero"), pixels)
    assert members(result.maps[0]) == cells
    assert result.extras == {"verified": [True], "set_size": [len(cells)], "score_drop": [pytest.approx(1.5)]}

    def changes(removed):
        return float(vlm.logit(vlm.encode(remove(vlm, pixels, removed)), vlm.prompt(QUESTION))) < 0

    assert cells in reference.smallest_sets(vlm.n_cells, changes, largest=2)


def remove(vlm, pixels, cells):
    kept = [cell not in cells for cell in range(vlm.n_cells)]
    return torch.from_numpy(gemma.compose(pixels[0].numpy(), np.zeros(pixels.shape[1:], np.float32), kept, vlm.grid))[
        None
    ]


def test_a_model_that_ignores_the_picture_has_no_verified_set():
    vlm = blind(QUESTION)
    vlm.attention = random_attention(2, vlm.n_cells + 2)
    result = attribute(vlm, Cleann(samples=50), picture(vlm)[None])
    mass = vlm.attention[:, -1, 1 : 1 + vlm.n_cells].sum(0).numpy()
    assert result.extras["verified"] == [False] and result.extras["score_drop"] == [0]
    chosen = members(result.maps[0])
    assert len(chosen) == result.extras["set_size"][0]
    assert mass[list(chosen)].sum() >= mass.sum() / 2 > np.sort(mass[list(chosen)])[1:].sum()


def test_attention_mass_by_hand():
    assert attention_mass_set(np.array([0.1, 0.4, 0.3, 0.2])).tolist() == [1, 2]
    assert attention_mass_set(np.array([0.1, 0.6, 0.3])).tolist() == [1]
    assert attention_mass_set(np.full(4, 0.25)).tolist() == [0, 1]


def test_sets_of_a_real_model_are_tested_by_removal(any_vlm, pictures):
    """Without the set the answer changes; with any one cell of it put back, it does not."""
    pixels = pictures(any_vlm, 1)
    twin = gemma.twin_model(any_vlm.model)
    sign = 1 if gemma.score(any_vlm, twin, pixels[0], QUESTION, MARGIN)[0] >= 0 else -1
    target = Target("margin", sign=sign)
    result = attribute(any_vlm, Cleann(), pixels, target)
    cells = members(result.maps[0])
    assert 0 < len(cells) == result.extras["set_size"][0]
    removed = Substrate.parse("blur:0.1").apply(pixels, ["a"], 3)[0]

    def score(chosen):
        return blackbox.score_removed(any_vlm, twin, pixels[0], removed, chosen, QUESTION, target)

    assert result.extras["score_drop"][0] == pytest.approx(score([]) - score(cells), abs=1e-3)
    if result.extras["verified"][0]:
        assert score(cells) < 0
        assert all(score(cells - {cell}) >= 0 for cell in cells)


def test_a_lesion_of_a_model_that_looks_at_it():
    """An effusion that is there: a verified set, of which every cell is needed."""
    bundled = Gemma3VLM.from_pretrained(ROOT / "training" / "checkpoints" / "own-order-0", device="cpu")
    question = "Is there a pleural effusion?"
    picture_file = sorted((bundled_manifest().parent / "images").iterdir())[4]
    pixels = bundled.normalize(fit(load_image(picture_file), bundled.image_size)[0][None])
    batch = AttributionBatch(pixels, [bundled.prompt(question)], ["a"], 3)
    result = Cleann().attribute(bundled, batch, [MARGIN])
    cells, twin = members(result.maps[0]), gemma.twin_model(bundled.model)
    assert result.extras["verified"] == [True] and 1 < len(cells) < 30
    removed = Substrate.parse("blur:0.1").apply(pixels, ["a"], 3)[0]

    def score(chosen):
        return blackbox.score_removed(bundled, twin, pixels[0], removed, chosen, question, MARGIN)

    assert score([]) > 0 > score(cells)
    assert all(score(cells - {cell}) >= 0 for cell in cells)


@pytest.mark.parametrize("radius", [1, 3])
def test_soft_weights_against_plain_loops(radius):
    """A map is its set plus half of the soft weights; of two scored tokens both positions count."""
    vlm, _ = one_cell(QUESTION, grid=(4, 5))
    vlm.attention = random_attention(3, vlm.n_cells + 3)
    target = Target("tokens", answer_ids=(1, 1), scored=(0, 1))
    result = attribute(vlm, Cleann(samples=40, radius=radius), picture(vlm)[None], target)
    roots, columns = [vlm.n_cells + 1, vlm.n_cells + 2], range(1, 1 + vlm.n_cells)
    expected = reference.soft_weights(vlm.attention.double().numpy(), roots, columns, 40, 0.01, radius)
    assert 0 < (expected > 0).sum() and (radius == 3 or (expected == 0).any())
    computed = result.maps[0].flatten().double().numpy()
    np.testing.assert_allclose(computed - (computed >= 1), expected / 2, atol=1e-6)


def test_what_is_not_finite_stays_with_its_sample():
    vlm, _ = one_cell(QUESTION)
    vlm.attention = random_attention(2, vlm.n_cells + 2)
    vlm.attention[0, -1, 3] = torch.nan
    result = attribute(vlm, Cleann(samples=50), picture(vlm)[None])
    assert not result.maps.isfinite().all() and result.extras["verified"] == [False]


def test_a_set_whose_effect_depends_on_the_batch_is_kept():
    """The same cells score -0.01 among some pictures and +0.01 among others, as in bfloat16 on a GPU."""
    calls = []

    def removal(removed):
        calls.append(len(removed))
        s = torch.full((len(removed),), -0.01 if len(calls) % 2 else 0.01, dtype=torch.float64)
        return PictureScores(s, s, s)

    kept = reduce_set(np.arange(4), 10, removal)
    assert 1 <= len(kept) < 4 and set(kept.tolist()) <= set(range(4))


def test_options():
    assert METHODS["cleann"] is Cleann and Cleann(substrate="mean").substrate.spec == "mean"
    for options in ({"radius": 0}, {"alpha": 0}, {"alpha": 1}, {"samples": 4}):
        with pytest.raises(ValueError, match="radius must be at least 1, alpha in"):
            Cleann(**options)
