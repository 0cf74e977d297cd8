"""What the Explainer takes and gives: pictures, and explanations that can be drawn."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cxr_faith.cases import Case
from cxr_faith.data.geometry import Geometry, fit
from cxr_faith.data.images import load_image
from cxr_faith.report.figures import overlay
from cxr_faith.vlm import Target
from cxr_faith.vlm.answers import YES_NO, predicted_answer
from cxr_faith.vlm.base import VLM

Picture = str | Path | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class View:
    """A picture as it was given and as the model gets it.

    Attributes:
        image_id: seeds everything random.
        picture: uint8 [H, W, 3], as given.
        geometry: how it was fitted to the model's input.
        pixels: pixel values [3, H, W] in model input space.
    """

    image_id: str
    picture: NDArray[np.uint8]
    geometry: Geometry
    pixels: Tensor

    @classmethod
    def open(cls, vlm: VLM, image: Picture, image_id: str | None = None) -> "View":
        """Read and fit a picture; its id is by default the file's name, or `image`."""
        picture = _picture(image)
        fitted, geometry = fit(picture, vlm.image_size)
        name = image_id or (Path(image).name if isinstance(image, str | Path) else "image")
        return cls(name, picture, geometry, vlm.normalize(fitted[None])[0])


@dataclass(frozen=True)
class LayerShare:
    """How much one decoder layer looks at the picture.

    Attributes:
        layer: 0-based index.
        kind: `global`, or `sliding` for a layer with local attention.
        share: share of the attention at the answer's position that falls on the image tokens, mean over heads.
    """

    layer: int
    kind: str
    share: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why the model gave its answer.

    Attributes:
        map: float32 [gH, gW]; larger = more important for the answer.
        answer: `yes` or `no` for yes/no questions, else the generated text.
        tokens: the generated answer, token by token.
        target: the score that is explained; `target.scored` are the indices of its tokens.
        text_relevancy: relevance of each token around the image, (token, value) in order; None for methods that give
            none.
        metadata: question, method, kind, generated text, margin in logits, p_yes, yes_no_mass, image_id, grid, and what
            the method itself reports.
        picture: uint8 [H, W, 3], as given.
    """

    map: NDArray[np.float32]
    answer: str
    tokens: tuple[str, ...]
    target: Target
    text_relevancy: tuple[tuple[str, float], ...] | None
    metadata: Mapping[str, Any]
    picture: NDArray[np.uint8] = field(repr=False)
    geometry: Geometry = field(repr=False)
    _case: Case = field(repr=False)
    _pixels: Tensor = field(repr=False)

    @classmethod
    def of(cls, vlm: VLM, case: Case, method: str, view: View) -> "Explanation":
        """The explanation of a case that has a map of the method.

        Raises:
            ValueError: the map has values that are not finite.
        """
        assert case.target is not None
        if not np.isfinite(case.maps[method]).all():
            raise ValueError(f"the map of {method} for {view.image_id} has values that are not finite")
        reply, yes_no = case.reply, case.kind == YES_NO
        metadata = {
            "question": case.prompt.question,
            "method": method,
            "kind": case.kind,
            "generated": reply.text,
            "margin": reply.margin if yes_no else None,
            "p_yes": float(torch.tensor(reply.margin).double().sigmoid()) if yes_no else None,
            "yes_no_mass": reply.yes_no_mass,
            "image_id": case.image_id,
            "grid": vlm.grid,
        }
        return cls(
            map=case.maps[method],
            answer=predicted_answer(reply, case.kind),
            tokens=tuple(vlm.decode(reply.token_ids)),
            target=case.target,
            text_relevancy=_text_relevancy(vlm, case, method),
            metadata=metadata | case.extras[method],
            picture=view.picture,
            geometry=view.geometry,
            _case=case,
            _pixels=view.pixels,
        )

    @property
    def extras(self) -> Mapping[str, Any]:
        """What the method itself reports; `metadata` holds it too."""
        return self._case.extras[str(self.metadata["method"])]

    def plot(self) -> Figure:
        """The map on its picture, in the picture's own proportions, with patient sides marked."""
        title = f"{self.metadata['question']} {self.answer} ({self.metadata['method']})"
        if self.target.kind == "tokens" and len(self.target.scored) < len(self._case.reply.content):
            title += f": {''.join(self.tokens[index] for index in self.target.scored).strip()}"
        top, left, height, width = self.geometry.crop
        return overlay(self.picture, self.map, title, region=(top, left, height, width))

    def overlay(self, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """The map on the pixel grid of the picture, nearest neighbor.

        Args:
            size: (height, width) of the result; default: the picture's own.

        Returns:
            float32 [height, width].
        """
        height, width = size or self.picture.shape[:2]
        rows = np.arange(height) * self.map.shape[0] // height
        columns = np.arange(width) * self.map.shape[1] // width
        return np.ascontiguousarray(self.map[rows][:, columns])


def _text_relevancy(vlm: VLM, case: Case, method: str) -> tuple[tuple[str, float], ...] | None:
    """(token, relevance) of the text tokens around the image, where the method gives a value to each position."""
    sequence = case.sequences.get(method)
    if sequence is None or case.target is None:
        return None
    prompt = case.prompt
    ids = prompt.prefix_ids + prompt.suffix_ids + case.target.forced_ids
    text = [i for i in range(len(ids)) if not prompt.image_start <= i < prompt.image_start + vlm.n_cells]
    return tuple(zip(vlm.decode([ids[i] for i in text]), sequence[text].tolist(), strict=True))


def _picture(image: Picture) -> NDArray[np.uint8]:
    """Any accepted picture as uint8 [H, W, 3].

    Raises:
        ValueError: not a picture.
    """
    if isinstance(image, str | Path):
        return load_image(image)
    array = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise ValueError(f"a picture must be uint8 [H, W] or [H, W, 3], got {array.dtype} {list(array.shape)}")
    return np.ascontiguousarray(np.broadcast_to(array[..., None], (*array.shape, 3)) if array.ndim == 2 else array)
