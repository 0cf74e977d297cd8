"""Tables of a summary: rows best first, for the terminal (rich) and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from cxr_faith.metrics.functional import STATUSES
from cxr_faith.metrics.statistics import FEW_CLUSTERS, FEWEST_CLUSTERS
from cxr_faith.summary.significance import not_told_apart, upside_down

FEWEST_TO_TEST = 6
"""Patients: the signs of five can be flipped in 32 ways, and two of these are as extreme as any: p is 1/16 or more."""

SLICE_TITLES = {
    "all": "all samples",
    "present": "finding present (reference)",
    "absent": "finding absent (reference)",
    "answered_yes": "answered yes (prediction)",
    "answered_no": "answered no (prediction)",
    "correct": "answered correctly",
    "wrong": "answered wrongly",
    "with_oracle": "samples with a mask of the finding",
}


TextTable = tuple[list[str], list[list[str]]]
"""Header and rows."""


class Column(NamedTuple):
    """One number of a leaderboard row: its key, a header of one or two words, and which way is better."""

    key: str
    top: str
    bottom: str
    arrow: str


COLUMNS = (
    Column("deletion_auc", "del", "auc", "↓"),
    Column("insertion_auc", "ins", "auc", "↑"),
    Column("srg", "srg", "", "↑"),
    Column("drop_50", "drop", "@50", "↑"),
    Column("gap_deletion_random", "Δdel", "random", "↑"),
    Column("gap_insertion_random", "Δins", "random", "↑"),
    Column("gap_deletion_center", "Δdel", "center", "↑"),
    Column("gap_insertion_center", "Δins", "center", "↑"),
    Column("gap_srg_center", "Δsrg", "center", "↑"),
    Column("srg_logit", "srg", "logit", "↑"),
)

LEGEND = (
    "↓ lower is better, ↑ higher is better; Δ = gap to a baseline, positive = better than it.",
    "The gap in srg to random is srg itself: by construction random has an srg of 0.",
    "n = samples in the means, those ok for every method that has them; cov = share of a method's rows that are ok.",
)
SCORED = "Here n and srg logit count every sample that could be scored; the other columns need samples that are ok."
INTERVALS = (
    "[…] = 95 % interval: BCa bootstrap over patients, none under 10 of them; p = of the score that ranks the board "
    "being 0, by sign flips of whole patients, after Holm over the methods."
)
EFFECT_SIZE = "d = effect size of that score: mean of the patients' means over their standard deviation."
BY_FINDING = (
    "In brackets: samples, where a method has others than most. Intervals as above: none under 10 patients, somewhat "
    "too short under 30."
)
SANITY = "† failed the sanity check: its maps hardly change when the model is made random."
OWN_SUBSTRATE = "* the method perturbs with this substrate itself: compare it under another one."


def find_board(
    summary: Mapping[str, Any], slice: str = "all", substrate: str | None = None, **setting: str
) -> dict[str, Any]:
    """The first board of a slice, of a substrate (default: the first one) and of a `target` or `space`.

    Raises:
        KeyError: the summary has no such board.
    """
    wanted = {"slice": slice, **setting} | ({} if substrate is None else {"substrate": substrate})
    for board in summary["boards"]:
        if all(board[key] == value for key, value in wanted.items()):
            found: dict[str, Any] = board
            return found
    raise KeyError(f"the summary has no board with {wanted}")


def leaderboard(
    summary: Mapping[str, Any], slice: str = "all", substrate: str | None = None, **setting: str
) -> list[dict[str, Any]]:
    """The rows of one board, best first by its headline; methods without a value come last, in config order.

    Args:
        summary: as `summarize` gives it.
        slice: all, present, absent, answered_yes, answered_no, with_oracle or finding:NAME.
        substrate: canonical spelling, e.g. "blur:0.1"; default the first one.
        setting: `target` or `space`, where a run has several.

    Raises:
        KeyError: the summary has no such board.
    """
    return ranked(find_board(summary, slice, substrate, **setting))


def ranked(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a board, best first by its headline."""
    headline: str = board["headline"]
    return sorted(board["rows"], key=lambda row: (row[headline] is None, -(row[headline] or 0.0)))


def render_leaderboard(
    summary: Mapping[str, Any], slice: str = "all", substrate: str | None = None, **setting: str
) -> Table:
    """One board as a rich table of at most 110 columns, best first, with its legend as the caption.

    Raises:
        KeyError: the summary has no such board.
    """
    board = find_board(summary, slice, substrate, **setting)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False, caption_justify="left")
    table.title = Text(board_title(summary, board), style="bold")
    table.caption = Text("\n".join(legend(board)), style="dim")
    table.add_column("\nmethod", overflow="fold", max_width=28)
    table.add_column("\nn", justify="right")
    table.add_column("\ncov", justify="right")
    for column in COLUMNS:
        header = f"{column.top} {column.arrow}\n{column.bottom}" if column.bottom else f"\n{column.top} {column.arrow}"
        table.add_column(header, justify="right", no_wrap=True)
    for row in ranked(board):
        cells = [number(row[key], signed=key.startswith("gap")) for key in _keys(board)]
        table.add_row(Text(method_label(row)), _counted(board, row), f"{row['coverage']:.0%}", *cells)
    return table


def board_title(summary: Mapping[str, Any], board: Mapping[str, Any]) -> str:
    """What a board is about; target and space are named only where the run has several."""
    several = [key for key in ("target", "space") if len({other[key] for other in summary["boards"]}) > 1]
    what = ", ".join([board["substrate"], *(f"{key} {board[key]}" for key in several)])
    if _by_scored(board):
        counts = f"{board['n_samples']} samples, {board['n_common']} ok, {board['n_scored']} scored, by srg logit"
    else:
        counts = f"{board['n_common']} of {board['n_samples']} samples ok, by srg"
    return f"{slice_title(board['slice'])} · {what} · {counts}"


def slice_title(name: str) -> str:
    """A slice's name for people."""
    return SLICE_TITLES.get(name, name.replace(":", " ", 1))


def legend(board: Mapping[str, Any]) -> list[str]:
    """How to read a board, line by line."""
    own = any(row["own_substrate"] for row in board["rows"])
    failed = any(row.get("sanity_failed") for row in board["rows"])
    return [
        *LEGEND,
        *([SCORED] if _by_scored(board) else []),
        *([OWN_SUBSTRATE] if own else []),
        *([SANITY] if failed else []),
    ]


def method_label(row: Mapping[str, Any]) -> str:
    """A method's name, marked where it is scored under its own substrate (*) or failed the sanity check (†)."""
    return f"{row['method']}{'*' * row['own_substrate']}{'†' * row.get('sanity_failed', False)}"


def number(value: float | None, signed: bool = False) -> str:
    """Three decimals, fewer from 100 on; an en dash for a value that does not exist."""
    if value is None:
        return "–"
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("-0.000", "0.000").replace("+0.000", "0.000")


def p_value(value: float | None) -> str:
    """Three decimals, from below .001 on just that."""
    return "–" if value is None else "<.001" if value < 0.001 else number(value)


def percent(value: float | None) -> str:
    """A share in percent with one decimal; an en dash where there is none."""
    return "–" if value is None else f"{value:.1%}"


def with_interval(row: Mapping[str, Any], key: str, signed: bool = False) -> str:
    """A mean, with its BCa interval over patients where there is one, else the percentile interval."""
    found = row["intervals"].get(key)
    text = number(row[key], signed)
    if found is None or row[key] is None or found["low"] is None:
        return text
    kind = "bca_" if found["bca_low"] is not None else ""
    return f"{text} [{number(found[kind + 'low'], signed)}, {number(found[kind + 'high'], signed)}]"


def markdown(summary: Mapping[str, Any], more: Sequence[tuple[str, TextTable, str]] = ()) -> str:
    """The summary as Markdown whose tables are aligned, so that they read well in a terminal too.

    Args:
        summary: as `summarize` gives it.
        more: (title, (header, rows), note below) of further tables.
    """
    patients, samples = summary["n_patients"], summary["n_samples"]
    parts = [f"# Faithfulness summary\n\n{samples} samples of {patients} patients.\n"]
    if summary["warnings"]:
        parts.append("".join(f"- **Note:** {_escape(warning)}\n" for warning in summary["warnings"]))
    for board in summary["boards"]:
        if not board["slice"].startswith("finding:"):
            note = f"\n{SCORED}\n" if _by_scored(board) else ""
            parts.append(f"## {_escape(board_title(summary, board))}\n\n{_table(*board_table(board))}{note}")
            parts.append("".join(f"- {_escape(line)}\n" for line in [*few_patients(board), *comparisons(board)]))
    lines = dict.fromkeys(line for board in summary["boards"] for line in legend(board) if line != SCORED)
    parts.append("".join(f"{_escape(line)}  \n" for line in [*lines, INTERVALS, EFFECT_SIZE]))
    for title, table in finding_tables(summary):
        parts.append(f"## {_escape(title)}\n\n{_table(*table)}\n{_escape(BY_FINDING)}\n")
    parts.append(f"## Answers\n\n{_table(*answer_table(summary))}")
    for title, table, note in more:
        parts.append(f"## {_escape(title)}\n\n{_table(*table)}" + (f"\n{_escape(note)}\n" if note else ""))
    return "\n".join(parts)


def board_table(board: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of a board with intervals, best first."""
    titles = (" ".join(filter(None, (column.top, column.bottom, column.arrow))) for column in COLUMNS)
    header = ["method", "n", "patients", "coverage", *titles, "p", "d"]
    rows = [
        [
            method_label(row),
            _counted(board, row),
            str(row["n_clusters"]),
            f"{row['coverage']:.0%}",
            *(with_interval(row, key, signed=key.startswith("gap")) for key in _keys(board)),
            p_value(row["intervals"][board["headline"]]["p_holm"]),
            number(row["intervals"][board["headline"]]["d_z"], signed=True),
        ]
        for row in ranked(board)
    ]
    return header, rows


def few_patients(board: Mapping[str, Any]) -> list[str]:
    """A sentence where a board's samples come from too few patients for intervals, or for good ones; else nothing.

    A slice may have few of them in a run that has many.
    """
    patients = max((row["n_clusters"] for row in board["rows"]), default=0)
    if not 0 < patients < FEW_CLUSTERS:
        return []
    here = f"Only {patients} patient{'s' * (patients > 1)} here"
    if patients < FEWEST_CLUSTERS:
        return [f"{here}: no interval under {FEWEST_CLUSTERS}."]
    return [f"{here}: under {FEW_CLUSTERS}, intervals are somewhat too short."]


def comparisons(board: Mapping[str, Any]) -> list[str]:
    """Which methods a board cannot tell apart, one sentence for each method that has such below it."""
    if not board["differences"]:
        return []
    patients = max(pair["clusters"] for pair in board["differences"])
    if patients < FEWEST_TO_TEST:
        return [f"No difference between two methods can be significant with {patients} patient{'s' * (patients > 1)}."]
    ranking = [row["method"] for row in ranked(board)]
    tied, score = not_told_apart(board, ranking), "srg logit" if _by_scored(board) else "srg"
    found = [f"{name} is not significantly better in {score} than {', '.join(below)}." for name, below in tied.items()]
    if not tied:
        found = [f"All differences in {score} between two methods are significant (5 %, Holm over all pairs)."]
    for pair in upside_down(board, ranking):
        better, worse = (pair["a"], pair["b"]) if pair["mean"] > 0 else (pair["b"], pair["a"])
        found.append(f"On the {pair['n']} samples that both have, {better} is significantly better than {worse}.")
    return found


def finding_tables(summary: Mapping[str, Any]) -> list[tuple[str, tuple[list[str], list[list[str]]]]]:
    """Per substrate, target and space: (title, (header, rows)) of srg by method and finding, with intervals."""
    settings = list(dict.fromkeys((board["substrate"], board["target"], board["space"]) for board in summary["boards"]))
    tables = []
    for setting in settings:
        boards = [
            board
            for board in summary["boards"]
            if (board["substrate"], board["target"], board["space"]) == setting
            and board["slice"].startswith("finding:")
        ]
        if not boards:
            continue
        header = ["method", *map(_finding_title, boards)]
        values = [{row["method"]: _finding_cell(board, row) for row in board["rows"]} for board in boards]
        rows = [[method, *(column.get(method, "–") for column in values)] for method in summary["methods"]]
        several = len({other[1:] for other in settings}) > 1
        tables.append((f"srg by finding · {', '.join(setting if several else setting[:1])}", (header, rows)))
    return tables


def _finding_title(board: Mapping[str, Any]) -> str:
    """Name of the finding, its samples and patients, and how many of all its samples these are."""
    patients = max((row["n_clusters"] for row in board["rows"]), default=0)
    n, of = board["n_common"], board["n_samples"]
    return f"{board['slice'].removeprefix('finding:')} (n={n} of {of}, {patients} patient{'s' * (patients != 1)})"


def _finding_cell(board: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    other = f" ({row['n_common']})" if row["n_common"] != board["n_common"] else ""
    return with_interval(row, "srg") + other


def answer_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of how the model answered, per slice."""
    header = ["slice", "samples", "patients", "accuracy", "p(yes)+p(no)", "text differs from margin"]
    rows = [
        [
            slice_title(answers["slice"]),
            str(answers["n_samples"]),
            str(answers["n_patients"]),
            percent(answers["accuracy"]),
            number(answers["yes_no_mass"]),
            percent(answers["answer_mismatch"]),
        ]
        for answers in summary["answers"]
    ]
    return header, rows


def status_table(board: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of how many rows of each method have which status."""
    header = ["method", *STATUSES, "clipped points", "substrate flips"]
    rows = [
        [
            method_label(row),
            *(str(row["status"][name]) for name in STATUSES),
            percent(row["clipped_share"]),
            percent(row["substrate_flips"]),
        ]
        for row in board["rows"]
    ]
    return header, rows


def _by_scored(board: Mapping[str, Any]) -> bool:
    return bool(board["headline"] == "srg_logit_scored")


def _keys(board: Mapping[str, Any]) -> list[str]:
    """The keys of a board's columns: srg logit over the samples that rank its methods."""
    return [f"{c.key}_scored" if c.key == "srg_logit" and _by_scored(board) else c.key for c in COLUMNS]


def _counted(board: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    return str(row["n_scored" if _by_scored(board) else "n_common"])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first column left, the others right, padded."""
    lines = [[_escape(cell) for cell in line] for line in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        return f"| {' | '.join([first, *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])} |\n"

    rule = f"| {' | '.join(['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])])} |\n"
    return "".join([line(lines[0]), rule, *map(line, lines[1:])])


def _escape(text: str) -> str:
    """Names come from configs and manifests: no cell may end its table, carry HTML or start a list."""
    for char, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|")):
        text = text.replace(char, safe)
    text = " ".join(text.split())
    return f"\\{text}" if text.startswith("* ") else text
