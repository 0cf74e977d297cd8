"""The report of a run as one self-contained page: no network, no script, pictures as data."""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cxr_faith.records import write_atomic
from cxr_faith.report import leaderboard
from cxr_faith.report.figures import mean_curves, svg
from cxr_faith.report.summary import read_provenance
from cxr_faith.report.trust import trust_tables

GLOSSARY = {
    "effect": "Score of the intact picture minus the score with the substrate everywhere: what there is to explain.",
    "substrate": "What stands where a cell was removed, e.g. blur:0.1 is a Gaussian blur of .1 of the image side.",
    "deletion AUC": "Area under the curve of the score while the most salient cells are removed first, in units of the "
    "effect. Lower is better.",
    "insertion AUC": "The same while the most salient cells are shown first. Higher is better.",
    "srg": "Symmetric relevance gain: insertion AUC minus deletion AUC. Random orders have 0 by construction.",
    "srg logit": "srg in logits (yes/no) or nats, not divided by the effect; the headline where the effect is small or "
    "negative, as for most answers of no.",
    "drop@50": "Share of the effect that is lost once half of the cells are removed, most salient first.",
    "Δ random, Δ center": "Gap to random orders and to cells sorted by their distance to the center of the picture; "
    "positive is better than the baseline.",
    "coverage": "Share of a method's rows that are ok.",
    "n": "Samples in the means: those that are ok for every method that has a row for them.",
    "degenerate": "The effect is too small to divide by: under .5 and under 5 % of the score.",
    "inverted": "Removing the picture makes the model surer of its answer.",
    "off_format": "A yes/no question whose first token is neither with at least half of the probability.",
    "invalid": "The picture failed to load, or a score or a map was not finite.",
    "clipped points": "Share of curve points outside 0 to 1, which raw scores keep.",
    "substrate flips": "Share of compared samples whose answer flips when the whole picture is substrate.",
    "own substrate (*)": "The method perturbs with the very substrate that it is scored under.",
}

_FAILURE = ("sample_id", "methods", "status", "reason")


def write_report(run_dir: str | Path) -> Path:
    """Write `report/index.html` of a run directory from its summary, its provenance and its overlays.

    Overlays are the PNG files in `report/pictures/`, if there are any; `pictures.json` beside them maps a file's name
    to its caption, the name itself is the caption otherwise.

    Returns:
        The page's path.

    Raises:
        FileNotFoundError: there is no `summary.json`; `write_summary` makes it.
        ValueError: `provenance.json` or `pictures.json` is not a JSON object.
    """
    run_dir = Path(run_dir)
    path = run_dir / "summary.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing; summarize the run first")
    summary = json.loads(path.read_text(encoding="utf-8"))
    page = run_dir / "report" / "index.html"
    write_atomic(page, render(summary, read_provenance(run_dir), list(_pictures(page.parent / "pictures"))))
    return page


def render(summary: Mapping[str, Any], provenance: Mapping[str, Any], pictures: list[tuple[str, str]]) -> str:
    """The page's HTML.

    Args:
        summary: as `summarize` gives it.
        provenance: anything JSON-able; shown key by key.
        pictures: (data URI, caption) of every overlay.
    """
    environment = Environment(
        loader=PackageLoader("cxr_faith.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    boards = [board for board in summary["boards"] if not board["slice"].startswith("finding:")]
    template = environment.get_template("page.html.j2")
    return template.render(
        summary=summary,
        provenance=list(_flat(provenance)),
        pictures=pictures,
        boards=[_board(summary, board) for board in boards],
        findings=leaderboard.finding_tables(summary),
        answers=leaderboard.answer_table(summary),
        trust=trust_tables(summary),
        failures=[[row[key] or "–" for key in _FAILURE] for row in summary["failures"]["first"]],
        legend=[*leaderboard.LEGEND, leaderboard.INTERVALS],
        own_substrate=leaderboard.OWN_SUBSTRATE,
        glossary=GLOSSARY,
    )


def _board(summary: Mapping[str, Any], board: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of one slice under one substrate."""
    curves = {row["method"]: row["curves"] for row in board["rows"] if "curves" in row}
    return {
        "title": leaderboard.board_title(summary, board),
        "table": leaderboard.board_table(board),
        "comparisons": leaderboard.comparisons(board),
        "note": leaderboard.SCORED if board["headline"] == "srg_logit_scored" else "",
        "open": board["slice"] == "all",
        # The markup is ours and matplotlib escapes the names in it.
        "figure": Markup(svg(mean_curves(curves))) if curves else None,
        "statuses": leaderboard.status_table(board),
    }


def _pictures(folder: Path) -> Iterator[tuple[str, str]]:
    """(data URI, caption) of the overlays, in the order of their names."""
    listing = folder / "pictures.json"
    captions: dict[str, str] = json.loads(listing.read_text(encoding="utf-8")) if listing.exists() else {}
    if not isinstance(captions, dict):
        raise ValueError(f"{listing}: expected a JSON object, file name → caption")
    for path in sorted(folder.glob("*.png")):
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        yield f"data:image/png;base64,{data}", str(captions.get(path.name, path.stem))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted name and text of every leaf."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
