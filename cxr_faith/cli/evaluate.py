"""`cxr-faith evaluate`: explain and score a data set's answers."""

import os
import shlex
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_faith.cli import interrupt
from cxr_faith.cli.errors import UsageError, print_error, usage_errors
from cxr_faith.cli.files import check_folder, check_model
from cxr_faith.cli.help import section, table
from cxr_faith.cli.parser import CONFIG, Command, Given
from cxr_faith.cli.signatures import Option, description_of, options_of, registry
from cxr_faith.cli.startup import quick_imports, quiet_lightning
from cxr_faith.cli.values import as_yaml, check_methods, text_of
from cxr_faith.data.shard import Shard
from cxr_faith.storage.folders import moved_away

if TYPE_CHECKING:
    from cxr_faith.run.stop import StopRequest

DESCRIPTION = """Explain a model's answers over a data set and score the explanations.

examples:
  cxr-faith evaluate --config demo --limit 8 --run_dir runs/try
  cxr-faith evaluate --config configs/mimic.yaml --config trainer/ddp

The same command resumes an interrupted run and computes no record again.
"""
SEED_EVERYTHING = Option("seed_everything", "int | bool", "False", "Lightning's seed; protocol.seed decides results.")
TRAINER = "PyTorch Lightning's Trainer: devices, processes, nodes"


@dataclass(frozen=True)
class RunArguments:
    """Where a run goes and how much of the data it takes; no part of its fingerprint.

    Attributes:
        run_dir: the run directory, by default runs/<name of the first config>.
        limit: only the first LIMIT samples.
        shard: only this part of the samples, INDEX/COUNT such as 3/8.
        show_images: put pictures into the report and TensorBoard.
    """

    run_dir: str | None = None
    limit: int | None = None
    shard: str | None = None
    show_images: bool = False

    def __post_init__(self) -> None:
        """Check the limit."""
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")


def run_command(name: str, description: str, own: str | None = None) -> Command:
    """The command line of `evaluate`, and of `doctor` and `sanity`, which take the same configs.

    Args:
        name: the command.
        description: the head of its help.
        own: `module:class` of options that `evaluate` does not have.
    """
    methods = registry("cxr_faith.attribution", "METHODS")
    groups = {
        "options": [
            CONFIG,
            *options_of("cxr_faith.cli.evaluate:RunArguments"),
            *(options_of(own) if own else []),
            Option("print_config", "", "None", "print the whole configuration and exit."),
            Option("help_trainer", "", "None", "list the Trainer's options, --trainer.KEY, and exit."),
        ],
        "model, methods and protocol": options_of("cxr_faith.run.module:FaithfulnessModule", "model."),
        "data": options_of("cxr_faith.data.module:CXRVQADataModule", "data."),
        "monitor": options_of("cxr_faith.run.monitor:Thresholds", "monitor."),
    }
    return Command(
        name,
        description,
        groups,
        usage="--config FILE [--config OVERLAY] [options]",
        flags=("print_config", "help_trainer"),
        config="demo",
        hidden=(*options_of("lightning.pytorch.trainer.trainer:Trainer", "trainer."), SEED_EVERYTHING),
        brief=True,
        tail=table(
            "methods, as in --model.methods '{rise: {masks: 500}}'",
            {name: _first_line(place) for name, place in methods.items()},
        ),
    )


def _first_line(place: str) -> str:
    return description_of(place).split("\n")[0]


def read_run(command: Command, arguments: list[str]) -> Given:
    """Check the arguments of `evaluate`, `doctor` or `sanity` without loading a library.

    Raises:
        UsageError: an unknown name, a missing option, a value that cannot be used, or a file that does not exist.
    """
    if "--help_trainer" in arguments:
        print(section(TRAINER, [option for option in command.hidden if option.key.startswith("trainer.")], brief=True))
        raise SystemExit(0)
    given = command.read(arguments)
    manifest = given.values.get("data.manifest", "bundled")
    is_run = "print_config" not in given.values
    if is_run:
        if manifest != "bundled" and not Path(str(manifest)).exists():
            raise UsageError(f"data.manifest: {manifest}: manifest not found{moved_away(Path(str(manifest)))}")
        data_root = text_of(given.values, "data.data_root")
        if data_root is not None and not Path(data_root).is_dir():
            raise UsageError(f"data.data_root: {data_root}: no such folder")
        check_model(str(given.values.get("model.vlm.path", "bundled")))
        check_methods(given.values.get("model.methods"))
        check_folder("--run_dir", text_of(given.values, "run_dir"))
        with usage_errors(ValueError):
            limit = as_yaml(text_of(given.values, "limit") or "null")
            RunArguments(limit=limit if isinstance(limit, int) else None)
            Shard.parse(text_of(given.values, "shard") or "0/1")
    return given


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    from cxr_faith.run.orphan import no_orphans
    from cxr_faith.run.stop import listening

    with listening() as request, no_orphans():  # first of all: loading the libraries takes seconds
        given = read_run(run_command("evaluate", DESCRIPTION), arguments)
        return _evaluate(given.arguments, request, shlex.join(["cxr-faith", "evaluate", *arguments]))


def _evaluate(arguments: list[str], request: "StopRequest", command: str) -> int:
    with quick_imports():
        from cxr_faith.attribution.base import MethodError
        from cxr_faith.cli.lightning_cli import EvaluateCLI
        from cxr_faith.run.evaluate import check, evaluate
        from cxr_faith.run.identity import RunDirectoryError
        from cxr_faith.run.lock import RunDirectoryInUseError
        from cxr_faith.run.ranks import LostRankError, end_children
        from cxr_faith.run.stop import EX_TEMPFAIL, StoppedError
        from cxr_faith.vlm.errors import ModelError

    quiet_lightning()
    with usage_errors(ValueError, FileNotFoundError):
        cli = EvaluateCLI(arguments)
        identity = check(cli.model, cli.datamodule, cli.trainer, cli.options)
    config, rank = cli.resolved_config(), cli.trainer.global_rank
    if interrupt.current is not None:
        interrupt.current.end_ranks = partial(end_children, cli.trainer, seconds=3.0)
    try:
        with usage_errors(RunDirectoryInUseError, RunDirectoryError, MethodError, ModelError):
            options = replace(cli.options, command=command)
            evaluate(cli.model, cli.datamodule, cli.trainer, options, config, identity, request)
    except StoppedError as stop:
        if rank:
            # Rank 0 alone reports the stop: whoever watches the ranks would take another status for a crash.
            sys.stdout.flush()
            os._exit(0)
        print(f"cxr-faith: {stop}", file=sys.stderr)
        return EX_TEMPFAIL
    except LostRankError as lost:
        print_error(str(lost))
        return 1
    return 0
