"""What the page's large view shows beside a map: where the finding is, and the picture with its cells removed."""

import base64
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy import ndimage

from cxr_faith.perturb.condition import NONE
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.records import scan_records
from cxr_faith.summary.board import Setting

_SMALL_AS_LARGE = ("blur", "mean")
"""Substrates that look alike at any size; noise and imputation do not."""
_EDGE = 2  # pixels


def removed_picture(seen: Image.Image, spec: str, pictures: int = 1) -> Image.Image | None:
    """A small picture with every cell removed; None for a substrate that would look different at this size.

    Args:
        seen: what the model saw, RGB; several pictures side by side.
        spec: the substrate, such as `blur:0.1`.
        pictures: how many there are.
    """
    substrate = Substrate.parse(spec)
    if substrate.name not in _SMALL_AS_LARGE:
        return None
    pixels = torch.from_numpy(np.asarray(seen.convert("RGB"), np.float32)).permute(2, 0, 1)
    parts = [substrate.apply(part[None], [""], seed=0)[0] for part in pixels.tensor_split(pictures, dim=2)]
    return Image.fromarray(torch.cat(parts, dim=2).permute(1, 2, 0).round().clamp(0, 255).byte().numpy())


def outline(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> Image.Image:
    """The edge of a mask, white on black, which is visible on bone, on lung and on every color of a map.

    Args:
        mask: [H, W].
        size: width and height of the result, in pixels.
    """
    inside = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST), bool)
    pixels = np.zeros((*inside.shape, 4), np.uint8)
    pixels[ndimage.binary_dilation(inside) & ~inside] = (0, 0, 0, 255)
    pixels[inside & ~ndimage.binary_erosion(inside, iterations=_EDGE)] = 255
    return Image.fromarray(pixels)


def orders_of(run_dir: Path, samples: Iterable[str], setting: Setting) -> dict[str, dict[str, str]]:
    """Sample → method → its order of the cells, as whole numbers of two bytes, low byte first, in base64."""
    orders: dict[str, dict[str, str]] = {sample: {} for sample in samples}
    for rows in scan_records(run_dir, ("order",), set(orders)):
        mine = rows["condition"].eq(NONE) & rows[list(Setting._fields)].eq(list(setting)).all(axis=1)
        for row in rows[mine & rows["order"].notna()].to_dict("records"):
            packed = np.asarray(row["order"]).astype("<u2").tobytes()
            orders[row["sample_id"]][row["method"]] = base64.b64encode(packed).decode("ascii")
    return orders
