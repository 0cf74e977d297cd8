"""What names a model: a hash of every file that is read, and for a hub id the revision that it stands for."""

import hashlib

from cxr_faith.storage.hashes import file_hash
from cxr_faith.vlm.config import ModelConfig
from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.folder import ModelFolder
from cxr_faith.vlm.hub import local_folder, resolved_revision


def model_identity(config: ModelConfig) -> dict[str, str]:
    """`source`, the model as the user named it, `revision` and `hash`, what its numbers depend on.

    Files are hashed by their content, so a folder that was moved is the same model, and a hub id whose branch has moved
    on is another one. The revision is the commit of a hub id, never a branch; it is empty for a folder.

    Raises:
        ModelError: the model's files cannot be read.
    """
    folder = ModelFolder.open(local_folder(config.source, config.revision))
    digest = hashlib.blake2b(digest_size=16)
    for name, file in folder.files.items():
        digest.update(name.encode())
        try:
            digest.update(bytes.fromhex(file_hash(file)))
        except OSError as error:
            raise ModelError(f"{folder.path / name}: {error.strerror}") from error
    revision = resolved_revision(config.source, folder.path)
    return {"source": config.path, "revision": revision, "hash": digest.hexdigest()}
