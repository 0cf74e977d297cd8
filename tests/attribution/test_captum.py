"""Gradients, ablations and deletion curves against Captum, on the same model and inputs."""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import AttributionBatch
from cxr_faith.attribution.blackbox import Occlusion
from cxr_faith.attribution.gradients import Gradient, GradXInput, IntegratedGradients
from cxr_faith.cases import compute_maps, read_answers
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.scoring import score_image
from cxr_faith.vlm import Target
from tests.analytic import LinearVLM, picture

attr = pytest.importorskip("captum.attr", reason="development dependency captum")

QUESTION = "Is there a nodule?"


@pytest.fixture(scope="module")
def scene(random_vlm, pictures):
    """(pixels, image tokens, tokens of the blurred picture, tokens → score) of one question."""
    pixels, prompt, target = pictures(random_vlm, 1, 3), random_vlm.prompt(QUESTION), Target("margin", sign=-1)
    removed = Substrate.parse("blur:0.1").apply(pixels, ["0"], 0)
    with torch.no_grad():
        tokens, gone = (random_vlm.encode(x) for x in (pixels, removed))

    def score(seen):
        return random_vlm.trace(seen, [prompt] * len(seen), [target] * len(seen)).mean(1)

    return pixels, tokens, gone, score


def ours(vlm, method, pixels):
    batch = AttributionBatch(pixels, [vlm.prompt(QUESTION)], ["0"], 0)
    return method.attribute(vlm, batch, [Target("margin", sign=-1)]).maps[0].flatten()


def assert_same(computed, expected):
    assert float((computed - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_integrated_gradients_are_captums(random_vlm, scene):
    pixels, tokens, gone, score = scene
    theirs = attr.IntegratedGradients(score).attribute(
        tokens, baselines=gone, n_steps=8, method="riemann_middle", internal_batch_size=4
    )
    assert_same(ours(random_vlm, IntegratedGradients("blur:0.1", steps=8), pixels), theirs.detach().float().sum(-1)[0])


def test_gradients_are_captums(random_vlm, scene):
    pixels, tokens, _, score = scene
    slope = attr.Saliency(score).attribute(tokens, abs=False)
    assert_same(ours(random_vlm, Gradient(), pixels), slope.norm(dim=-1)[0])
    product = attr.InputXGradient(score).attribute(tokens)
    assert_same(ours(random_vlm, GradXInput("zero_tokens"), pixels), product.detach().sum(-1)[0])


@pytest.fixture(scope="module")
def linear():
    """(a linear model, a picture, its substrate, cells' numbers by pixel, pixels → s)."""
    vlm = LinearVLM({QUESTION: np.random.default_rng(5).standard_normal((4, 6))}, bias={QUESTION: 9.0}, cell=(4, 4))
    pixels = picture(vlm, seed=6)
    removed = Substrate.parse("mean").apply(pixels[None], ["a"], 0)
    cells = torch.arange(24).reshape(4, 6).repeat_interleave(4, 0).repeat_interleave(4, 1)[None, None]

    def score(seen):
        return vlm.logit(vlm.encode(seen), vlm.prompt(QUESTION))

    assert float(score(pixels[None])) > 0  # answered yes: s is the logit
    return vlm, pixels, removed, cells, score


def test_occlusion_of_single_cells_is_feature_ablation(linear):
    vlm, pixels, removed, cells, score = linear
    theirs = attr.FeatureAblation(score).attribute(pixels[None], baselines=removed, feature_mask=cells)
    computed = ours(vlm, Occlusion(window=1, substrate="mean"), pixels[None])
    assert_same(-computed, theirs[0, 0, ::4, ::4].flatten())  # of the answer no, here


def test_every_step_of_a_deletion_curve_is_feature_ablation(linear):
    vlm, pixels, removed, cells, score = linear
    protocol = Protocol(("mean",), steps=6, random_orders=2)
    [case] = read_answers(vlm, pixels, "a", [QUESTION], ["yes_no"], protocol)
    compute_maps(vlm, {"gradient": Gradient(), "occlusion": Occlusion(1, "mean")}, [pixels], [case], 0)
    [rows] = score_image(Engine(vlm), pixels, "a", [case], Substrate.parse("mean"), protocol)
    for row in rows.values():
        if "order" not in row:
            continue  # random has many
        for k, deleted, inserted in zip(row["k"], row["deletion_scores"], row["insertion_scores"], strict=True):
            first = torch.isin(cells, torch.tensor(row["order"][:k])).long()
            lost = attr.FeatureAblation(score).attribute(pixels[None], baselines=removed, feature_mask=first)
            of = {int(number): float(lost[0, 0][first[0, 0] == number][0]) for number in first.unique()}
            whole = float(score(pixels[None]))
            assert whole - of.get(1, 0.0) == pytest.approx(deleted, abs=1e-5)
            assert whole - of.get(0, 0.0) == pytest.approx(inserted, abs=1e-5)
