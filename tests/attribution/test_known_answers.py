"""Every method on three models whose right answer is known, and on one whose gradients are not finite.

What a method gets wrong there by its definition is its documented limit, and is asserted as well.
"""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import METHODS, AttributionBatch
from cxr_faith.attribution.sae_model import SAEConfig, TopKSAE, save_sae
from cxr_faith.vlm import Target
from tests.analytic import MARGIN, AttendingVLM

QUESTION = "Is there a nodule?"
GRID, CELL, OTHER, LOOKED_AT = (6, 6), 21, 22, 8
CONTROLS = {"random_map", "center", "edges", "oracle", "oracle_near"}

OPTIONS = {
    "grad_x_input": {"baseline": "zero"},
    "integrated_gradients": {"baseline": "zero", "steps": 8},
    "smooth_grad": {"copies": 16},
    "cleann": {"substrate": "zero", "samples": 50, "radius": 9, "alpha": 0.5},
    "igos_pp": {"substrate": "zero", "path_steps": 2},
    "occlusion": {"substrate": "zero", "window": 1},
    "rise": {"substrate": "zero", "masks": 600, "coarse": 9},
    "greedy": {"substrate": "zero"},
    "eagle": {"substrate": "zero", "regions": 36, "budget": 2000},
    "multi_scale": {"substrate": "zero"},
    "counterfactual": {"edit": "zero"},
    "ensemble": {"methods": ["chefer", "gradient"]},
}

# The cell that is read; the cell that is looked at; the activation, which is the same in all cells.
ONE_CELL = dict.fromkeys(
    ("chefer", "chefer_global", "gradient", "grad_x_input", "integrated_gradients", "smooth_grad", "sae"), "read"
)
ONE_CELL |= dict.fromkeys(("cleann", "igos_pp", "occlusion", "rise", "greedy", "counterfactual"), "read")
ONE_CELL |= dict.fromkeys(("eagle", "multi_scale", "ensemble"), "read") | {"attention_sink_masked": "sink"}
ONE_CELL |= {"attention": "looked at", "rollout": "looked at", "tam": "activation", "grad_cam": "activation"}

# A model that ignores the picture: no map, or the same map as of a model that does not.
IGNORED = dict.fromkeys(ONE_CELL, "zero") | dict.fromkeys(("attention", "rollout", "tam"), "same")
IGNORED |= {
    "cleann": "unverified",
    "counterfactual": "unverified",
    "greedy": "flat",
    "eagle": "flat",
    "ensemble": "flat",
}
IGNORED |= {"attention_sink_masked": "same"}

# Either of two cells is enough, one is a little brighter: both, or just the brighter, whose gradient is all there is.
REDUNDANT = dict.fromkeys(ONE_CELL, "brighter") | dict.fromkeys(
    ("smooth_grad", "cleann", "igos_pp", "rise", "greedy", "eagle", "counterfactual"), "both"
)
REDUNDANT |= {"multi_scale": "block", "ensemble": "first", "attention_sink_masked": "sink"}
REDUNDANT |= {name: ONE_CELL[name] for name in ("attention", "rollout", "tam", "grad_cam")}


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Options of each method, with an autoencoder of the six signed unit vectors, which reconstructs any stream."""
    folder = tmp_path_factory.mktemp("exact_sae")
    sae = TopKSAE(3, 6, 3)
    sae.decoder.data = torch.cat([torch.eye(3), -torch.eye(3)])
    sae.encoder.data = sae.decoder.data.T.clone()
    save_sae(sae, SAEConfig("identity", 0, 3, 6, 3), folder)
    return OPTIONS | {"sae": {"path": str(folder)}}


def model(cells, bias=-0.2):
    """A model that reads some cells and looks most at another one; on a white picture each cell alone says yes."""
    weights = np.zeros(GRID)
    weights.flat[list(cells)] = 1.0
    vlm = AttendingVLM({QUESTION: weights}, bias={QUESTION: bias}, cell=(4, 4))
    length = vlm.n_cells + 2
    attention = torch.rand(2, length, length, generator=torch.Generator().manual_seed(0)) / length
    attention[:, :, 1 + LOOKED_AT] += 0.5
    attention[:, :, 1 + OTHER] = attention[:, :, 1 + CELL]
    vlm.attention = attention / attention.sum(-1, keepdim=True)
    return vlm


def explain(vlm, name, options, pixels=None):
    pixels = torch.ones(1, 3, *vlm.image_size) if pixels is None else pixels
    batch = AttributionBatch(pixels, [vlm.prompt(QUESTION)], ["image"], 3)
    return METHODS[name](**options.get(name, {})).attribute(vlm, batch, [MARGIN])


def largest(values, count=1):
    return set(values.flatten().topk(count).indices.tolist())


def test_every_method_is_here():
    # `file` reads its maps, and `answer_map` asks questions of its own, which these models do not know.
    assert set(ONE_CELL) == set(IGNORED) == set(REDUNDANT) == set(METHODS) - CONTROLS - {"file", "answer_map"}


@pytest.mark.parametrize("name", sorted(ONE_CELL))
def test_a_model_that_reads_one_cell(name, options):
    values = explain(model([CELL]), name, options).maps[0]
    if ONE_CELL[name] == "activation":
        assert values.min() > 0 and torch.allclose(values, values.mean().expand_as(values), rtol=1e-5)
        return
    if ONE_CELL[name] == "sink":  # it is looked at whatever the picture shows
        assert values.flatten()[LOOKED_AT] == 0 and values.max() > 0
        return
    (cell,) = {CELL if ONE_CELL[name] == "read" else LOOKED_AT}
    assert largest(values) == {cell}
    if name in ("greedy", "eagle"):  # its values are places in an order; cells that change nothing tie
        assert values.unique().tolist() == [values.numel() - 1, values.numel()]
        return
    second = float(values.flatten().topk(2).values[1])
    assert second < 0.75 * float(values.max())
    if ONE_CELL[name] == "read" and name not in ("cleann", "igos_pp", "rise", "ensemble"):  # noise, a soft share, ranks
        assert (values != 0).sum() == 1


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_a_model_that_ignores_the_picture(name, options):
    explained = explain(model([], bias=2.0), name, options)
    if IGNORED[name] == "zero":
        assert explained.maps.abs().max() == 0
    elif IGNORED[name] == "flat":
        assert np.ptp(explained.maps.numpy()) == 0
    elif IGNORED[name] == "same":
        assert explained.maps.max() > 0 and torch.equal(explained.maps, explain(model([CELL]), name, options).maps)
    else:
        assert explained.extras["verified"] == [False] and explained.extras["score_drop"] == [0]


@pytest.mark.parametrize("name", sorted(REDUNDANT))
def test_a_model_to_which_either_of_two_cells_is_enough(name, options):
    vlm = model([CELL, OTHER])
    vlm.combine = lambda contributions: contributions.amax(-1)
    pixels = torch.ones(1, 3, *vlm.image_size)
    pixels[..., :4, :4] = 0  # a dark cell that nobody reads: SmoothGrad's noise is a share of the picture's range
    pixels[..., 12:16, 12:16] = 1.02  # CELL: row 3, column 3
    values = explain(vlm, name, options, pixels)
    kind, values = REDUNDANT[name], values.maps[0]
    if kind == "both":
        assert largest(values, 2) == {CELL, OTHER}
    elif kind == "brighter":
        assert largest(values) == {CELL} and values.flatten()[OTHER] == 0
    elif kind == "block":  # the block of both, in which the inner map orders the cells
        assert values.flatten()[[CELL, OTHER]].min() > 0 and float(values[:3].max()) == 0 == float(values[:, :3].max())
    elif kind == "first":
        assert largest(values) == {CELL}
    elif kind == "sink":
        assert values.flatten()[LOOKED_AT] == 0
    elif kind == "looked at":
        assert largest(values) == {LOOKED_AT}
    else:
        assert values.flatten()[OTHER] > 0.9 * values.max()


@pytest.mark.parametrize(
    "name",
    "chefer chefer_global gradient grad_x_input integrated_gradients smooth_grad sae grad_cam igos_pp".split(),
)
def test_gradients_that_are_not_finite_give_no_finite_map(name, options):
    """The score is finite, the slope of a root at 0 is not: the map must say so instead of pointing nowhere."""
    vlm = model([CELL])
    vlm.combine = lambda contributions: contributions.sum(-1) + (0 * contributions.sum(-1)).sqrt()
    batch = AttributionBatch(torch.ones(1, 3, *vlm.image_size), [vlm.prompt(QUESTION)], ["image"], 3)
    assert vlm.trace(vlm.encode(batch.pixels), batch.prompts, [Target("margin")]).isfinite().all()
    assert not explain(vlm, name, options).maps.isfinite().all()
