"""Plans and the engine: against one picture at a time, and against closed forms."""

import numpy as np
import pytest
import torch

from cxr_faith.cases import read_answers
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.perturb.schedule import keep_masks, random_orders, schedule
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.vlm import Target
from cxr_faith.vlm.micro_batch import MicroBatch
from tests.analytic import MARGIN, LinearVLM, picture
from tests.reference import gemma

QUESTION = "Is there a nodule?"
FIELDS = ("s", "probability", "standing")


def answer_of(vlm, text="left lung and right lung"):
    ids = vlm.tokenizer(text, add_special_tokens=False)["input_ids"][:3]
    return Target("tokens", answer_ids=tuple(ids), scored=(0, 1, 2))


def plan_of(n_cells, orders, k, question=0):
    """A plan and the places [orders, 2, T + 1] of its curves."""
    plan = Plan(n_cells)
    places = [[plan.add(question, keep_masks(o, k, mode)) for mode in ("deletion", "insertion")] for o in orders]
    return plan, np.array(places)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("random_vlm", 4),
        ("random_vlm", 7),
        ("windowed_vlm", 5),
        ("bundled", 4),
        pytest.param("bundled", 13, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kind", ["margin", "tokens"])
def test_curves_are_those_of_one_picture_at_a_time(request, pictures, name, steps, kind):
    """Full forwards of transformers' model on pictures composed in NumPy, for steps that divide N and that do not."""
    vlm = request.getfixturevalue(name)
    original = pictures(vlm, 1, seed=steps)[0]
    removed = Substrate.parse("blur:0.1").apply(original[None], ["a"], 0)[0]
    k, rng = schedule(vlm.n_cells, steps), np.random.default_rng(steps)
    order, target = rng.permutation(vlm.n_cells), Target("margin", sign=-1) if kind == "margin" else answer_of(vlm)
    plan, places = plan_of(vlm.n_cells, [order, rng.permutation(vlm.n_cells)], k)
    scores = Engine(vlm).run(original, removed, plan, [vlm.prompt(QUESTION)], [target])[0]
    computed = np.stack([getattr(scores, name).numpy() for name in FIELDS], axis=-1)
    twin = gemma.twin_model(vlm.model)
    for side, mode in enumerate(("deletion", "insertion")):
        expected = gemma.curve(vlm, twin, original, removed, order, k, mode, QUESTION, target)
        assert np.abs(computed[places[0, side]] - expected).max() < 1e-4
        assert np.ptp(expected[:, 0]) > 1e-2  # the curve is not flat: the test could fail


@pytest.mark.parametrize("steps", [3, 4, 5, 15])
def test_curves_of_a_linear_model(steps):
    weights = np.random.default_rng(1).standard_normal((3, 5))
    vlm = LinearVLM({"q": weights}, bias={"q": 0.3})
    original = picture(vlm)
    for spec in ("blur:0.1", "mean", "zero", "noise"):
        if steps == 4:
            with pytest.raises(ValueError, match="use 3 or 5 steps"):
                schedule(15, steps)
            return
        removed = Substrate.parse(spec).apply(original[None], ["a"], 0)[0]
        k, orders = schedule(15, steps), random_orders(15, 4, np.random.default_rng(0))
        plan, places = plan_of(15, orders, k)
        scores = Engine(vlm, micro_batch=4).run(original, removed, plan, [vlm.prompt("q")], [MARGIN])[0]
        with torch.no_grad():
            s_original = float(vlm.logit(vlm.encode(original[None]), vlm.prompt("q")))
        truth = vlm.contributions(original, removed, "q")
        for order, row in zip(orders, places, strict=True):
            for side, mode in enumerate(("deletion", "insertion")):
                expected = vlm.curve(truth, s_original, order, k, mode)
                assert np.abs(scores.s[row[side]].numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("softness", [0.0, 4.0])
@pytest.mark.parametrize("micro_batch", [1, 2, 5, 64])
def test_micro_batches_do_not_matter(random_vlm, pictures, micro_batch, softness):
    """Bit for bit."""
    original = pictures(random_vlm, 1)[0]
    removed, k = torch.zeros_like(original), schedule(64, 4)
    plan, _ = plan_of(64, random_orders(64, 2, np.random.default_rng(0)), k)
    prompts, targets = [random_vlm.prompt(QUESTION)], [answer_of(random_vlm)]
    expected = Engine(random_vlm, softness).run(original, removed, plan, prompts, targets)[0]
    computed = Engine(random_vlm, softness, micro_batch).run(original, removed, plan, prompts, targets)[0]
    assert all(torch.equal(getattr(computed, name), getattr(expected, name)) for name in FIELDS)


@pytest.mark.parametrize("name", ["bundled", "random_vlm"])
def test_hard_cells_are_selected_from_the_patches_of_two_pictures(request, pictures, name, monkeypatch):
    """The same bits as from composed pictures, and two pictures go through the patch embedding, not all of them."""
    vlm = request.getfixturevalue(name)
    original = pictures(vlm, 1)[0]
    removed = Substrate.parse("blur:0.1").apply(original[None], ["a"], 0)[0]
    plan, _ = plan_of(vlm.n_cells, random_orders(vlm.n_cells, 2, np.random.default_rng(0)), schedule(vlm.n_cells, 4))
    run, cut = [original, removed, plan, [vlm.prompt(QUESTION)], [MARGIN]], []
    embedding = vlm.model.model.vision_tower.get_submodule("embeddings.patch_embedding")
    hook = embedding.register_forward_hook(lambda module, args, output: cut.append(len(args[0])))
    try:
        computed, before = Engine(vlm).run(*run)[0], vlm.counts.snapshot()
        assert cut == [2]
        Engine(vlm, softness=1.0).run(*run)
        assert sum(cut) == 2 + len(plan) and vlm.counts.embed - before.embed == len(plan)
    finally:
        hook.remove()
    monkeypatch.setattr(vlm, "shortcuts", False)
    assert torch.equal(Engine(vlm).run(*run)[0].s, computed.s)


@pytest.mark.parametrize("name", ["bundled", "random_vlm"])
def test_tokens_are_changed_behind_the_tower(request, pictures, name):
    """The tower sees two pictures; the ends are those of pixels, bit for bit; between them tokens know more."""
    vlm = request.getfixturevalue(name)
    original = pictures(vlm, 1)[0]
    removed, order = torch.zeros_like(original), np.random.default_rng(0).permutation(vlm.n_cells)
    plan, places = plan_of(vlm.n_cells, [order], schedule(vlm.n_cells, 4))
    run, before = [original, removed, plan, [vlm.prompt(QUESTION)], [MARGIN]], vlm.counts.snapshot()
    computed = Engine(vlm).run(*run, space="tokens")[0].s
    assert vlm.counts.encode - before.encode == 2
    assert vlm.counts.prefill - before.prefill == len(plan)
    pixels, ends = Engine(vlm).run(*run)[0].s, places[0, 0, [0, -1]]
    assert torch.equal(computed[ends], pixels[ends]) and (computed != pixels).sum() == len(plan) - 2
    with torch.no_grad():
        intact, gone = vlm.encode(torch.stack([original, removed]))
        mixed = intact.clone()
        mixed[order[: vlm.n_cells // 4]] = gone[order[: vlm.n_cells // 4]]
        expected = vlm.trace(mixed[None], [vlm.prompt(QUESTION)], [MARGIN])
    assert float(computed[places[0, 0, 1]]) == pytest.approx(float(expected), abs=1e-4)


def test_a_plan_holds_each_picture_once():
    """2 shared ends, 2(T - 1) for a map, and only 2(T - 1) for a random pair, by the mirror identity."""
    k, rng = schedule(64, 8), np.random.default_rng(0)
    maps, shuffled = [rng.permutation(64) for _ in range(3)], random_orders(64, 6, rng)
    plan, places = plan_of(64, [*maps, *shuffled], k)
    assert len(plan) == 2 + 2 * 7 * len(maps) + 7 * len(shuffled)
    assert len(plan) == len(
        {tuple(m) for o in [*maps, *shuffled] for m in keep_masks(o, k, "deletion").tolist()}
        | {tuple(m) for o in [*maps, *shuffled] for m in keep_masks(o, k, "insertion").tolist()}
    )
    assert np.array_equal(places[3::2, 0], places[4::2, 1][:, ::-1])
    assert (places[:, 0, 0] == places[0, 0, 0]).all() and (places[:, 1, -1] == places[0, 0, 0]).all()
    again = len(plan)
    plan.add(0, keep_masks(maps[0][::-1], k, "deletion"))
    assert len(plan) == again


def test_places_lead_back_to_their_masks():
    k, order = schedule(15, 7), np.random.default_rng(0).permutation(15)
    plan, places = plan_of(15, [order], k)
    [(questions, where, masks)] = plan.groups()
    assert questions == (0,)
    by_place = dict(zip(where.tolist(), masks.tolist(), strict=True))
    for side, mode in enumerate(("deletion", "insertion")):
        assert [by_place[place] for place in places[0, side]] == keep_masks(order, k, mode).tolist()


def test_masks_that_differ_in_padding_only_are_not_merged():
    plan, masks = Plan(9), np.zeros((2, 9), bool)
    masks[1, 8] = True
    assert plan.add(0, masks).tolist() == [0, 1]


def test_questions_of_one_image_share_its_pictures():
    """A picture that two questions need is encoded and prefilled once; each question is scored on its own only."""
    vlm = LinearVLM({"q": np.random.default_rng(0).random((4, 4)), "r": np.random.default_rng(1).random((4, 4))})
    k, rng = schedule(16, 4), np.random.default_rng(0)
    shared, own = rng.permutation(16), rng.permutation(16)
    plan = Plan(16)
    for question in (0, 1):
        plan.add(question, keep_masks(shared, k, "deletion"))
    places = plan.add(1, keep_masks(own, k, "deletion"))
    assert len(plan) == 5 + 3
    original, prompts = picture(vlm), [vlm.prompt("q"), vlm.prompt("r")]
    before = vlm.counts.snapshot()
    first, second = Engine(vlm).run(original, torch.zeros_like(original), plan, prompts, [MARGIN, MARGIN])
    assert vlm.counts.encode - before.encode == vlm.counts.prefill - before.prefill == len(plan)
    assert vlm.counts.score - before.score == 5 + len(plan)
    assert second.s.isfinite().all()
    asked = torch.zeros(len(plan), dtype=torch.bool)
    asked[:5] = True
    assert torch.equal(first.s.isfinite(), asked)
    assert first.s[places[1:-1]].isnan().all()
    alone = Plan(16)
    where = alone.add(0, keep_masks(own, k, "deletion"))
    again = Engine(vlm).run(original, torch.zeros_like(original), alone, prompts[1:], [MARGIN])[0]
    assert torch.equal(again.s[where], second.s[places])


def test_running_out_of_memory_halves_the_batch_for_good():
    vlm = LinearVLM({"q": np.random.default_rng(0).random((4, 4))})
    original = picture(vlm)
    removed, k = torch.zeros_like(original), schedule(16, 16)
    plan, _ = plan_of(16, random_orders(16, 2, np.random.default_rng(0)), k)
    run = [plan, [vlm.prompt("q")], [MARGIN]]
    expected = Engine(vlm).run(original, removed, *run)[0]
    vlm.limit = 3
    engine = Engine(vlm, micro_batch=16)
    assert torch.equal(engine.run(original, removed, *run)[0].s, expected.s)
    assert engine.micro_batch == 2
    vlm.limit = None
    engine.run(original, removed, *run)
    assert engine.micro_batch == 2


def test_padded_micro_batches_are_full_and_change_nothing(random_vlm, pictures, monkeypatch):
    """Each stage sees one number of rows whatever the number of pictures; padding is counted and never scored."""
    original, rows = pictures(random_vlm, 1)[0], []
    plan, _ = plan_of(64, random_orders(64, 2, np.random.default_rng(0)), schedule(64, 4))
    plan.add(1, keep_masks(np.arange(64), schedule(64, 4), "deletion"))
    run = [
        original,
        torch.zeros_like(original),
        plan,
        [random_vlm.prompt(QUESTION)] * 2,
        [MARGIN, answer_of(random_vlm)],
    ]
    expected, before = Engine(random_vlm).run(*run), random_vlm.counts.snapshot()
    for name in ("encode_embedded", "prefill"):
        stage = getattr(random_vlm, name)
        monkeypatch.setattr(random_vlm, name, lambda rows_in, stage=stage: rows.append(len(rows_in)) or stage(rows_in))
    for one, other in zip(Engine(random_vlm, micro_batch=MicroBatch(5, padded=True)).run(*run), expected, strict=True):
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    sizes, after = [len(masks) for *_, masks in plan.groups()], random_vlm.counts
    passes = sum(-(-size // 5) for size in sizes)
    assert rows == 2 * passes * [5] and len(sizes) == 3  # pictures of either question, and those of both
    assert after.padding - before.padding == after.score - before.score - plan.questions_asked > 0
    assert after.forwards - before.forwards == plan.questions_asked


def test_an_answer_takes_a_pass_as_large_as_those_of_the_curves(random_vlm, pictures):
    """The picture is repeated, and the answer is the same."""
    engine, pixels = Engine(random_vlm, micro_batch=MicroBatch(3, padded=True)), pictures(random_vlm, 1)[0]
    before, rows = random_vlm.counts.snapshot(), []

    def read(copies):
        rows.append(copies)
        return read_answers(random_vlm, pixels, "a", [QUESTION], ["open"], Protocol(max_new_tokens=3), copies=copies)

    (case,), (alone,) = engine.whole_pass(read), read(1)
    assert case == alone and rows == [3, 1]
    assert random_vlm.counts.encode - before.encode == 4 and random_vlm.counts.forwards - before.forwards == 2


def test_a_plan_without_pictures_has_no_scores():
    vlm, plan = LinearVLM({"q": np.ones((4, 4))}), Plan(16)
    assert plan.add(0, np.empty((0, 16), bool)).shape == (0,)
    (computed,) = Engine(vlm).run(picture(vlm), picture(vlm), plan, [vlm.prompt("q")], [MARGIN])
    assert computed.s.shape == (0,) and vlm.counts.encode == 0


def test_an_error_that_halving_cannot_cure_is_raised(monkeypatch):
    vlm = LinearVLM({"q": np.ones((4, 4))})
    original, (plan, _) = picture(vlm), plan_of(16, [np.arange(16)], schedule(16, 4))
    run = [original, original, plan, [vlm.prompt("q")], [MARGIN]]
    vlm.limit, engine = 0, Engine(vlm, micro_batch=8)
    with pytest.raises(torch.OutOfMemoryError):
        engine.run(*run)
    assert engine.micro_batch == 1

    def broken(pixels):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(vlm, "encode", broken)
    engine = Engine(vlm, micro_batch=8)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        engine.run(*run)
    assert engine.micro_batch == 8


def test_a_picture_that_scores_nan_spoils_only_itself():
    vlm = LinearVLM({"q": np.random.default_rng(0).random((4, 4))})
    original = picture(vlm)
    removed, k = torch.zeros_like(original), schedule(16, 4)
    plan, places = plan_of(16, [np.arange(16), np.arange(16)[::-1]], k)
    good = Engine(vlm).run(original, removed, plan, [vlm.prompt("q")], [MARGIN])[0].s
    full = vlm.encode(original[None])[0]

    def exactly_the_first_four_removed(tokens):
        gone = (tokens == 0).all(-1)
        return gone[:, :4].all(-1) & (tokens[:, 4:] == full[4:]).all(-1).all(-1)

    vlm.poison = exactly_the_first_four_removed
    bad = Engine(vlm).run(original, removed, plan, [vlm.prompt("q")], [MARGIN])[0].s
    assert bad.isnan().sum() == 1 and bad[places[0, 0, 1]].isnan()
    assert torch.equal(bad[~bad.isnan()], good[~bad.isnan()])


def test_no_gradients_are_kept(random_vlm, pictures):
    original = pictures(random_vlm, 1)[0].requires_grad_()
    plan, _ = plan_of(64, [np.arange(64)], schedule(64, 2))
    with torch.enable_grad():
        scores = Engine(random_vlm).run(
            original, torch.zeros_like(original), plan, [random_vlm.prompt(QUESTION)], [MARGIN]
        )[0]
    assert not scores.s.requires_grad and not scores.standing.requires_grad
