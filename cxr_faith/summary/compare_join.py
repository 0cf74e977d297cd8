"""Which samples several runs share: the same id, the same question and the same picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_faith.perturb.condition import NONE
from cxr_faith.records import foreign_columns, read_records
from cxr_faith.summary.board import Setting
from cxr_faith.summary.load import load_run, while_it_runs
from cxr_faith.summary.summarize import COLUMNS as SUMMARIZED

COLUMNS = tuple(dict.fromkeys((*SUMMARIZED, "question", "picture_hash")))
"""The columns of the records that a comparison reads."""

_FREE = ("substrates", "conditions", "scored", "controls")
"""Parts of the protocol that may differ: they say what was computed, not how."""


@dataclass(frozen=True)
class RunRecords:
    """A run as a comparison needs it."""

    run_dir: Path
    """Its directory."""
    records: pd.DataFrame
    """Its rows under condition "none"."""
    methods: tuple[str, ...]
    """Names of its methods in the order of the config."""
    settings: tuple[Setting, ...]
    """Its settings, the one with most rows first; after `aligned` the one that is compared."""
    model: str
    """The model as the config names it; empty if unknown."""
    data: str
    """The manifest; empty if unknown."""
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
    if (run_dir / "summary.json").exists():
        _ = run.summary  # refuses a newer one; the numbers are computed anew
    records = while_it_runs(lambda: read_records(run_dir, COLUMNS))
    records = records[records["condition"].eq(NONE)].reset_index(drop=True)
    if records.empty:
        raise ValueError(f"{run_dir}: the run has no records yet")
    values, columns = run.provenance, list(Setting._fields)
    model, data = _object(values, "model"), _object(values, "data")
    unknown, _ = foreign_columns(run_dir)
    newer = [f"written by a newer version: columns {', '.join(unknown)} are not compared."] if unknown else []
    sizes = records[columns].value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable")
    protocol = _object(_object(values, "identity"), "perturbation")
    return RunRecords(
        run_dir=run_dir,
        records=records,
        methods=tuple(values.get("methods", ())),
        settings=tuple(Setting(*map(str, setting)) for setting in sizes.index),
        model=str(model.get("source", "")),
        data="/".join(Path(str(data.get("manifest", ""))).parts[-2:]),
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
