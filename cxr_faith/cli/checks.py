"""Command lines of `doctor` and `sanity`: the configuration of `evaluate`, and how many samples to look at."""

from lightning.pytorch.cli import LightningArgumentParser

from cxr_faith.checks.doctor import DoctorOptions
from cxr_faith.checks.sanity import SanityOptions
from cxr_faith.cli.evaluate import EvaluateCLI

DOCTOR_HELP = """Check a model, its data and this machine before a benchmark.

The first samples go all the way; each line is pass, warn or fail, with the
figure and what to do. doctor.json in the run directory says the same. Exit
status 1 if a check fails.

examples:
  cxr-faith doctor --config configs/demo.yaml
  cxr-faith doctor --config configs/mimic.yaml --samples 16
"""

SANITY_HELP = """Do the maps depend on the model, the picture, the question and the answer?

Compares the maps with those for a blank picture, another picture, no question
and the other answer, and with those of a model whose layers are made random
from the top down. Writes sanity.json into the run directory; a leaderboard
made afterwards (evaluate, report) marks the methods that failed.

examples:
  cxr-faith sanity --config configs/demo.yaml
  cxr-faith sanity --config configs/mimic.yaml --samples 16 --most_alike 0.4
"""


class DoctorCLI(EvaluateCLI):
    """`cxr-faith doctor`."""

    command, description = "doctor", DOCTOR_HELP

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The arguments of `evaluate` and `DoctorOptions`."""
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(DoctorOptions)

    def before_instantiate_classes(self) -> None:
        """As `evaluate`, and its own options."""
        super().before_instantiate_classes()
        self.doctor = DoctorOptions(self.config.samples)


class SanityCLI(EvaluateCLI):
    """`cxr-faith sanity`."""

    command, description = "sanity", SANITY_HELP

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The arguments of `evaluate` and `SanityOptions`."""
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(SanityOptions)

    def before_instantiate_classes(self) -> None:
        """As `evaluate`, and its own options."""
        super().before_instantiate_classes()
        self.sanity = SanityOptions(self.config.samples, self.config.most_alike)
