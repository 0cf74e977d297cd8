"""Which files of a model folder are read: those that are hashed, and no others. Imports nothing heavy.

A hub id becomes the folder of its snapshot in the hub's cache, where every file is a link into `blobs`.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cxr_faith.vlm.errors import ModelError

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
FILES = (
    CONFIG,
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
"""All files that are read beside the weights. Everything else in the folder is ignored."""
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""A model needs one of them."""
ADAPTER = "adapter_config.json"
_LARGE = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")
_MOST_BYTES, _MOST_BYTES_LARGE = 16 * 2**20, 256 * 2**20
"""No file beside the weights is larger, nor is one of `_LARGE`."""


@dataclass(frozen=True)
class ModelFolder:
    """The files of a model.

    Attributes:
        path: the folder.
        files: name → the file itself, with links resolved; sorted by name.
        weights: names of the files that hold weights.
    """

    path: Path
    files: Mapping[str, Path]
    weights: tuple[str, ...]

    @classmethod
    def open(cls, path: str | Path) -> "ModelFolder":
        """List the files of a folder, and check that they lie in it and that its JSON files are well formed.

        Raises:
            ModelError: no such folder, or a file is missing, leads out of the folder or cannot be read.
        """
        folder = Path(path)
        config_file(folder)
        weights = _weight_files(folder)
        names = FILES if weights == (WEIGHTS,) else (*FILES, INDEX)
        present = [name for name in names if (folder / name).is_symlink() or (folder / name).exists()]
        if not set(TOKENIZER_FILES) & set(present):
            raise ModelError(f"{folder} holds no tokenizer.json")
        files = {name: inside(folder, name) for name in sorted([*present, *weights])}
        for name in present:
            if name in _LARGE:  # their own library reads them, faster
                _check_size(folder / name, _MOST_BYTES_LARGE)
            elif name.endswith(".json"):
                read_json(folder / name)
            else:
                _read_text(folder / name)
        return cls(folder, files, weights)

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """A temporary folder with links to these files alone, so that a library that looks for others finds none."""
        with TemporaryDirectory(prefix="cxr-faith-model-") as name:
            for file, target in self.files.items():
                (Path(name) / file).symlink_to(target)
            yield Path(name)


def is_hub_id(path: str | Path) -> bool:
    """Whether this is written as a hub id, `owner/name`, and is no folder."""
    text = str(path)
    return text.count("/") == 1 and not text.startswith((".", "/", "~")) and not Path(path).exists()


def config_file(folder: Path) -> Path:
    """The folder's `config.json`.

    Raises:
        ModelError: no such folder, or none in it.
    """
    if not folder.exists():
        raise ModelError(f"no model folder {folder}: give an existing one or a hub id such as google/medgemma-4b-it")
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} holds no {CONFIG}: not a transformers model folder")
    return inside(folder, CONFIG)


def inside(folder: Path, name: str) -> Path:
    """A file of the folder with its links resolved; links may lead to `blobs` of the hub's cache and nowhere else.

    Raises:
        ModelError: the file lies elsewhere, or is no file.
    """
    home, file = folder.resolve(), (folder / name).resolve()
    roots = [home, (home.parents[1] / "blobs").resolve()] if home.parent.name == "snapshots" else [home]
    if not any(file.is_relative_to(root) for root in roots):
        raise ModelError(f"{folder / name} leads out of the model folder, to {file}: put a copy in its place")
    if not file.is_file():
        raise ModelError(f"{folder / name} is no file")
    return file


def read_json(file: Path) -> dict[str, Any]:
    """A mapping from a JSON file.

    Raises:
        ModelError: it cannot be read, or holds anything else.
    """
    try:
        content = json.loads(_read_text(file))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ModelError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} must hold a mapping, not a {type(content).__name__}")
    return content


def _check_size(file: Path, most: int) -> None:
    if file.stat().st_size > most:
        raise ModelError(f"{file} is larger than {most >> 20} MiB")


def _read_text(file: Path) -> str:
    try:
        _check_size(file, _MOST_BYTES)
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{file} is not UTF-8 text") from error


def _weight_files(folder: Path) -> tuple[str, ...]:
    """Names of the files that hold weights, as transformers chooses them."""
    if (folder / ADAPTER).exists():
        raise ModelError(f"{folder} holds a PEFT adapter ({ADAPTER}): merge it into its base model and save that")
    if (folder / WEIGHTS).exists():
        return (WEIGHTS,)
    if (folder / INDEX).exists():
        return tuple(sorted(set(shard_of_tensor(folder).values())))
    if any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} holds neither {WEIGHTS} nor {INDEX}")
    raise ModelError(f"{folder} holds no *.safetensors weights (other weight formats are not read)")


def shard_of_tensor(folder: Path) -> dict[str, str]:
    """Name of a tensor → name of the file that holds it, from the index of weights in several files.

    Raises:
        ModelError: the index is damaged, or names anything but *.safetensors files of this folder.
    """
    file = folder / INDEX
    inside(folder, INDEX)
    content = read_json(file)
    shards = content.get("weight_map")
    if not isinstance(shards, dict) or not shards or not isinstance(content.get("metadata"), dict):
        raise ModelError(f"{file} lacks weight_map or metadata")
    for shard in set(map(str, shards.values())):
        if not shard.endswith(".safetensors") or shard != Path(shard).name or shard.startswith("."):
            raise ModelError(f"{file} names {shard[:100]!r}: weights must be *.safetensors files in the folder itself")
        if not os.path.exists(folder / shard):  # False for a name that no file can have, too
            raise ModelError(f"{file} names {shard[:100]}, which is missing")
    return {name: str(shard) for name, shard in shards.items()}
