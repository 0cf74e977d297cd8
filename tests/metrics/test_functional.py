import doctest
import math

import numpy as np
import pytest
import torch

from cxr_faith.metrics import functional as F
from cxr_faith.metrics.baselines import baseline_gaps, random_summary, random_test
from cxr_faith.metrics.running_sums import mean_of, present_sums, standard_error_of
from cxr_faith.perturb import schedule as perturb_schedule
from cxr_faith.perturb.schedule import keep_masks, random_orders, schedule, stream
from tests.reference import metrics as reference

GRIDS = [(16, 4), (16, 5), (15, 5), (15, 7), (144, 50), (256, 50), (225, 51), (1, 1)]
"""(cells, steps): steps that divide the cells and that do not, odd and even numbers of cells."""


def abscissa(n_cells, steps):
    return torch.from_numpy(schedule(n_cells, steps) / n_cells)


def random_rows(rows, steps, seed=0):
    """Curves of all kinds, with shared end points as the engine makes them, and their classification."""
    rng = np.random.default_rng(seed)
    original = rng.uniform(0, 12, rows)
    substrate = rng.choice([-8.0, 0.2, 6.0, 11.0], rows) + rng.normal(0, 0.5, rows)
    curves = rng.normal(2, 5, (2, rows, steps + 1))
    curves[0, :, 0] = curves[1, :, -1] = original
    curves[0, :, -1] = curves[1, :, 0] = substrate
    probs, flips = rng.uniform(0, 1, curves.shape), curves + rng.normal(0, 1, curves.shape)
    off_format, valid = rng.random(rows) < 0.15, rng.random(rows) > 0.15
    log_ps = -rng.exponential(1, curves.shape)
    return [torch.from_numpy(a) for a in (*curves, *probs, *flips, *log_ps, off_format, valid)]


def expect(values, expected):
    """Compares a column with the twin's list, whose missing values are None."""
    expected = [math.nan if value is None else value for value in expected]
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-12, atol=1e-13, equal_nan=True)


@pytest.mark.parametrize(("n_cells", "steps"), GRIDS)
def test_every_scalar_agrees_with_the_twin(n_cells, steps):
    x = abscissa(n_cells, steps)
    *curves, off_format, valid = random_rows(200, steps, seed=steps)
    if steps > 2:
        curves[0][17, 1] = math.nan
        curves[1][18, 2] = math.inf
    status = F.classify(curves[0][:, 0], curves[0][:, -1], off_format, valid)
    names = F.status_names(status)
    assert set(names) == set(F.STATUSES) - {"flat"}  # which scoring gives, not the curves
    assert names == [
        reference.classify(row[0].item(), row[-1].item(), off.item(), good.item())
        for row, off, good in zip(curves[0], off_format, valid, strict=True)
    ]
    scalars = F.curve_scalars(x, *curves[:6], status, *curves[6:])
    twins = [
        reference.curve_scalars(
            x.tolist(), *(curve[i].tolist() for curve in curves[:6]), names[i], *(c[i].tolist() for c in curves[6:])
        )
        for i in range(200)
    ]
    assert set(scalars) == {*F.CURVE_COLUMNS, *F.ENDPOINT_COLUMNS}
    for column, values in scalars.items():
        assert values.dtype == torch.float64
        expect(values, [twin.get(column) for twin in twins])
    for column in ("srg", "srg_logit", "flip_deletion", "flip_insertion"):  # both present and missing values were seen
        assert 0 < scalars[column].isnan().sum() < 200


def test_what_each_status_keeps():
    x = abscissa(4, 2)
    falling = torch.tensor([[4.0, 1.0, -4.0]]).repeat(5, 1)
    scalars = F.curve_scalars(x, *[falling, falling.flip(-1)] * 3, torch.arange(5), falling, falling.flip(-1))
    without = F.curve_scalars(x, *[falling, falling.flip(-1)] * 3, torch.arange(5))
    assert {name for name, values in without.items() if values.isnan().all()} == {
        name for name in without if "log_p" in name
    }
    kept = {
        "ok": {*F.CURVE_COLUMNS, *F.ENDPOINT_COLUMNS},
        "degenerate": {*F.UNNORMALIZED_COLUMNS, *F.ENDPOINT_COLUMNS},
        "inverted": {*F.UNNORMALIZED_COLUMNS, *F.ENDPOINT_COLUMNS},
        "off_format": {*F.ENDPOINT_COLUMNS},
        "invalid": set(),
    }
    for code, status in enumerate(F.STATUSES[:5]):
        assert {name for name, values in scalars.items() if not values[code].isnan()} == kept[status], status


@pytest.mark.parametrize(
    ("s_original", "s_substrate", "status"),
    [
        (2.0, 1.5, "ok"),
        (2.0, 1.5001, "degenerate"),
        (2.0, 2.4999, "degenerate"),
        (2.0, 2.5, "inverted"),
        (40.0, 38.1, "degenerate"),
        (40.0, 38.0, "ok"),
        (-40.0, -42.0, "ok"),
        (-40.0, -38.0, "inverted"),
        (math.nan, 0.0, "invalid"),
        (3.0, -math.inf, "invalid"),
    ],
)
def test_classification_at_the_threshold(s_original, s_substrate, status):
    arguments = torch.tensor([s_original]), torch.tensor([s_substrate])
    no, yes = torch.tensor([False]), torch.tensor([True])
    assert F.status_names(F.classify(*arguments, no, yes)) == [status]
    assert F.status_names(F.classify(*arguments, yes, yes)) == ["invalid" if status == "invalid" else "off_format"]
    assert F.status_names(F.classify(*arguments, yes, no)) == ["invalid"]


def test_normalize_curve_ends_at_one_and_zero_and_refuses_small_effects():
    scores = torch.tensor([[7.3, 5.0, -1.1], [7.3, 7.2, 7.1], [1.0, 2.0, 9.0]])
    curve = F.normalize_curve(scores, scores[:, 0], scores[:, -1])
    assert curve.dtype == torch.float64
    assert curve[0, [0, 2]].tolist() == [1.0, 0.0]
    assert curve[1:].isnan().all()


@pytest.mark.parametrize(("n_cells", "steps"), GRIDS)
def test_auc_agrees_with_numpy_and_is_exact_under_mirroring(n_cells, steps):
    x = abscissa(n_cells, steps)
    curve = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 50, steps + 1)))
    area = F.auc(curve, x)
    np.testing.assert_allclose(area.numpy(), np.trapezoid(curve.numpy(), x.numpy(), axis=-1), rtol=1e-12, atol=1e-15)
    assert torch.equal(area, F.auc(curve.flip(-1), x))


def test_auc_refuses_an_abscissa_that_is_not_symmetric():
    with pytest.raises(ValueError, match="must be symmetric"):
        F.auc(torch.ones(3), torch.tensor([0.0, 0.3, 1.0]))


@pytest.mark.parametrize(("n_cells", "steps"), GRIDS)
def test_interpolation_agrees_with_numpy_and_hits_grid_points(n_cells, steps):
    x = abscissa(n_cells, steps)
    curve = torch.from_numpy(np.random.default_rng(2).normal(size=(20, steps + 1)))
    for q in (0.0, 0.1, 0.2, 0.5, 0.77, 1.0):
        expected = [np.interp(q, x.numpy(), row.numpy()) for row in curve]
        np.testing.assert_allclose(F.interpolate_at(curve, x, q).numpy(), expected, rtol=1e-12, atol=1e-14)
    for point, q in enumerate(x.tolist()):
        assert torch.equal(F.interpolate_at(curve, x, q), curve[:, point])


def test_retained_between_grid_points_uses_the_true_share_of_cells():
    """3 steps of 10 cells stand at 0, .3, .7 and 1, not at thirds."""
    x = abscissa(10, 3)
    deletion = torch.tensor([[10.0, 7.0, 1.0, 0.0]])
    scalars = F.curve_scalars(x, *[deletion, deletion.flip(-1)] * 3, torch.tensor([F.OK]))
    assert scalars["retained_50"].item() == pytest.approx(0.4)
    assert scalars["drop_50"].item() == pytest.approx(0.6)
    assert scalars["drop_10"].item() == pytest.approx(0.1)


def test_flips_are_null_where_the_substrate_keeps_the_answer():
    x = abscissa(4, 4)
    deletion = torch.tensor([[4.0, -1.0, 2.0, -1.0, 0.5], [4.0, 3.0, 0.0, -1.0, -2.0], [4.0, 3.0, 2.0, 1.0, -0.1]])
    insertion = torch.tensor([[0.5, -1.0, 2.0, 3.0, 4.0], [-2.0, 0.0, -1.0, 3.0, 4.0], [-0.1, -1.0, -1.0, -1.0, 4.0]])
    scalars = F.curve_scalars(x, *[deletion, insertion] * 3, torch.tensor([F.OK] * 3))
    expect(scalars["flip_deletion"], [None, 0.75, 1.0])  # s = 0 still says yes
    expect(scalars["flip_insertion"], [None, 0.25, 1.0])


def test_flips_follow_the_token_margin_and_not_the_score():
    x = abscissa(2, 2)
    score = torch.tensor([[-0.1, -2.0, -3.0]])  # log-likelihoods are never positive
    margin = torch.tensor([[5.0, 1.0, -2.0]])
    curves = [score, score.flip(-1), score.exp(), score.flip(-1).exp(), margin, margin.flip(-1)]
    scalars = F.curve_scalars(x, *curves, torch.tensor([F.OK]))
    assert (scalars["flip_deletion"].item(), scalars["flip_insertion"].item()) == (1.0, 0.5)


def test_clipped_share_and_violations_of_a_known_curve():
    x = abscissa(4, 4)
    deletion = torch.tensor([[10.0, 12.0, 11.95, 12.0, 0.0]])  # above 1 three times; up by 2, then within the tolerance
    insertion = torch.tensor([[0.0, -1.0, 5.0, 4.0, 10.0]])  # below 0 once; down by 1 twice
    scalars = F.curve_scalars(x, *[deletion, insertion] * 3, torch.tensor([F.OK]))
    assert scalars["clipped_share"].item() == pytest.approx(4 / 10)
    assert scalars["monotonicity_violations"].item() == pytest.approx(3 / 8)
    assert scalars["insertion_auc_clipped"].item() == pytest.approx((0 + 0.25 + 0.45 + 0.7) / 4)
    assert scalars["insertion_auc"].item() == pytest.approx((-0.05 + 0.2 + 0.45 + 0.7) / 4)


def curves_of(orders, k, n_cells, scale=1.0):
    """Both curves of every order under an arbitrary non-linear model of the visible cells, `[R, T + 1]` each."""
    rng = np.random.default_rng(5)
    weights, offset = rng.normal(size=(n_cells, 32)), rng.normal(size=32)
    gold = scale * rng.normal(size=32)

    def score(visible):
        return np.tanh(visible @ weights / 4 + offset) @ gold

    modes = ("deletion", "insertion")
    return [torch.tensor([[score(m) for m in keep_masks(o, k, mode)] for o in orders]) for mode in modes]


@pytest.mark.parametrize(("n_cells", "steps"), [(144, 12), (144, 50), (225, 51), (256, 50), (49, 7)])
def test_reversed_orders_have_exactly_the_negative_srg(n_cells, steps):
    k = schedule(n_cells, steps)
    orders = random_orders(n_cells, 20, stream(0, "image", "orders"))
    deletion, insertion = curves_of(orders, k, n_cells, scale=20.0)
    assert torch.equal(insertion[0::2], deletion[1::2].flip(-1))
    x, sign = torch.from_numpy(k / n_cells), torch.sign(deletion[:, :1] - deletion[:, -1:])
    deletion, insertion = sign * deletion, sign * insertion
    scalars = F.curve_scalars(x, *[deletion, insertion] * 3, torch.zeros(20, dtype=torch.int64))
    for column in ("srg", "srg_clipped", "srg_logit", "srg_prob"):
        assert scalars[column].abs().min() > 1e-4
        assert torch.equal(scalars[column][0::2], -scalars[column][1::2])
    summary = random_summary({name: values[None] for name, values in scalars.items()})
    for name in ("srg", "srg_clipped", "srg_logit", "srg_prob", "srg_mc_error"):
        assert summary[name].item() == 0.0
    assert summary["deletion_auc"].item() == pytest.approx(summary["insertion_auc"].item(), abs=1e-14)


def test_scalars_of_orders_are_those_of_the_flattened_rows():
    x, rows = abscissa(144, 12), random_rows(24, 12)
    *curves, off_format, valid = rows
    status = F.classify(curves[0][:6, 0], curves[0][:6, -1], off_format[:6], valid[:6])
    by_picture = [curve.reshape(6, 4, -1) for curve in curves]
    folded = F.curve_scalars(x, *by_picture[:6], status[:, None], *by_picture[6:])
    flat = F.curve_scalars(x, *curves[:6], status.repeat_interleave(4), *curves[6:])
    for name, values in folded.items():
        torch.testing.assert_close(values.flatten(), flat[name], rtol=0, atol=0, equal_nan=True)


def test_random_summary_agrees_with_the_twin():
    rng = np.random.default_rng(8)
    columns = ("deletion_auc", "insertion_auc", "srg", "drop_50", "flip_deletion", "effect")
    per_order = {name: torch.from_numpy(rng.normal(size=(5, 20))) for name in columns}
    per_order["flip_deletion"][2] = math.nan
    summary = random_summary(per_order)
    for name in columns[:4]:
        values = per_order[name].numpy()
        expect(summary[name], values.mean(1))
        expect(summary[f"{name}_std"], values.std(1, ddof=1))
    for name in columns[:3]:
        expect(summary[f"{name}_mc_error"], [reference.monte_carlo_error(row) for row in per_order[name].tolist()])
    assert summary["flip_deletion"].isnan().tolist() == [False, False, True, False, False]
    assert torch.equal(summary["effect"], per_order["effect"][:, 0])
    assert {"drop_50_mc_error", "effect_std"}.isdisjoint(summary)


@pytest.mark.parametrize("orders", [2, 6, 10, 20, 22])
def test_antithetic_pairs_average_to_exactly_zero(orders):
    half = torch.from_numpy(np.random.default_rng(orders).normal(size=(500, orders // 2)))
    summary = random_summary({"srg": torch.stack([half, -half], dim=-1).flatten(1)})
    assert (summary["srg"] == 0).all()
    assert (summary["srg_std"] > 0).all()


def test_random_summary_of_one_pair_and_of_an_odd_number():
    summary = random_summary({"srg": torch.tensor([[0.3, -0.3]])})
    assert summary["srg"].item() == 0.0
    assert summary["srg_std"].item() == pytest.approx(0.3 * math.sqrt(2))
    assert summary["srg_mc_error"].isnan().all()
    with pytest.raises(ValueError, match="srg must be .* even number R of orders"):
        random_summary({"srg": torch.zeros(2, 3)})


def test_random_test_agrees_with_the_twin_and_is_null_without_spread():
    rng = np.random.default_rng(9)
    srg, orders = torch.from_numpy(rng.normal(size=40)), torch.from_numpy(rng.normal(size=(40, 20)))
    orders[3] = 0.1  # its computed standard deviation is not exactly zero
    orders[4, 7] = srg[4]
    z, p = random_test(srg, orders)
    twins = [reference.random_test(s, row) for s, row in zip(srg.tolist(), orders.tolist(), strict=True)]
    expect(z, [twin[0] for twin in twins])
    expect(p, [twin[1] for twin in twins])
    assert z.isnan().sum() == p.isnan().sum() == 1
    srg[5], orders[6, 0] = math.nan, math.nan
    z, p = random_test(srg, orders)
    assert z.isnan().nonzero().flatten().tolist() == p.isnan().nonzero().flatten().tolist() == [3, 5, 6]


def test_random_test_extremes():
    z, p = random_test(torch.tensor([9.0, -9.0]), torch.tensor([[1.0, -1.0, 2.0, -2.0]] * 2))
    assert p.tolist() == [1 / 5, 1.0]
    assert z.tolist() == pytest.approx([9 / math.sqrt(10 / 3), -9 / math.sqrt(10 / 3)])


def test_gaps_are_positive_where_the_method_is_better():
    method = {"deletion_auc": torch.tensor([0.2]), "insertion_auc": torch.tensor([0.9]), "srg": torch.tensor([0.7])}
    random = {"deletion_auc": torch.tensor([0.5]), "insertion_auc": torch.tensor([0.6]), "srg": torch.tensor([0.0])}
    gaps = baseline_gaps(method, random, None)
    assert gaps["gap_deletion_random"].item() == pytest.approx(0.3)
    assert gaps["gap_insertion_random"].item() == pytest.approx(0.3)
    assert gaps["gap_srg_random"].item() == pytest.approx(0.7)
    assert all(gaps[f"gap_{metric}_center"].isnan().all() for metric in ("deletion", "insertion", "srg"))
    swapped = baseline_gaps(random, None, method)
    assert swapped["gap_deletion_center"].item() == pytest.approx(-0.3)
    assert swapped["gap_srg_center"].item() == pytest.approx(-0.7)
    random["deletion_auc"][0] = math.nan
    assert baseline_gaps(method, random, random)["gap_deletion_random"].isnan().all()


def test_mean_and_standard_error_agree_with_the_twin_over_batches():
    values = torch.from_numpy(np.random.default_rng(4).normal(3, 2, 101))
    values[::7] = math.nan
    batches = [present_sums(batch) for batch in values.split(13)]
    sums = [torch.stack(parts).sum(0) for parts in zip(*batches, strict=True)]
    mean, error = reference.mean_and_error(values.tolist())
    assert mean_of(*sums[:2]).item() == pytest.approx(mean, rel=1e-12)
    assert standard_error_of(*sums).item() == pytest.approx(error, rel=1e-10)
    weights = torch.from_numpy(np.random.default_rng(5).gamma(2, 2, 101))
    weights[3] = math.nan
    sums = list(present_sums(values, weights))
    mean, error = reference.mean_and_error(values.tolist(), weights.tolist())
    assert mean_of(*sums[:2]).item() == pytest.approx(mean, rel=1e-12)
    assert standard_error_of(*sums).item() == pytest.approx(error, rel=1e-10)


def test_mean_of_nothing_and_error_of_one():
    nothing, one = present_sums(torch.tensor([math.nan])), present_sums(torch.tensor([2.5]))
    assert mean_of(*nothing[:2]).isnan()
    assert standard_error_of(*nothing).isnan()
    assert mean_of(*one[:2]).item() == 2.5
    assert standard_error_of(*one).isnan()


@pytest.mark.parametrize("module", [F, perturb_schedule])
def test_examples_in_the_docstrings(module):
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.attempted > 0
    assert result.failed == 0


def test_areas_agree_with_torchcam():
    """torchcam's deletion and insertion of a small CNN, every pixel a cell, against masks, schedule and areas here."""
    methods, metrics = pytest.importorskip("torchcam.methods"), pytest.importorskip("torchcam.metrics")
    torch.manual_seed(0)
    features = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.Tanh())
    model = torch.nn.Sequential(
        features, torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(24, 2)
    ).eval()
    image, substrate = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    with methods.GradCAM(model, target_layer=features, input_shape=(3, 16, 16)) as extractor:
        metric = metrics.DeletionInsertionMetric(extractor, steps=32, baseline=substrate)
        metric.update(image, 1)
        saliency = extractor(1, model(image))[0].flatten().detach()
    k, order = schedule(256, 32), perturb_schedule.saliency_order(saliency, np.arange(256))  # its ties: raster order
    areas = {}
    for mode in ("deletion", "insertion"):
        keep = torch.from_numpy(keep_masks(order, k, mode)).reshape(-1, 1, 16, 16)
        scores = model(torch.where(keep, image, substrate))[:, 1].detach()
        areas[f"{mode}_auc"] = F.auc(scores, torch.from_numpy(k / 256)).item()
    assert areas == pytest.approx(metric.summary(), abs=1e-6)
    assert abs(areas["insertion_auc"] - areas["deletion_auc"]) > 1e-3
