"""A counterfactual as pictures: the film, the film with the set of cells edited, and what the edit changed."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cxr_faith.attribution.counterfactual import MIRROR
from cxr_faith.data.sample import YES_NO
from cxr_faith.explainer.explanation import Explanation
from cxr_faith.perturb.orders import map_order
from cxr_faith.perturb.substrate import PAIR, Substrate, compose
from cxr_faith.report.film import Frame

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 512
"""Longest side of the pictures in pixels."""
_GRAY = 128
"""What is unchanged, in the picture of what changed."""


def edit_said(explanation: Explanation) -> str:
    """What the edit did to the answer, in one line."""
    extras, margin = explanation.extras, explanation.metadata["margin"]
    if not extras["set_size"]:
        return "no edit changes the answer"
    yes_no = explanation.metadata["kind"] == YES_NO and explanation.target.kind == "margin"
    after = f"its score falls by {extras['score_drop']:.1f}"
    if yes_no:
        after = f"margin {margin:+.1f} → {margin - explanation.target.sign * extras['score_drop']:+.1f}"
    if not extras["verified"]:
        return f"it still says {explanation.answer} ({after})"
    flipped = f"now it says {'no' if explanation.answer == 'yes' else 'yes'}" if yes_no else "the answer changes"
    return f"{flipped} ({after})"


def edit_frames(explanation: Explanation) -> list[Frame]:
    """Film, edit and change of an explanation by `counterfactual`, each with what the model says."""
    size, cells = int(explanation.extras["set_size"]), explanation.map.size
    film, edited = (_shown(explanation, pixels) for pixels in _pixels(explanation, size))
    change = (_GRAY + edited.astype(np.int16) - film).clip(0, 255).astype(np.uint8)
    edit = str(explanation.extras["edit"])
    how = {MIRROR: "the other side", PAIR: "the pair"}.get(edit, edit)
    return [
        Frame(film, "the film", f"it says {explanation.answer}"),
        Frame(edited, f"{size} of {cells} cells from {how}", edit_said(explanation)),
        Frame(change, "what changed", "light: brighter than before"),
    ]


def _pixels(explanation: Explanation, size: int) -> tuple["Tensor", "Tensor"]:
    """The picture as the model gets it [3, H, W], intact and with the set edited."""
    vlm, case, view, seed = explanation._engine.vlm, explanation._case, explanation._view, explanation._seed
    order = map_order(explanation.map, seed, case.image_id, explanation.method)
    keep = torch.ones(1, vlm.n_cells, dtype=torch.bool, device=view.pixels.device)
    if order is not None:
        keep[0, torch.from_numpy(order[:size].astype(np.int64)).to(keep.device)] = False
    edit = str(explanation.extras["edit"])
    if edit == PAIR and view.pair is not None:
        removed = view.pair
    elif edit == MIRROR:
        removed = view.pixels.flip(-1)
    else:
        substrate = Substrate.parse(edit)
        fill = substrate.fill(view.pixels, case.image_id, seed, vlm.grid)
        removed = substrate.apply(view.pixels[None], [case.image_id], seed)[0] if fill is None else fill(keep)[0]
    return view.pixels, compose(view.pixels, removed, keep, vlm.grid)[0]


def _shown(explanation: Explanation, pixels: "Tensor") -> NDArray[np.uint8]:
    """A picture in the proportions of the one that was given, uint8 [h, w, 3]."""
    height, width = explanation.geometry.crop[2:]
    scale = SIDE / max(height, width)
    shown = explanation._engine.vlm.denormalize(pixels[None])[0].permute(1, 2, 0).cpu().numpy()
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(shown).resize(size, Image.Resampling.BILINEAR))
