"""Every family against a plain full forward of its own transformers class."""

import json
import re
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Qwen3MoeConfig

from cxr_faith import Explainer
from cxr_faith.__main__ import main
from cxr_faith.attribution import METHODS, build_methods
from cxr_faith.attribution.base import AttributionBatch
from cxr_faith.attribution.sae_model import SAEError
from cxr_faith.bench.family_makers import MAKERS
from cxr_faith.bench.family_parts import TINY, enlarge, save, text_ids
from cxr_faith.cases import read_answers
from cxr_faith.checks.model_checks import model_checks, weights_check
from cxr_faith.checks.randomization import random_stages
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.perturb.schedule import stream_key
from cxr_faith.perturb.substrate import compose
from cxr_faith.protocol import Protocol
from cxr_faith.vlm import ModelError, Target
from cxr_faith.vlm.config import FASTER, ModelConfig, PromptOptions
from cxr_faith.vlm.decoder import Decoder, check_head
from cxr_faith.vlm.families import FAMILIES
from cxr_faith.vlm.layout import Layout
from cxr_faith.vlm.letters import letter_ids
from cxr_faith.vlm.loading import check_files, family_of, load_vlm, peek
from cxr_faith.vlm.model_files import parse
from cxr_faith.vlm.text_only import score_text_only
from tests.reference import blackbox, gemma
from tests.reference.families import TWINS, on_cells
from tests.reference.philox import normal_noise
from tests.runs import cheap_options

QUESTION = "Is there a nodule?"


class Family:
    """A model of a family, its twin, and two pictures of the size that it reads."""

    def __init__(self, name, folder):
        self.name, self.parts = name, MAKERS[name]()
        self.folder = save(self.parts, folder)
        self.vlm = load_vlm(self.folder, "cpu", prompts=PromptOptions(), image_size=self.parts.image_size)
        self.twin = TWINS[name](self.parts)
        random = np.random.default_rng(0)
        coarse = random.integers(0, 256, (2, *self.vlm.grid, 3))
        times = [side // cells for side, cells in zip(self.vlm.image_size, self.vlm.grid, strict=True)]
        noise = random.integers(0, 70, (2, *self.vlm.image_size, 3))
        self.pictures = (coarse.repeat(times[0], 1).repeat(times[1], 2) * 0.7 + noise).astype(np.uint8)

    def pixels(self, pictures=None):
        """The same pictures as the model gets them."""
        pictures = self.pictures if pictures is None else pictures
        return self.vlm.normalize(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))

    def targets(self):
        """A margin, the log-odds of an answer's tokens, and the margin of a letter."""
        ids = self.vlm.tokenizer("left lung, no effusion", add_special_tokens=False)["input_ids"][:3]
        letter = Target("letter", letters=letter_ids(self.vlm.tokenizer, 4), chosen=1)
        return Target("margin", sign=-1), Target("tokens", answer_ids=tuple(ids), scored=(0, 2)), letter


@pytest.fixture(scope="module", params=sorted(MAKERS))
def family(request, tmp_path_factory):
    return Family(request.param, tmp_path_factory.mktemp(request.param))


def test_prompt_ids_are_those_of_the_template(family):
    for question in (QUESTION, "  where\n is it?"):
        prompt = family.vlm.prompt(question)
        assert list(prompt.ids) == family.twin.ids(family.pictures[0], question)
        assert set(prompt.prefix_ids[prompt.image_start :]) == {family.vlm.model.config.image_token_id}
        assert len(prompt.prefix_ids) - prompt.image_start == family.vlm.layout.n_tokens


def test_image_tokens_are_the_models_own(family):
    """Through transformers' image processor for the twin, through `encode` here, in a batch."""
    with torch.no_grad():
        tokens = family.vlm.encode(family.pixels())
    for row, picture in zip(tokens, family.pictures, strict=True):
        expected = torch.cat(family.twin.features(picture))
        torch.testing.assert_close(row[:, : expected.shape[1]], expected, atol=1e-4, rtol=1e-4)
        assert len(row) == len(expected)


def test_scores_are_the_twins_with_and_without_a_shared_prefix(family, monkeypatch):
    for shares in {family.vlm.shares_prefix, False}:
        monkeypatch.setattr(family.vlm, "shares_prefix", shares, raising=False)
        with torch.no_grad():
            prefix = family.vlm.prefill(family.vlm.encode(family.pixels()))
            for target in family.targets():
                scores = family.vlm.score(prefix, family.vlm.prompt(QUESTION), target)
                expected = [family.twin.score(family.vlm, p, QUESTION, target) for p in family.pictures]
                computed = torch.stack([scores.s, scores.probability, scores.standing], dim=1).numpy()
                assert np.abs(computed - np.array(expected)).max() < 1e-4
                assert abs(computed[0, 0] - computed[1, 0]) > 0.05  # the picture matters


def test_scores_without_a_picture_are_the_twins(family):
    """PaliGemma's prompts begin with the picture: its question cannot be asked without one."""
    prompt, before = family.vlm.prompt(QUESTION), family.vlm.counts.snapshot()
    for target in family.targets():
        scores = score_text_only(family.vlm, prompt, target, rows=2)
        if family.name == "paligemma":
            assert scores is None
            continue
        computed = [float(column[0]) for column in (scores.s, scores.probability, scores.standing)]
        assert np.abs(np.subtract(computed, family.twin.text_score(family.vlm, QUESTION, target))).max() < 1e-4
    spent = family.vlm.counts - before
    assert spent.forwards == (0 if family.name == "paligemma" else 3) and spent.encode == spent.prefill == 0


def test_faster_kernels_give_the_same_scores(family):
    options = {"prompts": PromptOptions(), "image_size": family.parts.image_size}
    fast = load_vlm(family.folder, "cpu", faster=FASTER, **options)
    prompt, target = fast.prompt(QUESTION), family.targets()[1]
    with torch.no_grad():
        scores = [vlm.trace(vlm.encode(family.pixels()), [prompt] * 2, [target] * 2) for vlm in (family.vlm, fast)]
    torch.testing.assert_close(*scores, atol=1e-4, rtol=0)
    norms = [module for module in fast.model.modules() if type(module).__name__.endswith("RMSNorm")]
    assert norms and all("forward" in vars(norm) for norm in norms)
    assert fast.model.config.vision_config._attn_implementation == "cxr_faith_padded"


def test_answers_are_the_twins(family, monkeypatch):
    expected = family.twin.greedy(family.pictures[0], QUESTION, 3)
    for shares in {family.vlm.shares_prefix, False}:
        monkeypatch.setattr(family.vlm, "shares_prefix", shares, raising=False)
        with torch.no_grad():
            prefix = family.vlm.prefill(family.vlm.encode(family.pixels()[:1]))
            assert list(family.vlm.answer(prefix, family.vlm.prompt(QUESTION), 3).token_ids) == expected


def test_curves_are_the_twins(family):
    vlm, target, steps = family.vlm, Target("margin"), np.array([0, 3, family.vlm.n_cells // 2, family.vlm.n_cells])
    order = np.random.default_rng(1).permutation(vlm.n_cells)
    plan, (original, removed) = Plan(vlm.n_cells), family.pixels()
    masks = np.stack([~np.isin(np.arange(vlm.n_cells), order[:count]) for count in steps])
    places = plan.add(0, masks)
    scores = Engine(vlm, micro_batch=3).run(original, removed, plan, [vlm.prompt(QUESTION)], [target])[0].s[places]
    expected = family.twin.curve(vlm, *family.pictures, order, steps, QUESTION, target)
    assert np.abs(scores.numpy() - expected).max() < 1e-4
    tokens = Engine(vlm).run(original, removed, plan, [vlm.prompt(QUESTION)], [target], space="tokens")[0].s[places]
    torch.testing.assert_close(tokens[[0, -1]], scores[[0, -1]], atol=1e-4, rtol=0)  # all or nothing is the same
    with torch.no_grad():
        expected = family.twin.token_curve(vlm, *family.pictures, order, steps, QUESTION, target)
    assert np.abs(tokens.numpy() - expected).max() < 1e-4 < (tokens - scores).abs().max()


def test_attention_and_relevancy_are_the_twins(family):
    vlm, target = family.vlm, Target("margin")
    batch = AttributionBatch(family.pixels()[:1], [vlm.prompt(QUESTION)], ["a"])
    methods = build_methods({"attention": {}, "chefer": {}, "rollout": {}})
    expected = family.twin.rows(vlm, family.pictures[0], QUESTION, target)
    for method, row in zip(methods.values(), expected, strict=True):
        (computed,) = method.attribute(vlm, batch, [target]).maps
        boxes = family.twin.boxes(family.pictures[0])
        wanted = on_cells(boxes, row, vlm.grid)
        assert np.abs(computed.numpy() - wanted).max() < 1e-3 * np.abs(wanted).max()
        covered = [value for box, value in zip(boxes, row, strict=True) if box[2] > box[0]]
        assert float(computed.sum()) == pytest.approx(sum(covered), rel=1e-3)  # no mass is lost


def test_gradients_and_grad_cam_are_the_twins(family):
    """Through transformers' own forward: image features as leaves, hidden states by a hook."""
    vlm, twin, (picture, _) = family.vlm, family.twin, family.pictures
    batch, boxes = AttributionBatch(family.pixels()[:1], [vlm.prompt(QUESTION)], ["a"]), twin.boxes(picture)
    methods = build_methods({"gradient": {}, "grad_x_input": {"baseline": "zero_tokens"}, "grad_cam": {"layer": 0}})
    tokens, slopes = twin.gradients(vlm, picture, QUESTION)
    expected = [np.linalg.norm(slopes, axis=1), (tokens * slopes).sum(1), twin.grad_cam(vlm, picture, QUESTION, 0)]
    for (name, method), row in zip(methods.items(), expected, strict=True):
        (computed,) = method.attribute(vlm, batch, [Target("margin")]).maps
        wanted = on_cells(boxes, row, vlm.grid)
        assert np.abs(wanted).max() > 1e-6
        assert np.abs(computed.numpy() - wanted).max() < 1e-3 * np.abs(wanted).max(), name


@pytest.mark.parametrize("family", ["llava", "paligemma"], indirect=True)
def test_smooth_grad_is_the_twins(family):
    """With the same noise, for the families whose pixel values are the picture itself, untiled."""
    vlm, pixels = family.vlm, family.pixels()[:1]
    batch, method = AttributionBatch(pixels, [vlm.prompt(QUESTION)], ["a"]), METHODS["smooth_grad"](copies=2, noise=0.1)
    (computed,) = method.attribute(vlm, batch, [Target("margin")]).maps
    noise = normal_noise(stream_key(batch.seed, "a", "noise", "smooth_grad"), (2, *pixels[0].shape))
    scaled = 0.1 * (pixels.max() - pixels.min()) * torch.from_numpy(noise).float()
    expected = family.twin.smooth_grad(vlm, family.pictures[0], scaled, QUESTION)
    assert np.abs(computed.numpy() - expected).max() < 1e-3 * expected.max()


def test_occlusion_and_rise_are_the_twins(family):
    """One whole forward for each composed picture; another picture stands in removed cells."""
    vlm, twin, (picture, other) = family.vlm, family.twin, family.pictures
    original, removed = family.pixels()
    batch, (rows, columns) = AttributionBatch(original[None], [vlm.prompt(QUESTION)], ["a"]), vlm.grid
    methods = build_methods({"occlusion": {"window": 1}, "rise": {"masks": 8}})
    stand_in = SimpleNamespace(apply=lambda *_: removed[None], fill=lambda *_: None)

    def score(cells):
        kept = [cell not in cells for cell in range(rows * columns)]
        planes = gemma.compose(picture.transpose(2, 0, 1), other.transpose(2, 0, 1), kept, vlm.grid)
        return twin.score(vlm, np.ascontiguousarray(planes.transpose(1, 2, 0)), QUESTION, Target("margin"))[0]

    for name, method in methods.items():
        method._masker.substrate = stand_in
        (computed,) = method.attribute(vlm, batch, [Target("margin")]).maps
        if name == "rise":
            wanted = blackbox.rise(vlm.grid, method.masks(vlm.grid, "a", batch.seed), score)
        else:
            wanted = blackbox.occlusion(vlm.grid, 1, score)
        assert np.abs(computed.numpy() - wanted).max() < 1e-4 * max(1.0, np.abs(wanted).max()), name


def test_integrated_gradients_add_up_to_the_effect(family):
    vlm, target, prompt = family.vlm, Target("margin"), family.vlm.prompt(QUESTION)
    batch = AttributionBatch(family.pixels()[:1], [prompt], ["a"])
    method = build_methods({"integrated_gradients": {"steps": 64}})["integrated_gradients"]
    attribution = method.attribute(vlm, batch, [target])
    with torch.no_grad():
        scores = [float(vlm.trace(tokens, [prompt], [target])) for tokens in method.endpoints(vlm, batch)]
    effect = scores[0] - scores[1]
    assert abs(effect) > 0.05
    assert attribution.extras["completeness_residual"][0] < 0.05
    assert float(attribution.maps.sum()) == pytest.approx(effect, abs=0.05 * max(1.0, abs(effect)))


@contextmanager
def without_tower_attention(vlm):
    """Each patch then goes its own way through the tower."""
    outputs = re.compile(
        r"(vision_tower|visual)\..*(out_proj|o_proj\.linear|attn\.proj|projection_layer)\.(weight|bias)$"
    )
    weights = [weight for name, weight in vlm.model.named_parameters() if outputs.search(name)]
    kept = [weight.clone() for weight in weights]
    assert weights
    for weight in weights:
        weight.zero_()
    try:
        yield
    finally:
        for weight, value in zip(weights, kept, strict=True):
            weight.copy_(value)


def test_a_token_sees_its_box(family):
    """Each cell is painted anew: a token changes most under a cell that its box touches, a separator under none."""
    vlm, pixels = family.vlm, family.pixels()
    keep = ~torch.eye(vlm.n_cells, dtype=torch.bool)
    with torch.no_grad(), without_tower_attention(vlm):
        painted = torch.cat([vlm.encode(compose(*pixels, part, vlm.grid)) for part in keep.split(16)])
        change = (painted - vlm.encode(pixels[:1])).norm(dim=-1).numpy()  # [cells, tokens]
    boxes = np.array(family.twin.boxes(family.pictures[0]))
    assert np.abs(boxes - vlm.layout.boxes.numpy()).max() < 1e-9
    for token, (x1, y1, x2, y2) in enumerate(boxes):
        if x1 == x2:
            assert change[:, token].max() == 0
            continue
        row, column = divmod(int(change[:, token].argmax()), vlm.grid[1])
        assert min(x2, (column + 1) / vlm.grid[1]) > max(x1, column / vlm.grid[1])
        assert min(y2, (row + 1) / vlm.grid[0]) > max(y1, row / vlm.grid[0])


def test_every_method_draws_a_map_on_the_cells_whoever_is_in_the_batch(family):
    vlm, options = family.vlm, cheap_options("")
    words = tuple(vlm.tokenizer("left lung", add_special_tokens=False)["input_ids"][:2])
    target = Target("tokens", answer_ids=words, scored=(0, 1))
    alone = AttributionBatch(family.pixels()[:1], [vlm.prompt(QUESTION)], ["a"])
    both = AttributionBatch(family.pixels(), [vlm.prompt(QUESTION)] * 2, ["a", "b"])
    for name in sorted(set(METHODS) - {"sae", "oracle", "oracle_near", "file"}):  # `file` reads maps
        method = METHODS[name](**options.get(name, {}))
        maps = method.attribute(vlm, both, [target] * 2).maps
        assert maps.shape == (2, *vlm.grid) and maps.isfinite().all(), name
        [own] = method.attribute(vlm, alone, [target]).maps  # as on a rank that has this picture alone
        torch.testing.assert_close(maps[0], own, rtol=1e-4, atol=1e-4 * float(own.abs().max()), msg=name)
    with pytest.raises(SAEError, match=f"sae cannot explain this model: {type(vlm).__name__} does not show its vision"):
        METHODS["sae"]().check(vlm)


def test_doctor_finds_each_family_fit(family):
    """Its checks know which way image tokens look, which layers read earlier keys, and that tokens may hold parts."""
    protocol, [pixels, _] = Protocol(("mean",), steps=4, random_orders=2, max_new_tokens=1), family.pixels()
    module = SimpleNamespace(engine=Engine(family.vlm), protocol=protocol)
    [case] = read_answers(family.vlm, pixels, "a", [QUESTION], ["yes_no"], protocol)
    found = [*model_checks(module, pixels, case), weights_check(family.vlm)]
    less = [check.name for check in found if check.status != "pass"]
    # Capped logits bend the path of integrated gradients: its steps are too few for them, which is no fault.
    assert less == (["integrated gradients add up"] if family.name == "gemma4" else []) and len(found) >= 8, found
    assert {check.status for check in found} <= {"pass", "warn"}


def test_sanity_can_randomize_every_part(family):
    stages, parameters = random_stages(family.vlm), dict(family.vlm.model.named_parameters())
    named = [name for _, names in stages for name in names]
    assert [title.split()[0] for title, _ in stages] == ["decoder"] * 3 + ["projector"] + ["tower"] * (len(stages) - 4)
    assert all(names for _, names in stages) and len(set(named)) == len(named)
    left = {name for name in parameters if name not in named and "norm" not in name}
    assert all(re.search("embed|lm_head|image_newline|cls_token", name) for name in left), left


def test_explained_and_scored_through_the_explainer(family):
    vlm, explainer = family.vlm, Explainer(family.vlm)
    explanation = explainer.explain(Image.fromarray(family.pictures[0]), QUESTION, "attention", kind="yes_no")
    scores = explainer.evaluate(explanation, steps=4, random_orders=2)
    assert explanation.map.shape == vlm.grid and scores.status in ("ok", "degenerate", "inverted", "off_format", "flat")


@pytest.mark.parametrize("family", ["qwen2_5_vl"], indirect=True)
def test_explain_reads_pictures_at_the_size_that_is_asked_for(family, tmp_path, capsys):
    Image.fromarray(family.pictures[0]).save(tmp_path / "a.png")
    words = ["explain", str(tmp_path / "a.png"), "--question", QUESTION, "--model", str(family.folder)]
    words += ["--device", "cpu", "--method", "center", "--max_new_tokens", "1", "--out", str(tmp_path)]
    assert main([*words, "--image_size", str(list(family.vlm.image_size))]) == 0
    [file] = tmp_path.glob("*.json")
    content = json.loads(file.read_text())
    assert (*map(len, (content["map"], content["map"][0])),) == family.vlm.grid
    assert content["image_size"] == list(family.vlm.image_size)
    assert main([*words, "--image_size", "[33, 50]"]) == 2
    assert "vlm.image_size: both sides must be multiples of 28 px, got 33x50" in capsys.readouterr().err


def test_the_config_alone_gives_grid_and_size(family):
    assert peek(family.folder, None, family.parts.image_size) == (family.vlm.grid, family.vlm.image_size)
    check_files(ModelConfig(str(family.folder), image_size=family.parts.image_size))


def test_a_size_that_the_family_does_not_read_is_refused_before_the_weights(family):
    (family.folder / "model.safetensors").rename(family.folder / "hidden")
    try:
        with pytest.raises(ModelError, match="^vlm.image_size: [^\n]*$"):
            peek(family.folder, None, (33, 50))
    finally:
        (family.folder / "hidden").rename(family.folder / "model.safetensors")


def test_decoders_whose_logits_would_be_wrong_are_refused():
    content = MAKERS["paligemma"]().model.config.to_dict()
    content["text_config"] |= {"model_type": "gemma2", "final_logit_softcapping": 30.0}
    with pytest.raises(ModelError, match="final_logit_softcapping changes logits"):
        parse(family_of(content, "it"), content, "it")
    model = MAKERS["llava"]().model
    model.model.language_model.norm = torch.nn.LayerNorm(48)
    with pytest.raises(ModelError, match="final norm is no LayerNorm"):
        check_head(Decoder(model, Layout.of_grid((8, 8))))


def test_experts_that_are_stored_one_by_one_are_read(tmp_path):
    """As transformers saves a mixture of experts."""
    parts = MAKERS["internvl"]()
    experts = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32}
    parts.model.config.text_config = Qwen3MoeConfig(**TINY.text, **text_ids(parts.tokenizer), **experts)
    parts.model = enlarge(type(parts.model)(parts.model.config))
    vlm = load_vlm(save(parts, tmp_path), "cpu", prompts=PromptOptions(), image_size=parts.image_size)
    twin = TWINS["internvl"](parts)
    picture = np.random.default_rng(0).integers(0, 256, (*vlm.image_size, 3)).astype(np.uint8)
    with torch.no_grad():
        prefix = vlm.prefill(vlm.encode(vlm.normalize(torch.from_numpy(picture).permute(2, 0, 1)[None])))
        s = float(vlm.score(prefix, vlm.prompt(QUESTION), Target("margin")).s)
    assert s == pytest.approx(twin.score(vlm, picture, QUESTION, Target("margin"))[0], abs=1e-4)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["language_model.model.layers.2.mlp.experts.1.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights, such as .*layers\.2\.mlp\.experts\.1\.up_proj"):
        load_vlm(tmp_path)


@pytest.mark.parametrize("kinds", [["linear_attention"] * 2 + ["full_attention"], ["chunked_attention"] * 3])
def test_layers_without_a_matrix_of_attention_are_refused(kinds):
    content = MAKERS["internvl"]().model.config.to_dict()
    content["text_config"]["layer_types"] = kinds
    with pytest.raises(ModelError, match=f"layer_types names {kinds[0]}: such layers have no attention matrix"):
        parse(family_of(content, "it"), content, "it")


def test_code_that_comes_with_a_checkpoint_is_named(tmp_path):
    content = {"model_type": "internvl_chat", "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="a internvl_chat model with code of its own, which is not run: .* -hf; this"):
        load_vlm(tmp_path)


def test_an_unknown_family_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mllama"}))
    with pytest.raises(ModelError) as error:
        load_vlm(tmp_path)
    message = str(error.value)
    assert "mllama" in message and "Adding a family" in message and "\n" not in message
    assert all(name in message for name in FAMILIES)
    assert set(FAMILIES) - {"gemma3"} == set(MAKERS)
