"""Pictures of a run's samples from the data root, decoded in one separate process and made smaller."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from cxr_faith.data.images import load_image
from cxr_faith.summary.load import load_run

SIDE, QUALITY = 1024, 85
"""Longest side in pixels, and quality of the JPEG."""


class Pictures:
    """Opens pictures below one folder.

    Args:
        run_dir: the run directory; its `config.yaml` says which border was cut off.
        data_root: the folder; paths that lead outside it are refused.

    Attributes:
        region: top, left, height and width of the part that the model saw, in percent of the picture.

    Raises:
        ValueError: `config.yaml` is damaged.
    """

    def __init__(self, run_dir: Path, data_root: Path) -> None:
        self._root = data_root
        self._decoder = ThreadPoolExecutor(1)  # each thread that reads pictures has a decoder process of its own
        data = load_run(run_dir).config.get("data")
        border = data.get("border_crop", 0) if isinstance(data, dict) else 0
        cut = 100 * border if isinstance(border, int | float) else 0
        self.region = (cut, cut, 100 - 2 * cut, 100 - 2 * cut)

    def jpeg(self, path: str) -> bytes:
        """A picture, at most `SIDE` pixels on a side.

        Args:
            path: relative to the data root.

        Raises:
            ImageError: the file cannot be used, or is outside the data root.
        """
        picture = Image.fromarray(self._decoder.submit(load_image, path, self._root).result())
        picture.thumbnail((SIDE, SIDE))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=QUALITY)
        return file.getvalue()
