"""The chain from pictures to scores, against closed forms and against the slow twins."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cxr_faith.attribution import build_methods
from cxr_faith.attribution.backward import backwards
from cxr_faith.attribution.base import Attribution, AttributionBatch, Method
from cxr_faith.attribution.shared import SharedWork
from cxr_faith.cases import Case, compute_maps, read_answers
from cxr_faith.metrics.functional import CURVE_COLUMNS
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.orders import center_order, map_order, tie_share
from cxr_faith.perturb.schedule import random_orders, schedule, stream
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.records.controls import CENTER, RANDOM
from cxr_faith.scoring import score_image
from cxr_faith.vlm import Reply, Target
from tests.analytic import LinearVLM, picture
from tests.reference import gemma
from tests.reference import metrics as reference

YES = Reply((1,), (0,), "yes", 2.0, 0.9, True)
IMAGE = "image-7"
PROTOCOL = Protocol(steps=8, random_orders=6)
BLUR = Substrate.parse("blur:0.1")


@pytest.fixture
def vlm():
    """4 x 4 cells of 4 x 6 pixels, weights without symmetry, and a bias that keeps the answer at yes."""
    weights = np.random.default_rng(2).standard_normal((4, 4)) * 8
    return LinearVLM({"q": weights, "r": weights[::-1].copy()}, bias={"q": 9.0, "r": 30.0})


def removed_of(pixels, substrate=BLUR):
    return substrate.apply(pixels[None], [IMAGE], PROTOCOL.seed)[0]


def truth_of(vlm, pixels, question="q", sign=1):
    return vlm.contributions(pixels, removed_of(pixels), question, sign)


def case_of(vlm, maps, question="q", target=None, **fields):
    maps = {name: np.asarray(values, np.float32) for name, values in maps.items()}
    target = target or Target("margin")
    return Case(vlm.prompt(question), IMAGE, "yes_no", YES, target, maps=maps, **fields)


def score(vlm, pixels, cases, protocol=PROTOCOL, substrate=BLUR):
    return score_image(Engine(vlm, protocol.softness), pixels, IMAGE, cases, substrate, protocol)


def rising(vlm, pixels, question="q"):
    """Bias such that the effect is clear: the picture's true map, made to point to yes."""
    truth = truth_of(vlm, pixels, question)
    if truth.sum() < 0:
        vlm.questions[question] = -vlm.questions[question]
    return truth_of(vlm, pixels, question)


def same(one, other):
    """Equal values, NaN equal to NaN."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


# --- Curves and scalars -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [5, 8, 16])
def test_curves_and_every_scalar_of_a_linear_model(vlm, steps):
    pixels, protocol = picture(vlm), replace(PROTOCOL, steps=steps)
    truth, noise = rising(vlm, pixels), np.random.default_rng(0).random((4, 4))
    rows = score(vlm, pixels, [case_of(vlm, {"truth": truth, "noise": noise})], protocol)[0]
    assert set(rows) == {"truth", "noise", CENTER, RANDOM}
    k = schedule(16, steps)
    s_original = float(vlm.logit(vlm.encode(pixels[None]), vlm.prompt("q")))
    for name in ("truth", "noise", CENTER):
        row = rows[name]
        curves = {m: vlm.curve(truth, s_original, row["order"], k, m) for m in ("deletion", "insertion")}
        assert np.allclose(row["deletion_scores"], curves["deletion"], atol=1e-4)
        assert np.allclose(row["insertion_scores"], curves["insertion"], atol=1e-4)
        assert np.allclose(row["deletion_probs"], 1 / (1 + np.exp(-curves["deletion"])), atol=1e-4)
        assert row["k"] == k.tolist() and sorted(row["order"]) == list(range(16))
        assert row["status"] == "ok"
        row_curves = [
            row[f"{mode}_{what}"] for what in ("scores", "probs", "scores") for mode in ("deletion", "insertion")
        ]
        expected = reference.curve_scalars((k / 16).tolist(), *row_curves, "ok")
        for column in CURVE_COLUMNS:
            value = expected.get(column)
            assert math.isnan(row[column]) if value is None else row[column] == pytest.approx(value, abs=1e-9), column


def test_the_true_map_wins_and_its_mirror_and_transpose_lose(vlm):
    """Of all orders the true one has the lowest deletion and the highest insertion curve at every step."""
    pixels = picture(vlm)
    truth = rising(vlm, pixels)
    maps = {"truth": truth, "transposed": truth.T, "flipped": truth[:, ::-1], "inverse": -truth}
    rows = score(vlm, pixels, [case_of(vlm, maps)])[0]
    for name in ("transposed", "flipped", "inverse", CENTER):
        assert (np.array(rows["truth"]["deletion_scores"]) <= np.array(rows[name]["deletion_scores"]) + 1e-5).all()
        assert (np.array(rows["truth"]["insertion_scores"]) >= np.array(rows[name]["insertion_scores"]) - 1e-5).all()
        assert rows["truth"]["srg"] > rows[name]["srg"] + 0.05
    assert rows["truth"]["gap_srg_random"] > 0 < rows["truth"]["gap_deletion_random"]
    assert rows["truth"]["random_p"] == pytest.approx(1 / 7)
    assert rows["inverse"]["srg"] == -rows["truth"]["srg"]
    assert np.array_equal(rows["inverse"]["insertion_scores"], rows["truth"]["deletion_scores"][::-1])


def test_real_curves_and_scalars_are_those_of_the_twins(random_vlm, pictures):
    """A two-question image through the real chain, each scalar from full forwards of transformers' model."""
    pixels, protocol = pictures(random_vlm, 1, seed=8)[0], Protocol(steps=4, random_orders=2, max_new_tokens=3, seed=3)
    questions, kinds = ["Is there a nodule?", "What is the finding?"], ["yes_no", "open"]
    cases = read_answers(random_vlm, pixels, IMAGE, questions, kinds, protocol)
    cases[0] = replace(cases[0], reply=replace(cases[0].reply, yes_no_mass=0.9))
    compute_maps(random_vlm, build_methods({"gradient": {}}), [pixels] * 2, cases, 3)
    scored = score_image(Engine(random_vlm), pixels, IMAGE, cases, BLUR, protocol)
    removed, twin = BLUR.apply(pixels[None], [IMAGE], 3)[0], gemma.twin_model(random_vlm.model)
    for case, question, rows in zip(cases, questions, scored, strict=True):
        row = rows["gradient"]
        run = (random_vlm, twin, pixels, removed, row["order"], row["k"])
        curves = [gemma.curve(*run, mode, question, case.target).T for mode in ("deletion", "insertion")]
        assert np.abs(row["deletion_scores"] - curves[0][0]).max() < 1e-4
        assert np.abs(row["insertion_scores"] - curves[1][0]).max() < 1e-4
        status = reference.classify(curves[0][0][0], curves[0][0][-1], False, True)
        assert row["status"] == status
        x = (np.array(row["k"]) / 64).tolist()
        pairs = [curve[part].tolist() for part in range(3) for curve in curves]
        log_ps = [row["deletion_log_p"], row["insertion_log_p"]]
        for curve, log_p in zip(curves, log_ps, strict=True):  # one token: log p is log sigmoid of the log-odds
            if len(case.target.scored) == 1:
                np.testing.assert_allclose(log_p, -np.log1p(np.exp(-curve[0])), atol=1e-4)
        for column, value in reference.curve_scalars(x, *pairs, status, *log_ps).items():
            if column not in ("clipped_share", "monotonicity_violations", "flip_deletion", "flip_insertion"):
                assert value is None or row[column] == pytest.approx(value, abs=2e-3), column
        assert row["order"] == map_order(case.maps["gradient"], 3, IMAGE, "gradient").tolist()
        assert (np.diff(case.maps["gradient"].ravel()[row["order"]]) <= 0).all()


def test_a_softened_mask_changes_the_curve_but_not_its_ends(vlm):
    pixels = picture(vlm)
    case = case_of(vlm, {"truth": rising(vlm, pixels)})
    hard, soft = (score(vlm, pixels, [case], replace(PROTOCOL, softness=s))[0]["truth"] for s in (0.0, 2.0))
    for name in ("s_original", "s_substrate"):
        assert hard[name] == pytest.approx(soft[name], abs=1e-4)
    assert np.abs(np.array(hard["deletion_scores"]) - soft["deletion_scores"])[1:-1].min() > 1e-3


# --- Flat maps and sets ---------------------------------------------------------------------------------------------


def test_a_flat_map_scores_as_the_random_orders(vlm):
    """All cells equal: no order of its own is run, and its srg and its gaps to random are 0."""
    pixels = picture(vlm)
    truth = rising(vlm, pixels)
    maps = {"truth": truth, "flat": np.full((4, 4), 0.3)}
    engine = Engine(vlm)
    before = vlm.counts.snapshot()
    with_flat = score_image(engine, pixels, IMAGE, [case_of(vlm, maps)], BLUR, PROTOCOL)[0]
    spent = vlm.counts.score - before.score
    alone = score_image(engine, pixels, IMAGE, [case_of(vlm, {"truth": truth})], BLUR, PROTOCOL)[0]
    assert vlm.counts.score - before.score == 2 * spent
    flat, random = with_flat["flat"], with_flat[RANDOM]
    assert (flat["status"], flat["flat"], flat["tie_share"], flat.get("order")) == ("flat", True, 1.0, None)
    assert with_flat["truth"]["flat"] is False and same(with_flat["truth"], alone["truth"])
    assert flat["srg"] == flat["gap_srg_random"] == flat["gap_deletion_random"] == flat["random_z"] == 0.0
    for column in (*CURVE_COLUMNS, "deletion_scores", "insertion_scores", "effect", "k"):
        assert same(flat[column], random[column]), column
    assert flat["gap_srg_center"] == pytest.approx(-with_flat[CENTER]["srg"])
    assert not any(name.endswith(("_std", "_mc_error")) for name in flat)


@pytest.mark.parametrize("protocol", [PROTOCOL, replace(PROTOCOL, space="tokens"), Protocol(steps="adaptive")])
def test_flat_maps_under_every_kind_of_curve(vlm, protocol):
    pixels = picture(vlm)
    rows = score(vlm, pixels, [case_of(vlm, {"flat": np.zeros((4, 4)), "truth": rising(vlm, pixels)})], protocol)[0]
    assert rows["flat"]["status"] == "flat" and rows["flat"]["srg"] == 0.0
    assert rows["flat"]["auc_error"] == rows[RANDOM]["auc_error"]


def test_a_flat_map_of_an_answer_without_an_effect_is_degenerate_and_marked(vlm):
    weak = LinearVLM({"q": np.full((4, 4), 1e-4)}, bias={"q": 9.0})
    row = score(weak, picture(weak), [case_of(weak, {"flat": np.ones((4, 4))})])[0]["flat"]
    assert (row["status"], row["flat"], row["srg_logit"]) == ("degenerate", True, 0.0) and math.isnan(row["srg"])


def test_blurred_copies_of_flat_maps_are_flat(vlm):
    class Constant(Method):
        def attribute(self, vlm, batch, target):
            return Attribution(torch.full((len(batch.prompts), *vlm.grid), 0.1))

    pixels, case = picture(vlm), case_of(vlm, {})
    compute_maps(vlm, {"constant": Constant()}, [pixels], [case], 0, blurred=["constant"])
    assert {name for name, values in case.maps.items() if np.ptp(values) == 0} == {"constant", "constant/blurred"}


def test_sets_are_scored_as_sets(vlm):
    """The set of a method is what it ranks first: removed from the picture, and alone on the substrate."""
    pixels = picture(vlm)
    truth = rising(vlm, pixels)
    vlm.bias["q"] += 1.0 - float(vlm.logit(vlm.encode(pixels[None]), vlm.prompt("q")))  # s(original) is 1
    order = np.argsort(-truth.ravel())
    for size in (1, 4, 16):
        chosen = np.isin(np.arange(16), order[:size]).reshape(4, 4)
        case = case_of(vlm, {"set": chosen + 0.01 * truth / np.abs(truth).max()}, extras={"set": {"set_size": size}})
        row = score(vlm, pixels, [case])[0]["set"]
        inside = truth.ravel()[order[:size]].sum()
        assert row["set_removal_flips"] == (1.0 - inside < 0)
        assert row["set_keeps"] == (1.0 - (truth.sum() - inside) >= 0)
    assert "set_keeps" not in score(vlm, pixels, [case_of(vlm, {"map": truth})])[0]["map"]


# --- Baselines ----------------------------------------------------------------------------------------------------


def test_the_random_baseline(vlm):
    pixels = picture(vlm)
    truth = rising(vlm, pixels)
    rows = score(vlm, pixels, [case_of(vlm, {"truth": truth})])[0]
    random, k = rows[RANDOM], schedule(16, 8)
    assert random["srg"] == random["srg_clipped"] == random["srg_logit"] == 0.0
    assert random["srg_std"] > 0 and random["srg_mc_error"] == 0.0
    s_original, per_order = rows["truth"]["s_original"], []
    for order in random_orders(16, 6, stream(0, IMAGE, "orders")):
        pair = [vlm.curve(truth, s_original, order, k, mode).tolist() for mode in ("deletion", "insertion")]
        probs = [[1 / (1 + math.exp(-s)) for s in curve] for curve in pair]
        per_order.append(reference.curve_scalars((k / 16).tolist(), *pair, *probs, *pair, "ok"))
    for column in ("deletion_auc", "insertion_auc", "drop_50", "deletion_auc_prob", "clipped_share"):
        values = [scalars[column] for scalars in per_order]
        assert random[column] == pytest.approx(np.mean(values), abs=1e-5)
        assert random[f"{column}_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-5)
    areas = [scalars["deletion_auc"] for scalars in per_order]
    assert random["deletion_auc_mc_error"] == pytest.approx(reference.monte_carlo_error(areas), abs=1e-5)
    z, p = reference.random_test(rows["truth"]["srg"], [scalars["srg"] for scalars in per_order])
    assert (rows["truth"]["random_z"], rows["truth"]["random_p"]) == (pytest.approx(z, abs=1e-3), p)
    assert all(math.isnan(random[f"gap_{metric}_random"]) for metric in ("deletion", "insertion", "srg"))


def test_gaps_are_paired_and_positive_is_better(vlm):
    pixels = picture(vlm)
    rows = score(vlm, pixels, [case_of(vlm, {"truth": rising(vlm, pixels)})])[0]
    for name in ("truth", RANDOM, CENTER):
        for base in (CENTER, RANDOM):
            if name == base:
                continue
            row, other = rows[name], rows[base]
            assert row[f"gap_deletion_{base}"] == pytest.approx(other["deletion_auc"] - row["deletion_auc"])
            assert row[f"gap_insertion_{base}"] == pytest.approx(row["insertion_auc"] - other["insertion_auc"])
            assert row[f"gap_srg_{base}"] == pytest.approx(row["srg"] - other["srg"])
    assert [rows[CENTER][f"gap_{metric}_center"] for metric in ("deletion", "insertion", "srg")] == [None] * 3
    assert rows["truth"]["gap_srg_random"] == rows["truth"]["srg"]


def test_the_center_method_is_the_center_baseline(vlm):
    """As a map of float32 or as an order of float64, with the same seeded ties."""
    for grid in ((4, 4), (3, 5), (16, 16), (12, 12)):
        model = LinearVLM({"q": np.ones(grid)})
        pixels, case = picture(model), case_of(model, {})
        compute_maps(model, build_methods({CENTER: {}}), [pixels], [case], 4)
        assert np.array_equal(map_order(case.maps[CENTER], 4, IMAGE, CENTER), center_order(grid, 4, IMAGE))
    rows, columns = np.indices((12, 12))
    distance = np.hypot(rows - 5.5, columns - 5.5).ravel()
    assert (np.diff(distance[center_order((12, 12), 0, IMAGE)]) >= 0).all()
    assert not np.array_equal(center_order((12, 12), 0, IMAGE), center_order((12, 12), 0, "another"))
    case = case_of(vlm, {CENTER: -np.hypot(*(np.indices((4, 4)) - 1.5))})
    assert same(
        score(vlm, picture(vlm), [case])[0][CENTER] | {"tie_share": None},
        score(vlm, picture(vlm), [case_of(vlm, {})])[0][CENTER],
    )


def test_a_random_map_scores_as_nothing_on_average(vlm):
    """Over many images its gaps to random hold 0: the whole chain at once."""
    gaps = []
    for index in range(60):
        pixels = picture(vlm, index)
        case = replace(case_of(vlm, {}), image_id=f"i{index}")
        compute_maps(vlm, build_methods({"random_map": {}}), [pixels], [case], 0)
        row = score_image(Engine(vlm), pixels, f"i{index}", [case], BLUR, PROTOCOL)[0]["random_map"]
        gaps.append([row["deletion_auc_logit"], row["insertion_auc_logit"], row["srg_logit"]])
        gaps[-1][0] -= (row["s_original"] + row["s_substrate"]) / 2
        gaps[-1][1] -= (row["s_original"] + row["s_substrate"]) / 2
    gaps = np.array(gaps)
    assert (np.abs(gaps.mean(0)) < 3.5 * gaps.std(0, ddof=1) / len(gaps) ** 0.5).all()
    assert (gaps.std(0) > 0).all()


def test_adaptive_curves_cost_less_and_score_alike(vlm):
    """16 steps at a loose error: the areas stay within it, random stays at an srg of 0, fewer pictures are run."""
    pixels, exact = picture(vlm), replace(PROTOCOL, steps=16)
    truth = rising(vlm, pixels)
    case, rows, cost = case_of(vlm, {"truth": truth, "flat": truth.round(0)}), [], []
    for protocol in (exact, replace(exact, steps="adaptive", auc_error=0.02)):
        before = vlm.counts.encode
        rows.append(score(vlm, pixels, [case], protocol)[0])
        cost.append(vlm.counts.encode - before)
    assert cost[1] < 0.9 * cost[0]
    for name, row in rows[1].items():
        assert rows[0][name]["auc_error"] is None and 0 <= row["auc_error"] <= 0.02
        for area in ("deletion_auc", "insertion_auc"):
            assert row[area] == pytest.approx(rows[0][name][area], abs=0.03)
        assert len(row["deletion_scores"]) == 17 and row["status"] == rows[0][name]["status"]
    assert rows[1][RANDOM]["srg"] == pytest.approx(0, abs=1e-9)
    assert rows[1]["truth"]["deletion_auc"] != rows[0]["truth"]["deletion_auc"]


# --- Maps and orders ----------------------------------------------------------------------------------------------


def test_ties_are_seeded_by_image_and_method():
    flat = np.zeros((5, 5), np.float32)
    keys = [(0, "a", "m"), (0, "a", "m"), (0, "a", "n"), (0, "b", "m"), (1, "a", "m")]
    orders = [map_order(flat, *key) for key in keys]
    assert np.array_equal(orders[0], orders[1])
    assert len({tuple(order) for order in orders}) == 4
    assert tie_share(flat) == 1.0
    assert tie_share(np.array([[1.0, 2.0], [1.0, 3.0]])) == 0.5
    assert tie_share(np.arange(4.0).reshape(2, 2)) == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_invalid_and_alone(vlm, bad):
    pixels = picture(vlm)
    truth = rising(vlm, pixels)
    broken = truth.copy()
    broken[1, 2] = bad
    rows = score(vlm, pixels, [case_of(vlm, {"broken": broken, "truth": truth})])[0]
    assert rows["broken"]["status"] == "invalid" and "broken" in rows["broken"]["reason"]
    assert "deletion_auc" not in rows["broken"] and "order" not in rows["broken"]
    alone = score(vlm, pixels, [case_of(vlm, {"truth": truth})])[0]
    assert all(same(rows[name], alone[name]) for name in alone)


def test_maps_do_not_depend_on_the_company(random_vlm, pictures):
    """Bit for bit the same together, in the other order and alone, for prompts and answers of several lengths."""
    images, protocol = pictures(random_vlm, 2), Protocol(max_new_tokens=2)
    questions = ["Is there a nodule?", "What is the finding?", "Is there a nodule in the left lung?"]
    kinds, methods = ["yes_no", "open", "yes_no"], build_methods({"chefer": {}, "gradient": {}, "oracle": {}})
    cells, read, made = [torch.rand(8, 8), None, torch.rand(8, 8)], [], []
    for index, image in enumerate(images):
        read += read_answers(random_vlm, image, f"i{index}", questions, kinds, protocol, cells)
    pixels = [image for image in images for _ in questions]
    everyone = list(range(len(read)))
    for runs in ([everyone], [everyone[::-1]], [[i] for i in everyone]):
        cases = [
            replace(c, reply=replace(c.reply, yes_no_mass=0.9), maps={}, extras={}, sequences={}, costs={})
            for c in read
        ]
        for run in runs:
            compute_maps(random_vlm, methods, [pixels[i] for i in run], [cases[i] for i in run], 0)
        made.append(cases)
    for cases in made[1:]:
        for case, first in zip(cases, made[0], strict=True):
            assert case.maps.keys() == first.maps.keys()
            assert all(np.array_equal(case.maps[name], first.maps[name]) for name in case.maps)
    assert [set(case.maps) for case in made[0][:2]] == [{"chefer", "gradient", "oracle"}, {"chefer", "gradient"}]
    assert np.array_equal(made[0][0].maps["oracle"], cells[0].numpy())
    costs = made[0][0].costs
    assert (costs["chefer"]["forwards"], costs["chefer"]["backwards"], costs["oracle"]["forwards"]) == (1, 1, 0)
    assert made[0][1].costs["chefer"]["backwards"] == len(made[0][1].target.scored)
    assert costs["chefer"]["seconds"] > 0 and costs["chefer"]["peak_memory"] is None
    (alone,) = read_answers(random_vlm, images[0], "i0", questions[:1], kinds[:1], protocol, cells[:1])
    alone.reply = replace(alone.reply, yes_no_mass=0.9)
    compute_maps(random_vlm, {"gradient": methods["gradient"]}, pixels[:1], [alone], 0)
    passes = [[of["gradient"][name] for name in ("forwards", "backwards")] for of in (costs, alone.costs)]
    assert passes == [[1, 1], [1, 1]]  # together, chefer has run them


def test_shared_tokens_and_gradients_change_no_bit_and_save_passes(random_vlm, pictures):
    """Per case: the tower sees the picture and its substrate once, and four methods share one backward."""
    pixels, protocol = pictures(random_vlm, 1)[0], Protocol(max_new_tokens=2)
    methods = build_methods(
        {name: {} for name in ("attention", "chefer", "chefer_global", "gradient", "grad_x_input")}
        | {"integrated_gradients": {"steps": 2}}
        | {"ig_mean": {"class": "integrated_gradients", "baseline": "mean", "steps": 3}}
    )
    made, spent = [], []
    for share in (True, False):
        cases = read_answers(
            random_vlm, pixels, IMAGE, ["Is there a nodule?", "Any opacity?"], ["yes_no"] * 2, protocol
        )
        before = random_vlm.counts.snapshot()
        compute_maps(random_vlm, methods, [pixels] * 2, cases, 0, only_in_format=False, share=share)
        after = random_vlm.counts
        spent.append([(getattr(after, s) - getattr(before, s)) // 2 for s in ("encode", "trace", "backward")])
        made.append(cases)
    for case, alone in zip(*made, strict=True):
        assert all(np.array_equal(case.maps[name], alone.maps[name]) for name in methods)
        assert case.extras == alone.extras
    assert not np.array_equal(made[0][0].maps["gradient"], made[0][1].maps["gradient"])  # each question has its own
    #                 attention, chefer, global, gradient, x input, paths with their ends
    assert spent[0] == [1 + 2, 1 + 1 + 0 + 0 + 0 + 4 + 5, 0 + 1 + 0 + 0 + 0 + 2 + 3]
    # Alone, grad_x_input encodes the picture for the path and again for the gradient.
    assert spent[1] == [1 + 1 + 1 + 1 + 3 + 2 + 2, 1 + 1 + 1 + 1 + 1 + 4 + 5, 0 + 1 + 1 + 1 + 1 + 2 + 3]


def test_relevancies_of_longer_answers_share_their_backwards(random_vlm, pictures):
    """One for each token, and one more for the gradient of their mean, which agrees with the mean of theirs."""
    pixels, protocol = pictures(random_vlm, 1)[0], Protocol(max_new_tokens=3)
    methods = build_methods({name: {} for name in ("chefer", "chefer_global", "gradient")})
    made = []
    for share in (True, False):
        (case,) = read_answers(random_vlm, pixels, IMAGE, ["Where is it?"], ["open"], protocol)
        before = random_vlm.counts.snapshot()
        compute_maps(random_vlm, methods, [pixels], [case], 0, share=share)
        tokens, after = len(case.target.scored), random_vlm.counts
        assert tokens > 1
        assert after.trace - before.trace == (2 if share else 3)
        assert after.backward - before.backward == (tokens + 1 if share else 2 * tokens + 1)
        made.append(case)
    assert all(np.array_equal(made[0].maps[name], made[1].maps[name]) for name in methods)
    batch = AttributionBatch(pixels[None], [made[0].prompt], [IMAGE])
    each = backwards(random_vlm, batch, [made[0].target])
    mean = torch.stack([one.gradient for one in each]).mean(0).norm(dim=-1).reshape(random_vlm.grid)
    np.testing.assert_allclose(made[0].maps["gradient"], mean.numpy(), rtol=1e-4, atol=1e-7)


def test_shared_values_belong_to_their_pictures_and_prompts(vlm):
    first, second = picture(vlm, 0)[None], picture(vlm, 1)[None]
    alone = AttributionBatch(first, [vlm.prompt("q")], [IMAGE])
    assert alone.tokens(vlm) is not alone.tokens(vlm)
    batch = replace(alone, shared=SharedWork(vlm.counts))
    tokens = batch.tokens(vlm)
    assert batch.tokens(vlm) is tokens
    assert torch.equal(replace(batch, pixels=second).tokens(vlm), vlm.encode(second))
    assert replace(batch, pixels=first[:]).tokens(vlm) is tokens  # the same picture, seen anew
    assert batch.share("x", lambda: torch.zeros(1)) is not replace(batch, prompts=[vlm.prompt("r")]).share(
        "x", lambda: torch.ones(1)
    )


def test_nothing_is_explained_without_a_target_or_in_another_format(vlm):
    pixels = picture(vlm)
    off = replace(case_of(vlm, {}), reply=replace(YES, yes_no_mass=0.49))
    none = replace(case_of(vlm, {}), target=None)
    fine = replace(case_of(vlm, {}), reply=replace(YES, yes_no_mass=0.5))
    other = replace(case_of(vlm, {}), reply=off.reply, kind="open")
    compute_maps(vlm, build_methods({"gradient": {}}), [pixels] * 4, [off, none, fine, other], 0)
    assert [set(case.maps) for case in (off, none, fine, other)] == [set(), set(), {"gradient"}, {"gradient"}]


def test_the_oracle_is_for_yes_no_questions_with_a_mask(vlm):
    pixels, cells = picture(vlm), torch.rand(vlm.grid)
    cases = [case_of(vlm, {}, finding_cells=cells), case_of(vlm, {}, finding_cells=cells), case_of(vlm, {})]
    cases[1].kind = "open"
    compute_maps(vlm, build_methods({"oracle": {}, "gradient": {}}), [pixels] * 3, cases, 0)
    assert [set(case.maps) for case in cases] == [{"oracle", "gradient"}, {"gradient"}, {"gradient"}]


def test_extras_are_kept_for_each_sample(vlm):
    class Named(Method):
        def attribute(self, vlm, batch, target):
            maps = torch.zeros(len(batch.prompts), *vlm.grid)
            return Attribution(maps, {"name": [float(i) for i in batch.image_ids]})

    cases = [replace(case_of(vlm, {}), image_id=str(i)) for i in range(5)]
    compute_maps(vlm, {"named": Named()}, [picture(vlm)] * 5, cases, 0)
    assert [case.extras["named"] for case in cases] == [{"name": float(i)} for i in range(5)]


# --- Status -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "bias", "status"),
    [(1.0, 0.0, "ok"), (-1.0, 0.0, "inverted"), (0.001, 0.0, "degenerate"), (1.0, 1e4, "degenerate")],
)
def test_status_of_a_curve(scale, bias, status):
    vlm = LinearVLM({"q": np.full((4, 4), 1.0)}, bias={"q": bias})
    pixels = torch.ones(3, *vlm.image_size) * scale
    case = case_of(vlm, {"map": np.arange(16.0).reshape(4, 4)})
    rows = score(vlm, pixels, [case], substrate=Substrate.parse("zero"))[0]
    effect = 16 * 1.5 * scale
    for name in ("map", CENTER, RANDOM):
        row = rows[name]
        assert row["status"] == status
        assert row["effect"] == pytest.approx(effect, rel=1e-3)
        assert math.isnan(row["srg"]) == math.isnan(row["drop_50"]) == (status != "ok")
        assert math.isfinite(row["deletion_auc_logit"]) and math.isfinite(row["insertion_auc_prob"])


def test_off_format_keeps_the_end_points_only(vlm):
    pixels = picture(vlm)
    case = case_of(vlm, {"map": rising(vlm, pixels)})
    case.reply = replace(YES, yes_no_mass=0.1)
    row = score(vlm, pixels, [case])[0]["map"]
    assert row["status"] == "off_format"
    assert math.isfinite(row["effect"])
    assert all(math.isnan(row[column]) for column in CURVE_COLUMNS)


def poison(vlm, pixels, cell):
    """NaN on the one picture that shows everything but one cell."""
    whole, bare = vlm.encode(pixels[None])[0], vlm.encode(removed_of(pixels)[None])[0]
    wanted = whole.clone()
    wanted[cell] = bare[cell]
    vlm.poison = lambda tokens: torch.isclose(tokens, wanted, atol=1e-6).all(-1).all(-1)


def test_nan_on_one_picture_makes_that_curve_invalid(vlm):
    pixels, protocol = picture(vlm), replace(PROTOCOL, steps=16, random_orders=2)
    truth = rising(vlm, pixels)
    case = case_of(vlm, {"truth": truth, "other": np.roll(truth, 1)})
    before = score(vlm, pixels, [case], protocol)[0]
    first = {name: before[name]["order"][0] for name in ("truth", "other", CENTER)}
    last = {name: before[name]["order"][-1] for name in ("truth", "other", CENTER)}
    shuffled = random_orders(16, 2, stream(0, IMAGE, "orders"))
    taken = {first["other"], first[CENTER], last["other"], last[CENTER], *shuffled[:, 0], *shuffled[:, -1]}
    assert first["truth"] not in taken  # or the example does not show what it should
    poison(vlm, pixels, first["truth"])
    after = score(vlm, pixels, [case], protocol)[0]
    assert after["truth"]["status"] == "invalid"
    assert all(math.isnan(after["truth"][c]) for c in (*CURVE_COLUMNS, "gap_srg_center", "random_z"))
    assert all(same(after[name], before[name]) for name in ("other", CENTER, RANDOM))


@pytest.mark.parametrize("pair", [0, 1])
def test_nan_in_any_random_order_makes_the_random_row_invalid(vlm, pair):
    pixels, protocol = picture(vlm), replace(PROTOCOL, steps=16, random_orders=4)
    truth = rising(vlm, pixels)
    before = score(vlm, pixels, [case_of(vlm, {"truth": truth})], protocol)[0]
    ends = {cell for name in ("truth", CENTER) for cell in (before[name]["order"][0], before[name]["order"][-1])}
    shuffled = random_orders(16, 4, stream(0, IMAGE, "orders"))
    cell = next(c for c in (shuffled[2 * pair, 0], shuffled[2 * pair, -1]) if c not in ends)
    assert cell not in shuffled[2 - 2 * pair, [0, -1]]
    poison(vlm, pixels, int(cell))
    after = score(vlm, pixels, [case_of(vlm, {"truth": truth})], protocol)[0]
    assert math.isnan(after[RANDOM]["deletion_auc"])
    assert after[RANDOM]["status"] == "invalid"
    assert after["truth"]["status"] == "ok" and after["truth"]["srg"] == before["truth"]["srg"]
    assert math.isnan(after["truth"]["gap_srg_random"]) and math.isnan(after["truth"]["random_z"])


def test_nan_on_the_intact_picture(vlm):
    pixels = picture(vlm)
    vlm.poison = lambda tokens: torch.ones(len(tokens), dtype=torch.bool)
    rows = score(vlm, pixels, [case_of(vlm, {"map": truth_of(vlm, pixels)})])[0]
    assert {row["status"] for row in rows.values()} == {"invalid"}


# --- One image, several questions ---------------------------------------------------------------------------------


def test_questions_do_not_change_each_other(vlm):
    """Together or alone, to the last bit."""
    pixels = picture(vlm)
    cases = [
        case_of(vlm, {"truth": rising(vlm, pixels, question), "same": np.eye(4)}, question) for question in ("q", "r")
    ]
    together = score(vlm, pixels, cases)
    for case, rows in zip(cases, together, strict=True):
        assert same(score(vlm, pixels, [case])[0], rows)
    assert together[0][RANDOM]["k"] == together[1][RANDOM]["k"]
    assert together[0]["same"]["order"] == together[1]["same"]["order"]
    assert together[0]["same"]["deletion_scores"] != together[1]["same"]["deletion_scores"]


def test_pictures_are_run_once_for_all_questions_methods_and_baselines():
    """2 ends + 2(T - 1) for each map and for center + (T - 1) for each random order, whatever the questions."""
    vlm = LinearVLM({"q": np.random.default_rng(0).random((8, 8)), "r": np.random.default_rng(1).random((8, 8))})
    pixels, rng, protocol = picture(vlm), np.random.default_rng(0), Protocol(steps=8, random_orders=6)
    shared, own = rng.random((8, 8)), [rng.random((8, 8)) for _ in range(2)]
    cases = [case_of(vlm, {"shared": shared, "own": own[i]}, q) for i, q in enumerate("qr")]
    before = vlm.counts.snapshot()
    score(vlm, pixels, cases, protocol)
    pictures = 2 + 2 * 7 * (1 + 2 + 1) + 7 * 6
    assert vlm.counts.encode - before.encode == pictures
    assert vlm.counts.score - before.score == 2 * (2 + 2 * 7 * 3 + 7 * 6)


def test_a_paraphrase_costs_no_picture():
    vlm = LinearVLM({"q": np.random.default_rng(0).random((4, 4)), "r": np.random.default_rng(0).random((4, 4))})
    pixels, shared = picture(vlm), np.random.default_rng(0).random((4, 4))
    encoded = []
    for questions in ("q", "qr"):
        before = vlm.counts.encode
        rows = score(vlm, pixels, [case_of(vlm, {"map": shared}, q) for q in questions])
        encoded.append(vlm.counts.encode - before)
    assert encoded[0] == encoded[1]
    assert same(rows[0], rows[1])


def test_controls_of_one_image_cost_one_question(vlm):
    """Center, edges and random_map order the cells by the picture alone: a second question adds no picture."""
    pixels, protocol = picture(vlm), PROTOCOL
    methods = build_methods({"center": {}, "edges": {}, "random_map": {}})
    cases = [case_of(vlm, {}, question) for question in "qr"]
    compute_maps(vlm, methods, [pixels] * 2, cases, protocol.seed)
    before = vlm.counts.snapshot()
    score(vlm, pixels, cases, protocol)
    pictures = 2 + 2 * 7 * 3 + 7 * 6
    assert (vlm.counts.encode - before.encode, vlm.counts.score - before.score) == (pictures, 2 * pictures)


# --- Answers and targets ------------------------------------------------------------------------------------------


def test_margins_are_oriented_by_the_models_own_answer(vlm):
    pixels = picture(vlm)
    vlm.bias["q"] = -50.0
    case = read_answers(vlm, pixels, IMAGE, ["q"], [None], PROTOCOL)[0]
    assert (case.kind, case.target) == ("yes_no", Target("margin", "answer", sign=-1))
    row = score(vlm, pixels, [case])[0][CENTER]
    assert row["s_original"] == pytest.approx(-case.reply.margin) and row["s_original"] > 0


@pytest.mark.parametrize(("wanted", "scored"), [("answer", (0, 2)), ("first", (0,)), (2, (2,)), ("1", (1,))])
@pytest.mark.parametrize("kind", ["choice", "open"])
def test_targets_of_several_tokens(vlm, kind, wanted, scored):
    """Mean log-odds of the scored tokens, log p and probabilities as their means, standing as the least margin."""
    pixels, protocol = picture(vlm), replace(PROTOCOL, target=wanted)
    vlm.reply = {"token_ids": (5, 6, 7), "content": (0, 2), "opens_yes_no": False, "text": "left lung"}
    vlm.bias["q"] = 1.0
    case = read_answers(vlm, pixels, IMAGE, ["q"], [kind], protocol)[0]
    assert (case.kind, case.target.kind, case.target.scored) == (kind, "tokens", scored)
    case.maps["map"] = truth_of(vlm, pixels).astype(np.float32)
    row = score(vlm, pixels, [case], protocol)[0]["map"]
    s_original = float(vlm.logit(vlm.encode(pixels[None]), vlm.prompt("q")))
    logits = vlm.curve(truth_of(vlm, pixels), s_original, row["order"], row["k"], "deletion")
    log_p = np.array([-np.log1p(np.exp(-(logits + i))) for i in scored])
    log_odds = np.array([logits + i for i in scored])
    assert np.allclose(row["deletion_scores"], log_odds.mean(0), atol=1e-4)
    assert np.allclose(row["deletion_log_p"], log_p.mean(0), atol=1e-4)
    assert row["deletion_auc_log_p"] == pytest.approx(np.trapezoid(log_p.mean(0), np.array(row["k"]) / 16), abs=1e-4)
    assert np.allclose(row["deletion_probs"], np.exp(log_p).mean(0), atol=1e-4)
    standing = logits + min(scored)
    lost = [k / 16 for k, margin in zip(row["k"], standing, strict=True) if margin < 0]
    assert math.isnan(row["flip_deletion"]) if standing[-1] >= 0 else row["flip_deletion"] == lost[0]


def test_integer_targets_of_yes_no_answers(vlm):
    case = read_answers(vlm, picture(vlm), IMAGE, ["q"], ["yes_no"], replace(PROTOCOL, target=0))[0]
    assert case.target == Target("tokens", "0", answer_ids=case.reply.token_ids, scored=(0,))


def test_what_cannot_be_explained_says_why(vlm):
    pixels = picture(vlm)
    vlm.reply = {"token_ids": (), "content": (), "text": ""}
    case = read_answers(vlm, pixels, IMAGE, ["q"], ["open"], PROTOCOL)[0]
    assert case.target is None and case.reason == "the model's answer to 'q' is empty"
    vlm.reply = {}
    case = read_answers(vlm, pixels, IMAGE, ["q"], ["open"], replace(PROTOCOL, target=4))[0]
    assert case.target is None and "no answer token 4" in case.reason
    vlm.reply = {"margin": math.nan}
    case = read_answers(vlm, pixels, IMAGE, ["q"], ["yes_no"], PROTOCOL)[0]
    assert case.target is None and "not finite" in case.reason


def test_one_prefix_answers_all_questions_of_an_image(random_vlm, pictures):
    pixels, questions = pictures(random_vlm, 1)[0], ["Is there a nodule?", "What is the finding?"]
    before, cells = random_vlm.counts.snapshot(), [torch.ones(8, 8), None]
    cases = read_answers(random_vlm, pixels, IMAGE, questions, [None, "open"], Protocol(max_new_tokens=2), cells)
    assert random_vlm.counts.encode - before.encode == random_vlm.counts.prefill - before.prefill == 1
    assert [case.prompt.question for case in cases] == questions
    assert [case.finding_cells for case in cases] == cells
    for case, question in zip(cases, questions, strict=True):
        alone = read_answers(random_vlm, pixels, IMAGE, [question], [case.kind], Protocol(max_new_tokens=2))[0]
        assert alone.reply == case.reply and alone.target == case.target


def test_a_question_with_control_tokens_costs_only_itself(random_vlm, pictures):
    """What a user typed must not open a second image block or stop the run."""
    questions = ["Is there a <start_of_image> nodule?", "Is there a <image_soft_token> nodule?", "Is there a nodule?"]
    cases = read_answers(random_vlm, pictures(random_vlm, 1)[0], IMAGE, questions, ["yes_no"] * 3, Protocol())
    assert cases[2].target is not None
    assert [case.target for case in cases[:2]] == [None, None]
    assert all(case.reason for case in cases[:2])


# --- Protocol -----------------------------------------------------------------------------------------------------


def test_protocol_spells_substrates_and_targets_in_one_way():
    protocol = Protocol(substrates=("blur", "mean", "blur:0.20"), target="3")
    assert protocol.substrates == ("blur:0.1", "mean", "blur:0.2")
    assert protocol.target == 3
    assert Protocol() == Protocol(("blur:0.1",), 50, 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"substrates": ()}, "one or more, each listed once"),
        ({"substrates": ("blur", "blur:0.1")}, "one or more, each listed once"),
        ({"substrates": ("blurr",)}, "'blurr'"),
        ({"random_orders": 7}, "even .* got 7"),
        ({"random_orders": 0}, "at least 2, got 0"),
        ({"steps": 0}, "at least 1"),
        ({"softness": -1.0}, "softness must not be negative"),
        ({"steps": "adaptve"}, "a whole number or adaptive, got 'adaptve'"),
        ({"auc_error": 0.0}, "auc_error is a share"),
        ({"random_error": 1.0}, "random_error is a share"),
        ({"space": "sky"}, "space must be one of pixels, tokens"),
        ({"space": "tokens", "softness": 1.0}, "softness must be 0"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"target": "all"}, "target must be"),
    ],
)
def test_wrong_protocols(options, message):
    with pytest.raises(ValueError, match=message) as error:
        Protocol(**options)
    assert "\n" not in str(error.value)


def test_a_schedule_must_fit_the_grid():
    Protocol(steps=50).check_grid((16, 16))
    with pytest.raises(ValueError, match="more than the 16 cells"):
        Protocol(steps=50).check_grid((4, 4))
    with pytest.raises(ValueError, match="use 49 or 51 steps"):
        Protocol(steps=50).check_grid((15, 15))
