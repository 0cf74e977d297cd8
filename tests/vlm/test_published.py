"""Model folders as they are published: both layouts answer and are explained; thoughts are seen and held fixed."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cxr_faith.__main__ import main
from cxr_faith.adapters import YesNoClassifier
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.explainer import Explainer
from cxr_faith.vlm import Gemma3VLM, bundled_model
from cxr_faith.vlm.config import INSTRUCTION_TEMPLATE, PLAIN_TEMPLATE, ModelConfig, PromptOptions, default_template
from cxr_faith.vlm.reasoning import Reasoning, opened_thought
from tests.published import TRUE_TOKENIZER, publish
from tests.reference import gemma

QUESTION = "Is there a nodule?"
MARKS = Reasoning("<unused94>", "<unused95>")
PICTURE = np.random.default_rng(0).integers(0, 255, (150, 120), np.uint8)
tokenizers = [
    "small",
    pytest.param(
        "true", marks=pytest.mark.skipif(TRUE_TOKENIZER not in os.environ, reason=f"no folder in {TRUE_TOKENIZER}")
    ),
]


@pytest.fixture(scope="module", params=tokenizers)
def true(request) -> Path | None:
    """Folder of the true tokenizer; None for the small one."""
    return Path(os.environ[TRUE_TOKENIZER]) if request.param == "true" else None


@pytest.fixture(scope="module", params=["old", "new"])
def published(request, true: Path | None, tmp_path_factory) -> Path:
    """A folder that answers at once."""
    folder = tmp_path_factory.mktemp("published") / request.param
    publish(folder, request.param, true)
    return folder


@pytest.fixture(scope="module")
def thinking(true: Path | None, tmp_path_factory) -> Path:
    """A folder that thinks before it answers yes."""
    folder = tmp_path_factory.mktemp("thinking") / "new"
    publish(folder, "new", true, thinks=True)
    return folder


def test_both_layouts_load_answer_and_are_explained(published: Path, capfd: pytest.CaptureFixture[str]) -> None:
    explainer = Explainer.from_pretrained(published, device="cpu")
    vlm = explainer.vlm
    assert vlm.model.dtype == torch.float32 and vlm.grid == (4, 4)
    asked = INSTRUCTION_TEMPLATE.replace("{question}", QUESTION)
    prompt = vlm.prompt(QUESTION)
    assert list(prompt.prefix_ids + prompt.suffix_ids) == gemma.inputs(vlm, asked)[0]
    explanation = explainer.explain(PICTURE, QUESTION, "chefer")
    assert (explanation.answer, explanation.metadata["kind"]) == ("yes", "yes_no")
    assert explanation.tokens == ("Yes",) and np.ptp(explanation.map) > 0
    assert explainer.evaluate(explanation, steps=4, random_orders=2).status in ("ok", "degenerate", "inverted")
    assert "not sharded" not in capfd.readouterr().err


def test_old_and_new_weight_names_are_the_same_model(tmp_path: Path) -> None:
    hashes = set()
    for new_keys in (False, True):
        publish(tmp_path / str(new_keys), "new", new_keys=new_keys)
        hashes.add(Gemma3VLM.from_pretrained(tmp_path / str(new_keys), "cpu").identity()["weights"])
    assert len(hashes) == 1


def test_every_end_token_of_the_generation_config_stops_an_answer(tmp_path: Path) -> None:
    publish(tmp_path / "model", "new")
    file = tmp_path / "model" / "generation_config.json"
    plain = Explainer.from_pretrained(tmp_path / "model", "cpu")
    [yes] = plain.explain(PICTURE, QUESTION, "center")._case.reply.token_ids
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": [1, 106, yes]}))
    stopped = Explainer.from_pretrained(tmp_path / "model", "cpu")
    assert stopped.explain(PICTURE, QUESTION, "center")._case.reply.token_ids == ()
    file.unlink()  # then config.json says it
    assert Explainer.from_pretrained(tmp_path / "model", "cpu").explain(PICTURE, QUESTION, "center").answer == "yes"


def test_pictures_are_those_of_the_fast_processor(published: Path) -> None:
    # A build for another torch fails with a RuntimeError.
    pytest.importorskip("torchvision", reason="torchvision is not installed", exc_type=(ImportError, RuntimeError))
    vlm = Gemma3VLM.from_pretrained(published, "cpu")
    images = torch.randint(0, 256, (2, 3, *vlm.image_size), dtype=torch.uint8)
    made = vlm.processor.image_processor(list(images), return_tensors="pt", do_resize=False)["pixel_values"]
    torch.testing.assert_close(vlm.normalize(images), made, atol=1e-5, rtol=0)


def test_a_thought_is_not_explained_as_an_answer(thinking: Path) -> None:
    explainer = Explainer.from_pretrained(thinking, device="cpu")
    line = (
        'the answer opens a thought .<unused94>.*vlm.answer_prefix: "<unused94>thought.n<unused95>" .an empty thought'
    )
    for kind, target in ((None, "answer"), ("open", "first"), ("open", "keyword:heart"), ("open", "llr")):
        with pytest.raises(ValueError, match=line):
            explainer.explain(PICTURE, QUESTION, "center", target, kind)
    asked = explainer.explain(PICTURE, QUESTION, "center", kind="yes_no")
    scores = explainer.evaluate(asked, steps=4)
    assert scores.status == "off_format" and "the answer opens a thought (<unused94>)" in str(scores.reason)
    assert explainer.explain(PICTURE, QUESTION, "center", 0, "open").tokens[0] == "<unused94>"


def test_explain_says_once_what_to_give_and_records_it(
    thinking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    picture = bundled_manifest().parent / str(pq.read_table(bundled_manifest())["image_path"][0])
    words = ["explain", str(picture), "--question", QUESTION, "--model", str(thinking), "--method", "center"]
    words += ["--out", str(tmp_path), "--device", "cpu"]
    assert main(words) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1 and r"give --answer_prefix $'<unused94>thought\n<unused95>' (an empty" in printed[0]
    assert "thought" not in caplog.text
    assert main([*words, "--answer_prefix", "<unused94>thought\n<unused95>"]) == 0
    [file] = tmp_path.glob("*.json")
    content = json.loads(file.read_text())
    assert content["answer_prefix"] == "<unused94>thought\n<unused95>" and content["dtype"] == "float32"
    assert content["prompt_template"] == INSTRUCTION_TEMPLATE and content["revision"] == ""
    assert main([*words, "--revision", "nonsense"]) == 2
    assert "vlm.revision is 'nonsense', and " in capsys.readouterr().err


def test_an_empty_thought_before_the_answer(thinking: Path) -> None:
    explainer = Explainer.from_pretrained(thinking, device="cpu", answer_prefix="<unused94>thought\n<unused95>")
    explanation = explainer.explain(PICTURE, QUESTION, "center")
    assert (explanation.answer, explanation.tokens) == ("yes", ("Yes",))
    assert explanation.metadata["thought"] is None and explanation.metadata["yes_no_mass"] > 0.5
    suffix = explainer.vlm.decode(explanation._case.prompt.suffix_ids)
    assert "".join(suffix).endswith("<start_of_turn>model\n<unused94>thought\n<unused95>")
    assert explainer.vlm.identity()["answer_prefix"] == "<unused94>thought\n<unused95>"


def test_a_thought_is_held_fixed_and_the_answer_after_it_is_explained(thinking: Path) -> None:
    explainer = Explainer.from_pretrained(thinking, device="cpu", reasoning=MARKS)
    explanation, vlm = explainer.explain(PICTURE, QUESTION, "chefer"), explainer.vlm
    assert explanation.answer == "yes" and explanation.tokens == ("Yes",)
    assert explanation.metadata["thought"].endswith("the heart is large")
    case, asked = explanation._case, INSTRUCTION_TEMPLATE.replace("{question}", QUESTION)
    written = "".join(vlm.decode(case.prompt.suffix_ids))
    assert written.endswith(f"model\n<unused94>{explanation.metadata['thought']}<unused95>")
    # The slow twin: the processor's prompt, then the thought token by token with whole forwards, as greedy finds it.
    twin, pixels = gemma.twin_model(vlm.model), explanation._view.pixels
    opened = vlm.tokenizer(MARKS.open, add_special_tokens=False)["input_ids"]
    thought = list(opened)
    while vlm.tokenizer.decode(thought[-1:]) != MARKS.close:
        thought.append(int(gemma.all_logits(vlm, twin, pixels, asked, thought)[-1].argmax()))
    assert list(case.prompt.prefix_ids + case.prompt.suffix_ids) == gemma.inputs(vlm, asked)[0] + thought
    margin = gemma.margin(vlm, gemma.all_logits(vlm, twin, pixels, asked, thought)[-1])
    assert explanation.metadata["margin"] == pytest.approx(margin, rel=1e-5)
    assert explainer.evaluate(explanation, steps=2, random_orders=2).s_original == pytest.approx(margin, rel=1e-5)


def test_a_classifier_of_pictures_takes_no_model_that_thinks(thinking: Path) -> None:
    with pytest.raises(ValueError, match="a model that thinks first has a prompt for each picture"):
        YesNoClassifier(Explainer.from_pretrained(thinking, device="cpu", reasoning=MARKS), QUESTION)


def test_a_long_thought_is_closed_and_the_answer_prefix_follows_it(thinking: Path) -> None:
    options = PromptOptions(PLAIN_TEMPLATE, answer_prefix="A:", reasoning=MARKS, max_reasoning_tokens=2)
    vlm = Gemma3VLM.from_pretrained(thinking, "cpu", prompts=options)
    prefix = vlm.prefill(vlm.encode(torch.zeros(1, 3, *vlm.image_size)))
    before = vlm.prompt(QUESTION)
    after = vlm.answer(prefix, before, 4).prompt
    assert after is not None
    ids = after.suffix_ids[len(before.suffix_ids) :]
    assert vlm.tokenizer.decode(ids[2:]) == "<unused95>A:" and after.thought == vlm.tokenizer.decode(ids[:2]).strip()
    assert set(vlm.identity()) >= {"reasoning", "max_reasoning_tokens", "answer_prefix"}


def test_the_system_text_comes_before_the_picture(random_vlm: Gemma3VLM) -> None:
    options = PromptOptions(system="look at the heart")
    vlm = Gemma3VLM(random_vlm.model, random_vlm.processor, options)
    prompt = vlm.prompt(QUESTION)
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    system = {"role": "system", "content": [{"type": "text", "text": options.system}]}
    text = vlm.processor.apply_chat_template([system, {"role": "user", "content": content}], add_generation_prompt=True)
    whole = vlm.tokenizer.decode(prompt.prefix_ids + prompt.suffix_ids)
    image = vlm.processor.full_image_sequence
    assert whole == text.replace(vlm.processor.boi_token, image)
    assert "look at the heart" in vlm.tokenizer.decode(prompt.prefix_ids)
    assert prompt.suffix_ids == random_vlm.prompt(QUESTION).suffix_ids


def test_a_template_without_a_system_role_is_refused(random_vlm: Gemma3VLM) -> None:
    from tests.random_model import random_processor

    processor = random_processor()
    processor.chat_template = (
        "{{ bos_token }}{% for m in messages if m['role'] == 'user' %}<start_of_turn>user\n{% for c in m['content'] %}"
        "{{ '<start_of_image>' if c['type'] == 'image' else c['text'] }}{% endfor %}<end_of_turn>\n{% endfor %}"
    )
    with pytest.raises(ValueError, match="leaves out the system text .vlm.system."):
        Gemma3VLM(random_vlm.model, processor, PromptOptions(system="be brief")).prompt(QUESTION)


def test_one_default_template_for_instruction_models(thinking: Path) -> None:
    assert default_template(bundled_model()) == default_template("bundled" and bundled_model()) == PLAIN_TEMPLATE
    assert default_template("google/medgemma-4b-it") == default_template(thinking) == INSTRUCTION_TEMPLATE
    assert ModelConfig().prompts.template == PLAIN_TEMPLATE
    assert ModelConfig(path="google/medgemma-4b-it").prompts.template == INSTRUCTION_TEMPLATE
    assert ModelConfig(path="google/medgemma-4b-it", prompt_template="{question}!").prompts.template == "{question}!"
    with pytest.raises(ValueError, match=r"vlm\.prompt_template must contain '{question}', got ''"):
        ModelConfig(prompt_template="")


@pytest.mark.parametrize(
    ("text", "close"),
    [
        ("<unused94>thought\nThe", "<unused95>"),
        ("<unused94>", "<unused95>"),
        ("\n<think>", "</think>"),
        ("<|channel>thought", "<channel|>"),
        ("[THINK]It", "[/THINK]"),
        ("Yes", None),
        ("I think", None),
        ("<unused9", None),
        ("", None),
    ],
)
def test_marks_of_thoughts(text: str, close: str | None) -> None:
    marks = opened_thought(text)
    assert (marks and marks.close.strip()) == close
    with pytest.raises(ValueError, match=r"vlm\.reasoning\.close must say"):
        Reasoning(open="<think>")
