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
from cxr_faith.explainer.explanation import Corners, Explanation
from cxr_faith.explainer.measured import Measured, measure, removed_pictures
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.report.arrangement import Arrangement
from cxr_faith.report.figures import STRONGEST_ALPHA, Map, Marks, Part, Pixels, Region, draw_map, scaled
from cxr_faith.report.film import Frame
from cxr_faith.report.panel import SHARE, AnswerLines, PanelHead, PanelRow, panel
from cxr_faith.storage.atomic import write_atomic
from cxr_faith.vlm.bundled_weights import has_bundled_weights

QUICK_STEPS, QUICK_ORDERS = 10, 4
"""Points of a curve and random orders of a figure whose explanation was not evaluated."""

FORMATS = ("png", "pdf", "svg")


def answer_panel(
    explanations: Sequence[Explanation], boxes: Sequence[Box | Corners] | None = None, alpha: float | None = None
) -> Figure:
    """The panel of one answer, with a row for each explanation of it.

    Args:
        explanations: of the same answer, by different methods.
        boxes: to draw, in pixels of the picture that each names.
        alpha: opacity of a map's strongest cell.
    """
    first = explanations[0]
    measured = [measured_of(one) for one in explanations]
    rows = [_row(one, of) for one, of in zip(explanations, measured, strict=True)]
    picture, region, parts = drawn_picture(first)
    own = placed_boxes(first, boxes)
    return panel(picture, _head(first, measured[0]), rows, own, region, alpha, parts, first.sides[0])


def map_on(axes: Axes, explanation: Explanation, boxes: Sequence[Box | Corners] | None, alpha: float | None) -> Axes:
    """Draw the map on its picture into axes; returns the axes."""
    strongest = STRONGEST_ALPHA if alpha is None else alpha
    picture, region, parts = drawn_picture(explanation)
    own, sure = placed_boxes(explanation, boxes), _sure(explanation)
    marks = Marks(sides=explanation.sides[0])
    draw_map(axes, picture, explanation.map, own, region, marks, strongest, parts=parts, sure=sure)
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
    height, width = explanation._engine.vlm.picture_grid
    cells = height * width
    steps = min(QUICK_STEPS, cells)
    steps -= cells % 2 == 1 and steps % 2 == 0
    protocol = Protocol((DEFAULT_SUBSTRATE,), steps, QUICK_ORDERS, seed=explanation._seed)
    case = replace(explanation._case, maps={explanation.method: explanation.map})
    measured = measure(explanation._engine, explanation._view.pixels, case, protocol)[explanation.method]
    explanation._quick.append(measured)
    return measured


def drawn_picture(explanation: Explanation) -> tuple[Pixels, Region, Sequence[Part]]:
    """The picture that the map is drawn on, and the part of it that the map covers.

    Several pictures stand side by side in one; the third value says where.
    """
    top, left, height, width = explanation.geometry.crop
    if len(explanation.pictures) == 1:
        return explanation.picture, (top, left, height, width), ()
    places = _arrangement(explanation)
    return places.draw(explanation.pictures), (0, 0, *places.size), places.parts


def placed_boxes(explanation: Explanation, boxes: Sequence[Box | Corners] | None) -> Sequence[Box] | None:
    """Boxes in pixels of their picture, as pixels of the picture that is drawn.

    Raises:
        ValueError: a box does not name one of several pictures, or has not four corners.
    """
    if boxes is None:
        return None
    given = [_box(box) for box in boxes]
    if len(explanation.pictures) == 1:
        return given
    parts = {part.name: part.region for part in _arrangement(explanation).parts}
    sizes = {name: picture.shape for name, picture in zip(explanation.picture_names, explanation.pictures, strict=True)}
    placed = []
    for box in given:
        if box.image_id not in parts:
            raise ValueError(f"box {box.label!r}: its image_id must name a picture: {', '.join(parts)}")
        (top, left, height, width), (rows, columns, _) = parts[box.image_id], sizes[box.image_id]
        x1, x2 = (left + x * width / columns for x in (box.x1, box.x2))
        y1, y2 = (top + y * height / rows for y in (box.y1, box.y2))
        placed.append(replace(box, x1=x1, y1=y1, x2=x2, y2=y2))
    return placed


def _box(given: Box | Corners) -> Box:
    if isinstance(given, Box):
        return given
    try:
        x1, y1, x2, y2 = map(float, given)
    except (TypeError, ValueError):
        raise ValueError(f"a box is (x0, y0, x1, y1) in pixels of the picture, or a Box; got {given!r}") from None
    return Box("", x1, y1, x2, y2)


def _arrangement(explanation: Explanation) -> Arrangement:
    """Where the several pictures of a question stand."""
    sizes = [picture.shape[:2] for picture in explanation.pictures]
    places = Arrangement.of(explanation.picture_names, [(height, width) for height, width in sizes])
    parts = zip(places.parts, explanation.sides, strict=True)
    return replace(places, parts=tuple(replace(part, sides=sides) for part, sides in parts))


def shares_of_pictures(explanation: Explanation) -> str:
    """What the map and the answer take from each of several pictures, in words."""
    texts = []
    for each in explanation.each_picture():
        share = "–" if each["share"] is None else f"{each['share']:.0%}"
        effect = "–" if each["effect"] is None else f"{each['effect']:+.2f}"
        texts.append(f"{each['name']} {share} ({effect})")
    return f"Share of the map (logits lost without the picture): {', '.join(texts)}."


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
    if len(explanation.pictures) > 1:
        said = f"{said} {shares_of_pictures(explanation)}".strip()
    if explanation.spread is not None:
        said = f"{said} {explanation.stable_share:.0%} of the cells keep their rank; unsure ones fade.".strip()
    change = _change(explanation, measured, SHARE)
    (removed,) = _removed(explanation, measured, (SHARE,))
    return PanelRow(
        explanation.method, explanation.map, removed, change, _lines(measured), said, ok, _sure(explanation)
    )


def _sure(explanation: Explanation) -> Map | None:
    """How sure each cell is: 1 without a spread, 0 where it is as large as the range of the map's colors."""
    if explanation.spread is None:
        return None
    low, high = scaled(explanation.map)[1]
    sure: Map = 1 - np.clip(explanation.spread / max(high - low, np.finfo(np.float64).tiny), 0, 1)
    return sure


def _removed(explanation: Explanation, measured: Measured, shares: Sequence[float]) -> list[Pixels]:
    """Pictures with these shares of the cells removed; several pictures of one question as one."""
    substrate = Substrate.parse(measured.scores.substrate)
    case, view, seed = explanation._case, explanation._view, explanation._seed
    frames = removed_pictures(explanation._engine.vlm, case, view, explanation.method, substrate, seed, shares)
    if len(view.pictures) == 1:
        return [picture for (picture,) in frames]
    places = _arrangement(explanation)
    return [places.draw(pictures) for pictures in frames]


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
