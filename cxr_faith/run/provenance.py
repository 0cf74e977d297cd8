"""Where the numbers of a run come from."""

import json
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.records.controls import RANDOM
from cxr_faith.run.identity import FILE, Identity
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.storage.atomic import write_atomic
from cxr_faith.vlm.identity import model_identity

_PACKAGES = ("cxr-faith", "torch", "lightning", "transformers", "torchmetrics", "kornia", "datasets", "numpy")


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
        "rows": module.method_set.shown.to_dict(),
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
