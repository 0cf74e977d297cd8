"""What identifies a run (its fingerprint) and where its numbers come from (its provenance)."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.records.controls import RANDOM
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.scoring import DEFINITIONS
from cxr_faith.storage.atomic import read_file, write_atomic
from cxr_faith.vlm.devices import default_dtype
from cxr_faith.vlm.identity import model_identity

FILE = "provenance.json"
_PACKAGES = ("cxr-faith", "torch", "lightning", "transformers", "torchmetrics", "kornia", "datasets", "numpy")


class RunDirectoryError(ValueError):
    """The run directory holds a run with other settings."""


@dataclass(frozen=True)
class Identity:
    """Everything that the numbers of a run depend on.

    Trainer, batch sizes, workers, limit, run directory and pictures are left out, so they may change on a restart.
    """

    model: Mapping[str, str]
    """Hash of the model's files, dtype, and how questions are put to it."""
    data: str
    """Fingerprint of the manifest and of how pictures are prepared."""
    methods: Mapping[str, Mapping[str, object]]
    """Method → class and options; under "weights", hashes of the files that methods load."""
    perturbation: Mapping[str, object]
    """The protocol, which maps are scored under which substrate, and the version of the scores' definitions."""

    @classmethod
    def of(cls, module: FaithfulnessModule, data: CXRVQADataModule, device: torch.device) -> "Identity":
        """The identity of a run with this model, these methods and these data, on the Trainer's kind of device."""
        config, method_set = module.model_config, module.method_set
        dtype = config.dtype or default_dtype(device)
        weights = method_set.weights
        size = {} if config.image_size is None else {"image_size": "x".join(map(str, config.image_size))}
        return cls(
            {"hash": model_identity(config)["hash"], "dtype": dtype} | config.prompts.identity() | size,
            data.fingerprint,
            method_set.options | ({"weights": weights} if weights else {}),
            asdict(module.protocol) | {"scored": method_set.scored, "definitions": DEFINITIONS},
        )

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `provenance.json`, with tuples as lists."""
        content: dict[str, Any] = json.loads(json.dumps(vars(self)))
        return content

    @property
    def fingerprint(self) -> str:
        """Hash of the identity."""
        return hashlib.blake2b(json.dumps(vars(self), sort_keys=True).encode(), digest_size=16).hexdigest()


def check_run_dir(run_dir: Path, identity: Identity, alone: bool = True) -> None:
    """Refuse a run directory whose records were made with other settings.

    A run that ended before its first record has no claim to its directory.

    Args:
        run_dir: the run directory, which may be missing.
        identity: of the run that wants to write there.
        alone: whether no other run may be writing there; False for shards: another one may have no record yet.

    Raises:
        RunDirectoryError: the directory has another fingerprint; the message names the part that differs. Or its
            provenance is missing or damaged.
        OSError: the provenance cannot be read.
    """
    file, has_records = run_dir / FILE, any((run_dir / "records").glob("*.parquet"))
    if not has_records and (alone or not file.is_file()):
        return
    if not file.is_file():
        raise RunDirectoryError(f"{run_dir} holds records but no {FILE}: choose another --run_dir")
    try:
        content = dict[str, Any](json.loads(read_file(file)))
        recorded, revision = dict[str, object](content["identity"]), content.get("model", {}).get("revision")
    except (AttributeError, ValueError, KeyError, TypeError, RecursionError) as error:
        damaged = f"{file}: is damaged, so the settings of the records beside it are not known"
        raise RunDirectoryError(f"{damaged}: restore it, or choose another --run_dir") from error
    differing = [part for part, value in identity.to_dict().items() if recorded.get(part) != value]
    if differing:
        known = f" (its model: --model.vlm.revision {revision})" if "model" in differing and revision else ""
        other = f"{' and '.join(differing)}{known}"
        raise RunDirectoryError(
            f"{run_dir} belongs to a run with other {other}: choose another --run_dir, or delete it"
        )


def write_provenance(
    run_dir: Path,
    module: FaithfulnessModule,
    data: CXRVQADataModule,
    identity: Identity,
    world_size: int,
    cautions: Sequence[str] = (),
) -> None:
    """Write `provenance.json`: versions, model, data, git revision, hardware, and what `run_cautions` says."""
    content: dict[str, object] = {
        "fingerprint": identity.fingerprint,
        "identity": identity.to_dict(),
        "methods": [*module.method_set.names, RANDOM],
        "samples_total": data.samples_total,
        "limit": data.limit,
        "model": model_identity(module.model_config),
        "data": {"manifest": str(data.manifest), "fingerprint": data.fingerprint},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "git_revision": git_revision(),
        "hardware": hardware() | {"ranks": world_size},
    }
    if cautions:
        content["cautions"] = list(cautions)
    write_atomic(run_dir / FILE, json.dumps(content, indent=2) + "\n")


def git_revision() -> str | None:
    """Git revision of the checkout that this package runs from; None for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=10)
        return done.stdout.decode(errors="replace").strip()
    except (OSError, subprocess.SubprocessError):
        return None


def hardware() -> dict[str, str | int | None]:
    """Processor and accelerator of this host."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"machine": platform.machine(), "threads": torch.get_num_threads(), "gpu": gpu}
