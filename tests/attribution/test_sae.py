"""The sparse autoencoder and its maps against plain loops, finite differences and closed forms."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cxr_faith.attribution import AttributionBatch
from cxr_faith.attribution.sae import SAE, bundled_sae, pool_patches
from cxr_faith.attribution.sae_model import (
    SAEConfig,
    SAEError,
    TopKSAE,
    explained_variance,
    file_hash,
    keep_largest,
    load_sae,
    read_config,
    save_sae,
)
from cxr_faith.data.geometry import fit
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.vlm import Gemma3VLM, Target
from cxr_faith.vlm.base import ModelError
from tests.analytic import CHANNELS, MARGIN, LinearVLM
from tests.analytic import picture as analytic_picture
from tests.reference import gemma
from tests.reference import sae as reference
from tests.reference.attribution import run

QUESTION = "Is there a nodule?"


def weights_of(folder):
    return {name: tensor.double().numpy() for name, tensor in load_file(f"{folder}/sae.safetensors").items()}


def explain(vlm, method, pixels, target=MARGIN):
    batch = AttributionBatch(pixels, [vlm.prompt(QUESTION)] * len(pixels), [str(i) for i in range(len(pixels))])
    return method.attribute(vlm, batch, [target] * len(pixels))


def test_autoencoder_in_plain_loops(random_sae):
    sae, weights = load_sae(random_sae), weights_of(random_sae)
    stream = torch.randn(7, 32, generator=torch.Generator().manual_seed(1))
    active = sae.activations(stream)
    made = sae.decode(active)
    for row in range(7):
        expected = reference.activations(stream[row].double().numpy(), weights, sae.k)
        np.testing.assert_allclose(active[row].numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(made[row].numpy(), reference.reconstruction(expected, weights), atol=1e-5)
    assert ((active > 0).sum(1) <= sae.k).all() and (active > 0).any()


def test_pieces_by_hand():
    assert keep_largest(torch.tensor([[1.0, 3.0, 2.0]]), 2).tolist() == [[0.0, 3.0, 2.0]]
    stream = torch.tensor([[0.0], [2.0]])
    assert explained_variance(stream, stream) == 1
    assert explained_variance(stream, torch.ones(2, 1)) == 0
    assert explained_variance(stream, torch.tensor([[0.5], [1.5]])) == pytest.approx(0.75)
    pooled = pool_patches(torch.arange(16.0)[:, None], (2, 2))
    assert pooled[..., 0].tolist() == [[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [8 + 9 + 12 + 13, 10 + 11 + 14 + 15]]
    with pytest.raises(ValueError, match="16 patches do not fill a grid of 3x3 cells"):
        pool_patches(torch.zeros(16, 1), (3, 3))


@pytest.mark.parametrize("kind", ["margin", "tokens"])
def test_map_against_the_twin(random_vlm, random_sae, pictures, kind):
    """The twin reads stream and gradient from transformers' own hidden states, with a hook that cuts nothing."""
    words = tuple(random_vlm.tokenizer("left right", add_special_tokens=False)["input_ids"][:2])
    target = Target("margin", sign=-1) if kind == "margin" else Target("tokens", "answer", 1, words, (0, 1))
    pixels, twin, weights = pictures(random_vlm, 2), gemma.twin_model(random_vlm.model), weights_of(random_sae)
    computed = explain(random_vlm, SAE(random_sae, top=3, steps=3), pixels, target)
    removed, hidden = Substrate.parse("blur:0.1").apply(pixels, ["0", "1"], 0), []
    block = twin.model.vision_tower.encoder.layers[0]
    handle = block.register_forward_hook(lambda m, a, output: hidden.append(output))
    with torch.no_grad():
        for picture in (pixels[1:], removed[1:]):
            twin.get_image_features(picture)
    handle.remove()
    slope = 0
    for share in (1 / 6, 3 / 6, 5 / 6):
        with torch.enable_grad():
            between = (share * hidden[0] + (1 - share) * hidden[1]).requires_grad_()
            handle = block.register_forward_hook(lambda m, a, output, between=between: between)
            tokens = twin.get_image_features(pixels[1:]).pooler_output[0]
            handle.remove()
            scores, *_ = run(random_vlm, twin, tokens, QUESTION, target)
            slope = slope + torch.autograd.grad(sum(scores) / len(scores), between)[0][0].double().numpy() / 3
    intact, gone = (output[0].double().numpy() for output in hidden)
    expected = reference.effects(intact, gone, slope, weights, 5, random_vlm.grid)
    total = expected.sum(2)
    assert np.abs(computed.maps[1].numpy() - total).max() < 1e-3 * np.abs(total).max()
    sums = expected.sum((0, 1))
    strongest = np.argsort(-np.abs(sums))[:3]
    told = computed.extras["features"][1]
    assert [one["feature"] for one in told] == strongest.tolist()
    for one in told:
        assert one["effect"] == pytest.approx(sums[one["feature"]], rel=1e-3)
        np.testing.assert_allclose(one["map"], expected[..., one["feature"]], atol=1e-3 * np.abs(expected).max())


class CappedVLM(LinearVLM):
    """A tower that is the identity, under a score that hardly moves any more at the intact picture."""

    def tower_stream(self, pixels, layer):
        return self.encode(pixels)

    def encode_stream(self, stream, layer):
        return stream

    def tower_identity(self):
        return "readable"

    def logit(self, tokens, prompt):
        return 3 * (super().logit(tokens, prompt) / 3).tanh()


def test_the_path_sees_past_saturation(exact_sae):
    """Slopes at the picture alone give a hundredth of the effect; along the path the map adds up to it."""
    vlm = CappedVLM({QUESTION: np.full((4, 4), 1.0)})
    pixels = analytic_picture(vlm).abs()[None] + 1.0
    prompt = vlm.prompt(QUESTION)
    with torch.no_grad():
        effect = float(vlm.logit(vlm.encode(pixels), prompt) - vlm.logit(vlm.encode(0 * pixels), prompt))
    sign = 1 if effect > 0 else -1
    computed = explain(vlm, SAE(exact_sae, substrate="zero", steps=64), pixels, Target("margin", sign=sign)).maps
    assert float(computed.sum()) == pytest.approx(abs(effect), rel=0.02)
    late = explain(vlm, SAE(exact_sae, substrate="zero", steps=1), pixels, Target("margin", sign=sign)).maps
    assert abs(float(late.sum()) - abs(effect)) > 0.1 * abs(effect)


class ReadableVLM(LinearVLM):
    """A tower that is the identity: its stream are the cells' channel means."""

    def tower_stream(self, pixels, layer):
        return self.encode(pixels)

    def encode_stream(self, stream, layer):
        return stream

    def tower_identity(self):
        return "readable"


@pytest.fixture
def exact_sae(tmp_path):
    """Six features, the signed unit vectors of three channels: it reconstructs any stream exactly."""
    sae = TopKSAE(3, 6, 3)
    sae.decoder.data = torch.cat([torch.eye(3), -torch.eye(3)])
    sae.encoder.data = sae.decoder.data.T.clone()
    save_sae(sae, SAEConfig("readable", 0, 3, 6, 3), tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("sign", [1, -1])
def test_closed_form_of_a_linear_model(exact_sae, sign):
    """With an exact dictionary the map is what each cell adds to the score, compared with a stream of zeros."""
    weights = np.random.default_rng(0).standard_normal((4, 4))
    vlm = ReadableVLM({QUESTION: weights})
    pixels = analytic_picture(vlm)
    computed = explain(vlm, SAE(exact_sae, substrate="zero"), pixels[None], Target("margin", sign=sign))
    truth = vlm.contributions(pixels, torch.zeros_like(pixels), QUESTION, sign)
    np.testing.assert_allclose(computed.maps[0].numpy(), truth, rtol=1e-4, atol=1e-5)
    of_channels = {f: CHANNELS[f % 3] for f in range(6)}
    told = computed.extras["features"][0]
    assert len(told) == 6 and {one["feature"] for one in told} == set(of_channels)
    np.testing.assert_allclose(sum(np.array(one["map"]) for one in told), truth, rtol=1e-4, atol=1e-5)


def test_one_cell_none_and_two(exact_sae):
    alone, both = np.zeros((4, 4)), np.zeros((4, 4))
    alone[1, 2] = both[1, 2] = both[3, 0] = 2.0
    for weights, cells in ((alone, {(1, 2)}), (both, {(1, 2), (3, 0)}), (0 * alone, set())):
        vlm = ReadableVLM({QUESTION: weights}, bias={QUESTION: 1.0})
        values = explain(vlm, SAE(exact_sae, substrate="zero"), analytic_picture(vlm)[None]).maps[0]
        assert {tuple(at) for at in values.nonzero().tolist()} == cells


def test_an_sae_of_another_model_or_layer_is_refused(random_vlm, random_sae, bundled, pictures, tmp_path):
    with pytest.raises(SAEError, match="was trained for another vision tower: .*fit-sae"):
        SAE(random_sae).check(bundled)
    with pytest.raises(SAEError, match="was trained for another vision tower"):
        explain(bundled, SAE(random_sae), pictures(bundled, 1))
    with pytest.raises(SAEError, match="was trained for tower layer 0, not 1"):
        SAE(random_sae, layer=1)
    with pytest.raises(SAEError, match="cannot explain this model"):
        SAE(random_sae).check(LinearVLM({QUESTION: np.zeros((2, 2))}))
    with pytest.raises(SAEError, match="holds no sae.safetensors with config.json: make them with cxr-faith fit-sae"):
        SAE(str(tmp_path))
    with pytest.raises(ModelError, match="no vision tower layer 7: the tower has 2"):
        random_vlm.tower_stream(pictures(random_vlm, 1), 7)


def test_broken_files(random_sae, tmp_path):
    config = json.loads(open(f"{random_sae}/config.json").read())
    weights = open(f"{random_sae}/sae.safetensors", "rb").read()
    (tmp_path / "sae.safetensors").write_bytes(weights)
    (tmp_path / "config.json").write_text(json.dumps(config | {"features": 40}))
    with pytest.raises(SAEError, match="does not fit its config"):
        SAE(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "sae.safetensors").write_bytes(weights[:100])
    with pytest.raises(SAEError, match="does not fit its config"):
        SAE(str(tmp_path))
    for wrong in ("{", json.dumps(config | {"color": 1}), json.dumps(config | {"k": 0})):
        (tmp_path / "config.json").write_text(wrong)
        with pytest.raises(SAEError):
            read_config(tmp_path)


def test_the_tower_is_the_same_in_both_dtypes(random_vlm):
    halved = Gemma3VLM(deepcopy(random_vlm.model).to(torch.bfloat16), random_vlm.processor)
    assert halved.tower_identity() == random_vlm.tower_identity()


def test_tokens_from_the_towers_stream_are_the_same_bits(any_vlm, pictures):
    pixels = pictures(any_vlm, 2)
    with torch.no_grad():
        stream, other = (any_vlm.tower_stream(pixels, layer) for layer in (0, 1))
        for layer, each in enumerate((stream, other)):
            assert torch.equal(any_vlm.encode_stream(each, layer), any_vlm.encode(pixels))
    assert stream.shape == other.shape and not torch.allclose(stream, other)


def test_the_autoencoder_that_ships(bundled, pictures):
    config = read_config(bundled_sae())
    assert sum(file.stat().st_size for file in bundled_sae().iterdir()) < 1_000_000
    assert config.k <= config.width / 8
    assert config.measured["explained_variance"] >= 0.8 and config.measured["l0"] <= config.width / 8
    # And on pictures that it was not trained on, which the demo is made of.
    files = sorted((bundled_manifest().parent / "images").iterdir())[::5]
    pixels = bundled.normalize(torch.cat([fit(load_image(file), bundled.image_size)[0][None] for file in files]))
    sae = load_sae(bundled_sae())
    with torch.no_grad():
        stream = bundled.tower_stream(pixels, config.layer).flatten(0, 1).float()
        active = sae.activations(stream)
    assert explained_variance(stream, sae.decode(active)) >= 0.8
    assert (active > 0).sum(1).float().mean() <= config.width / 8
    method = SAE()
    computed = explain(bundled, method, pictures(bundled, 1))
    assert computed.maps.shape == (1, *bundled.grid) and computed.maps.abs().max() > 0
    assert len(computed.extras["features"][0]) == 8


def test_absurd_sizes_in_a_config_take_no_memory(tmp_path):
    save_sae(TopKSAE(3, 6, 3), SAEConfig("readable", 0, 3, 6, 3), tmp_path)
    before = file_hash(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"features": 10**12}))
    with pytest.raises(SAEError, match=r"does not fit its config: its decoder has shape \[6, 3\]"):
        load_sae(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"k": 2}))
    assert file_hash(tmp_path) != before  # k changes every map
    (tmp_path / "sae.safetensors").write_bytes((2**63).to_bytes(8, "little"))
    with pytest.raises(SAEError, match="is damaged"):
        load_sae(tmp_path)
