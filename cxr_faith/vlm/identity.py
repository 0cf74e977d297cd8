"""What names a model: a hash of every file that is read."""

import hashlib

from cxr_faith.vlm.config import ModelConfig
from cxr_faith.vlm.folder import ModelFolder
from cxr_faith.vlm.hub import local_folder


def model_identity(config: ModelConfig) -> dict[str, str]:
    """`source`, the model as the user named it, and `hash`, what its numbers depend on.

    Files are hashed by their content, so a folder that was moved is the same model, and a hub id whose branch has moved
    on is another one.

    Raises:
        ModelError: the model's files cannot be read.
    """
    folder = ModelFolder.open(local_folder(config.source, config.revision))
    digest = hashlib.blake2b(digest_size=16)
    for name, file in folder.files.items():
        digest.update(name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return {"source": config.path, "hash": digest.hexdigest()}
