"""What removing cells did to one explained answer: its scores, those of random orders, and the pictures themselves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cxr_faith.cases import Case
from cxr_faith.explainer.scores import Scores
from cxr_faith.explainer.view import View
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.orders import map_order
from cxr_faith.perturb.substrate import Substrate, compose
from cxr_faith.protocol import Protocol
from cxr_faith.records.controls import RANDOM
from cxr_faith.scoring import Columns, score_image
from cxr_faith.vlm.base import VLM

LONGEST_SIDE = 512
"""Pixels of a side of a picture that is drawn with cells removed."""

FEWEST_ORDERS = 20
"""Fewer random orders than this cannot give a p below .05."""

_COLUMNS = frozenset(field.name for field in fields(Scores))


@dataclass(frozen=True)
class Measured:
    """The scores of one map, and the mean scores of the random orders that they are compared with."""

    scores: Scores
    """Of the map."""
    random: Scores
    """Of the random orders: each number, and each point of a curve, is a mean over them."""
    random_orders: int
    """How many there were."""

    @property
    def quick(self) -> bool:
        """Too few random orders for a p below .05: good for a picture of the curves, for no verdict."""
        return self.random_orders < FEWEST_ORDERS


def measure(engine: Engine, pixels: Tensor, case: Case, protocol: Protocol) -> dict[str, Measured]:
    """Score every map of a case under the protocol's first substrate, with one pass over the random orders.

    Args:
        engine: runs the model.
        pixels: pixel values [3, H, W].
        case: with its maps.
        protocol: schedule, random orders and seed.

    Returns:
        name of the map → what was measured.

    Raises:
        ValueError: unknown substrate, or a schedule that does not fit the grid.
    """
    protocol.check_grid(engine.vlm.grid)
    substrate = Substrate.parse(protocol.substrates[0])
    target = case.target
    assert target is not None
    rows: Mapping[str, Columns]
    if case.off_format:
        rows = dict.fromkeys((*case.maps, RANDOM), {"status": "off_format", "reason": case.off_format_reason})
    else:
        rows = score_image(engine, pixels, case.image_id, [case], substrate, protocol)[0]
    key = (case.image_id, case.prompt.question)

    def scores(method: str) -> Scores:
        columns = {name: value for name, value in rows[method].items() if name in _COLUMNS}
        return Scores(*key, method, substrate.spec, target.name, **columns)

    random = scores(RANDOM)
    return {name: Measured(scores(name), random, protocol.random_orders) for name in case.maps}


def removed_pictures(
    vlm: VLM, case: Case, view: View, method: str, substrate: Substrate, seed: int, shares: Sequence[float]
) -> Iterator[NDArray[np.uint8]]:
    """The picture with a share of its cells removed, the most salient first, as the model gets it.

    Args:
        vlm: the model.
        case: with its maps.
        view: the picture.
        method: name of the map that ranks the cells.
        substrate: what replaces removed cells.
        seed: the run's seed, for ties and for random substrates.
        shares: of the cells, rounded to whole cells; one picture each.

    Yields:
        uint8 [h, w, 3] in the picture's proportions, with a longest side of `LONGEST_SIDE` pixels.
    """
    order = map_order(case.maps[method], seed, case.image_id, method)
    assert order is not None  # the map of an explanation is finite
    fill = substrate.fill(view.pixels, case.image_id, seed, vlm.grid)
    whole = substrate.apply(view.pixels[None], [case.image_id], seed)[0]
    height, width = view.geometry.crop[2:]
    scale = LONGEST_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    for share in shares:
        keep = torch.ones(1, vlm.n_cells, dtype=torch.bool, device=view.pixels.device)
        keep[0, torch.from_numpy(order[: round(share * len(order))].astype(np.int64)).to(keep.device)] = False
        removed = whole if fill is None else fill(keep)
        pixels = vlm.denormalize(compose(view.pixels, removed, keep, vlm.grid))[0]
        shown = Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
        yield np.asarray(shown.resize(size, Image.Resampling.BILINEAR))
