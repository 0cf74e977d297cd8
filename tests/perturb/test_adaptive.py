"""Curves by fewer points: the stated error holds, mirrored curves get mirrored points, company does not matter."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cxr_faith.perturb.adaptive import (
    FIRST_RANDOM_ORDERS,
    adaptive_curves,
    area_error,
    coarse_points,
    error_unit,
    fill_between,
    next_points,
    run_adaptive,
)
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.perturb.schedule import keep_masks, random_orders, schedule
from cxr_faith.vlm.base import PictureScores
from tests.analytic import MARGIN, LinearVLM, picture
from tests.reference import adaptive as reference

TOLERANCE = 0.005


def refine(curves, k, allowed):
    """(which points are known at the end, estimated error)."""
    known = np.zeros(len(k), bool)
    points = coarse_points(len(k) - 1)
    while len(points):
        known[points] = True
        points = next_points(np.where(known, curves, np.nan), known, k, allowed)
    return known, area_error(curves, known, k)


def falling(rng, k):
    """Two random curves from 1 to 0 such as deletions are: a fall somewhere, more or less steep, and some roughness."""
    x = k / k[-1]
    rows = []
    for _ in range(2):
        middle, steepness = rng.uniform(0, 1), 10 ** rng.uniform(0.3, 2)
        fall = 1 / (1 + np.exp(np.clip(steepness * (x - middle), -50, 50)))
        rows.append((fall - fall[-1]) / (fall[0] - fall[-1]) + 0.01 * rng.standard_normal(len(k)) * (x > 0) * (x < 1))
    return np.stack(rows)


@pytest.mark.parametrize(("cells", "steps"), [(144, 48), (144, 50), (256, 50), (49, 49)])
def test_areas_are_within_the_stated_error(cells, steps):
    k, rng, off, used = schedule(cells, steps), np.random.default_rng(0), [], []
    for _ in range(200):
        curves = falling(rng, k)
        known, estimate = refine(curves, k, TOLERANCE)
        whole, mine = (np.trapezoid(c, k / cells) for c in (curves, fill_between(curves, known, k)))
        off.append(np.abs(whole - mine).max())
        used.append(known.sum())
        assert estimate <= TOLERANCE
    assert np.mean(np.array(off) <= TOLERANCE) > 0.95 and max(off) < 3 * TOLERANCE
    assert np.mean(used) < 0.75 * (steps + 1)
    assert len(set(used)) > 3  # curves that bend more get more points


@pytest.mark.parametrize("allowed", [0.002, 0.005, 0.02])
def test_the_stated_error_covers_the_areas_of_a_model(allowed):
    """412 areas of the bundled model, from `benchmarks/adaptive.py`: 95 % lie within the error that is stated for them.

    A wide estimate would cover too: half of the true errors are more than a tenth of it, and points are saved.
    """
    stored = np.load(Path(__file__).parent / "dense_curves.npz")
    k, off, stated, used = stored["k"], [], [], []
    for pair in stored["curves"].astype(np.float64):
        unit = error_unit(pair[None])
        known, estimate = refine(pair, k, allowed * unit)
        off += (np.abs(np.trapezoid(fill_between(pair, known, k) - pair, k / k[-1], axis=1)) / unit).tolist()
        stated += [estimate / unit] * 2
        used.append(known.mean())
    off, stated = np.array(off), np.array(stated)
    assert len(off) == 412 and (off <= stated).mean() >= 0.95
    assert stated.max() <= allowed and (off <= allowed).mean() >= 0.98
    assert np.median(off[off > 0] / stated[off > 0]) > 0.1 and np.mean(used) < 0.7


@pytest.mark.parametrize(("cells", "steps"), [(64, 50), (49, 49), (16, 7), (36, 36)])
def test_points_errors_and_areas_are_the_twins(cells, steps):
    k, rng = schedule(cells, steps), np.random.default_rng(steps)
    for allowed in (0.05, 0.005, 0.0005):
        curves = falling(rng, k)
        known, estimate = refine(curves, k, allowed)
        twin_known, twin_estimate = reference.refine([list(c).__getitem__ for c in curves], k.tolist(), allowed)
        assert np.flatnonzero(known).tolist() == twin_known
        assert estimate == pytest.approx(twin_estimate, rel=1e-9, abs=1e-15)
        for curve, filled in zip(curves, fill_between(curves, known, k), strict=True):
            twin = reference.area(list(curve).__getitem__, twin_known, k.tolist())
            assert np.trapezoid(filled, k / cells) == pytest.approx(twin, abs=1e-12)


def test_nothing_is_allowed_but_nothing_is_wrong():
    """A tolerance that is never met ends with every point, and with no error."""
    k = schedule(144, 48)
    curves = falling(np.random.default_rng(1), k)
    known, estimate = refine(curves, k, 1e-12)
    assert known.all() and estimate == 0
    assert np.array_equal(fill_between(curves, known, k), curves)
    straight = np.stack([1 - k / 144, k / 144])
    assert refine(straight, k, 1e-9)[0].sum() == len(coarse_points(48)) == 9


@pytest.mark.parametrize("steps", [4, 7, 48, 49, 50])
def test_mirrored_curves_get_mirrored_points(steps):
    k, rng = schedule(2 * 49 if steps % 2 == 0 else 49, steps), np.random.default_rng(steps)
    assert np.array_equal(coarse_points(steps), steps - coarse_points(steps)[::-1])
    for _ in range(20):
        curves = falling(rng, k)
        known, _ = refine(curves, k, 0.002)
        mirrored, _ = refine(curves[::-1, ::-1], k, 0.002)
        assert np.array_equal(known, mirrored[::-1])


def linear(seed=0):
    rng = np.random.default_rng(seed)
    vlm = LinearVLM({q: rng.standard_normal((6, 6)) + 1 for q in "qr"}, bias={"q": 3.0, "r": 5.0})
    original = picture(vlm, seed)
    return vlm, original, original - 1  # each cell counts about alike: curves that fall, as those of an effect do


def scorer(vlm, original, removed, questions):
    """What runs a plan for some questions."""
    prompts = [vlm.prompt(question) for question in questions]
    return lambda plan: Engine(vlm).run(original, removed, plan, prompts, [MARGIN] * len(prompts))


def test_points_that_were_run_are_the_engines_own():
    vlm, original, removed = linear()
    k, orders, allowed = schedule(36, 36), random_orders(36, 4, np.random.default_rng(3)), 0.02
    (curves,) = run_adaptive(scorer(vlm, original, removed, "q"), [list(orders)], k, allowed)
    plan = Plan(36)
    places = np.array([[plan.add(0, keep_masks(o, k, mode)) for mode in ("deletion", "insertion")] for o in orders])
    exact = Engine(vlm).run(original, removed, plan, [vlm.prompt("q")], [MARGIN])[0]
    for name in ("s", "probability", "standing"):
        mine, theirs = getattr(curves.scores, name), getattr(exact, name)[torch.from_numpy(places)]
        for order, run in enumerate(curves.run):
            assert torch.equal(mine[order][:, run], theirs[order][:, run])
    assert 0.2 < curves.run.mean() < 1
    effect = float(exact.s[places[0, 0, 0]] - exact.s[places[0, 0, -1]])
    x = torch.from_numpy(k / 36)
    off = (torch.trapezoid(curves.scores.s, x) - torch.trapezoid(exact.s[torch.from_numpy(places)], x)) / effect
    assert off.abs().max() < allowed and (curves.errors <= allowed).all()
    mirrored = curves.scores.s[1::2].flip(1, 2)  # the reversed order's insertion is the deletion, backwards
    torch.testing.assert_close(curves.scores.s[::2], mirrored, rtol=0, atol=1e-9)
    assert np.array_equal(curves.run[::2], curves.run[1::2, ::-1])


def test_company_does_not_matter_and_pictures_are_shared():
    vlm, original, removed = linear()
    k, shuffled = schedule(36, 36), random_orders(36, 20, np.random.default_rng(4))
    own = {q: [np.random.default_rng(i).permutation(36)] for i, q in enumerate("qr")}
    seen, cost = {}, {}
    for asked in ("q", "r", "qr"):
        before = vlm.counts.snapshot()
        run = scorer(vlm, original, removed, asked)
        seen[asked] = adaptive_curves(run, [own[q] for q in asked], shuffled, k, 0.02, 0.03)
        cost[asked] = vlm.counts.encode - before.encode
    for index, question in enumerate("qr"):
        alone, together = seen[question][0], seen["qr"][index]
        assert torch.equal(alone.scores.s, together.scores.s) and np.array_equal(alone.run, together.run)
    assert cost["qr"] < cost["q"] + cost["r"] - 20


@pytest.mark.parametrize(("allowed", "count"), [(0.5, FIRST_RANDOM_ORDERS), (1e-6, 20)])
def test_random_orders_stop_at_their_monte_carlo_error(allowed, count):
    vlm, original, removed = linear()
    # Of a plain sum, a reversed pair has the same mean area as any other.
    vlm.combine = lambda shares: (shares.sum(-1) / 20).tanh() * 3
    k, shuffled = schedule(36, 12), random_orders(36, 20, np.random.default_rng(4))
    (curves,) = adaptive_curves(scorer(vlm, original, removed, "q"), [[]], shuffled, k, 0.005, allowed)
    assert len(curves.errors) == count == len(curves.scores.s)


def test_no_picture_is_run_again_for_further_random_orders():
    """The intact and the removed picture belong to all orders; they are the same bits as if they were run again."""
    vlm, original, removed = linear()
    vlm.combine = lambda shares: (shares.sum(-1) / 20).tanh() * 3
    k, shuffled = schedule(36, 12), random_orders(36, 20, np.random.default_rng(4))
    run, passes = scorer(vlm, original, removed, "qr"), []

    def watched(plan):
        passes.append({mask.tobytes() for _, _, masks in plan.groups() for mask in masks})
        return run(plan)

    again = adaptive_curves(run, [[], []], shuffled, k, 0.005, 1e-6, share=False)
    computed = adaptive_curves(watched, [[], []], shuffled, k, 0.005, 1e-6)
    ends = {np.ones(36, bool).tobytes(), np.zeros(36, bool).tobytes()}
    assert ends <= passes[0] and not any(ends & later for later in passes[1:]) and len(passes) > 4
    for mine, theirs in zip(computed, again, strict=True):
        for name in ("s", "probability", "standing"):
            assert torch.equal(getattr(mine.scores, name), getattr(theirs.scores, name))
        assert np.array_equal(mine.run, theirs.run) and np.array_equal(mine.errors, theirs.errors)


def test_curves_of_an_inverted_effect_are_refined_too():
    """They have no normalized areas, but areas in logits: these are as exact as their range, or the score, asks for."""
    vlm, original, removed = linear()
    vlm.questions["q"] *= -1.0
    vlm.combine = lambda shares: shares.sum(-1) + shares.sum(-1).sin()
    k, orders, allowed = schedule(36, 36), random_orders(36, 4, np.random.default_rng(3)), 0.005
    run = scorer(vlm, original, removed, "q")
    (curves,) = run_adaptive(run, [list(orders)], k, allowed)
    (exact,) = run_adaptive(run, [list(orders)], k, 1e-12)
    assert exact.run.all() and float(exact.scores.s[0, 0, 0] - exact.scores.s[0, 0, -1]) < -1
    s = exact.scores.s
    x, unit = torch.from_numpy(k / 36), max(float(s.max() - s.min()), abs(float(s[0, 0, 0])))
    off = (torch.trapezoid(curves.scores.s, x) - torch.trapezoid(exact.scores.s, x)).abs() / unit
    assert off.max() < allowed and (curves.errors <= allowed).all() and curves.run.mean() < 1


def test_an_order_is_refined_by_its_own_scores():
    """It gets the same points alone as beside an order whose scores have a range ten times as large."""

    def run(plan):
        masks = np.concatenate([masks for _, _, masks in plan.groups()])
        kept, bump = masks.mean(1), masks[:, 0] & masks[:, 1] & ~masks[:, 34] & ~masks[:, 35]
        s = torch.from_numpy(2 - 2 * kept + 0.3 * np.sin(6 * kept) + 20 * bump * np.sin(np.pi * kept))
        return [PictureScores(s, s.sigmoid(), s)]

    k, rest = schedule(36, 36), np.random.default_rng(3).permutation(np.arange(2, 34))
    wide, narrow = np.r_[34, 35, rest, 0, 1], np.r_[0, 34, rest, 1, 35]
    (together,) = run_adaptive(run, [[wide, narrow]], k, 0.005)
    (alone,) = run_adaptive(run, [[narrow]], k, 0.005)
    assert np.array_equal(alone.run[0], together.run[1]) and alone.errors[0] == together.errors[1]
    assert np.ptp(together.scores.s[0].numpy()) > 9 * np.ptp(alone.scores.s.numpy())


def test_curves_that_hardly_change_stay_coarse():
    """An error that is small beside the smallest effect that is scored is small enough."""
    vlm, original, removed = linear()
    vlm.questions["r"] *= 0.001
    k, shuffled = schedule(36, 36), random_orders(36, 20, np.random.default_rng(4))
    own = [[np.random.default_rng(0).permutation(36)]] * 2
    scored, left = adaptive_curves(scorer(vlm, original, removed, "qr"), own, shuffled, k, 0.005, 0.01)
    assert len(left.errors) == 1 + FIRST_RANDOM_ORDERS and (left.errors <= 0.005).all()
    assert (np.flatnonzero(left.run.any(0)) == coarse_points(36)).all() and left.scores.s.isfinite().all()
    assert (scored.errors <= 0.005).all() and scored.run[0].sum() > len(coarse_points(36))


def test_a_picture_that_scores_nan_ends_the_refinement():
    vlm, original, removed = linear()
    vlm.poison = lambda tokens: torch.ones(len(tokens), dtype=torch.bool)
    k = schedule(36, 36)
    (curves,) = run_adaptive(scorer(vlm, original, removed, "q"), [[np.arange(36)]], k, 0.005)
    assert curves.scores.s.isnan().all() and curves.run.sum() == len(coarse_points(36))
