"""The Lightning module that trains a top-k sparse autoencoder on vectors of a residual stream."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from cxr_faith.attribution.sae_model import SAEConfig, TopKSAE, explained_variance, keep_largest
from cxr_faith.attribution.sae_training import FitSaeOptions
from cxr_faith.vlm.devices import choose_accelerator

AUXILIARY_WEIGHT = 1 / 32
"""Weight of the loss that revives dead features."""


class SAETrainer(L.LightningModule):
    """Trains on the squared error; features that were dead in the last epoch also learn what the others leave over.

    Args:
        sae: the autoencoder, with its mean and scale set.
        learning_rate: of Adam at the start.
        total_steps: steps of the training, after which the rate is zero.
    """

    def __init__(self, sae: TopKSAE, learning_rate: float, total_steps: int) -> None:
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
        """Scale decoder rows to length 1, so that activations are comparable."""
        with torch.no_grad():
            self.sae.decoder.data = torch.nn.functional.normalize(self.sae.decoder.data, dim=1)

    def on_train_epoch_end(self) -> None:
        """Features that did not fire in this epoch count as dead in the next."""
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


def train_sae(
    train: Tensor, held_out: Tensor, config: SAEConfig, options: FitSaeOptions
) -> tuple[TopKSAE, dict[str, float]]:
    """Train on vectors [n, width].

    Returns:
        the autoencoder on the CPU, and its explained variance, L0 (held-out vectors) and share of dead features.
    """
    torch.manual_seed(options.seed)
    sae = TopKSAE(config.width, config.features, config.k)
    sae.mean.copy_(train.mean(0))
    sae.scale.copy_(train.std(0, correction=0).square().mean().sqrt().clamp_min(1e-6))
    shuffle = torch.Generator().manual_seed(options.seed)
    loader = DataLoader(TensorDataset(train), options.batch_size, shuffle=True, generator=shuffle)
    module = SAETrainer(sae, options.learning_rate, options.epochs * len(loader))
    trainer = L.Trainer(
        max_epochs=options.epochs,
        accelerator=choose_accelerator(),
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
