"""What identifies a run (its fingerprint) and where its numbers come from (its provenance)."""

import hashlib
import json
import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.records import write_atomic
from cxr_faith.records.controls import RANDOM
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.vlm.identity import model_identity

FILE = "provenance.json"
_PACKAGES = ("cxr-faith", "torch", "lightning", "transformers", "torchmetrics", "kornia", "datasets", "numpy")


class RunDirectoryError(ValueError):
    """The run directory holds a run with other settings."""


def identity(module: FaithfulnessModule, data: CXRVQADataModule) -> dict[str, Any]:
    """Everything that the numbers of a run depend on: model, data, methods, perturbation and seed.

    Trainer, batch sizes, workers, limit, run directory and pictures are left out, so they may change on a restart.
    """
    config = module.model_config
    dtype = config.dtype or ("bfloat16" if torch.cuda.is_available() else "float32")
    method_set = module.method_set
    files = method_set.weights
    return {
        "model": {"hash": model_identity(config)["hash"], "dtype": dtype, "prompt_template": config.prompt_template},
        "data": data.fingerprint,
        "methods": method_set.options | ({"weights": files} if files else {}),
        "perturbation": asdict(module.protocol) | {"scored": method_set.scored},
    }


def check_run_dir(run_dir: Path, expected: dict[str, Any]) -> None:
    """Refuse a run directory whose records were made with other settings.

    Raises:
        RunDirectoryError: the directory has another fingerprint; the message names the part that differs.
    """
    file = run_dir / FILE
    if not file.is_file():
        if (run_dir / "records").is_dir() and any((run_dir / "records").glob("*.parquet")):
            raise RunDirectoryError(f"{run_dir} holds records but no {FILE}: choose another --run_dir")
        return
    recorded = json.loads(file.read_text(encoding="utf-8"))["identity"]
    wanted = json.loads(json.dumps(expected))
    differing = [part for part in wanted if recorded.get(part) != wanted[part]]
    if differing:
        raise RunDirectoryError(
            f"{run_dir} belongs to a run with other {' and '.join(differing)}: choose another --run_dir, or delete it"
        )


def fingerprint(expected: dict[str, Any]) -> str:
    """Hash of the identity of a run."""
    return hashlib.blake2b(json.dumps(expected, sort_keys=True).encode(), digest_size=16).hexdigest()


def write_provenance(
    run_dir: Path, module: FaithfulnessModule, data: CXRVQADataModule, expected: dict[str, Any], world_size: int
) -> None:
    """Write `provenance.json`: versions, model, data, git revision, hardware."""
    content = {
        "fingerprint": fingerprint(expected),
        "identity": expected,
        "methods": [*module.method_set.names, RANDOM],
        "samples_total": data.samples_total,
        "limit": data.limit,
        "model": model_identity(module.model_config) | {"revision": module.model_config.revision or ""},
        "data": {"manifest": str(data.manifest), "fingerprint": data.fingerprint},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "git_revision": git_revision(),
        "hardware": hardware() | {"ranks": world_size},
    }
    write_atomic(run_dir / FILE, json.dumps(content, indent=2) + "\n")


def git_revision() -> str | None:
    """Git revision of the checkout that this package runs from; None for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def hardware() -> dict[str, Any]:
    """Processor and accelerator of this host."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"machine": platform.machine(), "threads": torch.get_num_threads(), "gpu": gpu}
