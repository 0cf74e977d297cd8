"""iGOS++: its pieces against plain loops and finite differences, its maps against what is known."""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import METHODS, AttributionBatch
from cxr_faith.attribution.igos import IGOSPP, select_tokens
from cxr_faith.attribution.igos_loss import MaskLoss, bilateral_tv, kept_shares
from cxr_faith.data.geometry import fit
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.perturb.schedule import stream_key
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.vlm import Target
from cxr_faith.vlm.micro_batch import MicroBatch
from tests.analytic import MARGIN, LinearVLM
from tests.analytic import picture as analytic_picture
from tests.reference import igos as reference
from tests.reference.philox import normal_noise

QUESTION = "Is there a nodule?"


def explain(vlm, pixels, target=MARGIN, **options):
    prompts = [vlm.prompt(QUESTION)] * len(pixels)
    batch = AttributionBatch(pixels, prompts, [str(i) for i in range(len(pixels))], seed=3)
    return IGOSPP(**options).attribute(vlm, batch, [target] * len(pixels))


WEIGHTS = 2.0, 0.7, 0.4, 1.3
"""Scale, area, shrinkage, smoothness."""


def problem(vlm, pixels, target, steps):
    removed, (scale, area, shrinkage, smoothness) = Substrate.parse("blur:0.1").apply(pixels, ["0"], 3), WEIGHTS
    return MaskLoss(
        vlm=vlm,
        pictures=pixels,
        removed=removed,
        prompts=[vlm.prompt(QUESTION)],
        targets=[target],
        scale=torch.tensor([scale]),
        area=area,
        shrinkage=shrinkage,
        smoothness=smoothness,
        steps=steps,
        together=MicroBatch(4),
        core=lambda slopes: slopes,
    )


def settings_of(vlm, made, masks, target):
    """What the references take: one picture, in NumPy."""
    picture, removed = made.pictures[0].double().numpy(), made.removed[0].double().numpy()
    return vlm, picture, removed, masks, made.prompts[0], target


def test_total_variation():
    generator = np.random.default_rng(0)
    mask, cells = generator.random((3, 5)), generator.random((3, 5))
    computed = float(bilateral_tv(torch.from_numpy(mask), torch.from_numpy(cells)))
    assert computed == pytest.approx(reference.bilateral_tv(mask, cells), rel=1e-9)
    flat = torch.full((3, 5), 2.0)
    assert float(bilateral_tv(flat, torch.from_numpy(cells).float())) == 0
    step = torch.zeros(2, 2)
    step[:, 1] = 1
    assert float(bilateral_tv(step, torch.zeros(2, 2))) == pytest.approx(2 / 4)  # no edge in the picture, none forgiven
    assert float(bilateral_tv(step, step)) == pytest.approx(2 / 4 * np.exp(-4), rel=1e-5)  # variance 1/4


def test_shares_by_hand():
    """Deletion starts at the substrate, insertion at the picture: there the masks do nothing."""
    masks = torch.tensor([[[0.25]], [[0.5]]])
    assert kept_shares(masks, 1.0).flatten().tolist() == [0.25, 0.5, 0.125, 0.875]
    assert kept_shares(masks, 0.5).flatten().tolist() == [0.125, 0.75, 0.0625, 0.9375]
    assert kept_shares(masks, 0.0).flatten().tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("sign", [1, -1])
def test_loss_and_slopes_of_a_linear_model(sign):
    """Central differences are exact there, the loss being quadratic; 3 x 5 cells, so that swapped axes cannot pass."""
    vlm = LinearVLM({QUESTION: np.random.default_rng(0).standard_normal((3, 5))})
    pixels, target = analytic_picture(vlm)[None], Target("margin", sign=sign)
    made = problem(vlm, pixels, target, 3)
    masks = np.random.default_rng(1).uniform(0.2, 0.8, (2, 3, 5))
    settings, leaf = settings_of(vlm, made, masks, target), torch.from_numpy(masks).float()[None]
    expected = reference.loss(*settings, WEIGHTS, 3)
    assert float(made.values(leaf, None)) == pytest.approx(expected, rel=1e-4)
    losses, slopes = made.slopes(leaf, None)
    assert float(losses) == pytest.approx(expected, rel=1e-4)
    entries = [(0, 0, 0), (0, 2, 4), (1, 0, 3), (1, 2, 1)]
    twin = reference.slopes(*settings, WEIGHTS, 3, entries, 0.1)
    np.testing.assert_allclose([float(slopes[0][entry]) for entry in entries], twin, rtol=1e-3, atol=1e-5)


def test_slopes_of_a_gemma(random_vlm, pictures):
    pixels, target = pictures(random_vlm, 1), Target("margin", sign=-1)
    made = problem(random_vlm, pixels, target, 2)
    masks = np.random.default_rng(1).uniform(0.3, 0.7, (2, *random_vlm.grid))
    settings, leaf = settings_of(random_vlm, made, masks, target), torch.from_numpy(masks).float()[None]
    losses, slopes = made.slopes(leaf, None)
    assert float(losses) == pytest.approx(reference.loss(*settings, WEIGHTS, 2), rel=1e-3, abs=1e-4)
    strongest = [np.unravel_index(int(slopes[0, i].abs().argmax()), random_vlm.grid) for i in (0, 1)]
    entries = [(i, *map(int, at)) for i, at in enumerate(strongest)]
    expected = reference.slopes(*settings, WEIGHTS, 2, entries, 0.02)
    np.testing.assert_allclose([float(slopes[0][entry]) for entry in entries], expected, rtol=0.05)


@pytest.mark.parametrize("optimizer", ["momentum", "line_search"])
@pytest.mark.parametrize("cap", [False, True])
def test_the_whole_search_against_plain_loops(optimizer, cap):
    """Map, both masks and every loss; the capped score is not linear, so that steps shrink too."""
    vlm = LinearVLM({QUESTION: np.random.default_rng(7).standard_normal((3, 5))}, cell=(8, 8))
    if cap:
        vlm.combine = lambda contributions: 3 * (contributions.sum(-1) / 3).tanh()
    pixels = analytic_picture(vlm)[None]
    sign = 1 if float(vlm.logit(vlm.encode(pixels), vlm.prompt(QUESTION))) >= 0 else -1
    target, prompt = Target("margin", sign=sign), vlm.prompt(QUESTION)
    removed = Substrate.parse("zero").apply(pixels, ["0"], 3)
    ends = [float(vlm.score(vlm.encode(x), prompt, target).s) for x in (pixels, removed)]
    scale = max(abs(ends[0] - ends[1]), 0.5, 0.05 * abs(ends[0]))
    arrays, weights = (pixels[0].double().numpy(), removed[0].double().numpy()), (scale, 0.7, 0.4, 1.3)
    if optimizer == "momentum":
        masks, history = reference.momentum(vlm, *arrays, prompt, target, weights, 4, 3, 0.5, np.exp(-1))
    else:
        masks, history = reference.line_search(vlm, *arrays, prompt, target, weights, 4, 3)
    options = {"iterations": 4, "path_steps": 3, "noise": 0, "step": 0.5 / 15, "optimizer": optimizer}
    options |= {"area": 0.7, "shrinkage": 0.4, "smoothness": 1.3}
    computed = explain(vlm, pixels, target, substrate="zero", **options)
    assert len(history) == 4 and 0.05 < (1 - masks.prod(0)).mean() < 0.95
    # A cell within h of 1 stands at the kink of |1 - x·y|, where finite differences see both sides.
    np.testing.assert_allclose(computed.extras["loss_history"][0], history, rtol=1e-3)
    np.testing.assert_allclose([computed.extras[f"{m}_mask"][0] for m in ("deletion", "insertion")], masks, atol=1e-3)
    np.testing.assert_allclose(computed.maps[0].numpy(), 1 - masks[0] * masks[1], atol=1e-3)


def one_cell(at=(1, 3), grid=(3, 5), strength=4.0):
    weights = np.zeros(grid)
    weights[at] = strength
    return weights


def bright(vlm, cells):
    """A gray picture whose given cells differ from what a blur leaves of them, in favor of the answer."""
    height, width = (side // n for side, n in zip(vlm.image_size, vlm.grid, strict=True))
    picture = torch.zeros(3, *vlm.image_size)
    for row, column in cells:
        picture[:, row * height : (row + 1) * height, column * width : (column + 1) * width] = 1.0
    return picture


@pytest.mark.parametrize("optimizer", ["momentum", "line_search"])
@pytest.mark.parametrize("sign", [1, -1])
def test_one_cell_that_decides(sign, optimizer):
    vlm = LinearVLM({QUESTION: sign * one_cell()}, cell=(8, 8))
    pixels, target = bright(vlm, [(1, 3)])[None], Target("margin", sign=sign)
    computed = explain(vlm, pixels, target, substrate="zero", optimizer=optimizer)
    values = computed.maps[0]
    assert divmod(int(values.argmax()), 5) == (1, 3) and values[1, 3] > 0.5
    assert values.median() < 0.1
    history = computed.extras["loss_history"][0]
    assert len(history) == 15 and history[-1] < history[0] - 0.5


def test_a_model_that_ignores_the_picture_gets_an_empty_map():
    vlm = LinearVLM({QUESTION: np.zeros((3, 5))}, bias={QUESTION: 2.0})
    computed = explain(vlm, analytic_picture(vlm)[None])
    assert computed.maps.abs().max() == 0 and set(computed.extras["loss_history"][0]) == {0.0}


class SaturatedVLM(LinearVLM):
    """Either of two cells suffices: the logit is capped, so the gradient at the intact picture is zero."""

    def logit(self, tokens, prompt):
        return super().logit(tokens, prompt).clamp(max=3.0) - 1.5


def test_two_redundant_cells_are_both_found():
    """The path sees evidence where the score saturates; a gradient at the picture itself would be zero."""
    vlm = SaturatedVLM({QUESTION: one_cell((0, 1)) + one_cell((2, 4))}, cell=(8, 8))
    pixels = bright(vlm, [(0, 1), (2, 4)])[None]
    assert (
        float(
            METHODS["gradient"]()
            .attribute(vlm, AttributionBatch(pixels, [vlm.prompt(QUESTION)], ["0"]), [MARGIN])
            .maps.abs()
            .max()
        )
        == 0
    )
    for optimizer in ("momentum", "line_search"):
        values = explain(vlm, pixels, substrate="zero", optimizer=optimizer).maps[0]
        top = {divmod(int(i), 5) for i in values.flatten().topk(2).indices}
        assert top == {(0, 1), (2, 4)} and values.flatten().topk(2).values.min() > 0.1


def test_a_saturated_answer_has_a_map():
    """At both ends of the path the score is flat, so a loss at its end would never fall: the map would stay empty."""
    vlm = LinearVLM({QUESTION: one_cell() * 40}, cell=(8, 8))
    vlm.combine = lambda contributions: 3 * contributions.sum(-1).tanh()
    pixels = bright(vlm, [(1, 3)])[None]
    for optimizer in ("momentum", "line_search"):
        values = explain(vlm, pixels, substrate="zero", optimizer=optimizer).maps[0]
        assert divmod(int(values.argmax()), 5) == (1, 3) and values.max() > values.median()


def test_several_pictures_are_those_one_at_a_time(random_vlm, pictures):
    """Each with its own line search, noise and selected tokens; together only the passes are run."""
    pixels, options = pictures(random_vlm, 3), {"iterations": 3, "path_steps": 2}
    words = tuple(random_vlm.tokenizer("left right lung", add_special_tokens=False)["input_ids"][:3])
    prompts, names = [random_vlm.prompt(QUESTION)] * 3, ["a", "b", "c"]
    for target in (MARGIN, Target("tokens", "answer", 1, words, (0, 1, 2))):
        together = IGOSPP(**options).attribute(random_vlm, AttributionBatch(pixels, prompts, names), [target] * 3)
        for index in range(3):
            one = slice(index, index + 1)
            alone = IGOSPP(**options).attribute(
                random_vlm, AttributionBatch(pixels[one], prompts[one], names[one]), [target]
            )
            torch.testing.assert_close(together.maps[one], alone.maps, rtol=1e-3, atol=1e-4)
            assert together.extras.keys() == alone.extras.keys()
            for name, values in alone.extras.items():
                assert np.allclose(together.extras[name][index], values[0], rtol=1e-3, atol=1e-4), name


class SteepVLM(LinearVLM):
    """The score of questions about a mass is finite, its gradient is not."""

    def logit(self, tokens, prompt):
        steep = (tokens * 0).sum((1, 2)).sqrt() if "mass" in prompt.question else 0
        return super().logit(tokens, prompt) + steep


def test_pictures_end_their_search_on_their_own():
    """One that the model ignores, one that is explained and one whose gradient is not finite, in the same batch."""
    weights = {"Is it tilted?": np.zeros((3, 5)), QUESTION: one_cell(), "Is there a mass?": one_cell()}
    vlm = SteepVLM(weights, cell=(8, 8))
    pixels, prompts = bright(vlm, [(1, 3)]).repeat(3, 1, 1, 1), [vlm.prompt(question) for question in weights]
    method, names = IGOSPP(substrate="zero"), ["a", "b", "c"]
    computed = method.attribute(vlm, AttributionBatch(pixels, prompts, names), [MARGIN] * 3)
    ignored, explained, steep = computed.maps
    assert ignored.abs().max() == 0 and steep.isnan().all()
    assert divmod(int(explained.argmax()), 5) == (1, 3) and explained[1, 3] > 0.5
    alone = method.attribute(vlm, AttributionBatch(pixels[1:2], prompts[1:2], names[1:2]), [MARGIN])
    torch.testing.assert_close(alone.maps[0], explained)
    lengths = [len(history) for history in computed.extras["loss_history"]]
    assert lengths == [15, 15, 0]


def test_tokens_are_selected_by_their_likelihood_ratio():
    assert select_tokens((0, 2, 5), [1.5, 1.0, 3.0]) == (0, 5)
    assert select_tokens((0, 2, 5), [-1.0, 0.9, 0.3]) == (2,)


def test_extras_tell_about_tokens(random_vlm, pictures):
    words = tuple(random_vlm.tokenizer("left right lung", add_special_tokens=False)["input_ids"][:3])
    target = Target("tokens", "answer", 1, words, (0, 1, 2))
    extras = explain(random_vlm, pictures(random_vlm, 1), target, iterations=1, path_steps=1).extras
    assert extras["tokens"][0] == list(select_tokens((0, 1, 2), extras["llrs"][0]))
    masks = np.array([extras["deletion_mask"][0], extras["insertion_mask"][0]])
    assert masks.shape == (2, *random_vlm.grid) and masks.min() >= 0 and masks.max() <= 1


def test_noise_is_seeded_by_the_image(random_vlm, pictures):
    pixels, options = pictures(random_vlm, 1), {"iterations": 1, "path_steps": 1, "noise": 0.5}
    prompt = [random_vlm.prompt(QUESTION)]
    maps = [
        IGOSPP(**options).attribute(random_vlm, AttributionBatch(pixels, prompt, [name], seed), [MARGIN]).maps
        for name, seed in (("a", 0), ("a", 0), ("b", 0), ("a", 1))
    ]
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2]) and not torch.equal(maps[0], maps[3])


def test_each_iteration_has_noise_of_its_own_from_the_pictures_row():
    """With masks that keep all, the first term's picture is the picture with noise."""
    vlm, seen = LinearVLM({QUESTION: np.zeros((3, 5))}), []
    pixels, encode = analytic_picture(vlm)[None], vlm.encode

    def encode_and_keep(pictures):
        seen.append(pictures)
        return encode(pictures)

    vlm.encode = encode_and_keep
    explain(vlm, pixels, iterations=3, path_steps=1, noise=0.5)
    drawn = [pictures[0] - pixels[0] for pictures in seen if len(pictures) == 4]
    noise = normal_noise(stream_key(3, "0", "noise", "igos_pp"), (3, *vlm.image_size))
    assert len(drawn) == 3
    for field, expected in zip(drawn, 0.5 * float(pixels.std(correction=0)) * noise, strict=True):
        for channel in field.detach().double().numpy():
            np.testing.assert_allclose(channel, expected, atol=1e-5)


def test_a_lesion_of_the_bundled_model(bundled):
    """The loss falls, and the mask is neither empty nor full."""
    manifest = bundled_manifest().parent
    picture = sorted((manifest / "images").iterdir())[0]
    pixels = bundled.normalize(fit(load_image(picture), bundled.image_size)[0][None])
    with torch.no_grad():
        reply = bundled.answer(bundled.prefill(bundled.encode(pixels)), bundled.prompt(QUESTION), 4)
    computed = explain(bundled, pixels, Target("margin", sign=1 if reply.margin >= 0 else -1), iterations=6)
    history, values = computed.extras["loss_history"][0], computed.maps[0]
    assert history[-1] < history[0] - 0.5
    assert 0.005 < values.mean() < 0.6 and values.max() > 0.3


def test_road_has_no_path():
    assert IGOSPP(substrate="road").substrate.spec == "blur:0.1"


@pytest.mark.parametrize(
    "options", [{"iterations": 0}, {"path_steps": 0}, {"noise": -0.1}, {"area": -1.0}, {"step": 0}]
)
def test_wrong_options(options):
    with pytest.raises(ValueError, match="must"):
        IGOSPP(**options)
