"""One page about one answer, for a clinical reader: what was said, where the evidence lies, how far to trust the map.

Research output, not for diagnosis. `clinical_summary` makes the content (JSON, with a schema version), `clinical_page`
one HTML page of it that prints on one sheet.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from scipy.stats import spearmanr

from cxr_faith.metrics.regions import border_weights, mass_shares, region_weights
from cxr_faith.report.charts import answer_curves
from cxr_faith.report.figures import Map, Pixels, Region, overlay, svg

SCHEMA_VERSION = 1
"""Of the JSON; `clinical.schema.json` beside this file describes it."""
HIGH_ECE = 0.15
"""From this expected calibration error on, `cxr-faith doctor` warns too."""
STATEMENT = (
    "Research output. Not a medical device, not for diagnosis or treatment. The map shows what this model's answer "
    "depends on, not what is wrong with the patient."
)
THIRDS = ("upper", "middle", "lower")
FRACTIONS = {
    "lungs": ((0.1, 0.75), ((0.1, 0.4), (0.6, 0.9))),
    "heart": ((0.45, 0.8), ((0.4, 0.75),)),
    "mediastinum": ((0.1, 0.8), ((0.4, 0.6),)),
}
"""Region → (rows), (columns, …) as fractions of the picture, counted from the image's top left: rough and stated."""
FRACTIONS_CAVEAT = (
    "Organs without a mask are fixed, overlapping fractions (rows 10–75, 45–80, 10–80 %; columns 10–40 and 60–90, "
    "40–75, 40–60 %), wrong for a rotated, cropped or tilted film."
)


@dataclass(frozen=True)
class Answer:
    """What the model said and what was measured about it; plain values, so that records can be given too.

    Attributes:
        question: as it was asked.
        answer: the model's.
        p_yes: its probability of yes; None for questions of another kind.
        map: [grid_h, grid_w]; larger = more important.
        method: that made the map.
        model: name or path, hash and number of parameters of the model, as read from it.
        scores: record columns of the map's evaluation; empty if it was not evaluated.
        others: method → map of the same answer, for agreement.
        masks: organ → share of each cell that it covers, [grid_h, grid_w].
        calibration: accuracy and expected calibration error of the model on a named data set, such as
            `{"dataset": …, "n": …, "accuracy": …, "ece": …, "confidence_range": [low, high]}`; None if unknown.
        paraphrases: answers to other wordings of the question; empty if none was asked.
        cautions: reasons to distrust the answer that are known beforehand, such as what the model was trained on.
    """

    question: str
    answer: str
    p_yes: float | None
    map: Map
    method: str
    model: Mapping[str, Any]
    scores: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Map] = field(default_factory=dict)
    masks: Mapping[str, Map] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None
    paraphrases: Sequence[str] = ()
    cautions: Sequence[str] = ()


def clinical_summary(answer: Answer) -> dict[str, Any]:
    """The content of the page as a JSON-able dict.

    Raises:
        ValueError: the map is not finite.
    """
    values = np.asarray(answer.map, np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"a map is [grid_h, grid_w] and finite; got shape {list(values.shape)}")
    evidence = evidence_of(values, answer.masks)
    agreement = {name: _correlation(values, np.asarray(other, np.float64)) for name, other in answer.others.items()}
    names = ("status", "substrate", "deletion_auc", "insertion_auc", "srg", "random_z", "random_p", "effect",
             "gap_srg_center")  # fmt: skip
    confidence = None if answer.p_yes is None else max(answer.p_yes, 1 - answer.p_yes)
    summary = {
        "schema_version": SCHEMA_VERSION,
        "statement": STATEMENT,
        "question": answer.question,
        "answer": answer.answer,
        "confidence": confidence,
        "p_yes": answer.p_yes,
        "calibration": None if answer.calibration is None else dict(answer.calibration),
        "method": answer.method,
        "evidence": evidence,
        "agreement": agreement,
        "faithfulness": {name: _plain(answer.scores.get(name)) for name in names} if answer.scores else None,
        "paraphrases": list(answer.paraphrases),
        "model": dict(answer.model),
    }
    return summary | {"flags": [*answer.cautions, *safety_flags(summary)]}


def evidence_of(values: npt.NDArray[np.float64], masks: Mapping[str, Map]) -> dict[str, Any]:
    """Where a map's positive mass lies: peak, coverage, sides and thirds, organs, border; in words too.

    The image's left is the patient's right. Thirds are cut at 1/3 and 2/3 of the height by the cells' centers, and a
    middle column counts half to each side. A map without positive mass has no evidence: its shares are None.
    """
    mass = np.clip(values, 0, None)
    total = float(mass.sum())
    if total == 0:
        empty = {"peak": None, "coverage": None, "sides": None, "thirds": None, "organs": None, "border": None}
        return empty | {"words": "The map is empty: no cell supports the answer.", "caveat": None}
    share, grid = mass / total, (mass.shape[0], mass.shape[1])
    y, x = ((np.arange(n) + 0.5) / n for n in grid)
    third = np.minimum((3 * y).astype(int), 2)
    # [sides, thirds]: the patient's right first.
    parts = mass_shares(values, region_weights(grid)).reshape(2, 3)
    right, thirds = float(parts[0].sum()), dict(zip(THIRDS, parts.sum(0).tolist(), strict=True))
    peak = np.unravel_index(int(mass.argmax()), mass.shape)
    ordered = np.sort(share, axis=None)[::-1]
    coverage = float((np.searchsorted(np.cumsum(ordered), 0.5 - 1e-12) + 1) / mass.size)
    organs, caveat = _organs(share, masks)
    peak_words = f"{THIRDS[third[peak[0]]]} third, {_side(x[peak[1]])}"
    return {
        "peak": {"cell": [int(peak[0]), int(peak[1])], "words": peak_words},
        "coverage": coverage,
        "sides": {"patient_right": right, "patient_left": 1 - right},
        "thirds": thirds,
        "organs": organs,
        "border": float((share * border_weights(grid)).sum()),
        "words": f"Strongest in the {peak_words}. Half of the map lies in {percent(coverage)} of the picture; "
        f"{percent(right)} of it is on the patient's right, {percent(1 - right)} on the left.",
        "caveat": caveat,
    }


UNSCORED = {
    "off_format": "the model's answer to a yes/no question is mostly neither",
    "invalid": "the model's scores of this picture are not finite",
}
"""Status without scores → what it says of the answer."""


def safety_flags(summary: Mapping[str, Any]) -> list[str]:
    """Reasons to distrust the answer or its map, in words; empty if none of the checks that could be made failed."""
    flags, faith, evidence = [], summary["faithfulness"], summary["evidence"]
    if evidence["border"] is None:
        flags.append("The map is empty.")
    elif evidence["border"] > 0.3:
        flags.append(f"Border evidence: {evidence['border']:.0%} of the map lies in the outer 5% of the picture.")
    if faith is None:
        flags.append("The map was not tested for faithfulness.")
    elif faith["status"] == "inverted":
        flags.append("Inverted effect: without the picture's detail the model is surer of its answer.")
    elif faith["status"] in UNSCORED:
        flags.append(f"Not scored ({faith['status']}): {UNSCORED[faith['status']]}.")
    elif faith["status"] != "ok":
        flags.append(f"Low effect ({faith['status']}): the answer hardly depends on the picture's detail.")
    elif faith["random_p"] is None or faith["random_p"] > 0.1:
        flags.append("Not better than random: removing this map's cells changes the answer no faster than any cells.")
    known = [value for value in summary["agreement"].values() if value is not None]
    if known and np.mean(known) < 0.3:
        flags.append(f"Disagreement: mean rank correlation with the other methods' maps is {np.mean(known):.2f}.")
    flips = sum(other.casefold() != summary["answer"].casefold() for other in summary["paraphrases"])
    if flips:
        flags.append(f"Paraphrase flips: {flips} of {len(summary['paraphrases'])} other wordings get another answer.")
    return flags + _calibration_flags(summary)


def _calibration_flags(summary: Mapping[str, Any]) -> list[str]:
    calibration, confidence = summary["calibration"], summary["confidence"]
    if confidence is None:
        return ["No confidence: calibration is known for yes/no answers only."]
    if calibration is None:
        return ["Calibration unknown: the probability was never compared with how often such answers are right."]
    flags, (low, high) = [], calibration.get("confidence_range") or (0, 1)
    if not low <= confidence <= high:
        flags.append(f"Out of calibration: the confidence {confidence:.2f} lies outside of {low:.2f} to {high:.2f}.")
    error = calibration.get("ece")
    if error is not None and error >= HIGH_ECE:
        flags.append(f"Poorly calibrated: such probabilities are off by {error:.2f} on average (ECE).")
    return flags


def clinical_page(
    summary: Mapping[str, Any],
    picture: Pixels,
    values: Map,
    curves: Mapping[str, Any] | None = None,
    region: Region | None = None,
) -> str:
    """One self-contained HTML page of a clinical summary.

    Args:
        summary: as `clinical_summary` gives it.
        picture: [H, W] or [H, W, 3].
        values: the map, [grid_h, grid_w].
        curves: `x`, `deletion`, `insertion` in units of the score; None draws no curves.
        region: (top, left, height, width) of the part of the picture that the map covers; default all of it.
    """
    buffer = io.BytesIO()
    overlay(picture, values, region=region).savefig(buffer, format="png", dpi=110)
    drawn = None
    if curves is not None:
        # The markup is matplotlib's and holds no text of others.
        drawn = Markup(svg(answer_curves(curves)))
    environment = Environment(
        loader=PackageLoader("cxr_faith.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("page_clinical.html.j2").render(
        s=summary,
        picture=base64.b64encode(buffer.getvalue()).decode("ascii"),
        curves=drawn,
        percent=percent,
        source=source_of(summary),
        wordings=wordings_of(summary),
    )


def percent(share: float | None) -> str:
    """A share in whole percent; nothing but certainty is called 100%, and nothing but 0 is called 0%."""
    if share is None:
        return "–"
    if 0.995 <= share < 1:
        return "over 99%"
    if 0 < share < 0.005:
        return "under 1%"
    return f"{share:.0%}"


def wordings_of(summary: Mapping[str, Any]) -> str:
    """How many other wordings of the question get the same answer; empty if none was asked."""
    others = summary["paraphrases"]
    same = sum(other.casefold() == summary["answer"].casefold() for other in others)
    return f"{same} of {len(others)} other wordings of the question get the same answer." if others else ""


def source_of(summary: Mapping[str, Any]) -> str:
    """Method, model and schema as one line."""
    names = {"method": summary["method"], **summary["model"], "schema version": summary["schema_version"]}
    shown = {
        name: f"{value:,}" if name == "parameters" and value is not None else value for name, value in names.items()
    }
    return " · ".join(f"{name.replace('_', ' ')}: {value}" for name, value in shown.items() if value not in ("", None))


def _organs(share: npt.NDArray[np.float64], masks: Mapping[str, Map]) -> tuple[dict[str, float], str | None]:
    """Organ → share of the map in it, by mask or, where there is none of it, by fractions; and the caveat of these."""
    found = {name: float((share * np.asarray(mask, np.float64)).sum()) for name, mask in masks.items()}
    guessed = [name for name in FRACTIONS if not any(name.rstrip("s") in mask for mask in masks)]
    for name in guessed:
        band, spans = FRACTIONS[name]
        inside = np.outer(_overlap(share.shape[0], *band), sum(_overlap(share.shape[1], *span) for span in spans))
        found[name] = float((share * inside).sum())
    if not guessed:
        return found, None
    return found, f"{FRACTIONS_CAVEAT} By fractions: {', '.join(guessed)}." if masks else FRACTIONS_CAVEAT


def _overlap(cells: int, start: float, stop: float) -> npt.NDArray[np.float64]:
    """Share of each of `cells` equal cells of [0, 1] that lies in [start, stop]."""
    edges = np.arange(cells + 1) / cells
    widths: npt.NDArray[np.float64] = np.clip(np.minimum(edges[1:], stop) - np.maximum(edges[:-1], start), 0, None)
    return widths * cells


def _side(x: float) -> str:
    return "midline" if np.isclose(x, 0.5) else "patient's right" if x < 0.5 else "patient's left"


def _correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float | None:
    if one.shape != other.shape or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one.ravel(), other.ravel()).statistic)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
