"""`cxr-faith prepare`: from a published data set to a manifest, and a look at manifests."""

import json
from pathlib import Path

from cxr_faith.cli import prepare_bench, prepare_check, prepare_masks, prepare_planted
from cxr_faith.cli.errors import USAGE_STATUS, UsageError, nearest, usage_errors
from cxr_faith.cli.help import paragraphs
from cxr_faith.cli.parser import Command, Given
from cxr_faith.cli.prepared import print_prepared
from cxr_faith.cli.signatures import Option, description_of, options_of, registry
from cxr_faith.cli.startup import quick_imports
from cxr_faith.cli.typed import typed_values
from cxr_faith.cli.values import as_yaml

DESCRIPTION = """From a data set in its published layout to a manifest that `evaluate` runs on.

commands:
  prepare SOURCE --root R --out MANIFEST [options]
      write a manifest; `prepare SOURCE --help` lists the options
  prepare check MANIFEST [--images N] [--against OTHER]
      open pictures and masks of a manifest and list the faults, or the
      pictures and patients that it shares with another
  prepare bench MANIFEST [--workers N] [--cache D]
      pictures per second, from files and from a cache of them
  prepare masks MANIFEST --out DIR [--segmenter torchxrayvision]
      masks of lungs, heart and mediastinum, for --masks
  prepare planted MANIFEST --out DIR [--findings nodule,line]
      pairs: films, and copies with a synthetic object planted in them

sources:
  mimic-cxr-vqa    MIMIC-Ext-MIMIC-CXR-VQA on MIMIC-CXR-JPG, with boxes of
                   MS-CXR and Chest ImaGenome
  mimic-cxr        presence questions from the labels of MIMIC-CXR-JPG
  vindr-cxr        presence questions from the readers' labels of VinDr-CXR,
                   with their boxes
  vindr-cxr-vqa    VinDr-CXR-VQA
  vinbigdata       presence questions from VinBigData, its Kaggle edition
  nih              presence questions from ChestX-ray14, with its boxes
  chexpert         presence questions from CheXpert
  rsna             presence of lung opacity, from RSNA Pneumonia, with boxes
  siim             presence of a pneumothorax, from SIIM-ACR, with masks
  padchest-gr      presence questions from PadChest-GR's reports, with boxes
  medical-diff-vqa questions of Medical-Diff-VQA about one study
  rexvqa           multiple-choice questions of ReXVQA about one picture
  vqa-rad, slake   the chest part of VQA-RAD and of SLAKE
  phantom          procedural phantoms, drawn now
  table            any CSV, JSON Lines, JSON or Parquet file
  folder           a folder of pictures, with one question about each
  hub              a `datasets` data set, by folder or hub id

examples:
  cxr-faith prepare mimic-cxr-vqa --root datasets/mimic-cxr-jpg-2.1.0 \\
      --vqa datasets/mimic-ext-mimic-cxr-vqa --ms_cxr datasets/ms-cxr \\
      --splits test --out manifests/mimic
  cxr-faith prepare vindr-cxr --root datasets/vindr-cxr-1.0.0 \\
      --out manifests/vindr --limit 100
  cxr-faith prepare table --file questions.csv --root pictures \\
      --columns image_path=path,answer=label --out manifests/mine
  cxr-faith prepare folder pictures --out manifests/mine \\
      --question "Is there a pneumothorax?"
  cxr-faith prepare check manifests/mimic --images all
  cxr-faith evaluate --config configs/mimic.yaml
"""
LOOKS = {
    "check": prepare_check.main,
    "bench": prepare_bench.main,
    "masks": prepare_masks.main,
    "planted": prepare_planted.main,
}
"""What `prepare` does with an existing manifest."""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(DESCRIPTION, end="")
        return 0 if arguments else USAGE_STATUS
    name, *rest = arguments
    if name in LOOKS:
        return LOOKS[name](rest)
    sources = registry("cxr_faith.data.sources", "SOURCES")
    if name not in sources:
        hint = nearest(name, [*sources, *LOOKS]) or f"; there are {', '.join(sources)}"
        raise UsageError(f"no source {name!r}{hint}")
    given = _read(name, sources[name], _columns_as_json(rest))
    _check_files(name, given)
    return _prepare(name, given)


def _read(name: str, place: str, arguments: list[str]) -> Given:
    """The arguments of a source; `folder` takes its root as the word DIR, or still as --root."""
    own = options_of(place, skip=("root", "tally", "folder"))
    common = options_of("cxr_faith.data.prepare:PrepareOptions")
    hidden: tuple[Option, ...] = ()
    words: tuple[str, ...] = ()
    if name == "folder":
        common = [option for option in common if option.key != "root"]
        hidden = (Option("root", "str | None", "None", ""),)
        words = () if any(word.partition("=")[0] == "--root" for word in arguments) else ("DIR",)
    groups = {"options": common, f"options of {name}": own} if own else {"options": common}
    usage = "DIR [options]" if name == "folder" else "[options]"
    text = paragraphs(description_of(place))
    given = Command(f"prepare {name}", text, groups, usage, words, hidden=hidden).read(arguments)
    for word in given.positionals:
        given.values["root"] = word
        given.arguments[given.arguments.index(word)] = f"--root={word}"
    return given


def _prepare(name: str, given: Given) -> int:
    with quick_imports():
        from cxr_faith.data.prepare import PrepareOptions, prepare
        from cxr_faith.data.sources import SOURCES
        from cxr_faith.report.progress import progress_bar
        from cxr_faith.report.terminal import wide_console

    console = wide_console()
    common, own = typed_values(given, {PrepareOptions: set(), SOURCES[name]: {"root", "tally", "folder"}})
    with usage_errors(ValueError), progress_bar(console, f"prepare {name}") as progress:
        prepared = prepare(name, PrepareOptions(**common), progress, **own)
    print_prepared(prepared, console)
    return 0


def _check_files(source: str, given: Given) -> None:
    """Refuse a data set or a table that does not exist, and a limit, with the messages of `cxr_faith.data`."""
    root, file, limit = Path(given.values["root"]), given.values.get("file"), given.values.get("limit")
    limit = as_yaml(limit) if isinstance(limit, str) else limit
    if isinstance(limit, int) and limit < 1:
        raise UsageError(f"--limit must be at least 1, got {limit}")
    if source not in ("phantom", "hub") and not root.is_dir():
        what = "DIR is the folder of the pictures" if source == "folder" else "--root is the folder of the data set"
        raise UsageError(f"{root}: no such folder; {what}")
    if source == "table" and not Path(str(file)).is_file():
        raise UsageError(f"{file}: {'is not a file' if Path(str(file)).exists() else 'file not found'}")


def _columns_as_json(arguments: list[str]) -> list[str]:
    """The arguments with `--columns a=b,c=d` written as JSON, which the typed parser reads.

    Raises:
        UsageError: the value of --columns has neither form.
    """
    written = list(arguments)
    for position, argument in enumerate(written):
        name, equals, value = argument.partition("=")
        if name == "--columns":
            value = value if equals else "".join(written[position + 1 : position + 2])
            pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
            if pairs and all(own and column.isidentifier() for column, _, own in pairs):
                columns = {column.strip(): own.strip() for column, _, own in pairs}
            else:
                try:
                    columns = json.loads(value)
                except ValueError:
                    columns = None
            if not isinstance(columns, dict):
                raise UsageError(f"--columns is written as image_path=path,answer=label or as JSON, got {value!r}")
            written[position : position + (1 if equals else 2)] = [f"--columns={json.dumps(columns)}"]
    return written
