"""What families have in common whose towers read squares of one size, with one image token for each patch."""

from typing import Any

from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.family import Size
from cxr_faith.vlm.layout import Layout


def square_layout(config: Any, image_size: Size | None) -> tuple[Layout, Size]:
    """Each cell is a patch of the tower; see `Family.layout_of`.

    Raises:
        ModelError: another size is wanted than the tower reads.
    """
    pixels, patch = config.vision_config.image_size, config.vision_config.patch_size
    if image_size not in (None, (pixels, pixels)):
        raise ModelError(f"vlm.image_size: this model reads {pixels} px squares only")
    return Layout.of_grid((pixels // patch, pixels // patch)), (pixels, pixels)


def check_whole_patches(config: Any, source: object) -> None:
    """Refuse a tower whose pictures are no whole number of patches; see `Family.check_config`.

    Raises:
        ModelError: they are not.
    """
    vision = config.vision_config
    if vision.image_size % vision.patch_size:
        sizes = f"{vision.image_size} px pictures are no whole number of {vision.patch_size} px patches"
        raise ModelError(f"{source}: config.json: {sizes}")
