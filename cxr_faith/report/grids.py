"""Several maps or pictures in one figure: methods side by side, an answer word by word, a deletion step by step."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_faith.data.orientation import USUAL_SIDES, Sides
from cxr_faith.data.sample import Box
from cxr_faith.report.bars import visible
from cxr_faith.report.figures import DPI, Map, Marks, Part, Pixels, Region, check_picture, draw_map, wrapped
from cxr_faith.report.letters import draw_all_letters

FILM_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
_ALONE = 3.3  # inches, of the picture of a single word: its title has room
_POINTS, _SIDE, _SMALL = 8, 1.62, 1.06  # points; inches; inches: six pictures fit a page, three a column
OWN_SCALE = "Each map on its own scale, 2nd to 98th percentile: compare places, not shades."


def compare_methods(
    picture: Pixels,
    maps: Mapping[str, Map],
    title: str | None = None,
    boxes: Sequence[Box] | None = None,
    region: Region | None = None,
    notes: Mapping[str, str] | None = None,
    gray: Collection[str] = (),
    sides: Sides = USUAL_SIDES,
) -> Figure:
    """Draw the picture alone, then every method's map on it, each on its own color scale.

    Args:
        picture: [H, W] or [H, W, 3].
        maps: method → [grid_h, grid_w].
        title: above all; plain text.
        boxes: in pixels of the picture.
        region: (top, left, height, width) that the maps cover; default the whole picture.
        notes: method → text below its name, such as its srg.
        gray: methods whose maps have no colors, since they show no evidence.
        sides: of the patient, at the picture's left and right edges.

    Raises:
        ValueError: no map, or as `overlay` does.
    """
    if not maps:
        raise ValueError("nothing to compare: no map")
    panels: list[tuple[str, Map | None]] = [("picture", None), *maps.items()]
    names = [[name, *([notes[name]] if notes and name in notes else [])] for name, _ in panels]
    columns = min(4, math.ceil(math.sqrt(len(panels))))
    figure, cells = _panels(check_picture(picture), names, title, columns, footnote=OWN_SCALE)
    for axes, (name, values) in zip(cells, panels, strict=True):
        draw_map(axes, picture, values, boxes, region, Marks(8, sides), gray=name in gray)
    return figure


def token_strip(
    picture: Pixels,
    tokens: Sequence[str],
    maps: Sequence[Map],
    region: Region | None = None,
    columns: int = 6,
    title: str | None = None,
    footnote: str = "",
    parts: Sequence[Part] = (),
    sides: Sides = USUAL_SIDES,
) -> Figure:
    """Draw the answer's words in order, each with a small map: the mean over its tokens, as for the score.

    Args:
        picture: [H, W] or [H, W, 3].
        tokens: the answer, token by token, with the spaces between words.
        maps: one for each token, [grid_h, grid_w].
        region: (top, left, height, width) that the maps cover; default the whole picture.
        columns: words in a row; three fit a paper's column.
        title: above all, such as the question and the method; plain text.
        footnote: below all, such as the scale of the maps.
        parts: where several pictures stand in `picture`.
        sides: of the patient, at the edges of one picture.

    Raises:
        ValueError: no token, or another number of maps.
    """
    if not tokens or len(tokens) != len(maps):
        raise ValueError(f"a token strip needs a map for every token, got {len(maps)} for {len(tokens)}")
    words = answer_words(tokens)
    names = [[visible("".join(tokens[index] for index in word).strip())] for word in words]
    columns = min(columns, len(words))
    side = (_ALONE if len(words) == 1 else _SIDE) if title else _SMALL
    figure, cells = _panels(check_picture(picture), names, title, columns, side, footnote)
    for axes, word in zip(cells, words, strict=True):
        mean = np.mean([maps[index] for index in word], axis=0)
        draw_map(axes, picture, mean, region=region, marks=Marks(5 if parts else 7, sides), parts=parts)
    return draw_all_letters(figure)


def answer_words(tokens: Sequence[str]) -> list[list[int]]:
    """The places of each word's tokens; a word is the text between spaces, with its punctuation.

    If the answer has only spaces, each token counts as a word.
    """
    words: list[list[int]] = []
    open_word = False
    for index, token in enumerate(tokens):
        if not token.strip():
            open_word = False
            continue
        if open_word and not token[0].isspace():
            words[-1].append(index)
        else:
            words.append([index])
        open_word = not token[-1].isspace()
    return words or [[index] for index in range(len(tokens))]


def deletion_film(
    picture: Pixels,
    substrate: Pixels,
    order: npt.NDArray[np.integer[Any]],
    grid: tuple[int, int],
    shares: Sequence[float] = FILM_SHARES,
    scores: Mapping[float, float] | None = None,
    columns: int = 6,
) -> Figure:
    """Draw the picture while its cells are removed, most salient first: at 0, 10, 25, 50, 75 and 100 %.

    Args:
        picture: what the model sees, [H, W] or [H, W, 3].
        substrate: what replaces removed cells, of the same shape.
        order: the cells, most salient first, [grid_h · grid_w].
        grid: (grid_h, grid_w).
        shares: of the cells that are removed, one frame each; rounded to whole cells.
        scores: share → the score of that frame, written above it.
        columns: frames in a row; three fit a paper's column.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    picture, substrate = check_picture(picture), check_picture(substrate)
    if picture.shape != substrate.shape or len(order) != grid[0] * grid[1]:
        raise ValueError(
            f"picture {list(picture.shape)}, substrate {list(substrate.shape)}, {len(order)} cells of {list(grid)}"
        )
    names = [
        [f"{share:.0%} removed", *([f"score {scores[share]:+.2f}"] if scores and share in scores else [])]
        for share in shares
    ]
    return draw_frames([compose(picture, substrate, order, grid, share) for share in shares], names, None, columns)


def draw_frames(
    frames: Sequence[Pixels],
    names: Sequence[Sequence[str]],
    title: str | None,
    columns: int,
    side: float = _SMALL,
    sides: Sides = USUAL_SIDES,
    film: Pixels | None = None,
    parts: Sequence[Part] = (),
) -> Figure:
    """Draw pictures of one size in rows, each below its name.

    Args:
        frames: [H, W] or [H, W, 3] each.
        names: lines above each picture.
        title: above all; plain text.
        columns: pictures in a row.
        side: the longer side of a picture, in inches.
        sides: of the patient, at the edges of every picture.
        film: the picture before it was changed, which says at which edge sides are marked; default: the first frame.
        parts: where several pictures stand in each frame.
    """
    figure, cells = _panels(frames[0], names, title, columns=min(columns, len(frames)), side=side)
    marks = Marks(5 if parts else 8, sides, frames[0] if film is None else film)
    for axes, frame in zip(cells, frames, strict=True):
        draw_map(axes, frame, None, marks=marks, parts=parts)
    return figure


def compose(
    picture: Pixels, substrate: Pixels, order: npt.NDArray[np.integer[Any]], grid: tuple[int, int], share: float
) -> Pixels:
    """The picture with a share of its cells, most salient first, replaced by the substrate; a pixel is in one cell."""
    height, width = picture.shape[:2]
    gone = np.zeros(grid[0] * grid[1], bool)
    gone[order[: round(share * len(order))]] = True
    rows = np.arange(height) * grid[0] // height
    columns = np.arange(width) * grid[1] // width
    mask = gone.reshape(grid)[rows][:, columns]
    return np.where(mask[..., None] if picture.ndim == 3 else mask, substrate, picture)


def _panels(
    picture: Pixels,
    names: Sequence[Sequence[str]],
    title: str | None,
    columns: int,
    side: float = _SIDE,
    footnote: str = "",
) -> tuple[Figure, list[Axes]]:
    """A figure with axes of the picture's proportions, each below its own name; `side` in inches."""
    height, width = picture.shape[:2]
    panel = (side * width / max(height, width), side * height / max(height, width))
    texts = [[line for part in name for line in wrapped(part, panel[0], _POINTS, most=2)] for name in names]
    gap, line = 0.08, 0.15
    caption = line * max(len(text) for text in texts) + 0.06
    rows = math.ceil(len(names) / columns)
    total_w = columns * (panel[0] + gap) + gap
    heading = wrapped(title, total_w, 10)
    head = 0.19 * len(heading) + (0.08 if heading else 0)
    notes = wrapped(footnote, total_w, 7)
    total_h = rows * (panel[1] + caption + gap) + head + 0.13 * len(notes)
    figure, cells = Figure(figsize=(total_w, total_h), dpi=DPI), []
    if notes:
        figure.text(0.5, 0.03 / total_h, "\n".join(notes), ha="center", va="bottom", fontsize=7, color="0.3")
    if heading:
        figure.text(0.5, 1 - 0.05 / total_h, "\n".join(heading), ha="center", va="top", fontsize=10, parse_math=False)
    for index, text in enumerate(texts):
        row, column = divmod(index, columns)
        left = gap + column * (panel[0] + gap)
        top = head + caption + row * (panel[1] + caption + gap)
        place = (left / total_w, 1 - (top + panel[1]) / total_h, panel[0] / total_w, panel[1] / total_h)
        cells.append(figure.add_axes(place))
        # A single line is placed by its baseline, so that names with and without descenders are level.
        align, lift = ("baseline", 0.07) if len(text) == 1 else ("bottom", 0.04)
        x, y = (left + panel[0] / 2) / total_w, 1 - (top - lift) / total_h
        figure.text(x, y, "\n".join(text), ha="center", va=align, fontsize=_POINTS, parse_math=False, linespacing=1.1)
    return figure, cells
