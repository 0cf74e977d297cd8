"""The text of `--help`."""

import ast
import re
from collections.abc import Mapping, Sequence
from textwrap import fill

from cxr_faith.cli.signatures import Option

WIDTH = 79
INDENT = 6
USAGE = """usage: cxr-faith COMMAND [options]

Which explanations of chest X-ray vision-language models to believe, measured.

commands:
  evaluate --config FILE [overrides] [--run_dir D] [--limit N]
                            explain and score a data set's answers
  explain IMAGE --question Q [--method M] [--model P] [--out D]
                            explain one answer about one picture
  report RUN_DIR            summary and report again, from a run's records
  compare RUN RUN ... --out DIR
                            runs side by side on the samples that they share
  view RUN_DIR [--data_root D]
                            every sample of a run in a browser, on this machine
  dossier RUN ... --out FILE
                            what runs say to CLAIM, a model card, EU AI Act, FDA
  app [--model P]           drop films into a browser page, and ask about them
  export dicom RUN_DIR --data_root D --out D
                            a run's maps as DICOM objects
  prepare SOURCE --root R --out MANIFEST
                            from a published data set to a manifest
  prepare check MANIFEST    open a manifest's pictures and list the faults
  plan --config FILE [--pilot RUN]
                            what a run will cost, before it starts
  doctor --config FILE      check model, data and machine before a benchmark
  sanity --config FILE      do the maps depend on model, picture and question?
  bench [--preset NAME]     speed beside the usual recipe and the floor
  fit-sae --config FILE     train a sparse autoencoder for the method sae

examples:
  cxr-faith evaluate --config demo
  cxr-faith explain chest.png --question "Is there a nodule?" --method chefer
  cxr-faith report runs/demo
  cxr-faith prepare vindr-cxr --root datasets/vindr-cxr --out manifests/vindr

`cxr-faith COMMAND --help` explains a command. Exit status: 0 done, 2 usage or
config error, 75 stopped on request (the same command resumes), 130 stopped by
Ctrl-C, 1 anything else.
"""
"""What `cxr-faith --help` prints."""

_WORDS = {
    "dict": "JSON",
    "Mapping": "JSON",
    "tuple": "LIST",
    "list": "LIST",
    "bool": "true|false",
    "int": "NUMBER",
    "float": "NUMBER",
    "str": "TEXT",
}
"""Word of an annotation → what stands for the value in the help; the first one that occurs counts."""

_FIRST_CLAUSE = re.compile(r"(?:`[^`]*`|[^`])+?(?=(?<!e\.g)\.\s|;\s|(?<!default):\s|\s\(|$)")
"""A text up to the first full stop, semicolon, colon or parenthesis that is not inside `code`."""


def section(title: str, options: Sequence[Option], brief: bool = False) -> str:
    """A title and its options, each with its kind of value, its default, and what it does.

    Args:
        title: what the options have in common.
        options: in the order in which they are shown.
        brief: show only the first clause about each option.
    """
    return "\n".join([f"{title}:", *(_entry(option, brief) for option in options)]) + "\n"


def table(title: str, rows: Mapping[str, str]) -> str:
    """A title and an entry for each name, its text folded beside it."""
    width = 4 + max(map(len, rows))
    lines = [
        fill(text, WIDTH, initial_indent=f"  {name:{width - 2}}", subsequent_indent=" " * width)
        for name, text in rows.items()
    ]
    return "\n".join([f"{title}:", *lines]) + "\n"


def paragraphs(text: str) -> str:
    """Text whose paragraphs are folded to the width of a terminal."""
    return "\n\n".join(fill(" ".join(part.split()), WIDTH) for part in text.strip().split("\n\n")) + "\n"


def _entry(option: Option, brief: bool) -> str:
    text = option.text.replace("``", "`")
    if brief and (clause := _FIRST_CLAUSE.match(text)):
        text = clause[0]
    text = text.rstrip(".")
    if option.default is None:
        text = f"{text} (required)"
    elif option.default != "None" and not (brief and option.default in ("''", '""')):
        text = f"{text} (default: {_as_typed(option.default)})"
    head = f"  --{option.key} {_kind(option)}".rstrip()
    if len(head) + len(text) + 2 <= WIDTH:
        return f"{head}  {text}"
    indent = " " * INDENT
    return f"{head}\n{fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)}"


def _kind(option: Option) -> str:
    """What is written after an option's name; nothing after a flag."""
    if not option.type:
        return ""
    choices = re.fullmatch(r"Literal\[(.*)\](?: \| None)?", option.type)
    if choices:
        return choices[1].replace("'", "").replace(", ", "|")
    if re.search(r"\bstr\b", option.type) and re.search(r"\b(int|float)\b", option.type):
        return "VALUE"
    return next((word for name, word in _WORDS.items() if re.search(rf"\b{name}\b", option.type)), "VALUE")


def _as_typed(default: str) -> str:
    """A default as it is typed on the command line: true for True, [a] for ('a',)."""
    if default in ("True", "False"):
        return default.lower()
    if default.startswith("("):
        return f"[{', '.join(str(value) for value in ast.literal_eval(default))}]"
    return default
