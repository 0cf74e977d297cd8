"""Fluid and air beside a lung: how dense they are, and where they lie."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter

from cxr_faith.data.planting.blend import blend
from cxr_faith.data.planting.film import Film
from cxr_faith.data.planting.lungs import film_of, lungs_of
from cxr_faith.data.planting.pleura import pleural_effusion, pneumothorax
from tests.data.test_planting import SIZE, film_pixels

TISSUE, RIB, NOISE = 190, 25, 5


@pytest.mark.parametrize("seed", [0, 1])
def test_an_effusion_is_never_denser_than_tissue(seed: int) -> None:
    film = film_of(film_pixels(), {}, None)
    item = pleural_effusion(film, np.random.default_rng(seed))
    changes = []
    for contrast in (1.0, 2.0, 4.0):
        copy = blend(film, item, contrast, np.random.default_rng(0))
        shown = gaussian_filter(copy.pixels.astype(float), 2)
        assert shown[copy.mask].max() < TISSUE + RIB + NOISE
        changes.append(np.abs(copy.pixels - film.gray * 255).sum())
    assert shown[copy.mask].max() > TISSUE - 2 * NOISE, "and fills the lung up to the tissue around it"
    assert changes[0] < changes[1] < changes[2], "more contrast makes thin fluid thicker"


@pytest.mark.parametrize("seed", range(4))
def test_air_lies_beside_a_lung_and_not_around_what_lies_in_it(seed: int) -> None:
    """The mask of a lung spares a mass at its inner border below the hilum: no air is drawn around it."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    first, second = lungs_of({}, SIZE)
    masses = [np.hypot(x - column, y - 180) < 22 for column in (110, SIZE[1] - 110)]
    spared = first & ~masses[0], second & ~masses[1]
    film = Film.from_pixels(film_pixels(), None, spared)
    item = pneumothorax(film, np.random.default_rng(seed))
    assert item.emptied is not None
    air = item.emptied > 0.05
    near = binary_dilation(masses[0] | masses[1], iterations=4)
    assert air.sum() > 500 and not (air & near).any()


def test_lungs_without_masks_reach_as_far_as_they_are_dark() -> None:
    """Lungs that are larger than those of most films, beside a dark background: each is found whole, and it alone."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] / np.array([[[SIZE[0]]], [[SIZE[1]]]])
    lungs = [((x - middle) / 0.18) ** 2 + ((y - 0.45) / 0.4) ** 2 < 1 for middle in (0.27, 0.73)]
    shown = np.where(lungs[0] | lungs[1], 70, TISSUE) * (np.abs(x - 0.5) < 0.47)
    pixels = (shown + np.random.default_rng(0).normal(0, 2, SIZE)).clip(0, 255).astype(np.uint8)
    film = film_of(pixels, {}, None)
    for found, lung in zip(film.lungs, lungs, strict=True):
        assert (found & lung).sum() / (found | lung).sum() > 0.95
    pixels[100:110, : SIZE[1] // 4] = pixels[100:110, -SIZE[1] // 4 :] = 70
    for found, stated in zip(film_of(pixels, {}, None).lungs, lungs_of({}, SIZE), strict=True):
        assert not (found & ~stated).any(), "a lung that hangs together with the background keeps to its ellipse"
    masks = {"left lung": lungs_of({}, SIZE)[1], "right lung": lungs_of({}, SIZE)[0]}
    masked = film_of(pixels, masks, None)
    assert not any((found & ~mask).any() for found, mask in zip(masked.lungs, lungs_of({}, SIZE), strict=True))
