"""The local folder of a model that is given by its hub id."""

from pathlib import Path

from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.folder import CONFIG, FILES, INDEX, is_hub_id

_COMMITS: dict[tuple[str, str | None], str] = {}
"""(hub id, revision as stated) → the commit that this process has read: a branch that moves on meanwhile is not
followed, so config, hash and weights are of one commit."""


def local_folder(path: str | Path, revision: str | None = None, config_only: bool = False) -> Path:
    """The folder itself, or for a hub id its snapshot in the hub's cache, downloaded if need be.

    Args:
        path: folder or hub id.
        revision: branch, tag or commit of a hub id; default: main.
        config_only: `config.json` is enough.

    Raises:
        ModelError: a revision of a folder is asked for, or the hub does not give the model, and the cache does not
            hold it.
    """
    if not is_hub_id(path):
        if revision is not None:
            raise ModelError(f"vlm.revision is {revision!r}, and {path} is a folder: only a hub id has revisions")
        return Path(path)
    # Loaded here, since most models are folders.
    from huggingface_hub import constants, snapshot_download

    wanted = [CONFIG] if config_only else [*FILES, INDEX, "model*.safetensors"]
    named = (str(path), revision)
    try:
        revision = _COMMITS.get(named, revision)
        offline = constants.HF_HUB_OFFLINE  # some versions ask the hub for a commit's list of files all the same
        folder = Path(snapshot_download(named[0], revision=revision, allow_patterns=wanted, local_files_only=offline))
    except Exception as error:  # its own kinds, and those of the libraries that it calls
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"cannot get {path} from the hub: {reason}") from error
    _COMMITS[named] = folder.name
    return folder


def resolved_revision(path: str | Path, folder: Path) -> str:
    """The commit that a hub id stands for; empty for a folder.

    Args:
        path: folder or hub id.
        folder: what `local_folder` gave for it.
    """
    return folder.name if is_hub_id(path) else ""
