"""Tells the model that ships with the package from others."""

import filecmp
from pathlib import Path

from cxr_faith.vlm.config import bundled_model


def has_bundled_weights(source: str) -> bool:
    """Whether a model is the bundled one, or a folder with the same weights.

    Args:
        source: folder or hub id.
    """
    own = bundled_model() / "model.safetensors"
    return any(filecmp.cmp(file, own, shallow=False) for file in Path(source).glob("*.safetensors"))
