"""What to say where the model that ships with the package is asked about pictures that are no drawn phantoms."""

import filecmp
from pathlib import Path

from cxr_faith.vlm.config import bundled_model

PHANTOMS_ONLY = "The bundled model knows drawn phantoms only: its answers about real pictures mean nothing."


def has_bundled_weights(source: str) -> bool:
    """Whether a model is the bundled one, or a folder with the same weights.

    Args:
        source: folder or hub id.
    """
    own = bundled_model() / "model.safetensors"
    return any(filecmp.cmp(file, own, shallow=False) for file in Path(source).glob("*.safetensors"))
