"""The local folder of a model that is given by its hub id."""

from pathlib import Path

from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.folder import CONFIG, FILES, INDEX, is_hub_id


def local_folder(path: str | Path, revision: str | None = None, config_only: bool = False) -> Path:
    """The folder itself, or for a hub id its snapshot in the hub's cache, downloaded if need be.

    Args:
        path: folder or hub id.
        revision: branch, tag or commit of a hub id; default: main.
        config_only: `config.json` is enough.

    Raises:
        ModelError: the hub does not give the model, and the cache does not hold it.
    """
    if not is_hub_id(path):
        return Path(path)
    # Loaded here, since most models are folders.
    from huggingface_hub import snapshot_download

    wanted = [CONFIG] if config_only else [*FILES, INDEX, "model*.safetensors"]
    try:
        return Path(snapshot_download(str(path), revision=revision, allow_patterns=wanted))
    except Exception as error:  # its own kinds, and those of the libraries that it calls
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"cannot get {path} from the hub: {reason}") from error
