"""`cxr-faith fit-sae`: train a sparse autoencoder for the method `sae`."""

from cxr_faith.cli.errors import usage_errors
from cxr_faith.cli.files import check_model
from cxr_faith.cli.parser import CONFIG, Command
from cxr_faith.cli.signatures import options_of
from cxr_faith.cli.startup import quick_imports, quiet_lightning
from cxr_faith.cli.typed import typed

DESCRIPTION = """Train a top-k sparse autoencoder on a vision tower, for the method sae.

It reads the tower's residual stream after a layer.

examples:
  cxr-faith fit-sae --config sae_bundled
  cxr-faith fit-sae --images /data/chest --model google/medgemma-4b-it \\
      --layer 20 --out sae/medgemma-20

The method then takes the folder:
  --model.methods '{sae: {path: sae/medgemma-20}}'
"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    own = options_of("cxr_faith.attribution.sae_training:FitSaeOptions")
    command = Command("fit-sae", DESCRIPTION, {"options": [CONFIG, *own]}, config="sae_bundled")
    given = command.read(arguments)
    check_model(str(given.values.get("model", "bundled")))
    with quick_imports():
        from cxr_faith.attribution.sae_training import FitSaeOptions, fit_sae

    quiet_lightning()
    with usage_errors(ValueError):
        fit_sae(typed(FitSaeOptions, given))
    return 0
