"""What a run can say, topic by topic: which figures of which file, and which command makes a file that is missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cxr_faith.metrics.statistics import LEVEL
from cxr_faith.records.controls import is_control
from cxr_faith.report.columns import slice_title
from cxr_faith.report.dossier.evidence import Column, Evidence, Json, Source, escaped, shown
from cxr_faith.report.formats import number, percent, without_folder
from cxr_faith.report.tables import FINDING
from cxr_faith.summary.board import Board, Setting
from cxr_faith.summary.load import read_summary
from cxr_faith.summary.sanity import with_sanity
from cxr_faith.summary.subgroups import SUBGROUP
from cxr_faith.summary.verdict import verdict_lines, verdict_of

SUMMARY, PROVENANCE, DOCTOR, SANITY = "summary.json", "provenance.json", "doctor.json", "sanity.json"
COMPARED = "compare.json"


@dataclass(frozen=True)
class Topic:
    """Figures that belong together."""

    title: str
    """Of its tables."""
    collect: Callable[[Source], list[Evidence]]
    """The tables of one run; empty where it has none."""
    missing: str
    """What makes the figures where a run has none."""


def _share(value: Json) -> str:
    return percent(value) if isinstance(value, int | float) and not isinstance(value, bool) else shown(value)


def _signed(value: Json) -> str:
    return number(value, signed=True) if isinstance(value, float) else shown(value)


def _name(value: Json) -> str:
    return without_folder(shown(value))


def _model(run: Source) -> list[Evidence]:
    rows = [
        ("source", "/model/source"),
        ("revision", "/model/revision"),
        ("hash of weights and files", "/model/hash"),
        ("number format", "/identity/model/dtype"),
        ("how a question is put", "/identity/model/prompt_template"),
    ]
    return run.table("model", "The model", PROVENANCE, rows, [Column("value", "", _name)])


def _data(run: Source) -> list[Evidence]:
    named = [("manifest", "/data/manifest"), ("fingerprint of the data", "/data/fingerprint")]
    counts = [
        ("questions", "/n_samples"),
        ("questions of the whole data set", "/samples_total"),
        ("questions without a record", "/missing"),
        ("patients", "/n_patients"),
        ("questions without a patient's id", "/n_without_patient"),
        ("questions that failed", "/failures/n"),
    ]
    return [
        *run.table("data", "The data: identity", PROVENANCE, named, [Column("value", "", _name)]),
        *run.table("data", "The data: counts", SUMMARY, counts),
    ]


def _machine(run: Source) -> list[Evidence]:
    rows = [(key, place) for part in ("versions", "hardware") for key, place, _ in run.below(PROVENANCE, f"/{part}")]
    return run.table("machine", "Software and machine", PROVENANCE, [*rows, ("source revision", "/git_revision")])


def _protocol(run: Source) -> list[Evidence]:
    settings = [(key, place) for key, place, _ in run.below(PROVENANCE, "/identity/perturbation")]
    boards = [("substrate of the first board", "/boards/0/substrate"), ("target", "/boards/0/target")]
    return [
        *run.table("protocol", "How explanations are scored", PROVENANCE, settings),
        *run.table("protocol", "What the first board compares", SUMMARY, boards),
    ]


def _answers(run: Source) -> list[Evidence]:
    columns = [
        Column("questions", "/n_samples"),
        Column("patients", "/n_patients"),
        Column("accuracy", "/accuracy", _share),
        Column("not parsed", "/n_not_parsed"),
    ]
    rows = [(slice_title(_slice(value)), place) for _, place, value in run.below(SUMMARY, "/answers")]
    title = "The model's answers, by group of questions, most accurate first"
    return run.table("answers", title, SUMMARY, rows, columns, best="/accuracy")


def _slice(value: Json) -> str:
    """The name of the slice of an entry."""
    return str(value.get("slice", "")) if isinstance(value, dict) else ""


def _calibration(run: Source) -> list[Evidence]:
    rows = [
        ("questions with a probability", "/calibration/n"),
        ("expected calibration error", "/calibration/ece"),
        ("area under the ROC curve", "/calibration/auroc"),
    ]
    return run.table("calibration", "Calibration of p(yes)", SUMMARY, rows)


def _explanations(run: Source) -> list[Evidence]:
    columns = [
        Column("in the mean", "/n_common"),
        Column("coverage", "/coverage", _share),
        Column("srg", "/srg"),
        Column("low", "/intervals/srg/t_low"),
        Column("high", "/intervals/srg/t_high"),
        Column("Δsrg center", "/gap_srg_center", _signed),
        Column("low", "/intervals/gap_srg_center/t_low", _signed),
        Column("high", "/intervals/gap_srg_center/t_high", _signed),
    ]
    rows = [(_method(value), place) for _, place, value in run.below(SUMMARY, "/boards/0/rows")]
    if not rows:
        return []
    boards = _boards(run)
    note, judged = f"Verdict by stated rules: {' '.join(verdict_lines(boards))}", _judged(boards[0], rows)
    title = "Faithfulness of the maps by method, all questions, best first; intervals of 95 % over patients"
    return run.table("explanations", title, SUMMARY, rows, columns, note, f"/{boards[0].headline}", judged)


def _boards(run: Source) -> Sequence[Board]:
    """The boards of a run, with the marks of its sanity check."""
    return with_sanity(read_summary(run.folder), run.folder).boards


def _judged(board: Board, rows: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The place of each method's row → its verdict on a board; "control" for what is never recommended."""
    verdict = verdict_of(board)
    return {place: "control" if is_control(method) else verdict.of(method) or "–" for method, place in rows}


def _method(value: Json) -> str:
    return str(value.get("method", "")) if isinstance(value, dict) else ""


def _groups(run: Source) -> list[Evidence]:
    """Methods that are no controls, in each group of the first setting."""
    columns = [Column("in the mean", "/n_common"), Column("patients", "/n_clusters"), Column("srg", "/srg")]
    columns += [Column("low", "/intervals/srg/t_low"), Column("high", "/intervals/srg/t_high")]
    setting = [run.at(SUMMARY, f"/boards/0/{name}") for name in Setting._fields]
    rows, judged = list[tuple[str, str]](), dict[str, str]()
    boards = _boards(run) if run.below(SUMMARY, "/boards") else ()
    for place_of, of, value in run.below(SUMMARY, "/boards"):
        if not _slice(value).startswith((FINDING, *SUBGROUP)):
            continue
        if [run.at(SUMMARY, f"{of}/{name}") for name in Setting._fields] != setting:
            continue
        board = boards[int(place_of)]
        places = {_method(row): place for _, place, row in run.below(SUMMARY, f"{of}/rows")}
        mine = [(row.method, places[row.method]) for row in board.ranked() if not is_control(row.method)]
        judged |= _judged(board, mine)
        rows += [(f"{slice_title(_slice(value))} · {method}", place) for method, place in mine]
    title = "Faithfulness by group of questions, best method of each first; intervals of 95 % over patients"
    return run.table("groups", title, SUMMARY, rows, columns, verdicts=judged)


def _localization(run: Source) -> list[Evidence]:
    columns = [Column("questions", "/n"), Column("pointing game", "/pointing_game", _share)]
    columns += [Column("energy inside", "/energy_inside", _share), Column("IoU of the top 10 %", "/iou_top_10")]
    entries = run.below(SUMMARY, "/localization")
    rows = [(_method(value), place) for _, place, value in entries if run.at(SUMMARY, f"{place}/n")]
    title = "Do the maps lie on the finding? Most hits first; the verdict is that on faithfulness"
    judged = _judged(_boards(run)[0], rows) if rows and run.below(SUMMARY, "/boards") else {}
    return run.table("localization", title, SUMMARY, rows, columns, best="/pointing_game", verdicts=judged)


def _robustness(run: Source) -> list[Evidence]:
    tables = []
    for part, what in (("stability", "other wordings of a question"), ("conditions", "small changes of the picture")):
        for kind in ("answers", "maps"):
            entries = run.below(SUMMARY, f"/{part}/{kind}")
            first = entries[0][2] if entries else None
            numbers = first if isinstance(first, dict) else {}
            columns = [Column(key, f"/{escaped(key)}") for key, value in numbers.items() if not isinstance(value, str)]
            rows = [(_texts(value), place) for _, place, value in entries]
            tables += run.table("robustness", f"The {kind} under {what}", SUMMARY, rows, columns)
    return tables


def _texts(value: Json) -> str:
    """The texts of an entry, which say what it is about."""
    return " · ".join(str(one) for one in value.values() if isinstance(one, str)) if isinstance(value, dict) else ""


def _sanity(run: Source) -> list[Evidence]:
    columns = [Column("failed", "/failed"), Column("chance", "/chance")]
    columns += [Column("likeness, low", "/interval/0"), Column("likeness, high", "/interval/1")]
    rows = [(key, place) for key, place, _ in run.below(SANITY, "/methods")]
    rows.sort(key=lambda row: _FAILED.index(run.at(SANITY, f"{row[1]}/failed")))
    judged = {place: _PASSED[_FAILED.index(run.at(SANITY, f"{place}/failed"))] for _, place in rows}
    title = "Do the maps depend on the model? Maps of a random model against those of the trained one"
    return run.table("sanity", title, SANITY, rows, columns, verdicts=judged)


_FAILED: Sequence[Json] = (False, None, True)
_PASSED = ("passed", "not assessable", "failed")
"""Words for `_FAILED`, best first."""


def _doctor(run: Source) -> list[Evidence]:
    columns = [Column("result", "/status"), Column("figure", "/figure"), Column("what to do", "/advice")]
    rows = [
        (str(value.get("name", "")), place)
        for _, place, value in run.below(DOCTOR, "/checks")
        if isinstance(value, dict)
    ]
    results = ("fail", "warn", "pass")  # what is to be done goes first
    rows.sort(key=lambda row: results.index(status) if (status := run.at(DOCTOR, f"{row[1]}/status")) in results else 3)
    return run.table("doctor", "Are model, data and machine fit?", DOCTOR, rows, columns)


def _limits(run: Source) -> list[Evidence]:
    rows = [(f"warning {int(key) + 1}", place) for key, place, _ in run.below(SUMMARY, "/warnings")]
    return run.table("limits", "What takes the meaning from these numbers", SUMMARY, rows)


def compared(source: Source) -> list[Evidence]:
    """The tables of a comparison of runs."""
    columns = [Column("model", "/model", _name), Column("questions", "/n_samples")]
    columns += [Column("accuracy", "/accuracy", _share), Column("with an effect", "/has_effect", _share)]
    runs = [
        (str(value.get("name", "")), place)
        for _, place, value in source.below(COMPARED, "/runs")
        if isinstance(value, dict)
    ]
    pairs = [
        (f"{value['a']} − {value['b']}: {value['of']}", place)
        for _, place, value in source.below(COMPARED, "/differences")
        if isinstance(value, dict) and value.get("slice") == "all"
    ]
    of = [Column("questions", "/n"), Column("mean", "/mean", _signed), Column("low", "/t_low", _signed)]
    of += [Column("high", "/t_high", _signed), Column("p after Holm", "/p_holm")]
    title = "Paired differences between runs, all shared questions; intervals of 95 % over patients"
    clear = {place: _clear(source, place) for _, place in pairs}
    return [
        *source.table("compared", "Runs side by side on the questions that they share", COMPARED, runs, columns),
        *source.table("compared", title, COMPARED, pairs, of, best="/mean", verdicts=clear),
    ]


def _clear(source: Source, place: str) -> str:
    """Whether a paired difference is clear: its p after Holm's correction is under .05."""
    p, mean = (source.at(COMPARED, f"{place}/{name}") for name in ("p_holm", "mean"))
    if not isinstance(p, float) or not isinstance(mean, float):
        return "too few patients to say"
    return f"clearly {'higher' if mean > 0 else 'lower'}" if p < 1 - LEVEL else "not told apart"


def planned(source: Source, file: str) -> list[Evidence]:
    """The lines that `cxr-faith plan` printed into a file."""
    rows = [(key, place) for key, place, _ in source.below(file, "")]
    return source.table("plan", "What the run takes, and how many patients a difference needs", file, rows)


TOPICS: Mapping[str, Topic] = {
    "model": Topic("the model", _model, "the model's name, revision and hash"),
    "data": Topic("the data", _data, "the data's name, counts and hash"),
    "machine": Topic("software and machine", _machine, "versions and hardware"),
    "protocol": Topic("the protocol", _protocol, "the settings of the evaluation"),
    "answers": Topic("the answers", _answers, "accuracy of the answers"),
    "calibration": Topic("calibration", _calibration, "calibration, which needs yes/no questions with references"),
    "explanations": Topic("faithfulness", _explanations, "faithfulness of the maps"),
    "groups": Topic("groups", _groups, "results by finding, sex, age and view, which need such columns"),
    "localization": Topic("localization", _localization, "localization, which needs boxes or masks in the manifest"),
    "robustness": Topic("robustness", _robustness, "results under protocol.conditions or other wordings"),
    "sanity": Topic("the sanity check", _sanity, "the sanity check, which cxr-faith sanity runs"),
    "doctor": Topic("checks before the run", _doctor, "the checks of cxr-faith doctor"),
    "limits": Topic("limits", _limits, ""),
}
"""Key → the topic; one without `missing` may be empty."""
