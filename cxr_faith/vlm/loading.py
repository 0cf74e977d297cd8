"""Load a model of any family, found by the `model_type` of its config."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cxr_faith.vlm.checkpoint import read_config
from cxr_faith.vlm.config import ModelConfig
from cxr_faith.vlm.families import FAMILIES
from cxr_faith.vlm.family import Size
from cxr_faith.vlm.model_files import checked_processor, known_family, open_model, peek_config
from cxr_faith.vlm.pretrained import FamilyVLM


def family_of(content: Mapping[str, Any], source: object) -> type[FamilyVLM]:
    """The family of a model.

    Args:
        content: of its `config.json`.
        source: what messages call the model.

    Raises:
        ModelError: no family reads it.
    """
    kind = known_family(content, source)
    family: type[FamilyVLM] = getattr(importlib.import_module(f"cxr_faith.vlm.families.{kind}"), FAMILIES[kind])
    return family


def peek(path: str | Path, revision: str | None = None, image_size: Size | None = None) -> tuple[Size, Size]:
    """(grid, image size) from the model's config alone, so that a bad setting stops before weights are read.

    Raises:
        ModelError: no such folder, no family reads the model, or a quantized one whose library is missing.
    """
    family = family_of(read_config(path, revision), path)
    layout, size = family.layout_of(peek_config(family, path, revision), image_size)
    return layout.grids[0], size


def load_vlm(
    path: str | Path, device: torch.device | str | None = None, dtype: torch.dtype | str | None = None, **options: Any
) -> FamilyVLM:
    """Load a model from a folder or a hub id; see `FamilyVLM.from_pretrained`, whose other arguments it takes.

    Raises:
        ModelError: a file is missing or damaged, or no family reads the model.
    """
    family = family_of(read_config(path, options.get("revision")), path)
    return family.from_pretrained(path, device, dtype, **options)


def load_configured(config: ModelConfig, device: torch.device | str | None = None) -> FamilyVLM:
    """Load the model of a run's config; see `load_vlm`."""
    return family_of(read_config(config.source, config.revision), config.source).of(config, device)


def check_files(config: ModelConfig) -> None:
    """Check all files of a run's model, and the prompt template, before any weights are read.

    Raises:
        ModelError: what is wrong with which of them.
    """
    source = config.source
    family = family_of(read_config(source, config.revision), source)
    folder, content = open_model(family, source, config.revision)
    checked_processor(family, folder, content, source, config.prompts, config.image_size)
