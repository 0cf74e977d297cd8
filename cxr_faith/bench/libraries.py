"""torchcam and Quantus on the same margin model, where they can do the job: deletion, and with torchcam insertion."""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxr_faith.bench.scene import Scene
from cxr_faith.bench.timing import wall

LIBRARIES = ("torchcam", "quantus")
REMEDY = "pip install 'cxr-faith[dev]'"
BATCH = 16


class MarginModel(torch.nn.Module):
    """Pictures [batch, 3, H, W] to signed margins [batch, 1]: a plain forward, SDPA, logits of the last position."""

    def __init__(self, scene: Scene, question: int) -> None:
        """Take the model and one question; the model stays outside `parameters()`."""
        super().__init__()
        case = scene.cases[question]
        assert case.target is not None
        self.vlm, self.sign, self.forwards = scene.vlm, case.target.sign, 0
        self.ids = torch.tensor([case.prompt.prefix_ids + case.prompt.suffix_ids], device=scene.vlm.device)
        self._model: Any = [scene.vlm.model]
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Signed margins [batch, 1]."""
        model = self._model[0]
        ids = self.ids.expand(len(pixels), -1)
        self.forwards += len(pixels)
        with torch.no_grad():
            logits = model(
                input_ids=ids,
                pixel_values=pixels.to(self.vlm.device, model.dtype),
                token_type_ids=(ids == model.config.image_token_id).long(),
                attention_mask=torch.ones_like(ids),
                logits_to_keep=1,
            ).logits[:, -1]
        yes, no = logits[:, list(self.vlm.yes_ids)].float(), logits[:, list(self.vlm.no_ids)].float()
        margins: Tensor = self.sign * (yes.logsumexp(-1, True) - no.logsumexp(-1, True))
        return margins


def missing(library: str) -> str | None:
    """Why a library's row is left out; None if the library can be imported."""
    try:
        importlib.import_module(library)
    except ImportError as error:
        return f"{library} cannot be imported ({error}): {REMEDY}"
    return None


def library_steps(n_cells: int, steps: int) -> int:
    """The largest number of steps, at most `steps`, that all change the same number of cells, as the libraries need."""
    return max(count for count in range(1, steps + 1) if n_cells % count == 0)


def run_library(library: str, scene: Scene, question: int, steps: int) -> tuple[float, int, list[float]]:
    """One map's curves.

    Args:
        library: `torchcam` (deletion and insertion) or `quantus` (deletion).
        scene: model, picture and maps.
        question: whose first map is scored.
        steps: of the curve.

    Returns:
        seconds, forwards, and the library's result: the areas (torchcam), or the deletion scores after each step.
    """
    model = MarginModel(scene, question)
    values = next(iter(scene.cases[question].maps.values()))
    ranked = np.empty(values.size, np.float32)
    ranked[np.argsort(values.ravel(), kind="stable")] = np.arange(values.size)
    cell = [side // cells for side, cells in zip(scene.vlm.image_size, scene.vlm.grid, strict=True)]
    saliency = np.kron(ranked.reshape(values.shape), np.ones(cell, np.float32))
    removed = scene.substrate.apply(scene.pixels[None], [scene.image_id], scene.protocol.seed)
    scores: list[float] = []

    def work() -> None:
        scores.extend({"torchcam": _torchcam, "quantus": _quantus}[library](model, scene, saliency, removed, steps))

    return wall(scene.vlm.device, work), model.forwards, scores


class _GivenMap:
    """Gives torchcam a finished map in place of an extractor."""

    def __init__(self, model: MarginModel, saliency: NDArray[np.float32]) -> None:
        self.model, self.saliency = model, torch.from_numpy(saliency)

    def __call__(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        return [self.saliency[None].to(self.model.vlm.device)]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]

    @contextmanager
    def _hooks_off(self) -> Iterator[None]:
        yield


def _torchcam(
    model: MarginModel, scene: Scene, saliency: NDArray[np.float32], removed: Tensor, steps: int
) -> list[float]:
    from torchcam.metrics import DeletionInsertionMetric

    extractor: Any = _GivenMap(model, saliency)
    metric = DeletionInsertionMetric(extractor, steps=steps, baseline=removed, batch_size=BATCH)
    metric.update(scene.pixels[None], 0)
    summary = metric.summary()
    return [summary["deletion_auc"], summary["insertion_auc"]]


class _Masked(torch.nn.Module):
    """Masks [batch, 1, H, W] to margins: Quantus changes which pixels are original."""

    def __init__(self, model: MarginModel, original: Tensor, removed: Tensor) -> None:
        super().__init__()
        self.model, self.original, self.removed = model, original, removed
        self.eval()

    def forward(self, masks: Tensor) -> Tensor:
        margins: Tensor = self.model(torch.where(masks > 0.5, self.original, self.removed))
        return margins


def _quantus(
    model: MarginModel, scene: Scene, saliency: NDArray[np.float32], removed: Tensor, steps: int
) -> list[float]:
    import quantus

    def replace(arr: NDArray[np.float32], indices: NDArray[np.int64], **kwargs: Any) -> NDArray[np.float32]:
        changed = arr.copy()
        np.put_along_axis(changed, indices, 0.0, 1)
        return changed

    masked, intact = _Masked(model, scene.pixels[None], removed), np.ones((1, 1, *saliency.shape), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the choice of metrics in general
        metric = quantus.PixelFlipping(  # type: ignore[attr-defined]
            features_in_step=saliency.size // steps, perturb_func=replace, normalise=False, disable_warnings=True
        )
        device = str(scene.vlm.device)
        (scores,) = metric(masked, intact, np.zeros(1, np.int64), saliency[None, None], softmax=False, device=device)
    return [float(score) for score in scores]
