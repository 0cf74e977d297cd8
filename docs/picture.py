"""Draw the picture of the README: `python docs/picture.py` writes docs/methods.png.

One answer about one bundled phantom, a map that the answer depends on and one that it does not.
"""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import cxr_faith
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.data.sample import Sample
from cxr_faith.explainer import Explanation, Scores
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.report.figures import OKABE_ITO, Pixels, draw_map, wrapped
from cxr_faith.report.grids import compose

SHARE = 0.2
METHODS = {"chefer": OKABE_ITO[0], "grad_x_input": OKABE_ITO[1]}


def main() -> None:
    """Explain and score one answer with two methods, and draw both."""
    samples = [Sample.from_row(row) for row in pq.read_table(bundled_manifest()).to_pylist()]
    sample = next(s for s in samples if s.finding == "consolidation" and s.kind == "yes_no" and s.answer == ("yes",))
    explainer = cxr_faith.Explainer.from_pretrained(cxr_faith.bundled_model(), device="cpu")
    picture = load_image(sample.image_path, bundled_manifest().parent)
    figure = Figure(figsize=(9.6, 5.1), dpi=112)
    results = []
    for row, method in enumerate(METHODS):
        explanation = explainer.explain(picture, sample.question, method, image_id=sample.image_id)
        scores = explainer.evaluate(explanation, steps=24, random_orders=20)
        results.append((method, scores))
        print(f"{method}: {explanation.answer}, {scores.status}, srg {scores.srg:+.2f}")
        _row(figure, row, explanation, scores, _pictures(explainer, explanation))
    _question(figure, sample, picture, explanation)
    _curves(figure, results)
    figure.savefig(Path(__file__).with_name("methods.png"), pil_kwargs={"optimize": True})


def _pictures(explainer: cxr_faith.Explainer, explanation: Explanation) -> tuple[Pixels, Pixels]:
    """What the model sees, and what it sees where everything is removed."""
    pixels = explanation._view.pixels[None]
    removed = Substrate.parse("blur:0.1").apply(pixels, [explanation.metadata["image_id"]], explainer.seed)
    seen, gone = (explainer.vlm.denormalize(values)[0].permute(1, 2, 0).numpy() for values in (pixels, removed))
    return seen, gone


def _question(figure: Figure, sample: Sample, picture: Pixels, explanation: Explanation) -> None:
    axes = _axes(figure, 0.1, 1.83, 2.5, picture)
    draw_map(axes, picture, None, sample.boxes)
    figure.text(0.1 / 9.6, 0.95, "One answer", fontsize=11, fontweight="bold", va="center")
    asked = "\n".join(wrapped(f"“{sample.question}”", 2.2, 10))
    text = f"{asked}\nThe model says {explanation.answer}.\n\nWhich map shows what\nthe answer depends on?"
    figure.text(0.1 / 9.6, 1.66 / 5.1, text, fontsize=10, va="top", linespacing=1.5)


def _row(figure: Figure, row: int, explanation: Explanation, scores: Scores, pictures: tuple[Pixels, Pixels]) -> None:
    """A method's map, and the picture without the first cells of it."""
    method, bottom = explanation.metadata["method"], 2.65 - 2.35 * row
    color, grid = METHODS[method], explanation.map.shape
    seen, gone = pictures
    axes = _axes(figure, 3.0, bottom, 2.0, seen)
    draw_map(axes, seen, explanation.map, marks=9)
    _frame(axes, color)
    axes = _axes(figure, 5.05, bottom, 2.0, seen)
    draw_map(axes, compose(seen, gone, np.array(scores.order), grid, SHARE), None, marks=9)
    _frame(axes, color)
    share = np.array(scores.k) / scores.k[-1]
    left = float(np.interp(SHARE, share, scores.deletion_scores))
    now = "yes" if left >= 0 else "no"
    said = f"now it says {now}" if now != explanation.answer else f"it still says {now}"
    figure.text(3.0 / 9.6, (bottom - 0.12) / 5.1, method, fontsize=9.5, color=color, fontweight="bold", va="center")
    figure.text(5.05 / 9.6, (bottom - 0.12) / 5.1, said, fontsize=9, color=color, fontweight="bold", va="center")
    if row == 0:
        figure.text(3.0 / 9.6, 0.95, "Two maps of why", fontsize=11, fontweight="bold", va="center")
        title = f"First {SHARE:.0%} removed"
        figure.text(5.05 / 9.6, 0.95, title, fontsize=11, fontweight="bold", va="center")


def _curves(figure: Figure, results: list[tuple[str, Scores]]) -> None:
    axes = figure.add_axes((7.75 / 9.6, 0.75 / 5.1, 1.7 / 9.6, 3.75 / 5.1))
    for method, scores in results:
        share = 100 * np.array(scores.k) / scores.k[-1]
        kept = (np.array(scores.deletion_scores) - scores.s_substrate) / scores.effect
        axes.plot(share, kept, color=METHODS[method], lw=2, label=method)
    axes.axvline(100 * SHARE, color="0.6", lw=1, ls=":")
    axes.set(xlim=(0, 100), xlabel="cells removed (%)", yticks=[0, 0.5, 1], yticklabels=["0", ".5", "1"])
    axes.set_ylabel("share of the answer's effect that is left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    figure.text(7.3 / 9.6, 0.95, "Does the answer go?", fontsize=11, fontweight="bold", va="center")


def _axes(figure: Figure, left: float, bottom: float, width: float, picture: Pixels) -> Axes:
    """Axes of the picture's proportions, in inches."""
    height = width * picture.shape[0] / picture.shape[1]
    return figure.add_axes((left / 9.6, bottom / 5.1, width / 9.6, height / 5.1))


def _frame(axes: Axes, color: str) -> None:
    for spine in axes.spines.values():
        spine.set(color=color, linewidth=2)


if __name__ == "__main__":
    main()
