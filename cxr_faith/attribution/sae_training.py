"""`cxr-faith fit-sae`: collect a vision tower's residual stream and train a top-k sparse autoencoder on it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers.utils import logging as transformers_logging

from cxr_faith.attribution.sae_model import SAEConfig, SAEError, save_sae
from cxr_faith.data.geometry import fit
from cxr_faith.data.images import ImageError, load_image
from cxr_faith.data.sources.phantom import SIZE, render, sample_phantom
from cxr_faith.printable import printable
from cxr_faith.vlm import Gemma3VLM, bundled_model
from cxr_faith.vlm.base import VLM

HELD_OUT = 10
"""Every tenth picture is held out."""
_SUFFIXES = {".jpg", ".jpeg", ".png", ".dcm"}
_ENCODE_BATCH = 16


@dataclass(frozen=True)
class FitSaeOptions:
    """What to train, and on which pictures.

    Attributes:
        images: a folder with JPEG, PNG or DICOM files at any depth, or `phantom:N` for N procedural phantoms.
        layer: 0-based layer of the vision tower after which the residual stream is read.
        out: folder for `sae.safetensors` and `config.json`.
        model: folder or hub id of a Gemma-3 with a vision tower; `bundled` is the small one that ships.
        features: size of the dictionary; default: four times the tower's width.
        k: features that are active for a patch; default: an eighth of the tower's width.
        epochs: passes over the patches.
        batch_size: patches in a step.
        learning_rate: of Adam; it falls linearly to zero.
        max_images: read at most this many pictures, spread evenly over the sorted files.
        patches_per_image: keep at most this many patches of a picture, drawn at random.
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
        """Refuse counts and a learning rate that are not positive."""
        counts = (self.epochs, self.batch_size, self.max_images, self.patches_per_image)
        if min(counts) < 1 or self.learning_rate <= 0:
            raise ValueError("epochs, batch_size, max_images, patches_per_image and learning_rate must be positive")


def fit_sae(options: FitSaeOptions) -> SAEConfig:
    """Train an autoencoder, print its figures and save it.

    Raises:
        ValueError: pictures, model or layer cannot be used.
    """
    from cxr_faith.attribution.sae_trainer import train_sae  # loads Lightning

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
    print(f"written     {printable(options.out)}")
    return config


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
    """Pictures uint8 [3, H, W] of the model's input size, before normalization."""
    for item in range(source) if isinstance(source, int) else source:
        if isinstance(item, Path):
            try:
                picture = load_image(item)
            except ImageError as error:
                print(f"left out    {printable(str(error))}")
                continue
        else:
            gray = render([sample_phantom(f"sae-{item}", seed)], SIZE)[0][0]
            picture = gray[..., None].repeat(3, -1)
        yield fit(picture, size)[0]


def collect(vlm: VLM, source: list[Path] | int, options: FitSaeOptions) -> tuple[Tensor, Tensor]:
    """Residual-stream vectors float32 [n, width] of the training pictures and of the held-out ones, on the CPU."""
    drawn = torch.Generator().manual_seed(options.seed)
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    waiting: list[Tensor] = []

    def encode() -> None:
        with torch.no_grad():
            streams = vlm.tower_stream(vlm.normalize(torch.stack(waiting)), options.layer).float().cpu()
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
    if not parts[0] or not parts[1]:
        raise SAEError(f"{options.images}: fewer than two of the pictures can be used")
    return torch.cat(parts[0]), torch.cat(parts[1])
