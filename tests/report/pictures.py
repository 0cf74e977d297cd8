"""One small example of every figure; `python -m tests.report.pictures` draws the baseline of `test_pictures` anew."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

from cxr_faith.data.sample import Box
from cxr_faith.report.bars import layer_attention_bars, region_bars, text_relevancy_bars
from cxr_faith.report.charts import (
    AnswerCurves,
    ForestLine,
    faithfulness_scatter,
    gap_forest,
    mean_curves,
    reliability_diagram,
)
from cxr_faith.report.clinical.answer import Answer, Faithfulness, ModelCalibration
from cxr_faith.report.clinical.sheet import clinical_sheet
from cxr_faith.report.clinical.summary import clinical_summary
from cxr_faith.report.figures import overlay
from cxr_faith.report.grids import compare_methods, deletion_film, token_strip
from cxr_faith.summary.curves import Bands, Curves

BASELINE = Path(__file__).with_name("baseline")
STYLE = {"font.family": "DejaVu Sans", "text.hinting": "none"}
"""The font that ships with matplotlib, so that the fonts of a machine do not matter."""
DPI = 60

METHODS = ("chefer", "attention", "integrated_gradients", "edges", "center", "oracle", "random")
X = np.linspace(0, 1, 13)


def picture() -> np.ndarray:
    """A drawn chest: two lungs, a heart on the patient's left, a bright spot in the patient's right upper lung."""
    y, x = np.mgrid[0:1:144j, 0:1:128j]
    lungs = sum(np.exp(-(((x - at) / 0.13) ** 4) - ((y - 0.45) / 0.33) ** 4) for at in (0.28, 0.72))
    heart = np.exp(-(((x - 0.58) / 0.16) ** 2) - ((y - 0.66) / 0.14) ** 2)
    spot = np.exp(-(((x - 0.27) / 0.05) ** 2) - ((y - 0.3) / 0.045) ** 2)
    return np.clip(170 - 120 * lungs + 90 * heart + 110 * spot, 0, 255).astype(np.uint8)


def lesion_map(row: float = 0.3, column: float = 0.27, cells: int = 12) -> np.ndarray:
    y, x = (np.mgrid[0:cells, 0:cells] + 0.5) / cells
    return np.exp(-(((x - column) / 0.09) ** 2) - ((y - row) / 0.08) ** 2)


def curves() -> Figure:
    drawn = {}
    for number, name in enumerate(METHODS):
        power = 6 - number * 0.75
        falling, rising = (1 - X) ** power, 1 - (1 - X) ** power
        width = 0.05 * X
        bands = Bands(falling - width, falling + width, rising - width, rising + width)
        drawn[name] = Curves(n=51 - number, x=X, deletion=falling, insertion=rising, bands=bands)
    return mean_curves(drawn, width=3.4)


def forest() -> Figure:
    lines = []
    for shift, finding in enumerate(("all", "nodule", "pleural effusion")):
        for number, name in enumerate(METHODS[:4]):
            mean = 0.4 - 0.17 * number - 0.1 * shift
            lines.append(ForestLine(name, finding, mean, mean - 0.12, mean + 0.1, 51 - 12 * shift))
    lines.append(ForestLine("oracle", "pneumothorax", 0.2, None, None, 4))
    return gap_forest(lines)


def reliability() -> Figure:
    rng = np.random.default_rng(0)
    p = np.r_[rng.beta(0.5, 0.5, 300), 0.0, 1.0]
    return reliability_diagram(p.tolist(), (rng.random(302) < p**1.4).tolist())


def film() -> Figure:
    seen = picture()
    gone = np.full_like(seen, int(seen.mean()))
    order = np.argsort(-lesion_map().ravel(), kind="stable")
    scores = {0.0: 9.25, 0.1: -3.0, 1.0: -7.5}
    return deletion_film(seen, gone, order, (12, 12), scores=scores, columns=3)


def clinical() -> Figure:
    answer = Answer(
        question="Is there a nodule in the right upper lung?",
        answer="yes",
        p_yes=0.93,
        map=lesion_map(),
        method="chefer",
        model={"source": "bundled", "weights": "0123456789abcdef", "parameters": 1_680_000},
        faithfulness=Faithfulness(
            status="ok",
            substrate="blur:0.1",
            deletion_auc=None,
            insertion_auc=None,
            srg=0.81,
            random_z=4.4,
            random_p=0.048,
            effect=12.5,
            gap_srg_center=0.33,
        ),
        others={"attention": lesion_map(0.34), "gradient": lesion_map(0.6, 0.6)},
        calibration=ModelCalibration("demo", n=64, accuracy=0.97, ece=0.02, confidence_range=(0.5, 0.9)),
        paraphrases=["no", "yes"],
    )
    drawn = AnswerCurves(X, 9 - 16 * X**0.5, -7 + 16 * X**0.4)
    return clinical_sheet(clinical_summary(answer), picture(), lesion_map(), drawn)


def words() -> Figure:
    text = "<start> user \n Is there a nodule ? <end> model yes".split(" ")
    return text_relevancy_bars([(f" {word}", np.sin(2.0 * number)) for number, word in enumerate(text)])


FIGURES: dict[str, Callable[[], Figure]] = {
    "overlay": lambda: overlay(picture(), lesion_map(), "Is there a nodule? yes", [Box("nodule", 24, 32, 46, 54)]),
    "compare": lambda: compare_methods(
        picture(),
        {name: lesion_map(0.3 + 0.12 * i, 0.27 + 0.1 * i) for i, name in enumerate(METHODS[:4])},
        "Is there a nodule? yes",
        notes={"chefer": "srg +0.81"},
    ),
    "tokens": lambda: token_strip(
        picture(), [" right", " up", "per", " lung"], [lesion_map(0.2 + 0.2 * i) for i in range(4)], columns=2
    ),
    "film": film,
    "curves": curves,
    "forest": forest,
    "scatter": lambda: faithfulness_scatter(
        {name: (0.7 - 0.1 * i, 0.85 - 0.02 * i**2) for i, name in enumerate(METHODS)}, "share of the map inside"
    ),
    "reliability": reliability,
    "layers": lambda: layer_attention_bars(
        [0.6 + 0.3 * np.sin(i) for i in range(12)],
        ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(12)],
    ),
    "regions": lambda: region_bars(
        {"right upper": 0.55, "left upper": 0.1, "right lower": 0.2, "left lower": 0.15},
        {"right upper": 0.25, "left upper": 0.25, "right lower": 0.25},
    ),
    "words": words,
    "clinical": clinical,
}


def draw(name: str, folder: Path) -> Path:
    """Draw one figure into `<folder>/<name>.png`."""
    path = folder / f"{name}.png"
    with style.context(["default", STYLE]):
        FIGURES[name]().savefig(path, dpi=DPI, metadata={"Software": None})
    return path


if __name__ == "__main__":
    for chosen in sys.argv[1:] or FIGURES:
        print(draw(chosen, BASELINE))
