"""A damaged config, tokenizer, processor or chat template is one line that names it; no template runs without end."""

import json
import os
import time
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import pytest

from cxr_faith.__main__ import main
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.run.stop import StopRequest
from cxr_faith.vlm import render
from cxr_faith.vlm.chat_template import ChatTemplate
from tests.vlm.test_model_folder import Damage, edit, folder, loading_error, write

__all__ = ["folder"]

CONFIG, PROCESSOR, TOKENS = "config.json", "processor_config.json", "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
TEXT = "messages[0]['content'][1]['text']"


def drop(name: str, *keys: str) -> Damage:
    """Remove keys of a JSON file."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({key: value for key, value in content.items() if key not in keys}))

    return apply


def token(content: str, index: int) -> Damage:
    """One more token in the vocabulary."""

    def apply(folder: Path) -> None:
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        tokenizer["model"]["vocab"][content] = index
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))

    return apply


def without(*words: str) -> Damage:
    """Without some tokens."""

    def apply(folder: Path) -> None:
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        vocabulary = tokenizer["model"]["vocab"]
        gone = [name for name in vocabulary if name.strip("▁").casefold() in words]
        for name in gone:
            del vocabulary[name]
        parts = [part if isinstance(part, list) else part.split(" ") for part in tokenizer["model"]["merges"]]
        tokenizer["model"]["merges"] = [part for part in parts if not {*part, "".join(part)} & set(gone)]
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))

    return apply


def half(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (write(CONFIG, ""), "config.json is not valid JSON"),
        (write(CONFIG, "[1]"), "config.json must hold a mapping, not a list"),
        (write(CONFIG, "[" * 100_000), "config.json is not valid JSON: maximum recursion depth"),
        (write(CONFIG, "{}"), "has a config.json without model_type"),
        (lambda folder: (folder / CONFIG).write_bytes(b"\xff\xfe{"), "config.json is not UTF-8"),
        (edit(CONFIG, model_type="llama"), "is a llama model; this version reads gemma3"),
        (edit(CONFIG, model_type=["gemma3"]), "config.json without model_type"),
        (drop(CONFIG, "text_config"), "config.json has no text_config"),
        (edit(CONFIG, vision_config=None), "config.json has no vision_config"),
        (edit(CONFIG, text_config__hidden_size=10**9), "text_config.hidden_size must be a whole number from 1"),
        (edit(CONFIG, text_config__hidden_size=10**6), "embed_tokens.weight has shape [778, 128], config.json says"),
        (edit(CONFIG, text_config__num_hidden_layers=10**6), "num_hidden_layers must be a whole number from 1 to 1000"),
        (
            edit(CONFIG, text_config__num_hidden_layers=900, text_config__layer_types=["full_attention"] * 900),
            "config.json says 900 layers of the language_model, the weights have 6",
        ),
        (edit(CONFIG, vision_config__num_hidden_layers=3), "says 3 layers of the vision_tower, the weights have 4"),
        (edit(CONFIG, vision_config__num_attention_heads=-4), "vision_config.num_attention_heads must be"),
        (edit(CONFIG, vision_config__image_size=10**9), "vision_config.image_size must be"),
        (edit(CONFIG, text_config__head_dim=True), "text_config.head_dim must be a whole number"),
        (edit(CONFIG, text_config__sliding_window=None), "text_config.sliding_window must be a whole number"),
        (edit(CONFIG, text_config__query_pre_attn_scalar=-1), "query_pre_attn_scalar must be positive"),
        (edit(CONFIG, text_config__rms_norm_eps=float("nan")), "text_config.rms_norm_eps must be a finite number, got"),
        (edit(CONFIG, text_config__rms_norm_eps=0), "text_config.rms_norm_eps must be a positive number, got 0"),
        (edit(CONFIG, vision_config__layer_norm_eps="x"), "vision_config.layer_norm_eps must be a positive number"),
        (edit(CONFIG, text_config__rope_parameters__full_attention__rope_theta=0), "full_attention.rope_theta must be"),
        (edit(CONFIG, text_config__attention_dropout=float("inf")), "attention_dropout must be a finite number"),
        (edit(CONFIG, mm_tokens_per_image=143), "12x12 patches cannot become a square of 143 image tokens"),
        (edit(CONFIG, image_token_index=7), "1 image tokens, not one block of 144; see image_token_index"),
        (edit(CONFIG, text_config__layer_types=["full_attention"]), "cannot read the config of"),
        (edit(CONFIG, text_config__hidden_activation="nope"), "cannot load the model from"),
        (edit(CONFIG, transformers_weights="other.bin"), "cannot load the model from"),
        (edit(CONFIG, dtype="float99"), "cannot read the config of"),
        (half("tokenizer.json"), "cannot load the tokenizer (tokenizer.json"),
        (write("tokenizer.json", "{}"), "cannot load the tokenizer (tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer.json"),
        (token("unheard-of", 10**6), "the tokenizer has token 1000000, but the model has only 778 embeddings"),
        (without("yes"), "no single token for any of yes, Yes, YES"),
        (edit(TOKENS, bos_token=None), "the tokenizer has no BOS token"),
        (edit(TOKENS, tokenizer_class="BertTokenizer"), "cannot write 'Is there a nodule?': is it another model's?"),
        (edit(TOKENS, model_max_length="x"), "the tokenizer fails: TypeError"),
        (write(TOKENS, "{}"), "cannot load the processor (processor_config.json, tokenizer_config.json)"),
        (write(TOKENS, "{"), "tokenizer_config.json is not valid JSON"),
        (write("special_tokens_map.json", '{"bos_token": "<new>"}'), "has token 778, but the model has only 778"),
        (lambda folder: (folder / PROCESSOR).unlink(), "cannot load the processor"),
        (lambda folder: ((folder / PROCESSOR).unlink(), os.mkfifo(folder / PROCESSOR)), "config.json is no file"),
        (edit(PROCESSOR, processor_class="CLIPProcessor"), "processor is no Gemma3Processor"),
        (edit(PROCESSOR, processor_class="Gemma4Processor"), "processor_class is 'Gemma4Processor': the folder's proc"),
        (edit(PROCESSOR, processor_class=["a"]), "processor_class is ['a']: the folder's processor is no Gemma3"),
        (edit(PROCESSOR, image_seq_length=10**9), "processor_config.json: processor writes 1000000000 image tokens"),
        (edit(PROCESSOR, image_processor__size={"height": 0, "width": 0}), "the processor makes 0x0 px pictures"),
        (edit(PROCESSOR, image_processor__size={"shortest_edge": 9}), "the processor makes NonexNone px pictures"),
        (edit(PROCESSOR, image_processor__image_mean=[0.5]), "image_mean must be three numbers"),
        (edit(PROCESSOR, image_processor__image_mean=[float("nan")] * 3), "image_mean must be three numbers"),
        (edit(PROCESSOR, image_processor__image_std=[0.5, 0, 0.5]), "image_std must be positive"),
        (edit(PROCESSOR, image_processor__rescale_factor="x"), "must rescale by 1/255"),
        (edit(PROCESSOR, image_processor__do_normalize=False), "must rescale by 1/255 and normalize"),
        (write("preprocessor_config.json", "{"), "preprocessor_config.json is not valid JSON"),
        (lambda folder: (folder / TEMPLATE).unlink(), "there is no chat template (chat_template.jinja)"),
        (lambda folder: (folder / TEMPLATE).write_bytes(b"\xff"), "chat_template.jinja is not UTF-8"),
        (write(CONFIG, "{" + " " * (17 << 20)), "config.json is larger than 16 MiB"),
        (write(TOKENS, " " * (17 << 20) + "{}"), "tokenizer_config.json is larger than 16 MiB"),
        (lambda folder: os.truncate(folder / "tokenizer.json", 2**40), "tokenizer.json is larger than 256 MiB"),
        (write(TEMPLATE, "x" * 2_000_000), "the chat template has 2,000,000 characters"),
    ],
)
def test_a_damaged_file_is_one_line(folder: Path, damage: Damage, line: str) -> None:
    damage(folder)
    start = time.monotonic()
    message = loading_error(folder)
    assert line in message and folder.name in message
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "generation_config.json is not valid JSON"),
        ('{"eos_token_id": "stop"}', "generation_config.json: eos_token_id must be a token id or a list of them"),
        ('{"eos_token_id": [1, null]}', "generation_config.json: eos_token_id must be a token id or a list of them"),
    ],
)
def test_a_damaged_generation_config_is_named(folder: Path, text: str, line: str) -> None:
    (folder / "generation_config.json").write_text(text)
    assert line in loading_error(folder)


class Processor:
    """The two things of a processor that templates need."""

    def __init__(self, template: object) -> None:
        self.chat_template, self.tokenizer = template, self
        self.special_tokens_map = {"bos_token": "<bos>"}


LOOPS = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{% for i in range(10**12) %}{% endfor %}", "fails: OverflowError: Range too big"),
        ("{{ 2 ** (10 ** 10) }}", f"does not end: stopped after {render.SECONDS} seconds"),
        ("{{ 'a' * 10**11 }}", "fails: it needs more than 512 MiB of memory"),
        (f"{{{{ ('a' * 2000000) + {TEXT} }}}}", "fails: it writes more than 1,000,000 characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails: it calls itself without end"),
        ("{% if %}", "fails: TemplateSyntaxError"),
        ("{{ messages[0].nothing.at_all }}", "fails: UndefinedError"),
        ("{{ undefined_name }}", "writes the question 0 times"),
        ("{{ raise_exception('no\nsuch role') }}", "fails: TemplateError: no such role"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "fails: SecurityError"),
        ("{{ messages.append(1) }}", "fails: SecurityError"),
        (f"{{{{ ['a', 'b'] | random }}}}{{{{ {TEXT} }}}}", "fails: TemplateAssertionError: No filter named 'random'"),
        (f"{{{{ [['a', 'b']] | map('ran' ~ 'dom') | first }}}}{{{{ {TEXT} }}}}", "No filter named 'random'"),
        (f"{{{{ lipsum(1) }}}}{{{{ {TEXT} }}}}", "fails: UndefinedError: 'lipsum' is undefined"),
        (f"{{{{ {TEXT}.strip }}}}{{{{ {TEXT} }}}}", "fails: it writes an address in memory"),
        ("<start_of_image>", "writes the question 0 times, not once as it is"),
        (f"{{{{ {TEXT} * 3 }}}}", "writes the question 3 times, not once as it is"),
        (f"{{{{ {TEXT} | lower }}}}", "writes the question 0 times"),
        (f"{{{{ {TEXT} | truncate(200) }}}}", "changes the question, or writes other text around some questions"),
        (f"{{% if 'where' in {TEXT} %}}{LOOPS}{{% endif %}}{{{{ {TEXT} }}}}", "does not end"),
        (f"{{{{ {TEXT} | length }}}} {{{{ {TEXT} }}}}", "changes the question, or writes other text"),
        ("", "writes the question 0 times"),
        (None, "there is no chat template"),
        ({"tool_use": "x"}, "there is no chat template"),
    ],
)
def test_a_bad_chat_template_is_one_line(template: object, line: str) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match="chat template") as error:
        ChatTemplate.of(Processor(template))
    assert line in str(error.value) and "\n" not in str(error.value)
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(
    ("edge", "shown"), [("", " \n who? \t"), ("| trim", "who?"), (".lstrip()", "who? \t"), (".rstrip()", " \n who?")]
)
def test_a_template_keeps_or_trims_white_space(edge: str, shown: str) -> None:
    chat = ChatTemplate.of(Processor({"default": f"{{{{ bos_token }}}}[{{{{ {TEXT}{edge} }}}}] {{{{ 'model' }}}}"}))
    assert chat.fill(" \n who? \t") == f"<bos>[{shown}] model"


def test_a_template_does_not_know_the_day() -> None:
    now = "{{ strftime_now('%Y-%m-%d %H:%M:%S %A') }}"
    chat = ChatTemplate.of(Processor(f"{{% set n = strftime_now %}}{now}{{{{ {TEXT} }}}}{{{{ n('%d %b %Y') }}}}"))
    assert (chat.before, chat.after) == ("2025-01-01 00:00:00 Wednesday", "01 Jan 2025")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp037", "ascii"])
def test_no_encoding_of_the_terminal_reaches_the_template(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    chat = ChatTemplate.of(Processor(f"{encoding}ä [{{{{ {TEXT} }}}}]"))
    assert chat.fill("größer?") == f"{encoding}ä [größer?]"


PICTURE = sorted(bundled_manifest().parent.rglob("*.png"))[0]


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--config", "demo", "--model.vlm.path", "MODEL", "--run_dir", "RUN", "--trainer.devices", "1"],
        ["doctor", "--config", "demo", "--model.vlm.path", "MODEL", "--run_dir", "RUN"],
        ["sanity", "--config", "demo", "--model.vlm.path", "MODEL", "--run_dir", "RUN"],
        ["explain", str(PICTURE), "--question", "Is there a nodule?", "--model", "MODEL", "--out", "RUN"],
        ["fit-sae", "--images", "phantom:2", "--layer", "1", "--model", "MODEL", "--out", "RUN"],
    ],
    ids=lambda words: words[0],
)
def test_every_command_ends_with_one_line(folder: Path, words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    (folder / TEMPLATE).write_text("{% if %}")
    words = [word.replace("MODEL", str(folder)).replace("RUN", str(folder.parent / "run")) for word in words]
    with patch("cxr_faith.run.stop.listening", lambda: nullcontext(StopRequest())):
        assert main(words) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("cxr-faith: error")]
    assert len(errors) == 1 and "the chat template fails: TemplateSyntaxError" in errors[0]
    assert not list((folder.parent / "run").rglob("provenance.json"))  # so that the mended model may use the directory
