"""One explained answer: the map, what it explains, and how to draw it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxr_faith.cases import Case
from cxr_faith.data.geometry import Geometry
from cxr_faith.data.sample import OPTION, YES_NO
from cxr_faith.explainer.view import View
from cxr_faith.vlm.answers import predicted_answer
from cxr_faith.vlm.base import VLM, Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LayerShare:
    """How much attention one decoder layer pays to the picture."""

    layer: int
    """0-based index of the layer."""
    kind: str
    """`global`, or `sliding` for a layer with local attention."""
    share: float
    """Share of the attention at the answer's position that falls on the image tokens, mean over heads."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Which parts of the picture the model's answer depends on, according to one attribution method."""

    map: NDArray[np.float32]
    """Importance of each cell for the answer, float32 [grid_h, grid_w]; larger = more important."""
    answer: str
    """`yes` or `no` for yes/no questions, a letter for those with options, else the generated text."""
    tokens: tuple[str, ...]
    """The generated answer, token by token."""
    target: Target
    """The score that is explained; `target.scored` are the indices of its tokens."""
    text_relevancy: tuple[tuple[str, float], ...] | None
    """(token, relevance) of each token around the image, in order; None for methods that rate the image alone."""
    metadata: Mapping[str, Any]
    """Question, method, kind, thought (None: it did not think), generated text, margin, p_yes, yes_no_mass,
    option_probs (by letter), option_mass, image_id, grid, and the method's extras."""
    picture: NDArray[np.uint8] = field(repr=False)
    """The picture as it was given, uint8 [H, W, 3]."""
    geometry: Geometry = field(repr=False)
    """How the picture was fitted to the model's input."""
    _case: Case = field(repr=False)
    _pixels: Tensor = field(repr=False)

    @classmethod
    def of(cls, vlm: VLM, case: Case, method: str, view: View) -> "Explanation":
        """The explanation of a case, from the method's map.

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
            "thought": case.prompt.thought,
            "generated": reply.text,
            "margin": reply.margin if yes_no else None,
            "p_yes": float(torch.tensor(reply.margin).double().sigmoid()) if yes_no else None,
            "yes_no_mass": reply.yes_no_mass,
            "option_probs": list(reply.option_probs),
            "option_mass": reply.option_mass if case.kind == OPTION else None,
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
        """What the method reports besides its map; `metadata` holds it too."""
        return self._case.extras[str(self.metadata["method"])]

    def plot(self) -> "Figure":
        """A figure of the map on its picture, in the picture's proportions, with patient sides marked."""
        from cxr_faith.report.figures import overlay  # matplotlib takes a second to load: only where it is drawn

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
    count = vlm.layout.n_tokens // len(prompt.image_starts)
    text = [i for i in range(len(ids)) if not any(start <= i < start + count for start in prompt.image_starts)]
    return tuple(zip(vlm.decode([ids[i] for i in text]), sequence[text].tolist(), strict=True))
