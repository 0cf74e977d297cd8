"""Says in a sentence what a run's figures of one topic are; every number is a cell of a table of the dossier."""

from collections.abc import Callable, Mapping, Sequence

from cxr_faith.printable import printable
from cxr_faith.records.controls import is_control
from cxr_faith.report.columns import slice_title
from cxr_faith.report.dossier.evidence import Evidence, Figure, Row

Tables = Sequence[Evidence]


def sentence(topic: str, tables: Tables) -> str:
    """One or two sentences from the tables of one topic and one run; empty without a figure that says anything."""
    return printable(_SENTENCES[topic](tables)) if tables else ""


def _model(tables: Tables) -> str:
    known = _values(tables)
    details = [known.get("number format"), _named("revision", "revision", known)]
    details.append(_named("hash", "hash of weights and files", known))
    more = ", ".join(filter(None, details))
    return f"The model is {known.get('source', 'not named')}{f' ({more})' if more else ''}."


def _data(tables: Tables) -> str:
    known = _values(tables)
    about = f" about {known['patients']} patients" if "patients" in known else ""
    origin = f", from {known['manifest']}" if "manifest" in known else ""
    lacking = {"have no record": "questions without a record", "could not be scored": "questions that failed"}
    counts = [f"{known[row]} {text}" for text, row in lacking.items() if row in known]
    more = f" {' and '.join(counts)}." if counts else ""
    return f"{known.get('questions', 'Some')} questions{about} were evaluated{origin}.{more}"


def _machine(tables: Tables) -> str:
    known = _values(tables)
    versions = [f"{name} {known[name]}" for name in ("cxr-faith", "torch", "transformers", "python") if name in known]
    where = known.get("gpu") or known.get("machine")
    return f"The run used {_listed(versions) or 'software of unknown versions'}{f' on {where}' if where else ''}."


def _protocol(tables: Tables) -> str:
    known = _values(tables)
    text = "Cells of the picture are removed in the order of each map, and the answer's score is measured"
    text += f" at {known['steps']} steps" if "steps" in known else ""
    text += f"; removed cells become {known['substrate of the first board']}" if len(tables) > 1 else ""
    orders = known.get("random_orders", "")
    return f"{text}{f', and {orders} random orders are the baseline' if orders else ''}."


def _answers(tables: Tables) -> str:
    rows = [row for row in tables[0].rows if _cell(tables[0], row, "accuracy").value is not None]
    if not rows:
        return "No answer has a reference to be compared with."
    every = next((row for row in rows if row.name == slice_title("all")), rows[0])
    by_answer = [slice_title(name) for name in ("correct", "wrong")]  # their accuracy says nothing
    groups = [row for row in rows if row.name not in by_answer] or [every]
    worst = min(groups, key=lambda row: _number(_cell(tables[0], row, "accuracy")))
    asked, accuracy = _cell(tables[0], every, "questions"), _cell(tables[0], every, "accuracy")
    text = f"Of the answers to {asked.text} questions, {accuracy.text} agree with the reference where there is one."
    if worst is every:
        return text
    count, lowest = _cell(tables[0], worst, "questions"), _cell(tables[0], worst, "accuracy")
    return f"{text} Accuracy is lowest in the group {worst.name}: {lowest.text} of {count.text}."


def _calibration(tables: Tables) -> str:
    known = _values(tables)
    return (
        f"Over {known.get('questions with a probability', '–')} yes/no questions, p(yes) has an expected calibration "
        f"error of {known.get('expected calibration error', '–')} and an area under the ROC curve of "
        f"{known.get('area under the ROC curve', '–')}."
    )


def _explanations(tables: Tables) -> str:
    return tables[0].note


def _groups(tables: Tables) -> str:
    rows = [row for row in tables[0].rows if _cell(tables[0], row, "srg").value is not None]
    if not rows:
        return ""
    low, high = (pick(rows, key=lambda row: _number(_cell(tables[0], row, "srg"))) for pick in (min, max))
    least, most = (_cell(tables[0], row, "srg").text for row in (low, high))
    return f"By group of questions and method, srg goes from {least} ({low.name}) to {most} ({high.name})."


def _localization(tables: Tables) -> str:
    methods = [row for row in tables[0].rows if not is_control(row.name)]  # the oracle is the finding itself
    if not methods:
        return ""
    best = methods[0]
    hits, asked = (_cell(tables[0], best, name).text for name in ("pointing game", "questions"))
    return (
        f"The maps of {best.name} have their largest value on the finding most often: for {hits} of {asked} questions. "
        "A map that lies on the finding need not be faithful."
    )


def _robustness(tables: Tables) -> str:
    kinds = dict.fromkeys(row.name.split(" · ")[0] for table in tables for row in table.rows)
    return f"Answers and maps were compared under {len(kinds)} kinds of change: {_listed(list(kinds))}."


def _sanity(tables: Tables) -> str:
    failed = [row.name for row in tables[0].rows if row.figures[0].value is True]
    count = len(tables[0].rows)
    if failed:
        return f"{len(failed)} of {count} methods failed: {_listed(failed)}. Their maps hardly depend on the model."
    return f"None of {count} methods failed: no map stays the same when the model is made random."


def _doctor(tables: Tables) -> str:
    rows = tables[0].rows
    others = [f"{row.name} ({row.figures[0].text})" for row in rows if row.figures[0].value != "pass"]
    text = f"{len(rows) - len(others)} of {len(rows)} checks before the run passed"
    return f"{text}; not these: {_listed(others)}." if others else f"{text}."


def _limits(tables: Tables) -> str:
    rows = tables[0].rows
    more = f" {len(rows) - 1} more are in the table." if len(rows) > 1 else ""
    return f"{rows[0].figures[0].text}{more}"


def _compared(tables: Tables) -> str:
    names = _listed([row.name for row in tables[0].rows])
    pairs = [row for table in tables[1:] for row in table.rows]
    clear = [row.name for row in pairs if row.verdict.startswith("clearly")]
    text = f"{names} were compared on the questions that they share: {len(clear)} of {len(pairs)} differences are clear"
    return f"{text}, the largest in {clear[0]}." if clear else f"{text}."


def _plan(tables: Tables) -> str:
    return f"The plan says: {'; '.join(row.figures[0].text for row in tables[0].rows[:2])}."


_SENTENCES: Mapping[str, Callable[[Tables], str]] = {
    "model": _model,
    "data": _data,
    "machine": _machine,
    "protocol": _protocol,
    "answers": _answers,
    "calibration": _calibration,
    "explanations": _explanations,
    "groups": _groups,
    "localization": _localization,
    "robustness": _robustness,
    "sanity": _sanity,
    "doctor": _doctor,
    "limits": _limits,
    "compared": _compared,
    "plan": _plan,
}


def _values(tables: Tables) -> dict[str, str]:
    """Name of each row → its first figure as text, of tables with a column of values."""
    return {row.name: row.figures[0].text for table in tables for row in table.rows if row.figures[0].value is not None}


def _cell(table: Evidence, row: Row, title: str) -> Figure:
    """The figure of a row in the first column of a title."""
    return row.figures[[column.title for column in table.columns].index(title)]


def _number(figure: Figure) -> float:
    return float(figure.value) if isinstance(figure.value, int | float) else float("-inf")


def _named(name: str, row: str, known: Mapping[str, str]) -> str:
    return f"{name} {known[row]}" if known.get(row, "–") != "–" else ""


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
