"""The panels as tables: whether a summary's numbers can be trusted."""

from collections.abc import Sequence
from dataclasses import replace

from cxr_faith.metrics.localization import LOCALIZATION_COLUMNS
from cxr_faith.metrics.regions import REGIONS
from cxr_faith.report.formats import number, percent
from cxr_faith.report.glossary import GLOSSARY
from cxr_faith.report.tables import TextTable
from cxr_faith.summary.calibration import Calibration
from cxr_faith.summary.changes import AnswerChange, MapChange
from cxr_faith.summary.conditions import Conditions
from cxr_faith.summary.localization import Localization, LocalizationScores
from cxr_faith.summary.regions import Organ, Regions
from cxr_faith.summary.stability import Stability
from cxr_faith.summary.substrates import Substrates
from cxr_faith.summary.summary import Summary

Cells = tuple[list[str], list[list[str]]]
"""A table's header and rows."""

_NO_ORGAN = Organ(n=0, share=None, enrichment=None)
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


def trust_tables(summary: Summary) -> list[TextTable]:
    """One table for each panel that has something to show."""
    over = _over(summary)
    tables = [
        TextTable("Do the substrates rank the methods alike?", *_substrates(summary.substrates)),
        TextTable("Does a substrate do harm by itself?", *_harm(summary.substrates)),
        TextTable("Do the maps lie on the finding?", *_localization(summary.localization)),
        TextTable("Does srg predict localization? Spearman over samples", *_prediction(summary)),
        *(
            TextTable(f"Do the methods agree? {title} of their maps{over}", *_agreement(summary, measure))
            for measure, title in _MEASURES.items()
        ),
        *_region_tables(summary.regions),
        TextTable("Is the model as sure as it should be?", *_calibration(summary.calibration)),
        TextTable("Do surer answers have more faithful maps?", *_confidence(summary.calibration)),
        *_variant_tables(summary.stability),
        *_condition_tables(summary.conditions),
    ]
    return [replace(table, note=_NOTES.get(table.title, "")) for table in tables if table.rows]


def _substrates(panel: Substrates) -> Cells:
    rows = [
        [f"{pair.a} and {pair.b}", str(pair.n_samples), str(pair.n_methods), number(pair.kendall_tau)]
        for pair in panel.pairs
    ]
    return ["substrates", "samples", "methods", "Kendall τ of srg"], rows


def _harm(panel: Substrates) -> Cells:
    rows = [[name, number(score), number(panel.breaks_early.get(name))] for name, score in panel.ood.items()]
    return ["substrate", "OOD score", "breaks early"], rows


def _localization(panel: Sequence[Localization]) -> Cells:
    rows = [[entry.method, str(entry.n), *_scores(entry)] for entry in panel if entry.n]
    return ["method", "n", *_spaced(LOCALIZATION_COLUMNS)], rows


def _prediction(summary: Summary) -> Cells:
    across = summary.localization_across
    rows = [
        [entry.method, substrate, str(correlations.n), *_scores(correlations, signed=True)]
        for entry in summary.localization
        for substrate, correlations in entry.with_srg.items()
        if _any_score(correlations)
    ]
    if rows and _any_score(across):
        rows.append(["the methods' means", "", f"{across.n_methods} methods", *_scores(across, signed=True)])
    return ["method", "substrate", "n", *_spaced(LOCALIZATION_COLUMNS)], rows


def _scores(scores: LocalizationScores, signed: bool = False) -> list[str]:
    return [number(scores.value(name), signed) for name in LOCALIZATION_COLUMNS]


def _any_score(scores: LocalizationScores) -> bool:
    return any(scores.value(name) is not None for name in LOCALIZATION_COLUMNS)


def _spaced(names: Sequence[str]) -> list[str]:
    return [name.replace("_", " ") for name in names]


def _over(summary: Summary) -> str:
    most = max((pair.n for pair in summary.agreement), default=0)
    return f", mean over {most} samples" if most > 1 else ""


def _agreement(summary: Summary, measure: str) -> Cells:
    values = {(pair.a, pair.b): number(getattr(pair, measure)) for pair in summary.agreement}
    names = [name for name in summary.methods if any(name in pair for pair in values)]
    rows = [[a, *(values.get((a, b)) or values.get((b, a)) or "–" for b in names)] for a in names]
    return ["method", *names], rows


def _region_tables(panel: Sequence[Regions]) -> list[TextTable]:
    """Shares of the maps' mass and their enrichment, by region and by organ."""
    by_region = "Where the maps lie:"
    by_organ = "On which organs the maps lie:"
    return [
        TextTable(f"{by_region} share of their mass (patient's sides)", *_regions(panel, enriched=False)),
        TextTable(f"{by_region} mass share over area share", *_regions(panel, enriched=True)),
        TextTable(f"{by_organ} share of their mass", *_organs(panel, enriched=False)),
        TextTable(f"{by_organ} mass share over area share", *_organs(panel, enriched=True)),
    ]


def _regions(panel: Sequence[Regions], enriched: bool) -> Cells:
    names, rows = (*REGIONS, "border"), []
    for entry in panel:
        if entry.n:  # a map without a positive value lies nowhere
            shares = [percent(entry.value(name)) for name in names]
            ratios = [number(entry.enrichment.value(name)) for name in names]
            rows.append([entry.method, str(entry.n), *(ratios if enriched else shares)])
    return ["method", "n", *_spaced(names)], rows


def _organs(panel: Sequence[Regions], enriched: bool) -> Cells:
    labels = sorted({label for entry in panel for label in entry.organs})
    rows = []
    for entry in panel:
        if entry.organs:
            organs = [entry.organs.get(label, _NO_ORGAN) for label in labels]
            cells = [number(organ.enrichment) if enriched else percent(organ.share) for organ in organs]
            rows.append([entry.method, *(f"{cell} ({organ.n})" for cell, organ in zip(cells, organs, strict=True))])
    return ["method", *(f"{label} (n)" for label in labels)], rows


def _calibration(panel: Calibration) -> Cells:
    if not panel.n:
        return [], []
    chosen = {f"accuracy, surest {float(s):.0%}": percent(a) for s, a in panel.selective_accuracy.items()}
    values = {"samples": str(panel.n), "ECE": number(panel.ece), "AUROC": number(panel.auroc)} | chosen
    return ["", "value"], [[name, value] for name, value in values.items()]


def _confidence(panel: Calibration) -> Cells:
    rows = [
        [name, str(panel.confidence_n[name]), number(value, signed=True)]
        for name, value in panel.confidence_with_srg.items()
        if value is not None
    ]
    return ["method", "n", "Spearman of confidence and srg"], rows


def _variant_tables(panel: Stability | None) -> list[TextTable]:
    if panel is None:
        return []
    answers = [[entry.strategy, *_answer_change(entry)] for entry in panel.answers]
    maps = [[entry.strategy, *_map_change(entry)] for entry in panel.maps]
    return _change_tables("another wording", "strategy", answers, maps)


def _condition_tables(panel: Conditions | None) -> list[TextTable]:
    if panel is None:
        return []
    answers = [[entry.condition, *_answer_change(entry)] for entry in panel.answers]
    maps = [[entry.condition, *_map_change(entry)] for entry in panel.maps]
    return _change_tables("a small change or another seed", "condition", answers, maps)


def _answer_change(entry: AnswerChange) -> list[str]:
    return [str(entry.n), percent(entry.flip_rate), str(entry.n_margin), number(entry.margin_shift)]


def _map_change(entry: MapChange) -> list[str]:
    return [entry.method, str(entry.n), number(entry.spearman), str(entry.n_gap), number(entry.gap_change)]


def _change_tables(change: str, by: str, answers: list[list[str]], maps: list[list[str]]) -> list[TextTable]:
    """Tables of answers and of maps after a change; `by` heads the first column."""
    answer_header = [by, "n", "answer flips", "n yes/no", "margin shift"]
    map_header = [by, "method", "n", "Spearman", "n scored", "change of Δsrg"]
    return [
        TextTable(f"Do the answers survive {change}?", answer_header, answers),
        TextTable(f"Do the maps survive {change}?", map_header, maps),
    ]
