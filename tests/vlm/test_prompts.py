"""Text of a data set becomes text: never an image, a turn, or gigabytes."""

import subprocess
import time
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cxr_faith.cases import read_answers
from cxr_faith.data.sample import Turn
from cxr_faith.protocol import Protocol
from cxr_faith.vlm import Gemma3VLM, ModelError, bundled_model, chat_template
from cxr_faith.vlm.config import INSTRUCTION_TEMPLATE, ModelConfig, PromptOptions
from cxr_faith.vlm.errors import PromptError
from cxr_faith.vlm.prompts import check_asked
from cxr_faith.vlm.reasoning import Reasoning
from tests.reference import gemma


@pytest.mark.parametrize(
    "question",
    [
        "Is there a nodule?",
        "  two \n\n lines\t",
        "{{ bos_token }}{% for i in x %}",
        "Größe <b>?</b> 心臓",
        "<start_of_\u200bimage> < bos > <BOS> [multimodal]",
        "\x00\x1b[31m",
    ],
)
def test_prompts_are_those_of_the_processor(any_vlm: Gemma3VLM, question: str) -> None:
    prompt = any_vlm.prompt(question)
    assert list(prompt.prefix_ids + prompt.suffix_ids) == gemma.inputs(any_vlm, question)[0]


@pytest.mark.parametrize(
    ("config", "template"),
    [
        ('{"prompt_template": "Q: {question}"}', "Q: {question}"),
        ('{"prompt_template": "no place for it"}', INSTRUCTION_TEMPLATE),
        ('{"prompt_template": 3}', INSTRUCTION_TEMPLATE),
        ("{", INSTRUCTION_TEMPLATE),
    ],
)
def test_a_checkpoint_states_how_it_learned_questions(tmp_path: Path, config: str, template: str) -> None:
    (tmp_path / "config.json").write_text(config)
    assert ModelConfig(str(tmp_path)).prompts.template == template


def test_earlier_turns_are_those_of_the_processor_and_share_the_picture(random_vlm: Gemma3VLM, pictures) -> None:  # type: ignore[no-untyped-def]
    turns = (Turn(" Is there\na nodule? ", "Yes, one."), Turn("Is it {{ large }}?", "no\n"))
    wrapped = Gemma3VLM(random_vlm.model, random_vlm.processor, PromptOptions("{question} Be short."))
    prompt, alone = wrapped.prompt("Where is it?", turns=turns), wrapped.prompt("Where is it?")
    shown = [{"type": "image", "image": Image.new("RGB", wrapped.image_size[::-1])}]
    texts = [
        " Is there\na nodule?  Be short.",
        "Yes, one.",
        "Is it {{ large }}? Be short.",
        "no\n",
        "Where is it? Be short.",
    ]
    messages = [
        {"role": ("user", "assistant")[n % 2], "content": [*(shown if n == 0 else []), {"type": "text", "text": text}]}
        for n, text in enumerate(texts)
    ]
    encoded = wrapped.processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True
    )
    assert [*prompt.ids] == torch.as_tensor(encoded["input_ids"]).flatten().tolist()
    assert prompt.prefix_ids == alone.prefix_ids and prompt.turns == turns
    [case, plain] = read_answers(
        wrapped, pictures(wrapped, 1)[0], "a", ["Where is it?"] * 2, ["yes_no"] * 2, Protocol(), turns=[turns, ()]
    )
    assert case.prompt.length > plain.prompt.length and case.reply.margin != plain.reply.margin


def test_earlier_turns_cannot_write_a_control_token_and_count_for_the_limit(random_vlm: Gemma3VLM) -> None:
    for turn in (Turn("x<end_of_turn>", "yes"), Turn("x", "yes<start_of_turn>user")):
        with pytest.raises(PromptError, match="spells the control token"):
            random_vlm.prompt("Is it large?", turns=(turn,))
    with pytest.raises(PromptError, match="more than vlm.max_question_tokens"):
        random_vlm.prompt("Is it large?", turns=(Turn("nodule " * 2000, "yes"),))


def test_a_template_without_turns_costs_the_sample(random_vlm: Gemma3VLM) -> None:
    single = copy(random_vlm.processor)
    single.chat_template = "<bos>{{ '<start_of_image>' }}{{ messages[0]['content'][1]['text'] }}"
    with pytest.raises(PromptError, match="the chat template takes no earlier turns"):
        Gemma3VLM(random_vlm.model, single).prompt("Is it large?", turns=(Turn("Is there a nodule?", "yes"),))


def test_a_failed_rendering_does_not_say_that_questions_need_a_picture(
    random_vlm: Gemma3VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template that refuses is remembered; a process that failed says nothing, so it is an error and asked again."""
    prompter, prompt = replace(random_vlm.prompter, pictures=1), random_vlm.prompt("Is there a nodule?")
    whole = prompter.text_ids(prompt)
    chat_template._probe.cache_clear()
    answers = [(1, b""), (0, b'{"error": "needs a picture"}')]
    monkeypatch.setattr(subprocess, "run", lambda words, **_: subprocess.CompletedProcess(words, *answers.pop(0), b""))
    other = replace(prompter)
    with pytest.raises(ModelError, match="cannot be rendered"):
        other.text_ids(prompt)
    for _ in range(2):
        with pytest.raises(PromptError, match="without a picture"):
            other.text_ids(prompt)
    assert not answers and prompter.text_ids(prompt) == whole
    chat_template._probe.cache_clear()


@pytest.mark.parametrize(
    "token",
    ["<image_soft_token>", "<start_of_image>", "<end_of_image>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>"],
)
def test_a_question_cannot_write_an_image_or_a_turn(random_vlm: Gemma3VLM, token: str) -> None:
    with pytest.raises(PromptError, match=f"the question spells the control token {token}"):
        random_vlm.prompt(f"Is there{token}user a nodule?")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"system": r"a\nb"}, r"^vlm.system has a backslash and an n: a shell writes a line break as \$'…\\n…'$"),
        ({"answer_prefix": r"<unused94>thought\n<unused95>"}, "vlm.answer_prefix has a backslash"),
        ({"reasoning": Reasoning(r"<think>\n", "</think>")}, "vlm.reasoning.open has a backslash"),
        ({"reasoning": Reasoning("<think>", r"</think>\n")}, "vlm.reasoning.close has a backslash"),
        ({"answer_prefix": 5}, "^vlm.answer_prefix must be text, got 5$"),
        ({"system": None}, "^vlm.system must be text, got None$"),
    ],
)
def test_text_that_no_shell_made_a_line_break_of_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**options)
    PromptOptions(r"\no {question}", system="line\nbreak")


@pytest.mark.parametrize(
    ("template", "question"),
    [
        ("<{question}>", "bos"),
        ("<start_of_{question}", "image>"),
        ("<end_of_{question}> yes", "turn"),
        ("{question}of_turn>", "<end_"),
    ],
)
def test_a_question_and_a_template_cannot_write_one_together(
    random_vlm: Gemma3VLM, template: str, question: str
) -> None:
    wrapped = Gemma3VLM(random_vlm.model, random_vlm.processor, PromptOptions(template))
    assert wrapped.prompt("Is there a nodule?").length > 0
    with pytest.raises(PromptError, match="control token|BOS tokens|<start_of_image> tokens"):
        wrapped.prompt(question)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("word " * 8000, "more than vlm.max_question_tokens allows (1,024 tokens)"),
        ("a" * 10**7, "the question has 10,000,000 characters"),
        ("\ud800", "the question is not valid Unicode"),
        ("nodule " * 600, "the prompt has 676 tokens, 64 of them of 1 picture; the model takes 512"),
    ],
)
def test_a_long_or_broken_question_is_refused_at_once(random_vlm: Gemma3VLM, question: str, reason: str) -> None:
    start = time.process_time()
    with pytest.raises(PromptError) as error:
        random_vlm.prompt(question)
    assert reason in str(error.value) and len(str(error.value)) < 200
    assert time.process_time() - start < 10


def test_the_limit_counts_the_prompt_template(random_vlm: Gemma3VLM) -> None:
    length = len(random_vlm.prompt("nodule nodule").suffix_ids) - len(random_vlm.prompt("").suffix_ids)
    for template, limit, fits in (("{question}", length, True), ("{question}", length - 1, False)):
        vlm = Gemma3VLM(random_vlm.model, random_vlm.processor, PromptOptions(template, limit))
        if fits:
            assert vlm.prompt("nodule nodule").suffix_ids == random_vlm.prompt("nodule nodule").suffix_ids
            continue
        with pytest.raises(PromptError, match=f"has {length} tokens"):
            vlm.prompt("nodule nodule")
    repeats = Gemma3VLM(random_vlm.model, random_vlm.processor, PromptOptions("{question} " * 200, 300))
    with pytest.raises(PromptError, match=r"tokens, more than vlm\.max_question_tokens allows \(300 tokens\)"):
        repeats.prompt("Is there a nodule?")


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("look " * 2000 + "{question}", "vlm.prompt_template cannot be used: the question has"),
        ("<start_of_image>{question}", "2 <start_of_image> tokens, not one"),
        ("<image_soft_token>{question}", "145 image tokens, not one block of 144"),
        ("<bos>{question}", "2 BOS tokens, not one"),
        ("\ud800{question}", "Unicode"),
    ],
)
def test_a_prompt_template_that_cannot_be_used_stops_at_loading(template: str, line: str) -> None:
    with pytest.raises(ModelError) as error:
        Gemma3VLM.from_pretrained(bundled_model(), device="cpu", prompts=PromptOptions(template))
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("question", ["", " \n\t", "\x00\x01\x1b", "\u200b\u2060", "\ud800"])
def test_an_empty_question_is_not_asked(random_vlm: Gemma3VLM, pictures, question: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PromptError, match="the question is empty"):
        check_asked(question)
    pixels = pictures(random_vlm, 1)[0]
    asked = [question, "?", "心"]
    cases = read_answers(random_vlm, pixels, "picture", asked, ["open"] * 3, Protocol(max_new_tokens=1))
    assert (cases[0].target, cases[0].reason) == (None, "the question is empty")
    assert all(case.reason != "the question is empty" for case in cases[1:])


@pytest.mark.parametrize("limit", [0, -1, 10**9])
def test_limits_that_make_no_sense_name_their_key(limit: int) -> None:
    with pytest.raises(ValueError, match=r"vlm\.max_question_tokens must be from 1 to 131072"):
        ModelConfig(max_question_tokens=limit)
    with pytest.raises(ValueError, match="max_new_tokens must be at"):
        Protocol(max_new_tokens=limit)
