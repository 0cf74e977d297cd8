"""All records of a run as a view that DuckDB streams from the Parquet files: no query holds all columns of all rows."""

from collections.abc import Collection, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxr_faith.records.duplicates import Codes, Keys, first_of_each_key
from cxr_faith.records.reader import chosen_schema, sound_parts
from cxr_faith.records.schema import KEY
from cxr_faith.records.shown import Shown

MEMORY_LIMIT = "1GB"
"""What the engine may hold; it writes the rest of a sort to the folder of temporary files."""


class RecordView:
    """The records of all ranks and starts, one row per key, as a view that SQL can ask for.

    The parts are read once to check them: torn parts are left out with a warning, and of duplicate keys the row of the
    earliest start counts, as in `read_records`. Queries then read only the columns that they name.

    Args:
        run_dir: the run directory.
        columns: the columns that queries may name beside the key.
        shown: only these rows; None: all rows.
        unchecked: further columns that queries may name, which are read by these queries alone, such as maps.

    Raises:
        ValueError: records have no such column.
        FileNotFoundError: a running process merged a part meanwhile; open the view again (`load.while_it_runs`).
    """

    def __init__(
        self, run_dir: str | Path, columns: Sequence[str], shown: Shown | None = None, unchecked: Sequence[str] = ()
    ) -> None:
        self._schema = chosen_schema(list(dict.fromkeys((*columns, *unchecked))))
        keys, codes, self._paths, lengths = Keys(), list[Codes](), list[Path](), list[int]()
        for path, groups in sound_parts(run_dir, chosen_schema(columns), keys.codes):
            self._paths.append(path)
            lengths.append(sum(group.shape[1] for group in groups))
            codes += groups
        kept = np.zeros(sum(lengths), bool)
        kept[first_of_each_key(codes, keys)] = True
        if shown is not None and len(kept):
            kept &= np.concatenate([shown.mask(keys, group) for group in codes])
        self._n_rows = int(kept.sum())
        self._engine = duckdb.connect(config={"threads": 1, "memory_limit": MEMORY_LIMIT})
        self._engine.execute("SET preserve_insertion_order = false")
        if self._paths:
            self._create(lengths, kept)

    def __len__(self) -> int:
        """Number of rows, under all conditions."""
        return self._n_rows

    def _create(self, lengths: Sequence[int], kept: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> None:
        """Make the view `records` over the sound parts, without the rows that another start has too."""
        known = set[str]().union(*(pq.read_schema(path).names for path in self._paths))
        columns = ", ".join(
            _quoted(field.name) if field.name in known else f"NULL AS {_quoted(field.name)}" for field in self._schema
        )
        files = ", ".join("'" + str(path).replace("'", "''") + "'" for path in self._paths)
        source = f"read_parquet([{files}], union_by_name = true, filename = true, file_row_number = true)"
        if not kept.all():
            begins = np.cumsum([0, *lengths])
            rows = np.flatnonzero(~kept)
            part = np.searchsorted(begins, rows, side="right") - 1
            names = np.array([str(path) for path in self._paths], object)
            dropped = pa.table({"filename": pa.array(names[part], pa.string()), "file_row_number": rows - begins[part]})
            self._engine.register("dropped", dropped)
            source += " ANTI JOIN dropped USING (filename, file_row_number)"
        self._engine.execute(f"CREATE TEMP VIEW records AS SELECT {columns} FROM {source}")

    def frame(
        self, columns: Sequence[str], where: str = "true", samples: Collection[str] | None = None
    ) -> pd.DataFrame:
        """Some columns of some rows, sorted by key, with the types that `read_records` gives.

        Args:
            columns: names.
            where: a condition in SQL.
            samples: only the rows of these samples; None: all.
        """
        schema = pa.schema([self._schema.field(name) for name in columns])
        if not self._paths:
            empty: pd.DataFrame = schema.empty_table().to_pandas()
            return empty
        names = ", ".join(map(_quoted, columns))
        order = ", ".join(KEY)
        if samples is not None:
            self._engine.register("wanted", pa.table({"id": pa.array(sorted(samples), pa.string())}))
            where += " AND sample_id IN (SELECT id FROM wanted)"
        table = self._table(f"SELECT {names} FROM records WHERE {where} ORDER BY {order}")
        # The order of the keys may not be that of the columns, and a null column has a type of its own.
        fields = [pa.field(field.name, field.type) for field in schema]
        table = table.cast(pa.schema(fields))
        frame: pd.DataFrame = table.to_pandas(self_destruct=True)  # frees each column once it is converted
        return frame

    def query(self, sql: str) -> pd.DataFrame:
        """The answer to any question about the view `records`; there must be records."""
        frame: pd.DataFrame = self._table(sql).to_pandas()
        return frame

    def _table(self, sql: str) -> pa.Table:
        try:
            return self._engine.sql(sql).to_arrow_table()
        except duckdb.IOException as error:
            missing = [path for path in self._paths if not path.exists()]
            if missing:
                raise FileNotFoundError(f"{missing[0]}: merged into another part meanwhile") from error
            raise OSError(str(error)) from error


def text(value: str) -> str:
    """A value as a literal in SQL."""
    return "'" + value.replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return f'"{name}"'
