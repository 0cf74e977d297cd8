"""Tables of the panels: how far the numbers of a summary can be trusted."""

from collections.abc import Mapping, Sequence
from typing import Any

from cxr_faith.metrics.localization import LOCALIZATION_COLUMNS
from cxr_faith.metrics.regions import REGIONS
from cxr_faith.report.glossary import GLOSSARY
from cxr_faith.report.leaderboard import TextTable, number, percent

_MEASURES = {"spearman": "Spearman", "ssim": "SSIM", "top_overlap": "Overlap of the top tenth"}


def _defined(*words: str) -> str:
    return " ".join(f"{word[0].upper()}{word[1:]}: {GLOSSARY[word]}" for word in words)


_NOTES = {
    "Does a substrate do harm of its own?": _defined("OOD score", "breaks early"),
    "Do the maps lie on the finding?": _defined("pointing game, energy inside", "IoU, AUPRC"),
    "Does srg predict localization? Spearman over samples": "Easy samples, such as those with a large finding, raise "
    "it for any map: read it beside the controls'. The last row is over the means of the methods that are no controls.",
    "Is the model as sure as it should be?": _defined("ECE, AUROC"),
}


def trust_tables(summary: Mapping[str, Any]) -> list[tuple[str, TextTable, str]]:
    """(title, (header, rows), note) of each panel that has something to show; a note may be empty."""
    tables = [
        ("Do the substrates rank the methods alike?", _substrates(summary["substrates"])),
        ("Does a substrate do harm of its own?", _harm(summary["substrates"])),
        ("Do the maps lie on the finding?", _localization(summary["localization"])),
        ("Does srg predict localization? Spearman over samples", _prediction(summary)),
        *(
            (f"Do the methods agree? {title} of their maps{_over(summary)}", _agreement(summary, measure))
            for measure, title in _MEASURES.items()
        ),
        ("Where the maps lie: share of their mass (patient's sides)", _regions(summary["regions"], enriched=False)),
        ("Where the maps lie: mass share over area share", _regions(summary["regions"], enriched=True)),
        ("On which organs the maps lie: share of their mass", _organs(summary["regions"], enriched=False)),
        ("On which organs the maps lie: mass share over area share", _organs(summary["regions"], enriched=True)),
        ("Is the model as sure as it should be?", _calibration(summary["calibration"])),
        ("Do surer answers have more faithful maps?", _confidence(summary["calibration"])),
        *_stability(summary["stability"], "another wording", "strategy"),
        *_stability(summary["conditions"], "a small change or another seed", "condition"),
    ]
    return [(title, table, _NOTES.get(title, "")) for title, table in tables if table[1]]


def _substrates(panel: Mapping[str, Any]) -> TextTable:
    pairs = [
        [
            f"{pair['a']} and {pair['b']}",
            *(str(pair["n_samples"]), str(pair["n_methods"]), number(pair["kendall_tau"])),
        ]
        for pair in panel["pairs"]
    ]
    return ["substrates", "samples", "methods", "Kendall τ of srg"], pairs


def _harm(panel: Mapping[str, Any]) -> TextTable:
    rows = [[name, number(score), number(panel["breaks_early"].get(name))] for name, score in panel["ood"].items()]
    return ["substrate", "OOD score", "breaks early"], rows


def _localization(panel: Sequence[Mapping[str, Any]]) -> TextTable:
    header = ["method", "n", *(name.replace("_", " ") for name in LOCALIZATION_COLUMNS)]
    rows = [[e["method"], str(e["n"]), *(number(e[name]) for name in LOCALIZATION_COLUMNS)] for e in panel if e["n"]]
    return header, rows


def _prediction(summary: Mapping[str, Any]) -> TextTable:
    panel, across = summary["localization"], summary["localization_across"]
    header = ["method", "substrate", "n", *(name.replace("_", " ") for name in LOCALIZATION_COLUMNS)]
    rows = [
        [entry["method"], substrate, str(found["n"])]
        + [number(found[name], signed=True) for name in LOCALIZATION_COLUMNS]
        for entry in panel
        for substrate, found in entry["with_srg"].items()
        if any(found[name] is not None for name in LOCALIZATION_COLUMNS)
    ]
    if rows and any(across[name] is not None for name in LOCALIZATION_COLUMNS):
        correlations = [number(across[name], signed=True) for name in LOCALIZATION_COLUMNS]
        rows.append(["the methods' means", "", f"{across['n_methods']} methods", *correlations])
    return header, rows


def _over(summary: Mapping[str, Any]) -> str:
    most = max((pair["n"] for pair in summary["agreement"]), default=0)
    return f", mean over {most} samples" if most > 1 else ""


def _agreement(summary: Mapping[str, Any], measure: str) -> TextTable:
    values = {(pair["a"], pair["b"]): number(pair[measure]) for pair in summary["agreement"]}
    names = [name for name in summary["methods"] if any(name in pair for pair in values)]
    rows = [[a, *(values.get((a, b)) or values.get((b, a)) or "–" for b in names)] for a in names]
    return ["method", *names], rows


def _regions(panel: Sequence[Mapping[str, Any]], enriched: bool) -> TextTable:
    names, rows = (*REGIONS, "border"), list[list[str]]()
    for entry in panel:
        if entry["n"]:  # a map without a positive value lies nowhere
            cells = [number(entry["enrichment"][name]) if enriched else percent(entry[name]) for name in names]
            rows.append([entry["method"], str(entry["n"]), *cells])
    return ["method", "n", *(name.replace("_", " ") for name in names)], rows


def _organs(panel: Sequence[Mapping[str, Any]], enriched: bool) -> TextTable:
    labels, rows = sorted({label for entry in panel for label in entry["organs"]}), list[list[str]]()
    for entry in panel:
        if entry["organs"]:
            found = [entry["organs"].get(label, {"n": 0, "share": None, "enrichment": None}) for label in labels]
            cells = [number(organ["enrichment"]) if enriched else percent(organ["share"]) for organ in found]
            rows.append([entry["method"], *(f"{c} ({organ['n']})" for c, organ in zip(cells, found, strict=True))])
    return ["method", *(f"{label} (n)" for label in labels)], rows


def _calibration(panel: Mapping[str, Any]) -> TextTable:
    if not panel["n"]:
        return [], []
    chosen = {f"accuracy, surest {float(s):.0%}": percent(a) for s, a in panel["selective_accuracy"].items()}
    values = {"samples": str(panel["n"]), "ECE": number(panel["ece"]), "AUROC": number(panel["auroc"])} | chosen
    return ["", "value"], [[name, value] for name, value in values.items()]


def _confidence(panel: Mapping[str, Any]) -> TextTable:
    found = [
        [name, str(panel["confidence_n"][name]), number(value, signed=True)]
        for name, value in panel["confidence_with_srg"].items()
        if value is not None
    ]
    return ["method", "n", "Spearman of confidence and srg"], found


def _stability(panel: Mapping[str, Any] | None, what: str, by: str) -> list[tuple[str, TextTable]]:
    """Tables of answers and maps; `by` names what the answers are listed by."""
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
    return [
        (f"Do the answers survive {what}?", ([by, "n", "answer flips", "n yes/no", "margin shift"], answers)),
        (f"Do the maps survive {what}?", ([by, "method", "n", "Spearman", "n scored", "change of Δsrg"], maps)),
    ]
