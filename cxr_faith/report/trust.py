"""The panels as tables: whether a summary's numbers can be trusted."""

from collections.abc import Callable, Mapping, Sequence

from cxr_faith.metrics.box_protocol import PLACE_COLUMNS
from cxr_faith.metrics.functional import LARGE_RESIDUAL
from cxr_faith.metrics.localization import LOCALIZATION_COLUMNS
from cxr_faith.metrics.regions import REGIONS
from cxr_faith.records.controls import READER
from cxr_faith.report.ablations import ablation_tables
from cxr_faith.report.formats import number, percent
from cxr_faith.report.glossary import GLOSSARY
from cxr_faith.report.image_use import use_tables
from cxr_faith.report.pairs import pair_tables
from cxr_faith.report.subgroups import subgroup_tables
from cxr_faith.report.tables import TextTable
from cxr_faith.report.uncertainty import uncertainty_table
from cxr_faith.summary.board import Board
from cxr_faith.summary.board_row import BoardRow
from cxr_faith.summary.calibration import Calibration
from cxr_faith.summary.caveats import Caveat
from cxr_faith.summary.changes import AnswerChange, MapChange
from cxr_faith.summary.conditions import Conditions
from cxr_faith.summary.localization import Localization, LocalizationScores
from cxr_faith.summary.regions import Organ, Regions
from cxr_faith.summary.stability import Stability
from cxr_faith.summary.substrates import Substrates
from cxr_faith.summary.summary import Summary

_NO_ORGAN = Organ(n=0, share=None, enrichment=None)
_WEIGHTED = ("deletion_auc", "insertion_auc", "srg")
MEASURES = {"spearman": "Spearman", "ssim": "SSIM", "top_overlap": "Overlap of the top tenth"}
"""Measures of how alike two maps are → their names."""


def trust_tables(summary: Summary, agreement: bool = True) -> list[TextTable]:
    """One table for each panel that has something to show.

    Args:
        summary: the run's summary.
        agreement: also how alike the methods' maps are, which the page shows in another way.
    """
    tables = [
        *(_means(board) for board in summary.boards if board.slice == "all"),
        *ablation_tables(summary),
        *use_tables(summary.image_use),
        *pair_tables(summary.pairs),
        uncertainty_table(summary.uncertainty),
        sets_table(summary),
        _caveats(summary.caveats or ()),
        *subgroup_tables(summary.subgroups),
        _substrates(summary.substrates),
        _harm(summary.substrates),
        _localization(summary.localization),
        _prediction(summary),
        *(_agreement(summary, measure) for measure in MEASURES if agreement),
        _regions(summary.regions, enriched=False),
        _regions(summary.regions, enriched=True),
        _organs(summary.regions, enriched=False),
        _organs(summary.regions, enriched=True),
        _calibration(summary.calibration),
        _confidence(summary.calibration),
        *_variant_tables(summary.stability, "another wording", "strategy"),
        *_variant_tables(summary.turns, "another turn of the conversation", "turn"),
        *_condition_tables(summary.conditions),
    ]
    return [table for table in tables if table.rows]


def _defined(*words: str) -> str:
    """The glossary's sentences on some words."""
    return " ".join(f"{word[0].upper()}{word[1:]}: {GLOSSARY[word]}" for word in words)


def _means(board: Board) -> TextTable:
    """Weighted and plain means and medians of a board's columns in units of the effect."""
    rows = [
        [row.method, str(row.n_common), *(number(values.get(name)) for name in _WEIGHTED for values in _three(row))]
        for row in board.ranked()
        if row.n_common
    ]
    header = [f"{name.replace('_', ' ')}{kind}" for name in _WEIGHTED for kind in ("", ", plain", ", median")]
    title = f"Does the weight matter? {board.substrate}: means weighted by the effect, plain means, medians"
    return TextTable(title, ["method", "n", *header], rows, _defined("weighted mean"))


def _three(row: BoardRow) -> tuple[Mapping[str, float | None], ...]:
    """Column → weighted mean, plain mean, median."""
    return {name: row.value(name) for name in _WEIGHTED}, row.plain_means or {}, row.medians or {}


def sets_table(summary: Summary) -> TextTable:
    """Explaining sets as sets, for methods that give them; no rows without one."""
    rows = [
        [one.method, one.substrate, str(one.n), number(one.size), percent(one.removal_flips), percent(one.keeps)]
        for one in summary.sets or ()
    ]
    header = ["method", "substrate", "n", "cells", "removing it changes the answer", "it alone keeps the answer"]
    return TextTable("Are the explaining sets sets that explain?", header, rows)


def _caveats(panel: Sequence[Caveat]) -> TextTable:
    rows = []
    for one in panel:
        shares = [number(one.residual), percent(one.residual_above)] if one.n_residuals else ["–", "–"]
        rows.append([one.method, str(one.n), *shares, one.caution or "–", percent(one.n_cautions / one.n)])
    header = ["method", "maps", "residual, median", f"above {LARGE_RESIDUAL}", "caution", "of the maps"]
    note = "Residual: how much the sum of a map differs from the effect, as a share of the effect."
    return TextTable("Do the maps add up, and does the answer depend on what they show?", header, rows, note)


def _substrates(panel: Substrates) -> TextTable:
    rows = [
        [f"{pair.a} and {pair.b}", str(pair.n_samples), str(pair.n_methods), number(pair.kendall_tau)]
        for pair in panel.pairs
    ]
    header = ["substrates", "samples", "methods", "Kendall τ of srg"]
    return TextTable("Do the substrates rank the methods alike?", header, rows)


def _harm(panel: Substrates) -> TextTable:
    rows = [[name, number(score), number(panel.breaks_early.get(name))] for name, score in panel.ood.items()]
    title, note = "Does a substrate do harm by itself?", _defined("OOD score", "breaks early")
    return TextTable(title, ["substrate", "OOD score", "breaks early"], rows, note)


def _localization(panel: Sequence[Localization]) -> TextTable:
    rows = [
        [entry.method, str(entry.n), *(number(getattr(entry, name)) for name in PLACE_COLUMNS)]
        for entry in panel
        if entry.n
    ]
    title = "Do the maps lie on the finding?"
    note = _defined("pointing game, energy inside", "IoU, AUPRC", "box IoU, precision, recall, F1 (q90)")
    if any(entry.method == READER for entry in panel):
        note += f" {_defined(READER)}"
    ceilings = pointing_ceilings(panel, number)
    if ceilings:
        note += f" No map of these cells can have a pointing game above {ceilings}: "
        note += "findings cover some cells only in part."
    return TextTable(title, ["method", "n", *_spaced(PLACE_COLUMNS)], rows, note)


def pointing_ceilings(panel: Sequence[Localization], written: Callable[[float], str]) -> str:
    """The most hits that a map can have: a share, or one for each number of samples.

    Over 7 samples it may be 0.690, and 0.726 over the 6 of them that the oracle has: then it says both, with their n.

    Args:
        panel: the rows.
        written: writes a share.

    Returns:
        such as "0.690" or "0.690 (n = 7) or 0.726 (n = 6)"; empty where findings cover whole cells.
    """
    known = {entry.n: entry.pointing_ceiling for entry in panel if entry.n and entry.pointing_ceiling is not None}
    if not any(share < 1 for share in known.values()):
        return ""
    shares = [written(share) for share in known.values()]
    if len(set(shares)) == 1:
        return shares[0]
    return " or ".join(f"{written(known[n])} (n = {n})" for n in sorted(known, reverse=True))


def _prediction(summary: Summary) -> TextTable:
    across = summary.localization_across
    rows = [
        [entry.method, substrate, str(correlations.n), *_scores(correlations, signed=True)]
        for entry in summary.localization
        for substrate, correlations in entry.with_srg.items()
        if _any_score(correlations)
    ]
    if rows and _any_score(across):
        rows.append(["the methods' means", "", f"{across.n_methods} methods", *_scores(across, signed=True)])
    return TextTable(
        "Does srg predict localization? Spearman over samples",
        ["method", "substrate", "n", *_spaced(LOCALIZATION_COLUMNS)],
        rows,
        "Easy samples, such as those with a large finding, raise it for any map: compare it with the controls' values. "
        "The last row correlates the means of the methods; it leaves the controls out.",
    )


def _scores(scores: LocalizationScores, signed: bool = False) -> list[str]:
    return [number(scores.value(name), signed) for name in LOCALIZATION_COLUMNS]


def _any_score(scores: LocalizationScores) -> bool:
    return any(scores.value(name) is not None for name in LOCALIZATION_COLUMNS)


def _spaced(names: Sequence[str]) -> list[str]:
    return [name.replace("_", " ") for name in names]


def _agreement(summary: Summary, measure: str) -> TextTable:
    values = {(pair.a, pair.b): number(getattr(pair, measure)) for pair in summary.agreement}
    names = [name for name in summary.methods if any(name in pair for pair in values)]
    rows = [[a, *(values.get((a, b)) or values.get((b, a)) or "–" for b in names)] for a in names]
    most = max((pair.n for pair in summary.agreement), default=0)
    over = f", mean over {most} samples" if most > 1 else ""
    return TextTable(f"Do the methods agree? {MEASURES[measure]} of their maps{over}", ["method", *names], rows)


def _regions(panel: Sequence[Regions], enriched: bool) -> TextTable:
    names, rows = (*REGIONS, "border"), []
    for entry in panel:
        if entry.n:  # a map without a positive value lies nowhere
            shares = [percent(entry.value(name)) for name in names]
            ratios = [number(entry.enrichment.value(name)) for name in names]
            rows.append([entry.method, str(entry.n), *(ratios if enriched else shares)])
    what = "mass share over area share" if enriched else "share of their mass (patient's sides)"
    return TextTable(f"Where the maps lie: {what}", ["method", "n", *_spaced(names)], rows)


def _organs(panel: Sequence[Regions], enriched: bool) -> TextTable:
    labels = sorted({label for entry in panel for label in entry.organs})
    rows = []
    for entry in panel:
        if entry.organs:
            organs = [entry.organs.get(label, _NO_ORGAN) for label in labels]
            cells = [number(organ.enrichment) if enriched else percent(organ.share) for organ in organs]
            rows.append([entry.method, *(f"{cell} ({organ.n})" for cell, organ in zip(cells, organs, strict=True))])
    what = "mass share over area share" if enriched else "share of their mass"
    return TextTable(f"On which organs the maps lie: {what}", ["method", *(f"{label} (n)" for label in labels)], rows)


def _calibration(panel: Calibration) -> TextTable:
    chosen = {f"accuracy, surest {float(s):.0%}": percent(a) for s, a in panel.selective_accuracy.items()}
    values = {"samples": str(panel.n), "ECE": number(panel.ece), "AUROC": number(panel.auroc)} | chosen
    rows = [[name, value] for name, value in values.items()] if panel.n else []
    return TextTable("Is the model as sure as it should be?", ["", "value"], rows, _defined("ECE, AUROC"))


def _confidence(panel: Calibration) -> TextTable:
    rows = [
        [name, str(panel.confidence_n[name]), number(value, signed=True)]
        for name, value in panel.confidence_with_srg.items()
        if value is not None
    ]
    header = ["method", "n", "Spearman of confidence and srg"]
    return TextTable("Do surer answers have more faithful maps?", header, rows)


def _variant_tables(panel: Stability | None, change: str, by: str) -> list[TextTable]:
    if panel is None:
        return []
    answers = [[entry.strategy, *_answer_change(entry)] for entry in panel.answers]
    maps = [[entry.strategy, *_map_change(entry)] for entry in panel.maps]
    return _change_tables(change, by, answers, maps)


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
