"""Gemma 3 against a plain full forward of transformers' own model."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from cxr_faith.perturb.substrate import compose
from cxr_faith.vlm import Gemma3VLM, ModelError, Target, bundled_model
from cxr_faith.vlm.answers import make_target
from cxr_faith.vlm.config import PromptOptions
from cxr_faith.vlm.loading import peek
from tests.random_model import RANDOM_SIDE, random_model, random_processor
from tests.reference import gemma

QUESTION = "Is there a nodule?"


def prefix_of(vlm, pixels):
    with torch.no_grad():
        return vlm.prefill(vlm.encode(pixels))


def scores_of(vlm, pixels, question, target):
    with torch.no_grad():
        return vlm.score(prefix_of(vlm, pixels), vlm.prompt(question), target)


def token_target(vlm, length=4, scored=None):
    """An answer of ordinary tokens, so that a test needs no trained model."""
    ids = vlm.tokenizer("left lung, no nodule and no effusion seen", add_special_tokens=False)["input_ids"][:length]
    assert len(ids) == length
    return Target("tokens", answer_ids=tuple(ids), scored=tuple(range(length)) if scored is None else scored)


TARGETS = [
    pytest.param(lambda vlm: Target("margin", sign=1), id="margin"),
    pytest.param(lambda vlm: Target("margin", sign=-1), id="margin-no"),
    pytest.param(token_target, id="tokens"),
    pytest.param(lambda vlm: token_target(vlm, scored=(1, 3)), id="some-tokens"),
    pytest.param(lambda vlm: token_target(vlm, scored=(0,)), id="first-token"),
]


@pytest.mark.parametrize("make", TARGETS)
def test_prefix_route_equals_a_full_forward(any_vlm, pictures, make):
    pixels, target = pictures(any_vlm, 2), make(any_vlm)
    scores, twin = scores_of(any_vlm, pixels, QUESTION, target), gemma.twin_model(any_vlm.model)
    expected = np.array([gemma.score(any_vlm, twin, picture, QUESTION, target) for picture in pixels])
    computed = torch.stack([scores.s, scores.probability, scores.standing], dim=1)
    assert computed.dtype == torch.float64
    assert np.abs(computed.numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("make", TARGETS)
def test_trace_gives_the_score_that_is_evaluated(any_vlm, pictures, make):
    pixels, target, prompt = pictures(any_vlm, 2), make(any_vlm), any_vlm.prompt(QUESTION)
    scores = scores_of(any_vlm, pixels, QUESTION, target)
    with torch.no_grad():
        plain = any_vlm.trace(any_vlm.encode(pixels), [prompt] * 2, [target] * 2)
        seen = any_vlm.trace(any_vlm.encode(pixels), [prompt] * 2, [target] * 2, lambda layer, probabilities: None)
    assert plain.shape == (2, len(target.scored))
    assert plain.dtype == torch.float32
    for traced in (plain, seen):
        torch.testing.assert_close(traced.double().mean(1), scores.s, atol=1e-4, rtol=0)


def test_one_prefix_serves_several_questions_and_is_not_changed(any_vlm, pictures):
    pixels = pictures(any_vlm, 3)
    prefix = prefix_of(any_vlm, pixels)
    before = [(layer.keys.clone(), layer.values.clone()) for layer in prefix.layers]
    questions = {QUESTION: Target("margin"), "What is the finding?": token_target(any_vlm)}
    with torch.no_grad():
        shared = {q: any_vlm.score(prefix, any_vlm.prompt(q), target) for q, target in questions.items()}
        again = any_vlm.score(prefix, any_vlm.prompt(QUESTION), questions[QUESTION])
    any_vlm.answer(prefix_of(any_vlm, pixels[:1]), any_vlm.prompt(QUESTION), 3)
    for q, target in questions.items():
        assert torch.equal(shared[q].s, scores_of(any_vlm, pixels, q, target).s)
    assert torch.equal(again.s, shared[QUESTION].s)
    for layer, (keys, values) in zip(prefix.layers, before, strict=True):
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)
    assert prefix.get_seq_length() == len(any_vlm.prompt(QUESTION).prefix_ids)


def test_answering_leaves_its_prefix_as_it_was(random_vlm, pictures):
    prefix, prompt = prefix_of(random_vlm, pictures(random_vlm, 1)), random_vlm.prompt(QUESTION)
    with torch.no_grad():
        first, second = (random_vlm.answer(prefix, prompt, 5) for _ in range(2))
    assert first == second
    assert prefix.get_seq_length() == len(prompt.prefix_ids)


@pytest.mark.parametrize("make", TARGETS[1:3])
def test_scores_do_not_depend_on_the_batch(any_vlm, pictures, make):
    """Bit for bit, over batches of 1, 2 and 5 and in any order."""
    pixels, target = pictures(any_vlm, 5), make(any_vlm)
    whole, order = scores_of(any_vlm, pixels, QUESTION, target), [3, 0, 4, 1, 2]
    for size in (1, 2, 5):
        parts = [scores_of(any_vlm, part, QUESTION, target) for part in pixels[order].split(size)]
        for name in ("s", "probability", "standing"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)[order])


@pytest.mark.parametrize("make", TARGETS[1:3])
def test_gradients_do_not_depend_on_the_batch(any_vlm, pictures, make):
    pixels, target, prompt = pictures(any_vlm, 5), make(any_vlm), any_vlm.prompt(QUESTION)

    def gradient(part):
        tokens = any_vlm.encode(part).detach().requires_grad_()
        scores = any_vlm.trace(tokens, [prompt] * len(part), [target] * len(part))
        return torch.autograd.grad(scores.sum(), tokens)[0]

    whole, order = gradient(pixels), [3, 0, 4, 1, 2]
    assert whole.abs().amax() > 0
    for sizes in ((1, 1, 1, 1, 1), (2, 2, 1), (5,)):
        assert torch.equal(torch.cat([gradient(part) for part in pixels[order].split(sizes)]), whole[order])


@contextmanager
def without_shortcuts(vlm):
    vlm.shortcuts = False
    try:
        yield
    finally:
        del vlm.shortcuts


@pytest.mark.parametrize("target", TARGETS)
def test_shortcuts_change_no_bit(any_vlm, pictures, target):
    pixels, target = pictures(any_vlm, 3), target(any_vlm)
    computed, prefix = scores_of(any_vlm, pixels, QUESTION, target), prefix_of(any_vlm, pixels)
    with torch.no_grad():
        reply = any_vlm.answer(prefix_of(any_vlm, pixels[:1]), any_vlm.prompt(QUESTION), 4)
        with without_shortcuts(any_vlm):
            plain = prefix_of(any_vlm, pixels)
            expected = scores_of(any_vlm, pixels, QUESTION, target)
            assert any_vlm.embed(pixels) is None
            assert any_vlm.answer(prefix_of(any_vlm, pixels[:1]), any_vlm.prompt(QUESTION), 4) == reply
    for mine, theirs in zip(prefix.layers, plain.layers, strict=True):
        assert torch.equal(mine.keys, theirs.keys) and torch.equal(mine.values, theirs.values)
    assert all(torch.equal(getattr(computed, name), getattr(expected, name)) for name in vars(expected))


def test_a_prefix_ends_with_the_last_layers_keys_and_values(any_vlm, pictures):
    """The last layer's MLP has run for the suffix alone, and masks are made once for each length."""
    seen, last = [], any_vlm.model.model.language_model.layers[-1].mlp
    hook = last.register_forward_hook(lambda module, args, output: seen.append(tuple(args[0].shape[:2])))
    any_vlm.decoder.masks.cache_clear()
    try:
        scores_of(any_vlm, pictures(any_vlm, 3), QUESTION, Target("margin"))
        scores_of(any_vlm, pictures(any_vlm, 2), QUESTION, Target("margin"))
    finally:
        hook.remove()
    length = len(any_vlm.prompt(QUESTION).suffix_ids)
    assert seen == [(3, length), (2, length)]
    assert any_vlm.decoder.masks.cache_info().misses == 2


def test_a_tower_one_level_further_in(random_vlm, pictures):
    """As transformers 5.17 keeps it: the same stream, and the same identity."""

    class Outer(torch.nn.Module):
        def __init__(self, tower):
            super().__init__()
            self.vision_model = tower

        def forward(self, **inputs):
            return self.vision_model(**inputs)

    model = random_model(random_vlm.tokenizer)
    model.load_state_dict(random_vlm.model.state_dict())
    model.model.vision_tower = Outer(model.model.vision_tower)
    nested, pixels = Gemma3VLM(model, random_vlm.processor), pictures(random_vlm, 2)
    assert nested.tower_identity() == random_vlm.tower_identity()
    with torch.no_grad():
        assert torch.equal(nested.tower_stream(pixels, 1), random_vlm.tower_stream(pixels, 1))


def test_pictures_from_patch_embeddings_are_the_same_bits(any_vlm, pictures):
    first, second = pictures(any_vlm, 2)
    keep = torch.rand(5, any_vlm.n_cells, generator=torch.Generator().manual_seed(0)) < 0.5
    with torch.no_grad():
        expected = any_vlm.encode(compose(first, second, keep, any_vlm.grid))
        ends = any_vlm.embed(torch.stack([first, second]))
        times = [patches // cells for patches, cells in zip(ends.shape[1:3], any_vlm.grid, strict=True)]
        mask = keep.unflatten(1, any_vlm.grid).repeat_interleave(times[0], 1).repeat_interleave(times[1], 2)
        computed = any_vlm.encode_embedded(torch.where(mask[..., None], ends[0], ends[1]))
    assert torch.equal(computed, expected)
    assert (computed[0] != computed[1]).any()


def test_token_types_matter_and_are_passed(any_vlm, pictures):
    """Image tokens see each other in both directions, in every layer, whatever its window."""
    picture, prompt, target = pictures(any_vlm, 1), any_vlm.prompt(QUESTION), Target("margin")
    first, upper = prompt.image_start, []
    block = slice(first, first + any_vlm.n_cells)

    def observer(layer, probabilities):
        assert layer == len(upper)
        upper.append(probabilities[0, :, block, block].triu(1).sum(-1).mean())
        corner = probabilities[0, :, first, first + any_vlm.n_cells - 1]
        assert (corner > 0).all()
        assert (probabilities[0, :, first - 1, block] == 0).all()  # text stays causal

    with torch.no_grad():
        any_vlm.trace(any_vlm.encode(picture), [prompt], [target], observer)
    assert len(upper) == len(any_vlm.layer_types)
    assert min(upper) > 0.05
    twin = gemma.twin_model(any_vlm.model)
    causal = gemma.all_logits(any_vlm, twin, picture[0], QUESTION, image_types=False)[-1]
    assert np.abs(causal - gemma.all_logits(any_vlm, twin, picture[0], QUESTION)[-1]).max() > 1e-3


def test_windows_bind_in_sliding_layers_only(windowed_vlm, pictures):
    """The variant's window of 12 is real: the answer sees no image token there, and all of them in global layers."""
    prompt, seen = windowed_vlm.prompt(QUESTION), []
    block = slice(prompt.image_start, prompt.image_start + windowed_vlm.n_cells)
    with torch.no_grad():
        tokens = windowed_vlm.encode(pictures(windowed_vlm, 1))
        windowed_vlm.trace(tokens, [prompt], [Target("margin")], lambda _, a: seen.append(a[0, :, -1, block]))
    for kind, rows in zip(windowed_vlm.layer_types, seen, strict=True):
        assert (rows == 0).all() if kind == "sliding_attention" else (rows > 0).all()


def test_answer_is_greedy_decoding(any_vlm, pictures):
    picture, prompt = pictures(any_vlm, 1, seed=4), any_vlm.prompt(QUESTION)
    with torch.no_grad():
        reply = any_vlm.answer(prefix_of(any_vlm, picture), prompt, 6)
    twin = gemma.twin_model(any_vlm.model)
    assert list(reply.token_ids) == gemma.greedy(any_vlm, twin, picture[0], QUESTION, 6)
    logits = gemma.all_logits(any_vlm, twin, picture[0], QUESTION)[-1]
    assert reply.margin == pytest.approx(gemma.margin(any_vlm, logits), abs=1e-4)
    words = [*gemma.word_ids(any_vlm, "yes"), *gemma.word_ids(any_vlm, "no")]
    assert reply.yes_no_mass == pytest.approx(np.exp(logits[words] - gemma.logsumexp(logits)).sum(), abs=1e-5)
    assert reply.opens_yes_no == (int(logits.argmax()) in words)
    assert set(reply.content) <= set(range(len(reply.token_ids)))


def test_reply_and_score_agree_on_the_intact_picture(any_vlm, pictures):
    picture, prompt = pictures(any_vlm, 1, seed=2), any_vlm.prompt(QUESTION)
    with torch.no_grad():
        reply = any_vlm.answer(prefix_of(any_vlm, picture), prompt, 4)
    target = make_target(any_vlm, prompt, reply, "yes_no")
    s = float(scores_of(any_vlm, picture, QUESTION, target).s)
    assert s == pytest.approx(abs(reply.margin), abs=1e-5)
    answer = make_target(any_vlm, prompt, replace(reply, content=tuple(range(len(reply.token_ids)))), "open")
    if answer.answer_ids:
        assert float(scores_of(any_vlm, picture, QUESTION, answer).standing) >= -1e-4  # greedy: every token is the best


def test_answer_leaves_out_the_closing_token(random_vlm, pictures):
    """With <end_of_turn> made the likeliest token the answer is empty, and it is not even fed."""
    vlm = Gemma3VLM(random_model(random_vlm.tokenizer), random_processor())
    stop = vlm.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    with torch.no_grad():
        prefix, prompt = prefix_of(vlm, pictures(vlm, 1)), vlm.prompt(QUESTION)
        vlm.score(prefix, prompt, Target("margin"))
        hidden = vlm.decoder.head.norm(vlm.decoder.extend(prefix, prompt.suffix_ids, 1, True))[0, -1]
        vlm.model.lm_head.weight[stop] = 100 * hidden / hidden.norm()
        reply = vlm.answer(prefix, prompt, 5)
    assert (reply.token_ids, reply.content, reply.text) == ((), (), "")


def test_one_bos_one_image_block_and_one_prefix(any_vlm):
    prompts = [any_vlm.prompt(question) for question in (QUESTION, "What is the finding?", "")]
    ids, types = gemma.inputs(any_vlm, QUESTION)
    prompt = prompts[0]
    assert list(prompt.prefix_ids + prompt.suffix_ids) == ids
    assert ids.count(any_vlm.tokenizer.bos_token_id) == 1
    assert [i for i, kind in enumerate(types) if kind == 1] == list(
        range(prompt.image_start, prompt.image_start + any_vlm.n_cells)
    )
    assert len({p.prefix_ids for p in prompts}) == 1
    assert prompt.length == len(ids)


def test_prompt_template_wraps_the_question(random_vlm):
    wrapped = Gemma3VLM(
        random_vlm.model, random_vlm.processor, PromptOptions("Look closely. {question} Answer yes or no.")
    )
    asked = random_vlm.prompt(f"Look closely. {QUESTION} Answer yes or no.")
    assert wrapped.prompt(QUESTION).suffix_ids == asked.suffix_ids
    assert wrapped.prompt(QUESTION).question == QUESTION
    with pytest.raises(ValueError, match="must contain '{question}'"):
        PromptOptions("no place")


def test_braces_in_a_template_or_a_question_are_text(random_vlm):
    assert "{" in random_vlm.tokenizer.decode(random_vlm.prompt("Is {this} a set?").suffix_ids)
    wrapped = Gemma3VLM(random_vlm.model, random_vlm.processor, PromptOptions('Reply as {"answer": …}. {question}'))
    assert wrapped.prompt(QUESTION).suffix_ids == random_vlm.prompt(f'Reply as {{"answer": …}}. {QUESTION}').suffix_ids


@pytest.mark.parametrize("template", ["{bos_token}", "drop", "split"])
def test_wrong_chat_templates_are_refused(random_vlm, template):
    processor = random_processor()
    if template == "{bos_token}":
        processor.chat_template = "{{ bos_token }}" + processor.chat_template
        message = "2 BOS tokens"
    elif template == "drop":
        processor.chat_template = processor.chat_template.replace("{{ '<start_of_image>' }}", "")
        message = "0 <start_of_image> tokens"
    else:
        processor.chat_template = processor.chat_template.replace(
            "{{ '<start_of_image>' }}", "{{ '<start_of_image><image_soft_token>' }}"
        )
        message = f"{RANDOM_SIDE**2 + 1} image tokens"
    vlm = Gemma3VLM(random_vlm.model, processor)
    with pytest.raises(ValueError, match=message) as error:
        vlm.prompt(QUESTION)
    assert "\n" not in str(error.value)


def test_pan_and_scan_and_wrong_sizes_are_refused(random_vlm):
    for processor, message in [
        (random_processor(do_pan_and_scan=True), "do_pan_and_scan"),
        (random_processor(image_size=256), "256x256 px pictures, the tower wants 128 px"),
        (random_processor(side=4), "16 image tokens, the model has 64"),
    ]:
        with pytest.raises(ModelError, match=message) as error:
            Gemma3VLM(random_vlm.model, processor)
        assert "\n" not in str(error.value)


def test_yes_and_no_ids_are_found_by_encoding(any_vlm):
    assert list(any_vlm.yes_ids) == gemma.word_ids(any_vlm, "yes")
    assert list(any_vlm.no_ids) == gemma.word_ids(any_vlm, "no")
    assert any_vlm.yes_ids and any_vlm.no_ids
    assert not set(any_vlm.yes_ids) & set(any_vlm.no_ids)
    texts = {text.strip().casefold() for text in any_vlm.decode(any_vlm.yes_ids)}
    assert texts == {"yes"}


def test_a_tokenizer_without_single_yes_tokens_is_refused(random_vlm, monkeypatch):
    monkeypatch.setattr("cxr_faith.vlm.yes_no.YES_WORDS", ("supercalifragilistic",))
    with pytest.raises(ModelError, match="no single token for any of supercalifragilistic"):
        Gemma3VLM(random_vlm.model, random_vlm.processor)
    monkeypatch.setattr("cxr_faith.vlm.yes_no.YES_WORDS", ("no", "yes"))
    with pytest.raises(ModelError, match="a yes and a no to the same token"):
        Gemma3VLM(random_vlm.model, random_vlm.processor)


def test_normalize_is_the_processors_own_and_reversible(any_vlm):
    from PIL import Image

    height, width = any_vlm.image_size
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, height, width), dtype=np.uint8))
    made = any_vlm.processor.image_processor(Image.fromarray(image[0].permute(1, 2, 0).numpy()), return_tensors="pt")[
        "pixel_values"
    ]
    torch.testing.assert_close(any_vlm.normalize(image), made, atol=1e-5, rtol=0)
    assert torch.equal(any_vlm.denormalize(any_vlm.normalize(image)), image)


def test_nothing_is_trainable(any_vlm):
    assert not any_vlm.model.training
    assert not any(p.requires_grad for p in any_vlm.model.parameters())


def test_bfloat16_margins_are_float32(random_vlm, pictures):
    model = random_model(random_vlm.tokenizer).to(torch.bfloat16)
    vlm = Gemma3VLM(model, random_vlm.processor)
    pixels, target = pictures(vlm, 4), Target("margin")
    s = scores_of(vlm, pixels, QUESTION, target).s
    assert s.dtype == torch.float64
    assert (s.float().bfloat16().double() != s).any()  # more digits than bfloat16 holds
    exact = scores_of(random_vlm, pixels, QUESTION, target).s
    assert (s - exact).abs().max() < 0.05 * exact.abs().max() + 0.5
    prompt = vlm.prompt(QUESTION)
    assert vlm.trace(vlm.encode(pixels), [prompt] * 4, [target] * 4).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_backward_pass_keeps_no_float32_copy_of_the_vocabulary(random_vlm, pictures, dtype):
    vlm, kept = Gemma3VLM(random_model(random_vlm.tokenizer).to(dtype), random_vlm.processor), []
    target = Target("tokens", answer_ids=(5, 6), scored=(0, 1))
    tokens = vlm.encode(pictures(vlm, 1)).float().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        score = vlm.trace(tokens, [vlm.prompt(QUESTION)], [target]).sum()
    own = vlm.model.lm_head.weight.untyped_storage().data_ptr()
    size = vlm.model.lm_head.weight.numel()
    assert not [t for t in kept if t.numel() == size and t.untyped_storage().data_ptr() != own]
    (gradient,) = torch.autograd.grad(score, tokens)
    # The same through logits of all tokens at once, with a copy that is kept.
    whole = replace_project(vlm, lambda rows, part: rows @ part.float().T, tokens, target)
    assert gradient.abs().max() > 0 and torch.equal(gradient, whole)


def replace_project(vlm, project, tokens, target):
    """The gradient with another product of rows and matrix."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxr_faith.vlm.head._project", project)
        score = vlm.trace(tokens, [vlm.prompt(QUESTION)], [target]).sum()
        return torch.autograd.grad(score, tokens)[0]


def test_prompts_of_unequal_length_are_refused(random_vlm, pictures):
    prompts = [random_vlm.prompt(QUESTION), random_vlm.prompt("Is there a very large nodule in the left lung?")]
    with pytest.raises(ValueError, match="equal length"):
        random_vlm.trace(random_vlm.encode(pictures(random_vlm, 2)), prompts, [Target("margin")] * 2)


def test_identity_follows_the_weights(random_vlm):
    same, other = random_model(random_vlm.tokenizer), random_model(random_vlm.tokenizer, seed=1)
    names = [Gemma3VLM(model, random_vlm.processor).identity() for model in (same, other)]
    assert names[0]["weights"] == random_vlm.identity()["weights"] != names[1]["weights"]
    assert names[0]["dtype"] == "float32"


@pytest.fixture
def folder(tmp_path):
    """A copy of the bundled model that a test may break."""
    return shutil.copytree(bundled_model(), tmp_path / "model")


def loading_error(path, **options):
    with pytest.raises(ModelError) as error:
        Gemma3VLM.from_pretrained(path, device="cpu", **options)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_float16_is_refused():
    assert "bfloat16 or float32" in loading_error(bundled_model(), dtype="float16")
    assert "bfloat16 or float32" in loading_error(bundled_model(), dtype=torch.float16)


def test_folder_without_weights_or_config(folder, tmp_path):
    assert str(tmp_path / "none") in loading_error(tmp_path / "none")
    (folder / "model.safetensors").unlink()
    assert "no *.safetensors weights" in loading_error(folder)
    (folder / "config.json").unlink()
    assert "no config.json" in loading_error(folder)
    with pytest.raises(ModelError, match="no config.json"):
        peek(folder)


def test_folder_without_a_processor(folder):
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink()
    assert str(folder) in loading_error(folder)


def test_truncated_weights(folder):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert str(folder) in loading_error(folder)


def test_missing_tensors_are_not_made_up(folder):
    """transformers only warns and leaves random weights where the file has none."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.2.self_attn.q_proj.weight"))
    save_file({key: value for key, value in weights.items() if key != name}, folder / "model.safetensors")
    assert "q_proj" in loading_error(folder)


def test_weights_of_another_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] += 8
    (folder / "config.json").write_text(json.dumps(config))
    assert str(folder) in loading_error(folder)


def test_another_kind_of_model(folder, monkeypatch):
    """Found by its config: transformers would make a model of some default size first, billions of weights."""

    def from_pretrained(*args, **options):
        raise AssertionError("the weights were read")

    monkeypatch.setattr("cxr_faith.vlm.families.gemma3.Gemma3ForConditionalGeneration.from_pretrained", from_pretrained)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config["text_config"]))
    assert "gemma3_text" in loading_error(folder)
    with pytest.raises(ModelError, match="gemma3_text"):
        peek(folder)


def test_broken_config(folder):
    (folder / "config.json").write_text("{")
    assert str(folder) in loading_error(folder)
    with pytest.raises(ModelError, match="cannot read the config"):
        peek(folder)


def test_peek_reads_grid_and_size_without_the_weights(folder, bundled):
    (folder / "model.safetensors").write_bytes(b"")
    assert peek(folder) == (bundled.grid, bundled.image_size)


def test_counts(random_vlm, pictures):
    before = random_vlm.counts.snapshot()
    scores_of(random_vlm, pictures(random_vlm, 3), QUESTION, Target("margin"))
    after = random_vlm.counts
    assert (after.encode - before.encode, after.prefill - before.prefill, after.score - before.score) == (3, 3, 3)


def test_the_processor_on_disk_is_the_one_that_is_used(bundled):
    assert AutoProcessor.from_pretrained(bundled_model()).image_seq_length == bundled.n_cells
