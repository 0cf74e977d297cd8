"""Puts a dossier together: the figures of runs as numbered tables, then each item with its tables and its blanks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_faith.report.dossier.evidence import Evidence, Source
from cxr_faith.report.dossier.sentences import sentence
from cxr_faith.report.dossier.standards import STANDARDS, Standard
from cxr_faith.report.dossier.topics import COMPARED, SUMMARY, TOPICS, compared, planned

BLANK = "To be filled in: "
"""Begins what no run can know."""

_MORE = {
    "compared": "a comparison of runs, which cxr-faith compare writes and --compared names",
    "plan": "resources and patients needed, which cxr-faith plan prints and --plan names",
}
"""Topics of other sources than runs → what makes them."""


@dataclass(frozen=True)
class Statement:
    """What the figures of one run say to an item."""

    text: str
    """One or two sentences."""
    tables: tuple[int, ...]
    """Numbers of the tables that have its figures."""


@dataclass(frozen=True)
class Entry:
    """One item of a document, filled as far as runs go."""

    name: str
    """Of the item."""
    asks: str
    """What it asks for."""
    statements: tuple[Statement, ...]
    """What the runs say to it."""
    blanks: tuple[str, ...]
    """What is to be filled in by hand; each text begins with `BLANK`."""

    @property
    def tables(self) -> tuple[int, ...]:
        """Numbers of the tables that answer part of it."""
        return tuple(number for statement in self.statements for number in statement.tables)


@dataclass(frozen=True)
class Section:
    """One document."""

    title: str
    """Its name."""
    about: str
    """Which part of it is here."""
    entries: tuple[Entry, ...]
    """Its items."""


@dataclass(frozen=True)
class Dossier:
    """What runs say to the documents, and what is to be filled in."""

    runs: tuple[str, ...]
    """Names of the runs."""
    tables: tuple[Evidence, ...]
    """The figures; the first table is number 1."""
    sections: tuple[Section, ...]
    """The documents."""

    @property
    def blanks(self) -> list[tuple[str, str]]:
        """(document and item, what is to be filled in), in order."""
        return [
            (f"{section.title}, {entry.name}", blank.removeprefix(BLANK))
            for section in self.sections
            for entry in section.entries
            for blank in entry.blanks
        ]


def make_dossier(runs: Sequence[str | Path], compared_in: Path | None = None, plan: Path | None = None) -> Dossier:
    """Read runs, and a comparison and a plan of them, into a dossier.

    Args:
        runs: run directories with a `summary.json`.
        compared_in: folder of `cxr-faith compare`.
        plan: a file with what `cxr-faith plan` printed.

    Raises:
        FileNotFoundError: a run has no summary yet, or there is no such comparison or plan.
        ValueError: a file is not what its command writes.
    """
    sources = [Source(name, Path(run)) for name, run in zip(_names(runs), runs, strict=True)]
    for source in sources:
        if source.content(SUMMARY) is None:
            raise FileNotFoundError(f"{source.folder / SUMMARY}: missing; `cxr-faith report {source.folder}` writes it")
    tables = [table for topic in TOPICS.values() for source in sources for table in topic.collect(source)]
    if compared_in is not None:
        tables += _required(compared(Source(compared_in.name, compared_in)), compared_in / COMPARED, "compare")
    if plan is not None:
        tables += _required(planned(Source("plan", plan.parent), plan.name), plan, "plan")
    names = [source.name for source in sources]
    return Dossier(tuple(names), tuple(tables), tuple(_section(one, names, tables) for one in STANDARDS))


def _section(standard: Standard, runs: Sequence[str], tables: Sequence[Evidence]) -> Section:
    entries = []
    for item in standard.items:
        said = [one for topic in item.topics for one in _statements(topic, runs, tables)]
        lacking = [blank for topic in item.topics for blank in _lacking(topic, runs, tables)]
        blanks = tuple(f"{BLANK}{blank}" for blank in (*item.blanks, *lacking))
        entries.append(Entry(item.name, item.asks, tuple(said), blanks))
    return Section(standard.title, standard.about, tuple(entries))


def _statements(topic: str, runs: Sequence[str], tables: Sequence[Evidence]) -> list[Statement]:
    """What each source says of a topic; of several runs, each is named."""
    mine = {number: table for number, table in enumerate(tables, 1) if table.topic == topic}
    made = []
    for source in dict.fromkeys(table.source for table in mine.values()):
        numbers = tuple(number for number, table in mine.items() if table.source == source)
        text = sentence(topic, [mine[number] for number in numbers])
        made.append(Statement(f"{source}: {text}" if text and len(runs) > 1 and source in runs else text, numbers))
    return made


def _lacking(topic: str, runs: Sequence[str], tables: Sequence[Evidence]) -> list[str]:
    """What is to be filled in because a run, or every one, has no figures of a topic."""
    having = {table.source for table in tables if table.topic == topic}
    if topic in _MORE:
        return [] if having else [_MORE[topic]]
    missing = TOPICS[topic].missing
    return [f"{missing} (not in {run})" for run in runs if missing and run not in having]


def _required(tables: list[Evidence], file: Path, command: str) -> list[Evidence]:
    if not tables:
        raise FileNotFoundError(f"{file}: missing or empty; `cxr-faith {command}` makes it")
    return tables


def _names(runs: Sequence[str | Path]) -> list[str]:
    """The folders' names, with those above where two are the same."""
    names = [Path(run).resolve().name for run in runs]
    return [
        "/".join(Path(run).resolve().parts[-2:]) if names.count(name) > 1 else name
        for name, run in zip(names, runs, strict=True)
    ]
