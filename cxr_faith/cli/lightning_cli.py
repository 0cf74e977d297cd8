"""`evaluate`, `doctor` and `sanity` with Lightning: type hints are the schema of the config."""

import warnings
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from cxr_faith.cli.evaluate import RunArguments
from cxr_faith.cli.typed import OneLineErrors
from cxr_faith.data.module import CXRVQADataModule, Shard
from cxr_faith.run.evaluate import RunOptions, trainer_defaults
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.run.monitor import Thresholds
from cxr_faith.run.ranks import cluster_plugins
from cxr_faith.vlm.devices import choose_accelerator

T = TypeVar("T")


class EvaluateParser(OneLineErrors, LightningArgumentParser):
    """Lightning's parser with errors of one line."""


class EvaluateCLI(LightningCLI):
    """Makes the module, the data and the Trainer of a run from its configs; no model is loaded yet.

    Attributes:
        options: where the run goes and how much of the data it takes.
        accelerator: `cuda` or `cpu`, by the config.
    """

    def __init__(self, args: list[str], own: type | None = None) -> None:
        """Parse, and make module, data and Trainer.

        Args:
            args: what follows the command's name.
            own: dataclass of options that `evaluate` does not have.

        Raises:
            ValueError: a value in the configuration cannot be used.
        """
        # Lightning starts the other ranks with sys.argv, so sys.argv stays as it is.
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        self._own_class = own
        super().__init__(
            FaithfulnessModule,
            CXRVQADataModule,
            args=args,
            run=False,
            save_config_callback=None,
            seed_everything_default=False,
            auto_configure_optimizers=False,
            parser_kwargs={"allow_abbrev": False},
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Our parser instead of Lightning's."""
        parser = EvaluateParser(**kwargs)
        parser.add_argument("-c", "--config", action="config")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what is no part of a run's fingerprint: where it goes, how much it takes, when the monitor speaks."""
        parser.add_class_arguments(RunArguments)
        parser.add_class_arguments(Thresholds, "monitor")
        if self._own_class is not None:
            parser.add_class_arguments(self._own_class)

    def before_instantiate_classes(self) -> None:
        """Settle the run directory and what a run needs of its Trainer."""
        config = self.config
        files = config.get("config") or []
        stem = Path(str(files[0])).stem if files else "evaluate"
        run = self.made(RunArguments)
        shard = Shard() if run.shard is None else Shard.parse(run.shard)
        monitor = Thresholds(**vars(config.monitor))
        self.options = RunOptions(Path(run.run_dir or f"runs/{stem}"), run.limit, run.show_images, shard, monitor)
        for key, value in trainer_defaults(self.options).items():
            config.trainer[key] = value

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer, with the plugins for the cluster that this process runs in.

        Raises:
            ValueError: the Trainer cannot work with these options on this machine.
        """
        self.accelerator = choose_accelerator(self.config_init["trainer"]["accelerator"])
        try:
            return super().instantiate_trainer(plugins=cluster_plugins(), accelerator=self.accelerator, **kwargs)
        except (MisconfigurationException, TypeError) as error:
            raise ValueError(f"trainer: {error}") from error

    def made(self, options: type[T]) -> T:
        """A dataclass of options that stand at the top level of the config, made from the parsed values."""
        return options(**{name: self.config[name] for name in signature(options).parameters})

    def resolved_config(self) -> str:
        """The whole configuration as YAML, as it is after files and overrides; itself a config for `--config`."""
        return str(self.parser.dump(self.config, skip_unset=False))
