"""Token activation maps against transformers' own hidden states, and their documented limits."""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import METHODS, AttributionBatch
from cxr_faith.attribution.base import MethodError
from cxr_faith.attribution.tam import Tam, context_words, rank_gaussian, residual
from cxr_faith.vlm import Target
from tests.analytic import CHANNELS, MARGIN, LinearVLM, blind, picture
from tests.reference import cam as reference
from tests.reference import gemma

QUESTION = "Is there a nodule or no nodule?"


def attribute(vlm, method, pixels, target=MARGIN, question=QUESTION):
    batch = AttributionBatch(pixels, [vlm.prompt(question)] * len(pixels), [str(i) for i in range(len(pixels))])
    return method.attribute(vlm, batch, [target] * len(pixels)).maps


def answer_of(vlm, scored):
    ids = vlm.tokenizer("left lung, no nodule", add_special_tokens=False)["input_ids"][: max(scored) + 1]
    return Target("tokens", answer_ids=tuple(ids), scored=scored)


@pytest.mark.parametrize("layer", ["auto", "last"])
@pytest.mark.parametrize("source", ["activation", "attention"])
@pytest.mark.parametrize(
    "make", [lambda v: MARGIN, lambda v: Target("margin", sign=-1), lambda v: answer_of(v, (0, 3))]
)
def test_maps_of_a_real_model(any_vlm, pictures, source, make, layer):
    pixels, target, twin = pictures(any_vlm, 2), make(any_vlm), gemma.twin_model(any_vlm.model)
    computed = attribute(any_vlm, Tam(source, layer), pixels, target)[1].double().numpy()
    count = len(any_vlm.layer_types)
    place = {"auto": count // 2, "last": count - 1}[layer]
    expected = np.mean(
        [reference.tam(any_vlm, twin, pixels[1], QUESTION, target, index, source, place) for index in target.scored],
        axis=0,
    )
    assert np.abs(computed - expected).max() < 1e-3 * max(expected.max(), 1e-3)


def test_activations_of_a_real_model_are_not_all_zero(random_vlm, pictures):
    for source in ("activation", "attention"):
        assert attribute(random_vlm, Tam(source), pictures(random_vlm, 1))[0].max() > 0


def test_states_that_nothing_reads(bundled, pictures):
    """The gradient of an answer by the image tokens' last states is 0, and such a map says so; others' is not."""
    batch = AttributionBatch(pictures(bundled, 1), [bundled.prompt(QUESTION)], ["a"])
    states, count = {}, len(bundled.layer_types)
    with torch.enable_grad():
        tokens = batch.tokens(bundled).detach().requires_grad_()
        score = bundled.trace(tokens, batch.prompts, [MARGIN], states=states.__setitem__)
    start = batch.prompts[0].image_start
    for layer in range(count):
        (gradient,) = torch.autograd.grad(score.sum(), [states[layer]], retain_graph=True)
        unread = bool((gradient[:, start : start + bundled.n_cells] == 0).all())
        extras = Tam(layer=layer).attribute(bundled, batch, [MARGIN]).extras
        assert extras == ({"caution": ["not assessable: nothing reads these states"]} if unread else {})
        assert unread == (layer == count - 1)
    assert (
        Tam().chosen_layer(bundled) == count // 2
        and not Tam("attention", "last").attribute(bundled, batch, [MARGIN]).extras
    )


def test_layers_are_refused(random_vlm):
    with pytest.raises(MethodError, match="tam: layer must be 0 to 4, or -5 to -1, got 5"):
        Tam(layer=5).check(random_vlm)
    for layer in ("first", 1.5, True, None):
        with pytest.raises(ValueError, match="layer must be auto, last or the number of a decoder layer"):
            Tam(layer=layer)


def test_context_is_the_question_and_the_answer_so_far(bundled):
    prompt, target = bundled.prompt(QUESTION), answer_of(bundled, (0, 3))

    def words(target, index):
        ids, allowed = context_words(bundled, [prompt], [target], index)
        texts = bundled.decode(ids[0].tolist())
        return [text.strip() for text, kept in zip(texts, allowed[0], strict=True) if kept]

    assert "".join(words(MARGIN, 0)) == QUESTION.replace(" ", "")
    assert "no" not in words(Target("margin", sign=-1), 0)
    answered = [text.strip() for text in bundled.decode(target.answer_ids)]
    assert words(target, 3)[-3:] == [text for text in answered[:3] if text != answered[3]][-3:]
    if answered[3] == "no":
        assert "no" not in words(target, 3)


def test_rank_gaussian_is_the_loop():
    random = np.random.default_rng(0)
    values = random.random((3, 5, 7)) * (random.random((3, 5, 7)) > 0.4)
    values[1, :3, :3] = 0
    values[2, 1:4, 2:5] = 0.3
    computed = rank_gaussian(torch.from_numpy(values))
    for result, single in zip(computed.numpy(), values, strict=True):
        assert np.abs(result - reference.rank_gaussian(single)).max() < 1e-9


def test_rank_gaussian_by_hand():
    flat = torch.full((1, 4, 4), 0.7)
    assert torch.allclose(rank_gaussian(flat), flat)  # std 0: the median
    assert rank_gaussian(torch.zeros(1, 4, 4)).abs().max() == 0
    spike = torch.full((1, 5, 5), 1.0)
    spike[0, 2, 2] = 1.5
    assert rank_gaussian(spike)[0, 2, 2] < 1.01  # an outlier of one cell goes
    assert torch.equal(rank_gaussian(spike).argmax(), rank_gaussian(3 * spike).argmax())


def test_ridge_takes_out_what_the_context_holds():
    random = torch.Generator().manual_seed(0)
    context = torch.rand(4, 30, generator=random).double()
    own = torch.rand(30, generator=random).double()
    mixed = own + 5 * context[1]
    left = residual(mixed, context, 1e-6)
    assert (left @ context.T).abs().max() < 1e-3  # orthogonal to every context map
    expected = reference.ridge_residual(mixed.numpy(), list(context.numpy()), 0.1)
    computed = residual(mixed, torch.cat([context, torch.zeros(2, 30).double()]), 0.1)
    assert np.abs(computed.clamp_min(0).numpy() - expected).max() < 1e-9
    assert torch.equal(residual(mixed, torch.zeros(2, 30).double(), 0.1), mixed)


@pytest.mark.parametrize("sign", [1, -1])
def test_activation_of_a_linear_model_is_what_the_head_reads(sign):
    """The documented limit: what the answer's position takes from a cell is not seen, nor is the question."""
    weights = np.random.default_rng(0).standard_normal((3, 5))
    vlm = LinearVLM({"q": weights, "r": -weights})
    pixels = picture(vlm)[None]
    head = (vlm.encode(pixels)[0] @ torch.tensor(CHANNELS)).reshape(3, 5)
    expected = reference.rank_gaussian((sign * head).clamp_min(0).double().numpy())
    maps = [attribute(vlm, Tam(), pixels, Target("margin", sign=sign), question)[0].numpy() for question in "qr"]
    assert np.abs(maps[0] - expected).max() < 1e-5 * expected.max()
    assert np.array_equal(maps[0], maps[1])


def test_attention_finds_the_cells_that_are_looked_at():
    vlm = blind(QUESTION)
    length = vlm.n_cells + 2
    vlm.attention = torch.zeros(2, length, length)
    vlm.attention[:, -1, 1 + 14 : 1 + 16] = 0.5  # two cells of row 2: the filter takes single ones for outliers
    values = attribute(vlm, Tam("attention"), picture(vlm)[None])[0]
    # The filter weighs by rank, not by place: it cannot tell the windows apart that hold both cells.
    row, column = divmod(int(values.argmax()), vlm.grid[1])
    assert 1 <= row <= 3 and 2 <= column <= 3
    assert values[0].abs().max() == 0 and values[:, 5].abs().max() == 0
    vlm.attention[:, -1] = 0
    assert attribute(vlm, Tam("attention"), picture(vlm)[None]).abs().max() == 0


def test_what_is_not_finite_stays_with_its_sample():
    vlm = LinearVLM({QUESTION: np.ones((3, 5))})
    pixels = torch.stack([picture(vlm, 0), picture(vlm, 1)])
    pixels[0, 0, 0, 0] = torch.nan
    maps = attribute(vlm, Tam(), pixels)
    assert not maps[0].isfinite().all() and maps[1].isfinite().all()
    broken = residual(torch.full((15,), torch.nan).double(), torch.full((2, 15), torch.nan).double(), 0.1)
    assert broken.isnan().all()


def test_options():
    assert METHODS["tam"] is Tam and Tam().substrate is None
    with pytest.raises(ValueError, match="source must be one of activation, attention"):
        Tam("gradient")
    with pytest.raises(ValueError, match="ridge must be positive"):
        Tam("attention", ridge=0)
