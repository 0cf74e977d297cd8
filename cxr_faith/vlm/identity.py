"""What names a model's weights: a hash of a local folder, or a hub id and its revision."""

import hashlib
from pathlib import Path

from cxr_faith.vlm.config import ModelConfig

_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model")


def model_identity(config: ModelConfig) -> dict[str, str]:
    """`source`, the model as the user named it, and `hash`, what its numbers depend on.

    A local folder is hashed by the content of its files, so a folder that was moved is the same model.
    """
    folder = Path(config.source)
    if not folder.is_dir():
        return {"source": config.path, "hash": f"hub:{config.path}@{config.revision or 'main'}"}
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted({file for pattern in _FILES for file in folder.glob(pattern)}):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return {"source": config.path, "hash": digest.hexdigest()}
