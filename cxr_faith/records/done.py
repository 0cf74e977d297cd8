"""Which samples of a run are done: those that have every row which the config asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxr_faith.data.sample import YES_NO
from cxr_faith.perturb.condition import NONE
from cxr_faith.records.controls import CENTER
from cxr_faith.records.duplicates import Codes, Keys
from cxr_faith.records.reader import chosen_schema, sound_parts
from cxr_faith.records.schema import RECORD_SCHEMA
from cxr_faith.records.shown import Shown

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        done: ids of the samples that have all their rows.
        begun: ids of the other samples that have some rows, since the run has grown.
    """

    done: frozenset[str]
    begun: frozenset[str]


def read_progress(run_dir: str | Path, shown: Shown | None = None) -> Progress:
    """The samples whose records are on disk, in parts that can be read completely.

    Args:
        run_dir: the run directory.
        shown: the rows that a sample must have; None: any row.
    """
    keys, groups, masks = Keys(), list[Codes](), dict[str, set[str]]()

    def keep(group: pa.Table) -> Codes:
        if shown is not None and shown.masked:
            _add_masks(group, masks)
        return keys.codes(group)

    for _, codes in sound_parts(run_dir, RECORD_SCHEMA, keep):
        groups += codes
    samples = np.array(list(keys.samples), object)
    present = _present(keys, groups)
    done = present.any(1) if shown is None else present.any(1) & _complete(present, keys, shown, masks)
    return Progress(frozenset(samples[done]), frozenset(samples[present.any(1) & ~done]))


def rows_of(run_dir: str | Path) -> Shown:
    """The rows that are there, for a run directory whose provenance does not say; reads the keys alone."""
    keys, scored = Keys(), dict[str, list[str]]()
    for _, _ in sound_parts(run_dir, chosen_schema([]), keys.codes):
        pass
    for method, substrate, *_ in sorted(keys.others):
        scored.setdefault(substrate, []).append(method)
    return Shown(scored, {other[-1] for other in keys.others}, {})


def unfinished_samples(run_dir: str | Path, shown: Shown) -> int:
    """Number of samples that lack rows, since a run that grew has not reached them; reads the keys alone."""
    keys, groups = Keys(), list[Codes]()
    for _, codes in sound_parts(run_dir, chosen_schema([]), keys.codes):
        groups += codes
    return int((~_complete(_present(keys, groups), keys, shown.of_every_sample(), {})).sum())


def done_samples(run_dir: str | Path, shown: Shown | None = None) -> frozenset[str]:
    """`Progress.done` of a run."""
    return read_progress(run_dir, shown).done


def _present(keys: Keys, groups: Sequence[Codes]) -> Flags:
    """Which rows each sample has, bool [samples, other key columns]."""
    present = np.zeros((len(keys.samples), len(keys.others)), bool)
    for sample, other in groups:
        present[sample, other] = True
    return present


def _complete(present: Flags, keys: Keys, shown: Shown, masks: dict[str, set[str]]) -> Flags:
    """Which samples have every row that they must have, bool [samples]."""
    columns: dict[tuple[str, str, str], list[int]] = {}
    for (method, substrate, _, _, condition), code in keys.others.items():
        columns.setdefault((condition, substrate, method), []).append(code)
    own = [masks.get(one, ()) for one in keys.samples]
    needs = {label: np.array([label in labels for labels in own], bool) for label in shown.masked.values()}
    complete = np.ones(len(present), bool)
    for condition in shown.conditions:
        for substrate, names in shown.scored.items():
            for name in names:
                has = present[:, columns.get((condition, substrate, name), [])].any(1)
                label = shown.masked.get(name)
                complete &= has if label is None else has | ~needs[label]
    return complete


def _add_masks(group: pa.Table, masks: dict[str, set[str]]) -> None:
    """Sample → masks that its scored yes/no question has; "" is the finding's."""
    names = ("sample_id", "condition", "kind", "grids", "pointing_ceiling", "finding_mask_path", "anatomy_masks")
    for row in group.filter(pc.equal(group["method"], CENTER)).select(names).to_pylist():
        # Only a sample that could be scored has a map of the center.
        if row["condition"] == NONE and row["kind"] == YES_NO and row["grids"] is not None:
            labels = [one["label"] for one in row["anatomy_masks"] or ()]
            finding = [""] if row["pointing_ceiling"] is not None or row["finding_mask_path"] else []
            masks.setdefault(row["sample_id"], set()).update(finding, labels)
