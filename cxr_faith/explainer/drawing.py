"""Draws explanations: the panel of one answer, its map alone, and the removal of its cells as a film."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from cxr_faith.data.sample import YES_NO, Box
from cxr_faith.explainer.answer_verdict import answer_verdict
from cxr_faith.explainer.explanation import Explanation
from cxr_faith.explainer.measured import Measured, measure, removed_pictures
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.report.figures import STRONGEST_ALPHA, Pixels, draw_map
from cxr_faith.report.film import Frame
from cxr_faith.report.panel import SHARE, AnswerLines, PanelHead, PanelRow, panel
from cxr_faith.storage.atomic import write_atomic
from cxr_faith.vlm.bundled_weights import has_bundled_weights

QUICK_STEPS, QUICK_ORDERS = 10, 4
"""Points of a curve and random orders of a figure whose explanation was not evaluated."""

FORMATS = ("png", "pdf", "svg")


def answer_panel(
    explanations: Sequence[Explanation], boxes: Sequence[Box] | None = None, alpha: float | None = None
) -> Figure:
    """The panel of one answer, with a row for each explanation of it.

    Args:
        explanations: of the same answer, by different methods.
        boxes: to draw, in pixels of the picture.
        alpha: opacity of a map's strongest cell.
    """
    first = explanations[0]
    measured = [measured_of(one) for one in explanations]
    rows = [_row(one, of) for one, of in zip(explanations, measured, strict=True)]
    return panel(first.picture, _head(first, measured[0]), rows, boxes, region_of(first), alpha)


def map_on(axes: Axes, explanation: Explanation, boxes: Sequence[Box] | None, alpha: float | None) -> Axes:
    """Draw the map on its picture into axes; returns the axes."""
    strongest = STRONGEST_ALPHA if alpha is None else alpha
    draw_map(axes, explanation.picture, explanation.map, boxes, region_of(explanation), alpha=strongest)
    return axes


def film_frames(explanation: Explanation, shares: Sequence[float]) -> list[Frame]:
    """The picture while its cells are removed, the most salient first, with what the model says of each frame."""
    measured = measured_of(explanation)
    pictures = _removed(explanation, measured, shares)
    return [
        Frame(picture, f"{share:.0%} removed", _change(explanation, measured, share) if share else _said(explanation))
        for picture, share in zip(pictures, shares, strict=True)
    ]


def measured_of(explanation: Explanation) -> Measured:
    """What the explanation's evaluation measured, else a quick measurement with few points and orders."""
    for known in (explanation._measured, explanation._quick):
        if known:
            return known[-1]
    cells = explanation._engine.vlm.n_cells
    steps = min(QUICK_STEPS, cells)
    steps -= cells % 2 == 1 and steps % 2 == 0
    protocol = Protocol((DEFAULT_SUBSTRATE,), steps, QUICK_ORDERS, seed=explanation._seed)
    case = replace(explanation._case, maps={explanation.method: explanation.map})
    measured = measure(explanation._engine, explanation._view.pixels, case, protocol)[explanation.method]
    explanation._quick.append(measured)
    return measured


def region_of(explanation: Explanation) -> tuple[float, float, float, float]:
    """The part of the picture that the map covers."""
    top, left, height, width = explanation.geometry.crop
    return top, left, height, width


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    return figure_bytes(figure, "png")


def figure_bytes(figure: Figure, ending: str) -> bytes:
    """A figure as a file of one of `FORMATS`, with the same bytes every time."""
    file, dated = io.BytesIO(), {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[ending]
    with mpl.rc_context({"svg.hashsalt": "cxr_faith"}):
        figure.savefig(file, format=ending, metadata=dated)
    return file.getvalue()


def pixels_of(figure: Figure) -> Pixels:
    """A figure as a picture, uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(png(figure))).convert("RGB"))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the path's ending.

    Raises:
        ValueError: it is none of `FORMATS`.
        OSError: the file cannot be written.
    """
    ending = path.suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise ValueError(
            f"{path}: a figure is written as {', '.join(FORMATS)}, not as {ending or 'a file without ending'}"
        )
    write_atomic(path, figure_bytes(figure, ending))


def _row(explanation: Explanation, measured: Measured) -> PanelRow:
    verdict = answer_verdict(measured)
    ok = measured.scores.status == "ok"
    if verdict is not None:
        said = verdict.sentence
    else:
        said = f"srg {measured.scores.srg:+.2f}; too few random orders to judge it." if explanation._measured else ""
    change = _change(explanation, measured, SHARE)
    (removed,) = _removed(explanation, measured, (SHARE,))
    return PanelRow(explanation.method, explanation.map, removed, change, _lines(measured), said, ok)


def _removed(explanation: Explanation, measured: Measured, shares: Sequence[float]) -> list[Pixels]:
    """Pictures with these shares of the cells removed."""
    substrate = Substrate.parse(measured.scores.substrate)
    case, view, seed = explanation._case, explanation._view, explanation._seed
    return list(removed_pictures(explanation._engine.vlm, case, view, explanation.method, substrate, seed, shares))


def _lines(measured: Measured) -> AnswerLines | None:
    """The curves: shares of the effect where there is one, else scores."""
    scores, random = measured.scores, measured.random
    curves = (scores.deletion_scores, scores.insertion_scores, random.deletion_scores, random.insertion_scores)
    if scores.k is None or any(curve is None for curve in curves):
        return None
    x = (np.asarray(scores.k) / scores.k[-1]).tolist()
    values, label = np.array(curves, np.float64), "score of the answer (logits)"
    if scores.status == "ok" and scores.effect is not None and scores.s_substrate is not None:
        values, label = (values - scores.s_substrate) / scores.effect, "share of the answer's effect left"
    deletion, insertion, random_deletion, random_insertion = values.tolist()
    return AnswerLines(x, deletion, insertion, random_deletion, random_insertion, label)


def _change(explanation: Explanation, measured: Measured, share: float) -> str:
    """What the model says once a share of the cells is removed."""
    scores = measured.scores
    if scores.k is None or scores.deletion_scores is None:
        return "not scored"
    x = np.asarray(scores.k) / scores.k[-1]
    left = float(np.interp(share, x, scores.deletion_scores))
    if explanation.metadata["kind"] != YES_NO or explanation.target.kind != "margin":
        return f"log-odds {scores.deletion_scores[0]:+.1f} → {left:+.1f}"
    if left >= 0:
        return f"it still says {explanation.answer}"
    return f"now it says {'no' if explanation.answer == 'yes' else 'yes'}"


def _said(explanation: Explanation) -> str:
    return f"it says {explanation.answer}"


def _head(explanation: Explanation, measured: Measured) -> PanelHead:
    meta = explanation.metadata
    p_yes = "" if meta["p_yes"] is None else f"   p(yes) = {meta['p_yes']:.3f}"
    explained = explanation.explained_part
    answer = f"The model says {explanation.answer}.{p_yes}{f'   Explained: {explained}' if explained else ''}"
    source = str(getattr(explanation._engine.vlm, "source", ""))
    model = "bundled model" if source and has_bundled_weights(source) else "/".join(Path(source).parts[-2:])
    parts = [model, str(meta["image_id"]), f"removed: {measured.scores.substrate}"]
    return PanelHead(str(meta["question"]), answer, " · ".join(filter(None, parts)))
