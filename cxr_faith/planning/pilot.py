"""What a pilot run measured: its pace, its maps, the bytes of its records."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from cxr_faith.perturb.condition import NONE
from cxr_faith.planning.passes import Known, Use
from cxr_faith.planning.power import COLUMNS
from cxr_faith.records import read_records
from cxr_faith.records.controls import RANDOM
from cxr_faith.records.files import parts_of
from cxr_faith.records.schema import GROUNDING
from cxr_faith.report.history import read_entries
from cxr_faith.run.method_set import MethodSet
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.run.pace import Pace
from cxr_faith.summary.load import read_provenance
from cxr_faith.vlm.identity import model_identity

_PICTURES = ("margin", "margin_blank", "margin_swapped", "margin_no_picture")
_READ = (*COLUMNS, *_PICTURES, *GROUNDING, "map", "grid_h", "grid_w", "forwards", "backwards", "seconds")


@dataclass(frozen=True)
class Pilot:
    """A run of the same model on some samples.

    Attributes:
        run_dir: its directory.
        pace: of all its starts that came to an end.
        overhead: mean seconds of a start before its first batch and after its last one.
        row_bytes: bytes of a record.
        records: what `needs` takes.
        known: the maps of its samples.
        use: passes for image use of its samples, where it was measured.
        names: of the maps that it has.
        costs: method → mean (forwards, backwards) of a map.
        gpu: name of the GPU; None: it ran on a CPU.
    """

    run_dir: Path
    pace: Pace
    overhead: float
    row_bytes: float
    records: pd.DataFrame
    known: Known
    use: Use
    names: frozenset[str]
    costs: dict[str, tuple[float, float]]
    gpu: str | None

    def lacks(self, method_set: MethodSet, conditions: Sequence[str]) -> list[str]:
        """Maps, substrates and conditions of a config that the pilot does not have."""
        wanted = {"substrate": list(method_set.scored), "condition": list(conditions)}
        missing = [name for column, names in wanted.items() for name in names if name not in set(self.records[column])]
        return [*(name for name in method_set.names if name not in self.names), *missing]


def read_pilot(run_dir: Path, module: FaithfulnessModule) -> Pilot:
    """Read a pilot.

    Raises:
        ValueError: it is no run, was made with another model, has no records, or its pace is not known; one line.
    """
    provenance = read_provenance(run_dir)
    if not provenance:
        raise ValueError(f"--pilot {run_dir}: has no provenance.json: give a directory of `cxr-faith evaluate --limit`")
    own = model_identity(module.model_config)["hash"]
    recorded = (provenance.get("model") or {}).get("hash")
    if recorded != own:
        source = (provenance.get("model") or {}).get("source")
        raise ValueError(f"--pilot {run_dir}: was run with another model ({source}): its pace says nothing about this")
    starts = [(entry["seconds"], entry["pace"]) for entry in read_entries(run_dir) if "pace" in entry]
    pace = sum((Pace.from_dict(one) for _, one in starts), Pace())
    if not pace.forwards:
        raise ValueError(f"--pilot {run_dir}: no start came to an end, or an older version ran it: run the pilot again")
    records = read_records(run_dir, _READ)
    if records.empty:
        raise ValueError(f"--pilot {run_dir}: has no records")
    files = parts_of(run_dir / "records")
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    size = sum(file.stat().st_size for file in files)
    seconds = sum(float(whole) for whole, _ in starts) - pace.seconds
    gpu = (provenance.get("hardware") or {}).get("gpu")
    return Pilot(
        run_dir,
        pace,
        max(seconds, 0.0) / len(starts),
        size / rows,
        records,
        _maps(records),
        _use(records),
        frozenset({*map(str, provenance.get("methods", ())), *records["method"]}),
        _costs(records),
        gpu,
    )


def _maps(records: pd.DataFrame) -> Known:
    """Maps by sample and condition; a map is the same under each substrate."""
    known: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    names: Sequence[str] = ("sample_id", "condition", "method", "map", "grid_h", "grid_w")
    for sample, condition, method, values, height, width in records[list(names)].itertuples(index=False):
        own = known.setdefault((sample, condition), {})
        if values is not None and method not in own:
            own[method] = np.asarray(values, np.float32).reshape(int(height), int(width))
    return known


def _use(records: pd.DataFrame) -> Use:
    """Passes for image use by sample: one for each number, and one for the intact picture without a known margin."""
    plain = records[records["condition"].eq(NONE)]
    samples = plain[plain["margin_blank"].notna()].groupby("sample_id")[list(_PICTURES)].first()
    of_pictures = samples[["margin_blank", "margin_swapped", "margin_no_picture"]].notna().sum(axis=1)
    rows = plain[plain["method"].eq(RANDOM)].groupby("sample_id")[list(GROUNDING)].count().sum(axis=1)
    total = of_pictures + samples["margin"].isna() + rows.reindex(samples.index, fill_value=0)
    return {str(name): int(count) for name, count in total.items()}


def _costs(records: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Mean passes of each method's maps on the pictures as they are."""
    rows = records[records["condition"].eq(NONE) & records["seconds"].notna()]
    means = rows.drop_duplicates(["sample_id", "method"]).groupby("method")[["forwards", "backwards"]].mean()
    return {str(name): (float(f), float(b)) for name, f, b in means.itertuples()}
