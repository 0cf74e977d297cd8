"""Blurred controls and localization in the chain, and a meta-evaluation: broken methods must lose."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cxr_faith.attribution import METHODS, Attribution, Method, build_methods
from cxr_faith.cases import compute_maps, read_answers
from cxr_faith.metrics.statistics import estimate
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.records.controls import BLURRED
from cxr_faith.run.method_set import MethodSet
from cxr_faith.scoring import localize, score_image
from tests.analytic import LinearVLM, picture
from tests.trust import AtP

GRID = (6, 6)


class Truth(Method):
    """The true contributions of the cells of a linear model, changed by a function."""

    def __init__(self, removed, change=lambda m: m):
        self.removed, self.change = removed, change

    def attribute(self, vlm, batch, target):
        contributions = vlm.contributions(batch.pixels[0], self.removed, batch.prompts[0].question, target[0].sign)
        return Attribution(torch.from_numpy(self.change(contributions)).float()[None])


class Shuffled(Truth):
    """The contributions of a model whose weights were shuffled."""

    def __init__(self, removed, rng):
        super().__init__(removed)
        self.rng = rng

    def attribute(self, vlm, batch, target):
        weights = self.rng.permuted(vlm.questions["q"].numpy().ravel()).reshape(GRID)
        other = LinearVLM({"q": weights}, cell=(4, 4))
        return super().attribute(other, batch, target)


def evaluated(n_images, spec="mean"):
    """For each picture of a linear model: name → srg in logits, for the true map and broken ones."""
    rng, results = np.random.default_rng(0), []
    vlm = LinearVLM({"q": np.abs(rng.standard_normal(GRID)) * (np.arange(6) < 3)}, cell=(4, 4))
    protocol = Protocol((spec,), steps=6, random_orders=4)
    for index in range(n_images):
        pixels = picture(vlm, seed=index)
        substrate, image, rows = Substrate.parse(spec), slice(1, vlm.n_cells + 1), vlm.n_cells + 1
        removed = substrate.apply(pixels[None], [f"i{index}"], 0)[0]
        methods = {
            "true": Truth(removed),
            "transposed": Truth(removed, lambda m: m.T.copy()),
            "upside_down": Truth(removed, lambda m: -m),
            "relu_noise": Truth(removed, lambda m: rng.standard_normal(m.shape).clip(min=0)),
            "attention_at_p": AtP(),
            "random_model": Shuffled(removed, rng),
            **build_methods({"random_map": {}, "gradient": {}, "attention": {}}),
        }
        [case] = read_answers(vlm, pixels, f"i{index}", ["q"], ["yes_no"], protocol)
        # The row at p − 1, where the answer is read, looks at the evidence; the next one looks anywhere.
        evidence = torch.from_numpy(vlm.contributions(pixels, removed, "q", case.target.sign)).flatten().float()
        vlm.attention = torch.zeros(1, rows + 2, rows + 2)
        vlm.attention[0, rows, image] = evidence - evidence.min()
        vlm.attention[0, rows + 1, image] = torch.from_numpy(rng.random(vlm.n_cells)).float()
        compute_maps(vlm, methods, [pixels], [case], 0)
        [rows] = score_image(Engine(vlm), pixels, f"i{index}", [case], substrate, protocol)
        results.append({name: row["srg_logit"] for name, row in rows.items()})
    return results


def test_broken_methods_are_ranked_down_and_noise_is_nothing():
    rows = evaluated(40)
    names = ["true", "transposed", "upside_down", "relu_noise", "random_map"]
    names += ["attention", "attention_at_p", "random_model"]
    result = estimate(np.array([[row[name] for name in names] for row in rows]), np.arange(40))
    by_name = dict(zip(names, zip(result.low, result.mean, result.high, strict=True), strict=True))
    assert by_name["true"][0] > by_name["transposed"][2] and by_name["true"][0] > 0
    assert by_name["upside_down"][2] < 0
    for nothing in ("relu_noise", "random_map", "attention_at_p"):
        assert by_name[nothing][0] < 0 < by_name[nothing][2]
    assert by_name["attention"] == by_name["true"] and by_name["attention_at_p"][2] < by_name["true"][0]
    assert by_name["random_model"][2] < by_name["true"][0]
    assert max(by_name, key=lambda name: by_name[name][1]) == "true"


def test_a_blurred_copy_is_scored_of_the_maps_that_are_named():
    vlm = LinearVLM({"q": np.random.default_rng(1).standard_normal(GRID)}, cell=(4, 4))
    pixels = picture(vlm)
    [case] = read_answers(vlm, pixels, "a", ["q"], ["yes_no"], Protocol())
    methods = build_methods({"center": {}, "gradient": {}, "random_map": {}})
    compute_maps(vlm, methods, [pixels], [case], 0, blurred=["gradient", "random_map", "oracle"])  # it has no mask
    assert set(case.maps) == {"center", "gradient", "random_map", "gradient/blurred", "random_map/blurred"}
    expected = gaussian_filter(case.maps["gradient"].astype(np.float64), 1.0)
    np.testing.assert_allclose(case.maps["gradient" + BLURRED], expected, atol=1e-5)
    protocol = Protocol(("mean",), steps=6, random_orders=2)
    [rows] = score_image(Engine(vlm), pixels, "a", [case], Substrate.parse("mean"), protocol)
    assert rows["gradient/blurred"]["order"] != rows["gradient"]["order"]


def test_names_of_a_run_hold_the_controls():
    config = {"edges": {}, "chefer": {}, "attention": {}}

    def names(**protocol):
        return MethodSet(config, Protocol(**protocol)).names

    given, added = ["center", "edges", "chefer", "attention"], ["random_map", "oracle"]
    assert names(controls="none") == given
    assert names() == names(controls="basic") == [*given, *added, "chefer/blurred"]
    assert names(controls="all") == [*given, *added, *(f"{name}/blurred" for name in (*given[1:], *added))]
    assert MethodSet({"oracle": {}}, Protocol()).names == ["center", "oracle", "random_map", "edges"]
    own = MethodSet({"edges": {"class": "attention", "layers": "last"}}, Protocol())
    assert own.options["edges"]["class"] == "attention" and own.blurred == ["edges"]
    with pytest.raises(ValueError, match="controls must be one of none, basic, all"):
        names(controls=True)


def test_maps_made_with_a_substrate_are_scored_under_another_too():
    def scored(methods, *substrates, **protocol):
        return MethodSet(methods, Protocol(substrates, **protocol)).scored

    config, controls = {"chefer": {}, "igos_pp": {}}, ["center", "random_map", "edges", "oracle"]
    both = scored(config, "blur:0.1")
    assert list(both) == ["blur:0.1", "mean"] and both["mean"] == [*controls, "igos_pp", "igos_pp/blurred"]
    assert {"chefer", "igos_pp", "chefer/blurred", *controls} == set(both["blur:0.1"])  # one blurred copy a board
    assert scored({"igos_pp": {}}, "blur:0.1", controls="none")["mean"] == ["center", "igos_pp"]
    every = scored(config, "blur:0.1", controls="all")["mean"]
    assert "igos_pp/blurred" in every and "chefer/blurred" not in every
    assert scored({"igos_pp": {}}, "blur:0.1")["mean"] == [*controls, "igos_pp", "igos_pp/blurred"]
    ablated = {"cleann": {}, "cleann/ablated": {"class": "cleann", "ablated": True}}
    assert scored(ablated, "blur:0.1")["mean"] == [*controls, "cleann", "cleann/blurred"]
    on_mean = {"cleann": {"substrate": "mean"}}
    assert "cleann" in scored(on_mean, "mean")["blur:0.1"]
    made_with = ["igos_pp", "cleann", "occlusion", "rise", "greedy", "sae", "integrated_gradients", "grad_x_input"]
    made_with += ["eagle", "multi_scale"]
    beside = scored({name: {} for name in METHODS if name != "file"}, "blur:0.1")["mean"][
        len([*controls, "oracle_near"]) :
    ]
    expected = [name for name in METHODS if name in made_with]
    assert beside == [*expected, f"{expected[0]}/blurred"]
    for elsewhere in (
        scored(on_mean, "blur:0.1"),
        scored({"integrated_gradients": {"baseline": "zero_tokens"}}, "blur:0.1"),
    ):
        assert list(elsewhere) == ["blur:0.1"]
    assert list(scored(config, "blur:0.1", "noise")) == ["blur:0.1", "noise"]


def test_localization_of_each_map():
    vlm = LinearVLM({"q": np.random.default_rng(2).standard_normal(GRID)}, cell=(4, 4))
    pixels, mask = picture(vlm), torch.zeros(24, 24, dtype=torch.bool)
    mask[8:16, 8:16] = True  # the middle four cells
    [case] = read_answers(vlm, pixels, "a", ["q"], ["yes_no"], Protocol())
    case.maps = {"center": -np.hypot(*np.indices((6, 6)) - 2.5).astype(np.float32)}
    case.maps["bad"] = np.full(GRID, np.nan, np.float32)
    case.maps["corner"] = np.eye(6, dtype=np.float32)[:1].repeat(6, 0) * np.eye(6, dtype=np.float32)[0][:, None]
    scores = localize(case, mask, 0)
    assert set(scores) == {"center", "corner"}
    assert scores["center"]["pointing_game"] == 1 and scores["center"]["auprc"] == pytest.approx(1)
    assert scores["corner"]["pointing_game"] == scores["corner"]["energy_inside"] == 0
    assert localize(case, None, 0) == {}
