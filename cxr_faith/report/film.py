"""The removal of a picture's cells, as a strip of frames or as a moving picture."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from PIL import Image

from cxr_faith.data.orientation import USUAL_SIDES, Sides
from cxr_faith.report.figures import Part, Pixels
from cxr_faith.report.grids import draw_frames
from cxr_faith.report.letters import draw_all_letters

STRIP_SHARES = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
MOVING_SHARES = tuple(number / 20 for number in range(21))
_SIDE, _GIF_SIDE = 1.62, 3.4  # inches
_GIF_DPI = 120
_FRAME_MS, _LAST_MS = 350, 2000


@dataclass(frozen=True)
class Frame:
    """One picture of a film."""

    picture: Pixels
    """The picture with a share of its cells removed, [H, W, 3]."""
    name: str
    """How much is removed."""
    said: str
    """What the model says about it."""


def film_strip(
    frames: Sequence[Frame],
    title: str | None = None,
    columns: int = 6,
    sides: Sides = USUAL_SIDES,
    parts: Sequence[Part] = (),
) -> Figure:
    """Draw the frames side by side.

    Args:
        frames: of one size.
        title: above all; plain text.
        columns: frames in a row.
        sides: of the patient, at the edges of every frame.
        parts: where several pictures stand in each frame.

    Raises:
        ValueError: no frame.
    """
    if not frames:
        raise ValueError("a film needs a frame or more")
    names = [[frame.name, frame.said] for frame in frames]
    pictures = [frame.picture for frame in frames]
    return draw_all_letters(draw_frames(pictures, names, title, columns, _SIDE, sides, parts=parts))


def moving_picture(
    frames: Sequence[Frame], title: str | None = None, sides: Sides = USUAL_SIDES, parts: Sequence[Part] = ()
) -> bytes:
    """The frames as an animated GIF, which stays on its last frame for a while and begins again.

    Args:
        frames: of one size, one or more.
        title: above each frame; plain text.
        sides: of the patient, at the edges of every frame.
        parts: where several pictures stand in each frame.
    """
    pictures, film = [], frames[0].picture
    for frame in frames:
        drawing = draw_frames([frame.picture], [[frame.name, frame.said]], title, 1, _GIF_SIDE, sides, film, parts)
        figure = draw_all_letters(drawing)
        figure.set_dpi(_GIF_DPI)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png")
        pictures.append(Image.open(drawn).convert("RGB"))
    file, durations = io.BytesIO(), [_FRAME_MS] * (len(pictures) - 1) + [_LAST_MS]
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    return file.getvalue()
