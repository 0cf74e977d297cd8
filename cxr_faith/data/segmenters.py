"""Organ masks of a radiograph by a published segmentation model, whose weights the user has downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from cxr_faith.data.tally import PrepareError
from cxr_faith.data.text_files import one_line

Masks = dict[str, npt.NDArray[np.bool_]]
LABELS = ("left lung", "right lung", "heart", "mediastinum")
"""Organs that every segmenter gives."""
WEIGHTS = "pspnet_chestxray_best_model_4.pth"
URL = f"https://github.com/mlmed/torchxrayvision/releases/download/v1/{WEIGHTS}"
_SIDE = 512
_LUNGS = ("Left Lung", "Right Lung")


class Segmenter(Protocol):
    """Gives the organ masks of a picture."""

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Masks:
        """Masks [H, W] of `LABELS` for a picture [H, W, 3]; a mask may be empty."""


class TorchXRayVision:
    """PSPNet of TorchXRayVision, trained on ChestX-Det (Lian et al. 2021).

    The picture is padded to a square with black and resized to 512 pixels; the probabilities are resized back, and a
    pixel belongs to an organ above one half. The lung on the right of the picture is the patient's left one.

    Args:
        weights: folder with the file `WEIGHTS`; None: where the library keeps it.
        device: where the model runs.

    Raises:
        PrepareError: the library or the file is missing, or the file is not that of the model.
    """

    def __init__(self, weights: Path | None = None, device: str = "cpu") -> None:
        try:
            from torchxrayvision.baseline_models.chestx_det import PSPNet
        except ImportError as error:
            raise PrepareError("--segmenter torchxrayvision needs: pip install 'cxr-faith[segment]'") from error
        folder = weights or Path("~/.torchxrayvision/models_data").expanduser()
        if not (folder / WEIGHTS).is_file():  # the library would download it
            raise PrepareError(
                f"{folder / WEIGHTS}: file not found; download it from {URL}, or give its folder as --weights"
            )
        try:
            model = PSPNet(cache_dir=str(folder))
        except Exception as error:  # whatever loading a damaged file raises
            raise PrepareError(f"{folder / WEIGHTS}: is not the file of the model: {type(error).__name__}") from error
        try:
            self._model, self._device = model.to(device).eval(), device
        except RuntimeError as error:
            raise PrepareError(f"--device {device!r} cannot be used: {one_line(error)[:200]}") from error

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Masks:
        """Masks [H, W] of `LABELS` for a picture [H, W, 3]."""
        small = to_square(pixels) / 255 * 2048 - 1024  # the library's units
        with torch.inference_mode():
            likely = self._model(small.to(self._device)).float().cpu().sigmoid()
        inside = from_square(likely[0], (pixels.shape[0], pixels.shape[1])) > 0.5
        named = dict(zip(self._model.targets, inside, strict=True))
        return by_side(*(named[name] for name in _LUNGS)) | {
            name: named[name.title()] for name in ("heart", "mediastinum")
        }


def to_square(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """A picture [H, W, 3] as gray in a square, padded with black at the right or below: float32 [1, 1, 512, 512]."""
    height, width = pixels.shape[:2]
    gray = torch.zeros(1, 1, max(height, width), max(height, width))
    gray[0, 0, :height, :width] = torch.from_numpy(pixels.astype(np.float32).mean(2))
    return interpolate(gray, (_SIDE, _SIDE), mode="bilinear", antialias=True, align_corners=False)


def from_square(values: torch.Tensor, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Values [n, 512, 512] of such a square at the size (height, width) of its picture, [n, H, W]."""
    side = max(size)
    whole = interpolate(values[None], (side, side), mode="bilinear", align_corners=False)[0]
    return np.asarray(whole[:, : size[0], : size[1]].numpy(), np.float32)


def by_side(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> Masks:
    """Two lungs as the patient's left and right one: the left lung is on the right of the picture."""
    places = [np.flatnonzero(mask.any(0)).mean() if mask.any() else np.nan for mask in (one, other)]
    middle = one.shape[1] / 2
    swapped = places[0] < places[1] if np.isfinite(places).all() else places[0] < middle or places[1] >= middle
    return {"left lung": other if swapped else one, "right lung": one if swapped else other}


def segmenter(name: str, weights: Path | None, device: str) -> Segmenter:
    """The segmenter of this name.

    Raises:
        PrepareError: there is none, or it cannot be used.
    """
    if name == "cxas":
        raise PrepareError(
            "cxas needs pydicom below 3, and this package pydicom 3: run cxas in an environment of its own, and give "
            "its masks as --masks"
        )
    if name != "torchxrayvision":
        raise PrepareError(f"no segmenter {name!r}; there is torchxrayvision")
    return TorchXRayVision(weights, device)
