"""One explained answer, and how to look at it: in a figure, a notebook, a file."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, overload

from cxr_faith.data.sample import Box
from cxr_faith.explainer.explained import Explained
from cxr_faith.printable import json_text, printable
from cxr_faith.storage.atomic import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Corners = tuple[float, float, float, float]
"""A box: left, top, right and bottom, in pixels of the picture."""


@dataclass(frozen=True)
class LayerShare:
    """How much attention one decoder layer pays to the picture."""

    layer: int
    """0-based index of the layer."""
    kind: str
    """`global`, or `sliding` for a layer with local attention."""
    share: float
    """Share of the attention at the answer's position that falls on the image tokens, mean over heads."""


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Explained):
    """Which parts of the pictures the model's answer depends on, according to one attribution method."""

    @overload
    def plot(
        self, ax: None = None, *, alpha: float | None = None, boxes: Sequence[Box | Corners] | None = None
    ) -> "Figure": ...

    @overload
    def plot(
        self, ax: "Axes", *, alpha: float | None = None, boxes: Sequence[Box | Corners] | None = None
    ) -> "Axes": ...

    def plot(
        self, ax: "Axes | None" = None, *, alpha: float | None = None, boxes: Sequence[Box | Corners] | None = None
    ) -> "Figure | Axes":
        """The picture, the map on it, the picture without the map's first cells, and the curves against random orders.

        Several pictures of one question stand side by side, with one scale for their maps. An explanation that was not
        evaluated is measured for it: some 80 forward passes, without srg and verdict.

        Args:
            ax: draw the map alone, into these axes.
            alpha: opacity of the map's strongest cell, from 0 to 1; default .6.
            boxes: to draw, as (x0, y0, x1, y1) in pixels of the picture, or as `Box`, whose `image_id` names one of
                several pictures.

        Returns:
            the figure, or `ax` if it was given.
        """
        from cxr_faith.explainer import drawing  # loads matplotlib, which takes a second

        return drawing.answer_panel([self], boxes, alpha) if ax is None else drawing.map_on(ax, self, boxes, alpha)

    def save(self, path: str | Path, *, boxes: Sequence[Box | Corners] | None = None) -> Path:
        """Write the figure of `plot` (`.png`, `.pdf` or `.svg`), or what `to_dict` gives (`.json`).

        Args:
            path: its ending says the format.
            boxes: to draw, as (x0, y0, x1, y1) in pixels of the picture, or as `Box`, whose `image_id` names one of
                several pictures.

        Returns:
            the path.

        Raises:
            ValueError: another ending.
            OSError: the file cannot be written.
        """
        from cxr_faith.explainer import drawing

        file = Path(path)
        if file.suffix.lower() == ".json":
            write_atomic(file, json_text(self.to_dict()) + "\n")
        else:
            drawing.save_figure(self.plot(boxes=boxes), file)
        return file

    def __repr__(self) -> str:
        """One line: the question, the answer, the method, and the scores if it was evaluated."""
        return f"<Explanation {self._sentence()}>"

    def _repr_html_(self) -> str:
        """For a notebook: the sentence of `repr` above the figure of `plot`."""
        picture = b64encode(self._repr_png_()).decode()
        text = escape(self._sentence())
        return (
            f'<figure><figcaption>{text}</figcaption><img alt="{text}" src="data:image/png;base64,{picture}"></figure>'
        )

    def _repr_png_(self) -> bytes:
        """For a notebook: the figure of `plot`."""
        from cxr_faith.explainer import drawing

        return drawing.png(self.plot())

    def _sentence(self) -> str:
        p_yes = self.metadata["p_yes"]
        sure = "" if p_yes is None else f", p(yes) = {p_yes:.3f}"
        scores = self.scores
        judged = "" if scores is None else f", {scores.status}" if scores.srg is None else f", srg {scores.srg:+.2f}"
        asked = f"{self.metadata['question']!r}: {self.answer!r}{sure}"
        return printable(f"{asked}; {self.method} {list(self.map.shape)} of {self.metadata['image_id']}{judged}")
