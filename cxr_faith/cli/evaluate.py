"""Parsers of the command line: one line for an error, with the nearest right name."""

import re
import sys
import warnings
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from cxr_faith.data.module import CXRVQADataModule, Shard
from cxr_faith.run.evaluate import RunOptions, trainer_defaults
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.run.monitor import Thresholds
from cxr_faith.run.ranks import cluster_plugins

EVALUATE_HELP = """Explain a model's answers over a data set and score the explanations.

examples:
  cxr-faith evaluate --config configs/demo.yaml
  cxr-faith evaluate --config configs/demo.yaml --limit 8 --run_dir runs/try
  cxr-faith evaluate --config configs/mimic.yaml \\
      --config configs/trainer/ddp.yaml --model.protocol.steps 20
  cxr-faith evaluate --config configs/demo.yaml --print_config

The same command resumes an interrupted run; records that are there are not
computed again.
"""

_UNKNOWN_KEY = re.compile(r"(?:Key|Option|key) [\"']([\w./-]+)[\"'] is not expected|[Nn]ested key [\"']([\w./-]+)[\"']")
_NOT_IN_GROUP = re.compile(r"Group '([\w.]+)' does not accept option '([\w.-]+)'")
_NO_CONFIG = re.compile(r"Parser key \"config\": File does not exist: '?([^']+)'?")
_UNKNOWN_OPTION = re.compile(r"[Uu]nrecognized arguments: (--[\w.-]+)")


class RawHelp(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the line breaks of the examples, and shows a default that is an empty text."""

    def _get_help_string(self, action: Any) -> str:
        text = str(super()._get_help_string(action))
        return text.replace("default: %(default)s", 'default: ""') if action.default == "" else text


class OneLineErrors:
    """Mixin of a jsonargparse parser: an error is one line on stderr and exit status 2, without the usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong, with the nearest right name, and exit with 2."""
        text = " ".join(str(message).split())
        unknown = _UNKNOWN_OPTION.search(text)
        if unknown:
            text = f"unknown option {unknown[1]}{_nearest(unknown[1].removeprefix('--'), self._keys(), '--')}"
        elif found := _NOT_IN_GROUP.search(text):
            name = f"{found[1]}.{found[2]}"
            text = f"unknown key {name}{_nearest(name, self._keys())}"
        elif key := _UNKNOWN_KEY.search(text):
            name = key[1] or key[2]
            text = f"unknown key {name}{_nearest(name, self._keys())}"
        elif file := _NO_CONFIG.search(text):
            text = f"--config {file[1]}: file not found"
        elif "arguments are required: model.methods" in text:
            text = "--config FILE is required, such as configs/demo.yaml"
        print(f"cxr-faith: error: {text}", file=sys.stderr)
        raise SystemExit(2)

    def _keys(self) -> list[str]:
        return sorted({key for action in getattr(self, "_actions", []) for key in _names(action)})


class EvaluateParser(OneLineErrors, LightningArgumentParser):
    """The parser of `evaluate`."""


class CommandParser(OneLineErrors, ArgumentParser):
    """The parser of the other commands."""


class EvaluateCLI(LightningCLI):
    """`cxr-faith evaluate`: type hints are the schema of the config."""

    command, description = "evaluate", EVALUATE_HELP

    def __init__(self, args: list[str]) -> None:
        """Parse and make module, data and trainer; nothing is loaded yet."""
        # sys.argv stays as it is, since Lightning starts the other ranks with it.
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        super().__init__(
            FaithfulnessModule,
            CXRVQADataModule,
            args=args,
            run=False,
            save_config_callback=None,
            seed_everything_default=False,
            auto_configure_optimizers=False,
            parser_kwargs={
                "prog": f"cxr-faith {self.command}",
                "allow_abbrev": False,
                "usage": f"cxr-faith {self.command} --config FILE [--config OVERLAY] [overrides]",
                "description": self.description,
                "formatter_class": RawHelp,
            },
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Our parser instead of Lightning's."""
        parser = EvaluateParser(**kwargs)
        parser.add_argument("-c", "--config", action="config", help="YAML file; a second one overlays the first")
        return parser

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Trainer, model and data, under headings of our own."""
        super().add_core_arguments_to_parser(parser)
        titles = {
            "trainer": "PyTorch Lightning's Trainer: devices, processes, nodes",
            "model": "model, methods and protocol",
            "data": "data",
        }
        groups = parser.groups or {}
        for name, title in titles.items():
            groups[name].title = title

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Where a run goes and how much it takes; outside its fingerprint."""
        parser.add_argument("--run_dir", type=str | None, default=None, help="default: runs/<name of the config>")
        parser.add_argument("--limit", type=int | None, default=None, help="only the first LIMIT samples")
        parser.add_argument(
            "--shard", type=str | None, default=None, help="INDEX/COUNT, e.g. 3/8: only this part of the samples"
        )
        parser.add_argument("--show_images", type=bool, default=False, help="put pictures into report and TensorBoard")
        parser.add_class_arguments(Thresholds, "monitor")

    def before_instantiate_classes(self) -> None:
        """Settle the run directory and what a run needs of its Trainer."""
        config = self.config
        files = config.get("config") or []
        stem = Path(str(files[0])).stem if files else "evaluate"
        if config.limit is not None and config.limit < 1:
            raise ValueError(f"limit must be at least 1, got {config.limit}")
        shard = Shard() if config.shard is None else Shard.parse(config.shard)
        monitor = Thresholds(**vars(config.monitor))
        self.options = RunOptions(
            Path(config.run_dir or f"runs/{stem}"), config.limit, config.show_images, shard, monitor
        )
        for key, value in trainer_defaults(self.options).items():
            config.trainer[key] = value

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer, with the environment that surrounds this start."""
        return super().instantiate_trainer(plugins=cluster_plugins(), **kwargs)

    def resolved_config(self) -> str:
        """The whole configuration as YAML, as it is after files and overrides; itself a config for `--config`."""
        return str(self.parser.dump(self.config, skip_unset=False))


def _names(action: Any) -> Iterator[str]:
    for option in action.option_strings:
        if option.startswith("--"):
            yield option.removeprefix("--")


def _nearest(name: str, known: list[str], prefix: str = "") -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    if not near:
        by_last = {key.rsplit(".", 1)[-1]: key for key in known}
        near = [by_last[last] for last in get_close_matches(name.rsplit(".", 1)[-1], list(by_last), n=1)]
    return f"; did you mean {prefix}{near[0]}?" if near else ""
