"""Tables of the panels: how far the numbers of a summary can be trusted."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cxr_faith.metrics.localization import LOCALIZATION_COLUMNS
from cxr_faith.metrics.regions import REGIONS
from cxr_faith.report.leaderboard import number, percent

TextTable = tuple[list[str], list[list[str]]]

_MEASURES = {"spearman": "Spearman", "ssim": "SSIM", "top_overlap": "Overlap of the top tenth"}


def trust_tables(summary: Mapping[str, Any]) -> list[tuple[str, TextTable]]:
    """(title, (header, rows)) of each panel that has something to show."""
    tables = [
        ("Do the substrates rank the methods alike?", _substrates(summary["substrates"])),
        ("Does a substrate do harm of its own?", _harm(summary["substrates"])),
        ("Do the maps lie on the finding?", _localization(summary["localization"])),
        ("Does srg predict localization? Spearman over samples", _prediction(summary["localization"])),
        *(
            (f"Do the methods agree? {title} of their maps", _agreement(summary, measure))
            for measure, title in _MEASURES.items()
        ),
        ("Where the maps lie: share of their mass (patient's sides)", _regions(summary["regions"])),
        ("Where the maps lie: mass share over area share", _enriched(summary["regions"])),
        ("On which organs the maps lie: share of their mass", _organs(summary["regions"], "share", percent)),
        ("On which organs the maps lie: mass share over area share", _organs(summary["regions"], "enrichment", number)),
        ("Is the model as sure as it should be?", _calibration(summary["calibration"])),
        ("Do surer answers have more faithful maps?", _confidence(summary["calibration"])),
        *_stability(summary["stability"], "another wording", "strategy"),
        *_stability(summary["conditions"], "a small change or another seed", "condition"),
    ]
    return [(title, table) for title, table in tables if table[1]]


def _substrates(panel: Mapping[str, Any]) -> TextTable:
    pairs = [
        [f"{pair['a']} and {pair['b']}", str(pair["n_methods"]), number(pair["kendall_tau"])] for pair in panel["pairs"]
    ]
    return ["substrates", "methods", "Kendall τ of srg"], pairs


def _harm(panel: Mapping[str, Any]) -> TextTable:
    rows = [[name, number(score), number(panel["breaks_early"].get(name))] for name, score in panel["ood"].items()]
    return ["substrate", "OOD score", "breaks early"], rows


def _localization(panel: Sequence[Mapping[str, Any]]) -> TextTable:
    header = ["method", "n", *(name.replace("_", " ") for name in LOCALIZATION_COLUMNS)]
    rows = [[e["method"], str(e["n"]), *(number(e[name]) for name in LOCALIZATION_COLUMNS)] for e in panel if e["n"]]
    return header, rows


def _prediction(panel: Sequence[Mapping[str, Any]]) -> TextTable:
    header = ["method", "substrate", "n", *(name.replace("_", " ") for name in LOCALIZATION_COLUMNS)]
    rows = [
        [entry["method"], substrate, str(found["n"])]
        + [number(found[name], signed=True) for name in LOCALIZATION_COLUMNS]
        for entry in panel
        for substrate, found in entry["with_srg"].items()
        if any(found[name] is not None for name in LOCALIZATION_COLUMNS)
    ]
    return header, rows


def _agreement(summary: Mapping[str, Any], measure: str) -> TextTable:
    values = {(pair["a"], pair["b"]): number(pair[measure]) for pair in summary["agreement"]}
    names = [name for name in summary["methods"] if any(name in pair for pair in values)]
    rows = [[a, *(values.get((a, b)) or values.get((b, a)) or "–" for b in names)] for a in names]
    return ["method", *names], rows


def _regions(panel: Sequence[Mapping[str, Any]]) -> TextTable:
    names = (*REGIONS, "border")
    rows = [[entry["method"], str(entry["n"]), *(percent(entry[name]) for name in names)] for entry in panel]
    return ["method", "n", *(name.replace("_", " ") for name in names)], rows


def _enriched(panel: Sequence[Mapping[str, Any]]) -> TextTable:
    names = (*REGIONS, "border")
    rows = [[e["method"], str(e["n"]), *(number(e["enrichment"][name]) for name in names)] for e in panel]
    return ["method", "n", *(name.replace("_", " ") for name in names)], rows


def _organs(panel: Sequence[Mapping[str, Any]], column: str, write: Callable[[float | None], str]) -> TextTable:
    labels = sorted({label for entry in panel for label in entry["organs"]})
    rows = []
    for entry in panel:
        found = [entry["organs"].get(label, {"n": 0, column: None}) for label in labels]
        rows.append([entry["method"], *(f"{write(organ[column])} ({organ['n']})" for organ in found)])
    return ["method", *(f"{label} (n)" for label in labels)], rows if labels else []


def _calibration(panel: Mapping[str, Any]) -> TextTable:
    if not panel["n"]:
        return [], []
    chosen = {f"accuracy, surest {float(s):.0%}": percent(a) for s, a in panel["selective_accuracy"].items()}
    values = {"samples": str(panel["n"]), "ECE": number(panel["ece"]), "AUROC": number(panel["auroc"])} | chosen
    return ["", "value"], [[name, value] for name, value in values.items()]


def _confidence(panel: Mapping[str, Any]) -> TextTable:
    found = [
        [name, number(value, signed=True)] for name, value in panel["confidence_with_srg"].items() if value is not None
    ]
    return ["method", "Spearman of confidence and srg"], found


def _stability(panel: Mapping[str, Any] | None, what: str, by: str) -> list[tuple[str, TextTable]]:
    """Tables of answers and maps; `by` names what the answers are listed by."""
    if panel is None:
        return []
    answers = [
        [entry[by], str(entry["n"]), percent(entry["flip_rate"]), number(entry["margin_shift"])]
        for entry in panel["answers"]
    ]
    maps = [
        [entry[by], entry["method"], str(entry["n"]), number(entry["spearman"]), number(entry["gap_change"])]
        for entry in panel["maps"]
    ]
    return [
        (f"Do the answers survive {what}?", ([by, "n", "answer flips", "margin shift"], answers)),
        (f"Do the maps survive {what}?", ([by, "method", "n", "Spearman", "change of Δsrg"], maps)),
    ]
