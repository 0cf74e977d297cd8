"""Command line of `prepare`: one parser per source, made from the source's own signature and docstring."""

from __future__ import annotations

import json
from difflib import get_close_matches
from textwrap import fill

from cxr_faith.bench.loader import loader_bench
from cxr_faith.cli.evaluate import CommandParser, RawHelp
from cxr_faith.data.prepare import PrepareOptions, check, prepare
from cxr_faith.data.sources import SOURCES
from cxr_faith.data.tally import PrepareError

PREPARE_HELP = """From a data set in its published layout to a manifest that `evaluate` runs on.

commands:
  prepare SOURCE --root R --out MANIFEST [options]
      write a manifest; `prepare SOURCE --help` lists the options
  prepare check MANIFEST [--images N]
      open pictures and masks of a manifest and list the faults
  prepare bench MANIFEST [--workers N] [--cache D]
      pictures per second, from files and from a cache of them

sources:
  mimic-cxr-vqa    MIMIC-Ext-MIMIC-CXR-VQA on MIMIC-CXR-JPG, with boxes of
                   MS-CXR and Chest ImaGenome
  mimic-cxr        presence questions from the labels of MIMIC-CXR-JPG
  vindr-cxr        presence questions from the readers' labels of VinDr-CXR,
                   with their boxes
  vindr-cxr-vqa    VinDr-CXR-VQA
  vqa-rad, slake   the chest part of VQA-RAD and of SLAKE
  phantom          procedural phantoms, drawn now
  table            any CSV, JSON Lines, JSON or Parquet file
  hub              a `datasets` data set, by folder or hub id

examples:
  cxr-faith prepare mimic-cxr-vqa --root datasets/mimic-cxr-jpg-2.1.0 \\
      --vqa datasets/mimic-ext-mimic-cxr-vqa --ms_cxr datasets/ms-cxr \\
      --splits test --out manifests/mimic
  cxr-faith prepare vindr-cxr --root datasets/vindr-cxr-1.0.0 \\
      --out manifests/vindr --limit 100
  cxr-faith prepare table --file questions.csv --root pictures \\
      --columns '{"image_path": "path"}' --out manifests/mine
  cxr-faith prepare check manifests/mimic --images all
  cxr-faith evaluate --config configs/mimic.yaml
"""


def run(name: str, arguments: list[str]) -> int:
    """Run `prepare NAME ARGUMENTS`; returns the exit status.

    Raises:
        ValueError: What was asked for cannot be done.
    """
    if name in ("check", "bench"):
        return _look(name, arguments)
    if name not in SOURCES:
        near = get_close_matches(name, [*SOURCES, "check", "bench"], n=1)
        raise PrepareError(
            f"no source {name!r}; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(SOURCES)}")
        )
    source = SOURCES[name]
    parser = CommandParser(
        prog=f"cxr-faith prepare {name}",
        description=_paragraphs((source.__doc__ or "").split("Args:")[0]),
        formatter_class=RawHelp,
        allow_abbrev=False,
    )
    parser.add_class_arguments(PrepareOptions, as_group=False)
    own = parser.add_function_arguments(source, as_group=False, skip={"root", "tally"})
    _check_columns(arguments)
    parsed = vars(parser.parse_args(arguments))
    prepare(name, PrepareOptions(**{k: v for k, v in parsed.items() if k not in own}), **{k: parsed[k] for k in own})
    return 0


def _paragraphs(text: str) -> str:
    """A docstring's paragraphs, each folded to the width of a terminal."""
    return "\n\n".join(fill(" ".join(part.split()), 79) for part in text.strip().split("\n\n")) + "\n"


def _check_columns(arguments: list[str]) -> None:
    """Say how --columns is written, before the parser says which types it has tried."""
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--columns":
            value = value if equals else "".join(arguments[position + 1 : position + 2])
            try:
                mapping = isinstance(json.loads(value), dict)
            except ValueError:
                mapping = False
            if not mapping:
                raise PrepareError(f'--columns is written as \'{{"image_path": "path"}}\', got {value!r}')


def _look(name: str, arguments: list[str]) -> int:
    """`check`: exit status 1 if there are faults; `bench`."""
    described = {"check": "Open a manifest's pictures and masks and list the faults, with exit status 1."}
    parser = CommandParser(
        prog=f"cxr-faith prepare {name}",
        description=described.get(name, "Pictures per second from files, by their type, and from a cache of them."),
        formatter_class=RawHelp,
        allow_abbrev=False,
    )
    parser.add_argument("manifest", type=str, help="Parquet file, or folder made by `cxr-faith prepare`")
    parser.add_argument("--root", type=str | None, default=None, help="data root; default: the one noted by `prepare`")
    if name == "check":
        parser.add_argument("--images", type=int | str, default=200, help="how many samples to open, or all")
        parsed = parser.parse_args(arguments)
        images = None if parsed.images == "all" else parsed.images
        if isinstance(images, str):
            raise PrepareError(f"--images must be a number or all, got {images!r}")
        return 1 if check(parsed.manifest, parsed.root, images) else 0
    parser.add_argument("--size", type=int, default=896, help="side of the model's input, pixels")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode")
    parser.add_argument("--images", type=int, default=200, help="pictures of each file type")
    parser.add_argument(
        "--cache",
        type=str | None,
        default=None,
        help="folder for the cache that is measured, deleted after it; default: a temporary one",
    )
    loader_bench(**vars(parser.parse_args(arguments)))
    return 0
