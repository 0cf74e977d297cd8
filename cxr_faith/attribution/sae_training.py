"""`cxr-faith fit-sae`: trains a top-k sparse autoencoder on a vision tower's residual stream."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from transformers.utils import logging as transformers_logging

from cxr_faith.attribution.sae_model import SAEConfig, SAEError, TopKSAE, explained_variance, keep_largest, save_sae
from cxr_faith.data.geometry import fit
from cxr_faith.data.images import load_image
from cxr_faith.data.sources.phantom import SIZE, render, sample_phantom
from cxr_faith.vlm import Gemma3VLM, bundled_model
from cxr_faith.vlm.base import VLM

HELD_OUT = 10
"""Every tenth picture is held out."""
AUXILIARY_WEIGHT = 1 / 32
_SUFFIXES = {".jpg", ".jpeg", ".png", ".dcm"}
_ENCODE_BATCH = 16


@dataclass(frozen=True)
class FitSaeOptions:
    """What to train, on what.

    Attributes:
        images: a folder of JPEG, PNG or DICOM files, searched to the bottom, or `phantom:N` for N procedural phantoms.
        layer: 0-based layer of the vision tower after which the residual stream is read.
        out: folder for `sae.safetensors` and `config.json`.
        model: folder or hub id of a Gemma-3 with a vision tower; `bundled` is the small one that ships.
        features: size of the dictionary; default: four times the tower's width.
        k: features that are active at a time; default: an eighth of the tower's width.
        epochs: passes over the patches.
        batch_size: patches a step.
        learning_rate: of Adam, falling to zero over the training.
        max_images: pictures that are read at most, spread evenly over the sorted files.
        patches_per_image: patches that are kept of each picture at most, drawn at random.
        seed: of everything random.
        log_dir: folder for TensorBoard.
    """

    images: str
    layer: int
    out: str
    model: str = "bundled"
    features: int | None = None
    k: int | None = None
    epochs: int = 20
    batch_size: int = 1024
    learning_rate: float = 2e-3
    max_images: int = 2000
    patches_per_image: int = 256
    seed: int = 0
    log_dir: str = "runs/fit_sae"

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        counts = (self.epochs, self.batch_size, self.max_images, self.patches_per_image)
        if min(counts) < 1 or self.learning_rate <= 0:
            raise ValueError("epochs, batch_size, max_images, patches_per_image and learning_rate must be positive")


class SAETrainer(L.LightningModule):
    """Squared error, and for features that did not fire in the last pass what the others leave over."""

    def __init__(self, sae: TopKSAE, learning_rate: float, total_steps: int) -> None:
        """Take an autoencoder whose mean and scale are set."""
        super().__init__()
        self.sae, self.learning_rate, self.total_steps = sae, learning_rate, total_steps
        self.fired = torch.zeros(sae.decoder.shape[0], dtype=torch.bool)
        self.dead = torch.zeros_like(self.fired)
        self.held_out: list[tuple[Tensor, Tensor, Tensor]] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Mean squared error in units of the stream's variance, plus the auxiliary loss of dead features."""
        stream = batch[0]
        before = self.sae.before_top_k(stream)
        active = keep_largest(before, self.sae.k)
        self.fired |= (active.detach() > 0).any(0).cpu()
        error = (stream - self.sae.decode(active)) / self.sae.scale
        loss = error.square().mean()
        if self.dead.any():
            revived = keep_largest(before * self.dead.to(before.device), min(self.sae.k, int(self.dead.sum())))
            loss = loss + AUXILIARY_WEIGHT * (error.detach() - revived @ self.sae.decoder).square().mean()
        self.log("train_loss", loss)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep decoder rows at length 1, so that activations are comparable."""
        with torch.no_grad():
            self.sae.decoder.data = torch.nn.functional.normalize(self.sae.decoder.data, dim=1)

    def on_train_epoch_end(self) -> None:
        """Features that did not fire in this pass are dead in the next."""
        self.dead, self.fired = ~self.fired, torch.zeros_like(self.fired)
        self.log("dead_share", self.dead.float().mean())

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Collect held-out vectors and their reconstructions."""
        active = self.sae.activations(batch[0])
        self.held_out.append((batch[0].cpu(), self.sae.decode(active).cpu(), (active > 0).sum(1).float().cpu()))

    def on_validation_epoch_end(self) -> None:
        """Log explained variance and L0 of the held-out pictures."""
        stream, made, counts = (torch.cat(parts) for parts in zip(*self.held_out, strict=True))
        self.held_out = []
        self.log("explained_variance", explained_variance(stream, made))
        self.log("l0", counts.mean())

    def configure_optimizers(self) -> Any:
        """Adam with a learning rate that falls linearly to zero."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit_sae(options: FitSaeOptions) -> SAEConfig:
    """Train, print and save.

    Raises:
        ValueError: pictures, model or layer cannot be used.
    """
    source = picture_source(options)
    transformers_logging.disable_progress_bar()
    vlm = Gemma3VLM.from_pretrained(bundled_model() if options.model == "bundled" else options.model)
    train, held_out = collect(vlm, source, options)
    width = train.shape[1]
    features, k = options.features or 4 * width, options.k or max(1, width // 8)
    config = SAEConfig(vlm.tower_identity(), options.layer, width, features, k)
    sae, measured = train_sae(train, held_out, config, options)
    save_sae(sae, SAEConfig(**{**vars(config), "measured": measured}), options.out)
    print(
        f"patches     {len(train)} to train on, {len(held_out)} held out, of width {width} after layer {config.layer}"
    )
    print(f"features    {features}, {k} at a time; measured L0 {measured['l0']:.2f}, dead {measured['dead_share']:.1%}")
    print(f"explained   {measured['explained_variance']:.1%} of the held-out variance")
    print(f"written     {options.out}")
    return config


def train_sae(
    train: Tensor, held_out: Tensor, config: SAEConfig, options: FitSaeOptions
) -> tuple[TopKSAE, dict[str, float]]:
    """Train on vectors [n, width]; returns the autoencoder and what is measured on the held-out ones."""
    torch.manual_seed(options.seed)
    sae = TopKSAE(config.width, config.features, config.k)
    sae.mean.copy_(train.mean(0))
    sae.scale.copy_(train.std(0, correction=0).square().mean().sqrt().clamp_min(1e-6))
    shuffle = torch.Generator().manual_seed(options.seed)
    loader = DataLoader(TensorDataset(train), options.batch_size, shuffle=True, generator=shuffle)
    module = SAETrainer(sae, options.learning_rate, options.epochs * len(loader))
    trainer = L.Trainer(
        max_epochs=options.epochs,
        accelerator="auto",
        devices=1,
        logger=TensorBoardLogger(options.log_dir, name=""),
        log_every_n_steps=min(50, len(loader)),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, loader, DataLoader(TensorDataset(held_out), options.batch_size))
    names = ("explained_variance", "l0", "dead_share")
    return sae.cpu(), {name: round(float(trainer.callback_metrics[name]), 4) for name in names}


def picture_source(options: FitSaeOptions) -> list[Path] | int:
    """The files to read, sorted, or the number of phantoms.

    Raises:
        SAEError: fewer than two pictures.
    """
    if options.images.startswith("phantom:"):
        number = options.images.removeprefix("phantom:")
        if not number.isdigit() or int(number) < 2:
            raise SAEError(f"images must be a folder or phantom:N with N of at least 2, got {options.images!r}")
        return min(int(number), options.max_images)
    files = sorted(file for file in Path(options.images).rglob("*") if file.suffix.lower() in _SUFFIXES)
    if len(files) < 2:
        raise SAEError(f"{options.images} holds {len(files)} JPEG, PNG or DICOM files: an SAE needs two or more")
    kept = min(len(files), options.max_images)
    return [files[index * len(files) // kept] for index in range(kept)]


def _pictures(source: list[Path] | int, size: tuple[int, int], seed: int) -> Iterator[Tensor]:
    """Pictures uint8 [3, H, W] as the model gets them, before normalization."""
    for item in range(source) if isinstance(source, int) else source:
        if isinstance(item, Path):
            picture = load_image(item)
        else:
            grey = render([sample_phantom(f"sae-{item}", seed)], SIZE)[0][0]
            picture = grey[..., None].repeat(3, -1)
        yield fit(picture, size)[0]


def collect(vlm: VLM, source: list[Path] | int, options: FitSaeOptions) -> tuple[Tensor, Tensor]:
    """Residual-stream vectors float32 [n, width] of training and of held-out pictures, on the CPU."""
    drawn = torch.Generator().manual_seed(options.seed)
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    waiting: list[Tensor] = []

    def encode() -> None:
        with torch.no_grad():
            streams = vlm.tower_hidden(vlm.normalize(torch.stack(waiting)), options.layer)[1].float().cpu()
        waiting.clear()
        for stream in streams:
            chosen = torch.randperm(len(stream), generator=drawn)[: options.patches_per_image]
            held = (len(parts[0]) + len(parts[1])) % HELD_OUT == 0
            parts[held].append(stream[chosen])

    for picture in _pictures(source, vlm.image_size, options.seed):
        waiting.append(picture)
        if len(waiting) == _ENCODE_BATCH:
            encode()
    if waiting:
        encode()
    return torch.cat(parts[0]), torch.cat(parts[1])
