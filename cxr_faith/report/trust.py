"""The panels as tables: whether a summary's numbers can be trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cxr_faith.metrics.localization import LOCALIZATION_COLUMNS
from cxr_faith.metrics.regions import REGIONS
from cxr_faith.report.formats import number, percent
from cxr_faith.report.glossary import GLOSSARY
from cxr_faith.report.tables import TextTable

Cells = tuple[list[str], list[list[str]]]
"""A table's header and rows."""

_MEASURES = {"spearman": "Spearman", "ssim": "SSIM", "top_overlap": "Overlap of the top tenth"}


def _defined(*words: str) -> str:
    return " ".join(f"{word[0].upper()}{word[1:]}: {GLOSSARY[word]}" for word in words)


_NOTES = {
    "Does a substrate do harm by itself?": _defined("OOD score", "breaks early"),
    "Do the maps lie on the finding?": _defined("pointing game, energy inside", "IoU, AUPRC"),
    "Does srg predict localization? Spearman over samples": "Easy samples, such as those with a large finding, raise "
    "it for any map: compare it with the controls' values. The last row correlates the means of the methods; it leaves "
    "the controls out.",
    "Is the model as sure as it should be?": _defined("ECE, AUROC"),
}


def trust_tables(summary: Mapping[str, Any]) -> list[TextTable]:
    """One table for each panel that has something to show."""
    substrates, places = summary["substrates"], summary["localization"]
    over = _over(summary)
    tables = [
        TextTable("Do the substrates rank the methods alike?", *_substrates(substrates)),
        TextTable("Does a substrate do harm by itself?", *_harm(substrates)),
        TextTable("Do the maps lie on the finding?", *_localization(places)),
        TextTable("Does srg predict localization? Spearman over samples", *_prediction(summary)),
        *(
            TextTable(f"Do the methods agree? {title} of their maps{over}", *_agreement(summary, measure))
            for measure, title in _MEASURES.items()
        ),
        *_region_tables(summary["regions"]),
        TextTable("Is the model as sure as it should be?", *_calibration(summary["calibration"])),
        TextTable("Do surer answers have more faithful maps?", *_confidence(summary["calibration"])),
        *_stability(summary["stability"], "another wording", "strategy"),
        *_stability(summary["conditions"], "a small change or another seed", "condition"),
    ]
    return [replace(table, note=_NOTES.get(table.title, "")) for table in tables if table.rows]


def _substrates(panel: Mapping[str, Any]) -> Cells:
    rows = [
        [f"{pair['a']} and {pair['b']}", str(pair["n_samples"]), str(pair["n_methods"]), number(pair["kendall_tau"])]
        for pair in panel["pairs"]
    ]
    return ["substrates", "samples", "methods", "Kendall τ of srg"], rows


def _harm(panel: Mapping[str, Any]) -> Cells:
    rows = [[name, number(score), number(panel["breaks_early"].get(name))] for name, score in panel["ood"].items()]
    return ["substrate", "OOD score", "breaks early"], rows


def _localization(panel: Sequence[Mapping[str, Any]]) -> Cells:
    header = ["method", "n", *(name.replace("_", " ") for name in LOCALIZATION_COLUMNS)]
    rows = [[e["method"], str(e["n"]), *(number(e[name]) for name in LOCALIZATION_COLUMNS)] for e in panel if e["n"]]
    return header, rows


def _prediction(summary: Mapping[str, Any]) -> Cells:
    panel, across = summary["localization"], summary["localization_across"]
    header = ["method", "substrate", "n", *(name.replace("_", " ") for name in LOCALIZATION_COLUMNS)]
    rows = [
        [entry["method"], substrate, str(correlations["n"])]
        + [number(correlations[name], signed=True) for name in LOCALIZATION_COLUMNS]
        for entry in panel
        for substrate, correlations in entry["with_srg"].items()
        if any(correlations[name] is not None for name in LOCALIZATION_COLUMNS)
    ]
    if rows and any(across[name] is not None for name in LOCALIZATION_COLUMNS):
        means = [number(across[name], signed=True) for name in LOCALIZATION_COLUMNS]
        rows.append(["the methods' means", "", f"{across['n_methods']} methods", *means])
    return header, rows


def _over(summary: Mapping[str, Any]) -> str:
    most = max((pair["n"] for pair in summary["agreement"]), default=0)
    return f", mean over {most} samples" if most > 1 else ""


def _agreement(summary: Mapping[str, Any], measure: str) -> Cells:
    values = {(pair["a"], pair["b"]): number(pair[measure]) for pair in summary["agreement"]}
    names = [name for name in summary["methods"] if any(name in pair for pair in values)]
    rows = [[a, *(values.get((a, b)) or values.get((b, a)) or "–" for b in names)] for a in names]
    return ["method", *names], rows


def _region_tables(panel: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """Shares of the maps' mass and their enrichment, by region and by organ."""
    by_region = "Where the maps lie:"
    by_organ = "On which organs the maps lie:"
    return [
        TextTable(f"{by_region} share of their mass (patient's sides)", *_regions(panel, enriched=False)),
        TextTable(f"{by_region} mass share over area share", *_regions(panel, enriched=True)),
        TextTable(f"{by_organ} share of their mass", *_organs(panel, enriched=False)),
        TextTable(f"{by_organ} mass share over area share", *_organs(panel, enriched=True)),
    ]


def _regions(panel: Sequence[Mapping[str, Any]], enriched: bool) -> Cells:
    names, rows = (*REGIONS, "border"), list[list[str]]()
    for entry in panel:
        if entry["n"]:  # a map without a positive value lies nowhere
            cells = [number(entry["enrichment"][name]) if enriched else percent(entry[name]) for name in names]
            rows.append([entry["method"], str(entry["n"]), *cells])
    return ["method", "n", *(name.replace("_", " ") for name in names)], rows


def _organs(panel: Sequence[Mapping[str, Any]], enriched: bool) -> Cells:
    labels, rows = sorted({label for entry in panel for label in entry["organs"]}), list[list[str]]()
    for entry in panel:
        if entry["organs"]:
            organs = [entry["organs"].get(label, {"n": 0, "share": None, "enrichment": None}) for label in labels]
            cells = [number(organ["enrichment"]) if enriched else percent(organ["share"]) for organ in organs]
            rows.append([entry["method"], *(f"{c} ({organ['n']})" for c, organ in zip(cells, organs, strict=True))])
    return ["method", *(f"{label} (n)" for label in labels)], rows


def _calibration(panel: Mapping[str, Any]) -> Cells:
    if not panel["n"]:
        return [], []
    chosen = {f"accuracy, surest {float(s):.0%}": percent(a) for s, a in panel["selective_accuracy"].items()}
    values = {"samples": str(panel["n"]), "ECE": number(panel["ece"]), "AUROC": number(panel["auroc"])} | chosen
    return ["", "value"], [[name, value] for name, value in values.items()]


def _confidence(panel: Mapping[str, Any]) -> Cells:
    rows = [
        [name, str(panel["confidence_n"][name]), number(value, signed=True)]
        for name, value in panel["confidence_with_srg"].items()
        if value is not None
    ]
    return ["method", "n", "Spearman of confidence and srg"], rows


def _stability(panel: Mapping[str, Any] | None, change: str, by: str) -> list[TextTable]:
    """Tables of answers and maps after a change; `by` is the field that answers are grouped by."""
    if panel is None:
        return []
    answers = [
        [entry[by], str(entry["n"]), percent(entry["flip_rate"]), str(entry["n_margin"]), number(entry["margin_shift"])]
        for entry in panel["answers"]
    ]
    maps = [
        [entry[by], entry["method"], str(entry["n"]), number(entry["spearman"])]
        + [str(entry["n_gap"]), number(entry["gap_change"])]
        for entry in panel["maps"]
    ]
    answer_header = [by, "n", "answer flips", "n yes/no", "margin shift"]
    map_header = [by, "method", "n", "Spearman", "n scored", "change of Δsrg"]
    return [
        TextTable(f"Do the answers survive {change}?", answer_header, answers),
        TextTable(f"Do the maps survive {change}?", map_header, maps),
    ]
