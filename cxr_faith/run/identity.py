"""What identifies a run: a run directory takes more methods, substrates and conditions, and refuses all else."""

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cxr_faith.attribution import METHODS
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.scoring import DEFINITIONS
from cxr_faith.storage.atomic import read_file
from cxr_faith.vlm.devices import default_dtype
from cxr_faith.vlm.identity import model_identity

FILE = "provenance.json"
GROWING = ("substrates", "conditions", "controls", "image_use", "uncertainty")
"""Parts of the protocol that add rows, or columns, and change no score."""

ADDED = ("methods", "uncertainty")
"""Parts of the identity that a run may get later, and then keeps."""

WEIGHTS = "weights"


class RunDirectoryError(ValueError):
    """The run directory holds a run with other settings."""


@dataclass(frozen=True)
class Identity:
    """Everything that the numbers of a run depend on.

    Trainer, batch sizes, workers, limit, run directory and pictures are left out, so they may change on a restart.
    """

    model: Mapping[str, str]
    """Hash of the model's files, dtype, faster kernels, and how questions are put to it."""
    data: str
    """Fingerprint of the manifest and of how pictures are prepared."""
    perturbation: Mapping[str, object]
    """The protocol without `GROWING`, and the version of the scores' definitions."""
    methods: Mapping[str, Mapping[str, object]]
    """Every method that the records may hold → its class and options; under "weights", hashes of files that methods
    load. No part of the fingerprint, since methods may be added."""
    uncertainty: Mapping[str, object] | None = None
    """`protocol.uncertainty`, where the records may hold spreads of maps. No part of the fingerprint, since it
    may be added."""

    @classmethod
    def of(cls, module: FaithfulnessModule, data: CXRVQADataModule, device: torch.device) -> "Identity":
        """The identity of a run with this model, these methods and these data, on the Trainer's kind of device."""
        config, method_set = module.model_config, module.method_set
        dtype = config.dtype or default_dtype(device)
        weights = method_set.weights
        size = {} if config.image_size is None else {"image_size": "x".join(map(str, config.image_size))}
        faster = {"faster": "+".join(config.faster)} if config.faster else {}
        everything = asdict(module.protocol)
        protocol = {name: value for name, value in everything.items() if name not in GROWING}
        return cls(
            {"hash": model_identity(config)["hash"], "dtype": dtype} | config.prompts.identity() | size | faster,
            data.fingerprint,
            protocol | {"definitions": DEFINITIONS},
            method_set.options | ({WEIGHTS: weights} if weights else {}),
            everything["uncertainty"],
        )

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `provenance.json`, with tuples as lists."""
        content: dict[str, Any] = json.loads(json.dumps(vars(self)))
        return content

    @property
    def fingerprint(self) -> str:
        """Hash of the identity without what may be added."""
        content = {name: value for name, value in vars(self).items() if name not in ADDED}
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def check_run_dir(run_dir: Path, identity: Identity, alone: bool = True) -> Identity:
    """Refuse a run directory whose records were made with other settings.

    A run that ended before its first record has no claim to its directory.

    Args:
        run_dir: the run directory, which may be missing.
        identity: of the run that wants to write there.
        alone: whether no other run may be writing there; False for shards: another one may have no record yet.

    Returns:
        the identity, with the methods and the uncertainty that the directory's records may hold beside the config's.

    Raises:
        RunDirectoryError: the directory has another identity, or a method of it other options; the message names what
            differs; so with uncertainty. Or its provenance is missing or damaged.
        OSError: the provenance cannot be read.
    """
    file, has_records = run_dir / FILE, any((run_dir / "records").glob("*.parquet"))
    if not has_records and (alone or not file.is_file()):
        return identity
    if not file.is_file():
        raise RunDirectoryError(f"{run_dir} holds records but no {FILE}: choose another --run_dir")
    try:
        content = dict[str, Any](json.loads(read_file(file)))
        recorded, revision = dict[str, Any](content["identity"]), content.get("model", {}).get("revision")
        shape, methods = recorded.get("perturbation"), dict[str, Any](recorded.get("methods") or {})
    except (AttributeError, ValueError, KeyError, TypeError, RecursionError) as error:
        damaged = f"{file}: is damaged, so the settings of the records beside it are not known"
        raise RunDirectoryError(f"{damaged}: restore it, or choose another --run_dir") from error
    mine = identity.to_dict()
    if isinstance(shape, dict):  # older versions recorded more of it
        recorded["perturbation"] = {name: value for name, value in shape.items() if name in mine["perturbation"]}
    differing = [part for part, value in mine.items() if part not in ADDED and recorded.get(part) != value]
    if differing:
        known = f" (its model: --model.vlm.revision {revision})" if "model" in differing and revision else ""
        other = f"{_named(differing, recorded, mine)}{known}"
        raise RunDirectoryError(
            f"{run_dir} belongs to a run with other {other}: choose another --run_dir, or delete it"
        )
    _check_methods(run_dir, methods, mine["methods"])
    measured = recorded.get("uncertainty")
    if measured and mine["uncertainty"] and measured != mine["uncertainty"]:
        values = f"protocol.uncertainty is {measured} in {run_dir} and {mine['uncertainty']} here"
        raise RunDirectoryError(f"{values}: one table cannot hold both, so keep it or choose another --run_dir")
    weights = dict(methods.pop(WEIGHTS, {})) | mine["methods"].get(WEIGHTS, {})
    every = methods | dict(identity.methods) | ({WEIGHTS: weights} if weights else {})
    return replace(identity, methods=every, uncertainty=identity.uncertainty or measured)


def _named(differing: list[str], recorded: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """The parts that differ; for single values with both of them."""
    parts = []
    for part in differing:
        there, here = recorded.get(part), mine[part]
        if isinstance(there, dict) and isinstance(here, dict) and there.keys() == here.keys():
            changed = [name for name in here if there[name] != here[name] and name != "hash"]
            values = ", ".join(f"{name} is {there[name]!r} there and {here[name]!r} here" for name in changed)
            parts.append(f"{part} ({values})" if values else part)
        else:
            parts.append(part)
    return " and ".join(parts)


def _check_methods(run_dir: Path, recorded: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Refuse a method of the config whose name the records have with other options."""
    for name in sorted(recorded.keys() & mine.keys()):
        there, here = (_with_defaults(name, methods[name]) for methods in (recorded, mine))
        for option in sorted(there.keys() | here.keys()):
            if there.get(option) != here.get(option):
                values = f"is {there.get(option)!r} in {run_dir} and {here.get(option)!r} here"
                advice = "give the changed method another name, or choose another --run_dir"
                raise RunDirectoryError(f"methods.{name}.{option} {values}: {advice}")


def _with_defaults(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the defaults of the class, so that a default that is spelled out changes nothing."""
    method = METHODS.get(str(options.get("class", "")))
    if name == WEIGHTS or method is None:
        return dict(options)
    parameters = inspect.signature(method).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
    return {"ablated": False} | dict(json.loads(json.dumps(defaults, default=str))) | dict(options)
