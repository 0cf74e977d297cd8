"""A top-k sparse autoencoder for a vision tower's residual stream (Gao et al. 2024), and its files.

With z = (x - mean) / scale, a = TopK(ReLU(z·E + b)) keeps the k largest of its features, and x̂ = scale·(a·D) + mean.
A folder holds `sae.safetensors` and `config.json`, which names the tower and the layer that it was trained for.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from cxr_faith.attribution.base import MethodError
from cxr_faith.storage.atomic import write_atomic
from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.weights import read_header

WEIGHTS, CONFIG = "sae.safetensors", "config.json"


class SAEError(MethodError):
    """A sparse autoencoder cannot be read, or was trained for another model or layer."""


@dataclass(frozen=True)
class SAEConfig:
    """Size of a sparse autoencoder, and what it was trained on.

    Attributes:
        tower: hash of the vision tower's weights (`VLM.tower_identity`).
        layer: 0-based layer of the tower after which the residual stream is read.
        width: width of the stream.
        features: size of the dictionary.
        k: features that are active for a patch.
        measured: explained_variance and l0 on held-out pictures; dead_share in the last epoch on the others.
    """

    tower: str
    layer: int
    width: int
    features: int
    k: int
    measured: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        if self.layer < 0 or not 1 <= self.k <= self.features or self.width < 1:
            sizes = f"layer {self.layer}, width {self.width}, features {self.features}, k {self.k}"
            raise SAEError(f"an SAE needs 1 <= k <= features and a layer counted from 0, got {sizes}")


class TopKSAE(torch.nn.Module):
    """The autoencoder in float32; starts with random unit decoder rows and their transpose as the encoder.

    Args:
        width: width of the stream.
        features: size of the dictionary.
        k: features that are active for a patch.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, features: int, k: int) -> None:
        super().__init__()
        self.k = k
        directions = torch.nn.functional.normalize(torch.randn(features, width), dim=1)
        self.decoder = torch.nn.Parameter(directions)
        self.encoder = torch.nn.Parameter(directions.T.clone())
        self.encoder_bias = torch.nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    def before_top_k(self, stream: Tensor) -> Tensor:
        """ReLU of the encoder's output, [..., width] to [..., features]."""
        return ((stream - self.mean) / self.scale @ self.encoder + self.encoder_bias).relu()

    def activations(self, stream: Tensor) -> Tensor:
        """The k largest features of each vector, zero elsewhere: [..., width] to [..., features]."""
        return keep_largest(self.before_top_k(stream), self.k)

    def decode(self, activations: Tensor) -> Tensor:
        """Reconstruction [..., width] from activations [..., features]."""
        return activations @ self.decoder * self.scale + self.mean

    def feature_gradient(self, gradient: Tensor) -> Tensor:
        """ds/da [..., features] from ds/dx [..., width], by the decoder's chain rule."""
        return gradient @ self.decoder.T * self.scale


def keep_largest(values: Tensor, k: int) -> Tensor:
    """The k largest entries of the last axis, zero elsewhere."""
    top = values.topk(k, dim=-1)
    return torch.zeros_like(values).scatter(-1, top.indices, top.values)


def explained_variance(stream: Tensor, reconstruction: Tensor) -> float:
    """1 - Σ‖x - x̂‖² / Σ‖x - mean‖², of vectors [n, width]."""
    residual = (stream - reconstruction).square().sum()
    return float(1 - residual / (stream - stream.mean(0)).square().sum())


def save_sae(sae: TopKSAE, config: SAEConfig, folder: str | Path) -> None:
    """Write weights and config."""
    folder = Path(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sae.state_dict().items()}
    write_atomic(folder / WEIGHTS, save(tensors))  # not save_file, which makes files that only their owner can read
    write_atomic(folder / CONFIG, json.dumps(asdict(config), indent=1) + "\n")


def read_config(folder: str | Path) -> SAEConfig:
    """The config of a folder.

    Raises:
        SAEError: no such folder, or a file that is not such a config.
    """
    file = Path(folder) / CONFIG
    if not file.is_file() or not file.with_name(WEIGHTS).is_file():
        raise SAEError(f"{folder} holds no {WEIGHTS} with {CONFIG}: make them with cxr-faith fit-sae")
    try:
        return SAEConfig(**json.loads(file.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise SAEError(f"{file} is not the config of an SAE: {error}") from error


def load_sae(folder: str | Path) -> TopKSAE:
    """Read an autoencoder; its weights are frozen.

    Raises:
        SAEError: files are missing, broken or do not fit each other.
    """
    config, file = read_config(folder), Path(folder) / WEIGHTS
    try:
        decoder = read_header(file, file).get("decoder")
    except ModelError as error:
        raise SAEError(f"{file} does not fit its config: {error}") from error
    shape = None if decoder is None else decoder.shape
    if shape != (config.features, config.width):  # before memory is taken for what the config says
        raise SAEError(f"{file} does not fit its config: its decoder has shape {shape and list(shape)}")
    sae = TopKSAE(config.width, config.features, config.k)
    try:
        sae.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError) as error:
        raise SAEError(f"{file} does not fit its config: {str(error).splitlines()[0]}") from error
    return sae.requires_grad_(False)


def file_hash(folder: str | Path) -> str:
    """Hash of both files of a folder."""
    digest = hashlib.blake2b(digest_size=16)
    for name in (CONFIG, WEIGHTS):
        with (Path(folder) / name).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()
