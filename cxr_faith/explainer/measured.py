"""What removing cells did to one explained answer: its scores, those of random orders, and the pictures themselves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cxr_faith.cases import Case
from cxr_faith.data.geometry import Geometry
from cxr_faith.data.sheets import apart
from cxr_faith.explainer.scores import Scores
from cxr_faith.explainer.view import View
from cxr_faith.metrics.regions import picture_shares
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.orders import map_order
from cxr_faith.perturb.substrate import PAIR, Substrate, compose
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
        pixels: pixel values [3, pictures * H, W].
        case: with its maps.
        protocol: schedule, random orders and seed.

    Returns:
        name of the map → what was measured.

    Raises:
        ValueError: unknown substrate, or a schedule that does not fit the grid.
    """
    protocol.check_grid(engine.showing(case.pictures).vlm.picture_grid)
    substrate = Substrate.parse(protocol.substrates[0])
    target = case.target
    assert target is not None
    rows: Mapping[str, Columns]
    if case.off_format:
        rows = dict.fromkeys((*case.maps, RANDOM), {"status": "off_format", "reason": case.off_format_reason})
    else:
        pair = case.pair if substrate.name == PAIR else None
        rows = score_image(engine, pixels, case.image_id, [case], substrate, protocol, pair)[0]
    key, effects = (case.image_id, case.prompt.question), rows[RANDOM].get("picture_effects")

    def scores(method: str) -> Scores:
        columns = {name: value for name, value in rows[method].items() if name in _COLUMNS}
        if case.pictures > 1 and method in case.maps:
            columns |= {"picture_shares": picture_shares(case.maps[method], case.pictures), "picture_effects": effects}
        return Scores(*key, method, substrate.spec, target.name, **columns)

    random = scores(RANDOM)
    return {name: Measured(scores(name), random, protocol.random_orders) for name in case.maps}


def removed_pictures(
    vlm: VLM, case: Case, view: View, method: str, substrate: Substrate, seed: int, shares: Sequence[float]
) -> Iterator[list[NDArray[np.uint8]]]:
    """The pictures with a share of all their cells removed, the most salient first, as the model gets them.

    Args:
        vlm: the model, shown as many pictures.
        case: with its maps.
        view: the pictures.
        method: name of the map that ranks the cells.
        substrate: what replaces removed cells.
        seed: the run's seed, for ties and for random substrates.
        shares: of the cells, rounded to whole cells; one list of pictures each.

    Yields:
        uint8 [h, w, 3] each, in the picture's proportions, with a longest side of `LONGEST_SIDE` pixels.
    """
    order, pictures = map_order(case.maps[method], seed, case.image_id, method), vlm.pictures
    assert order is not None  # the map of an explanation is finite
    fill = substrate.fill(view.pixels, case.image_id, seed, vlm.picture_grid, pictures)
    given = view.pair if substrate.name == PAIR else None
    whole = substrate.apply(view.pixels[None], [case.image_id], seed, pictures)[0] if given is None else given
    for share in shares:
        keep = torch.ones(1, vlm.n_cells, dtype=torch.bool, device=view.pixels.device)
        keep[0, torch.from_numpy(order[: round(share * len(order))].astype(np.int64)).to(keep.device)] = False
        removed = whole if fill is None else fill(keep)
        parts = vlm.denormalize(apart(compose(view.pixels, removed, keep, vlm.grid), pictures))
        yield [_shaped(part, geometry) for part, geometry in zip(parts, view.geometries, strict=True)]


def _shaped(pixels: Tensor, geometry: Geometry) -> NDArray[np.uint8]:
    """A picture [3, H, W] of the model's size, in the proportions that it was given in."""
    height, width = geometry.crop[2:]
    scale = LONGEST_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    shown = Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
    return np.asarray(shown.resize(size, Image.Resampling.BILINEAR))
