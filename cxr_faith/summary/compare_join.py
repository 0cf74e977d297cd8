"""Which samples several runs share: the same id, the same question and the same picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_faith.perturb.condition import NONE
from cxr_faith.records import Shown, foreign_columns, read_records, unfinished_samples
from cxr_faith.summary.board import Setting
from cxr_faith.summary.load import known_summary, load_run, while_it_runs
from cxr_faith.summary.summarize import COLUMNS as SUMMARIZED

COLUMNS = tuple(dict.fromkeys((*SUMMARIZED, "question", "picture_hash")))
"""The columns of the records that a comparison reads."""

_FREE = ("substrates", "conditions", "scored", "controls")
"""Parts of the protocol that may differ: they say what was computed, not how."""


_COMMIT = 12
"""Characters of a commit that name it."""


@dataclass(frozen=True)
class RunRecords:
    """A run as a comparison needs it."""

    run_dir: Path
    """Its directory."""
    records: pd.DataFrame
    """The rows of its config under condition "none"; without those of methods that were taken out."""
    unfinished: int
    """Samples that lack rows, since a run that grew has not reached them."""
    methods: tuple[str, ...]
    """Names of its methods in the order of the config."""
    settings: tuple[Setting, ...]
    """Its settings, the one with most rows first; after `aligned` the one that is compared."""
    model: str
    """The model as the config names it, with the commit of a hub id; empty if unknown."""
    data: str
    """The manifest; empty if unknown."""
    asked: Mapping[str, Any]
    """How the model was loaded and questions were put to it; empty if unknown."""
    options: Mapping[str, Any]
    """Name of a method → its class and options; empty if unknown."""
    samples_total: int | None
    """Samples that the whole run has; None if unknown."""
    cautions: tuple[str, ...]
    """What takes the meaning from its numbers, as known before the run; and that a newer version wrote it."""
    protocol: Mapping[str, Any]
    """How explanations were scored; empty if unknown."""

    @property
    def n_samples(self) -> int:
        """Samples with records."""
        return int(self.records["sample_id"].nunique())

    def within(self, setting: Setting) -> "RunRecords":
        """The same run in one of its settings."""
        inside = self.records[list(Setting._fields)].eq(list(setting)).all(axis=1)
        return replace(self, records=self.records[inside], settings=(setting,))


@dataclass(frozen=True)
class Lost:
    """Samples of one run that are not compared."""

    not_there: int
    """Another run does not have them."""
    other_question: int
    """Another run has another question under the id."""
    other_picture: int
    """Another run has another picture under the id."""


@dataclass(frozen=True)
class Joined:
    """What runs share."""

    shared: frozenset[str]
    """The `sample_id` of the shared samples."""
    lost: tuple[Lost, ...]
    """For each run, what is not shared."""
    n_unknown_picture: int
    """Shared samples without a hash of the picture in some run."""

    @property
    def reason(self) -> str:
        """Why samples are not shared, in words."""
        lost = self.lost[0]
        parts = {"are not in every run": lost.not_there, "ask another question": lost.other_question}
        parts["have another picture"] = lost.other_picture
        return ", ".join(f"{count} {text}" for text, count in parts.items() if count)


def open_run(run_dir: Path) -> RunRecords:
    """Read a run for a comparison.

    Raises:
        ValueError: no run, a run without records, or a summary that a newer version wrote.
    """
    run = load_run(run_dir)
    known_summary(run_dir)  # refuses a newer one; the numbers are computed anew
    values, columns = run.provenance, list(Setting._fields)
    shown = Shown.from_dict(values)
    records = while_it_runs(lambda: read_records(run_dir, COLUMNS, shown))
    records = records[records["condition"].eq(NONE)].reset_index(drop=True)
    if records.empty:
        raise ValueError(f"{run_dir}: the run has no records yet")
    model, data, identity = (_object(values, name) for name in ("model", "data", "identity"))
    unknown, _ = foreign_columns(run_dir)
    newer = [f"written by a newer version: columns {', '.join(unknown)} are not compared."] if unknown else []
    sizes = records[columns].value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable")
    protocol, asked, options = (_object(identity, name) for name in ("perturbation", "model", "methods"))
    names, commit = tuple(map(str, values.get("methods", ()))), str(model.get("revision", ""))[:_COMMIT]
    return RunRecords(
        run_dir=run_dir,
        records=records,
        unfinished=0 if shown is None else while_it_runs(lambda: unfinished_samples(run_dir, shown)),
        methods=names,
        settings=tuple(Setting(*map(str, setting)) for setting in sizes.index),
        model=" @ ".join(filter(None, (str(model.get("source", "")), commit))),
        data="/".join(Path(str(data.get("manifest", ""))).parts[-2:]),
        asked={key: value for key, value in asked.items() if key != "hash"},
        options={name: value for name, value in options.items() if name in names},
        samples_total=values.get("samples_total"),
        cautions=(*map(str, values.get("cautions", ())), *newer),
        protocol={key: value for key, value in protocol.items() if key not in _FREE},
    )


def aligned(runs: Sequence[RunRecords]) -> list[RunRecords]:
    """The runs in the first setting of the first run that all have; where there is none, each in its own first."""
    common = [setting for setting in runs[0].settings if all(setting in run.settings for run in runs)]
    return [run.within(common[0] if common else run.settings[0]) for run in runs]


def join(frames: Sequence[pd.DataFrame]) -> Joined:
    """Join runs by `sample_id`, question and the hash of the picture; a hash that is missing fits any.

    Args:
        frames: the records of each run.
    """
    samples = [frame.groupby("sample_id", sort=True)[["question", "picture_hash"]].first() for frame in frames]
    ids = samples[0].index
    for other in samples[1:]:
        ids = ids.intersection(other.index)
    questions = pd.concat([one.loc[ids, "question"] for one in samples], axis=1)
    pictures = pd.concat([one.loc[ids, "picture_hash"] for one in samples], axis=1)
    same_question = questions.nunique(axis=1, dropna=False).eq(1)
    same_picture = pictures.nunique(axis=1).le(1)
    shared = same_question & same_picture
    other_picture = int((same_question & ~same_picture).sum())
    return Joined(
        shared=frozenset(ids[shared]),
        lost=tuple(Lost(len(one) - len(ids), int((~same_question).sum()), other_picture) for one in samples),
        n_unknown_picture=int(pictures[shared].isna().any(axis=1).sum()),
    )


def _object(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    return value if isinstance(value, Mapping) else {}
