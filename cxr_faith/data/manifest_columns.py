"""Brings the columns of a manifest to their types; a value that has none costs its row and not the manifest."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from cxr_faith.data.sample import FAULT, MANIFEST_SCHEMA
from cxr_faith.data.text_files import one_line

MARKED_SCHEMA = MANIFEST_SCHEMA.append(pa.field(FAULT, pa.string()))
"""The manifest's columns, and what is wrong with a row."""


class ManifestError(ValueError):
    """A manifest that cannot be used at all; the message is one line and names the file and the column."""


NO_ID = "sample_id is missing"
"""Fault of a row without an id."""


class FaultyRowError(ValueError):
    """A row that cannot be read, where there is no column to mark it in."""


class ManifestColumns:
    """Casts the columns of one Parquet file to the manifest's types.

    Tables that were made with pandas often have an equivalent type. A value that cannot be cast, such as a text among
    heights or a text that is not UTF-8, costs its row, unless no value of the column can be cast: then the column has
    the wrong type, and that is an error.

    Args:
        shard: the file, for messages.
    """

    def __init__(self, shard: Path) -> None:
        self._shard = shard
        self._readable: set[str] = set()

    def cast(self, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
        """A batch with the columns and types of `schema`; without an id a row is faulty.

        Raises:
            FaultyRowError: a row cannot be read, and `schema` has no column for its fault.
            ManifestError: a column has the wrong type.
        """
        columns: list[pa.Array] = []
        faults: list[str | None] = [None] * batch.num_rows
        for field in MANIFEST_SCHEMA:
            there = field.name in batch.schema.names
            column = batch.column(field.name) if there else pa.nulls(batch.num_rows, field.type)
            columns.append(self._column(column, field, faults))
        for row in pc.indices_nonzero(columns[0].is_null()).to_pylist():
            faults[row] = faults[row] or NO_ID
        if FAULT in schema.names:
            columns.append(pa.array(faults, pa.string()))
        elif any(faults):
            raise FaultyRowError
        return pa.record_batch(columns, schema=schema)

    def _column(self, column: pa.Array, field: pa.Field, faults: list[str | None]) -> pa.Array:
        try:
            cast = _cast(column, field)
            if cast.null_count < len(cast):
                self._readable.add(field.name)
            return cast
        except pa.ArrowException as error:
            first = error
        cells = []
        for row in range(len(column)):
            try:
                cells.append(_cell(column.slice(row, 1), field))
                if cells[-1].null_count == 0:
                    self._readable.add(field.name)
            except pa.ArrowException:
                cells.append(_kept(column[row], field))
                faults[row] = f"manifest column {field.name} holds a value that is no {_plain_name(field.type)}"
        if field.name not in self._readable:
            raise ManifestError(
                f"{self._shard}: manifest column {field.name} is {_plain_type(column.type)}, expected {field.type}: "
                f"{one_line(first)}"
            )
        return pa.concat_arrays(cells)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    if pa.types.is_floating(column.type) and pa.types.is_string(field.type):
        raise pa.ArrowInvalid("floating-point numbers cannot be names")
    cast = column.cast(field.type)
    cast.validate(full=True)  # also that texts are UTF-8
    return cast


def _cell(cell: pa.Array, field: pa.Field) -> pa.Array:
    """One value in its type; a number that is none is missing."""
    if pa.types.is_floating(cell.type) and cell[0].is_valid and math.isnan(cell[0].as_py()):
        return pa.nulls(1, field.type)
    return _cast(cell, field)


def _kept(value: pa.Scalar, field: pa.Field) -> pa.Array:
    """What is kept of a faulty value: its readable characters, so that an id still names its sample; else nothing."""
    if not pa.types.is_string(field.type):
        return pa.nulls(1, field.type)
    plain = value.value if isinstance(value, pa.DictionaryScalar) else value
    try:
        return pa.array([plain.cast(pa.binary()).as_py().decode("utf-8", "replace")], pa.string())
    except (pa.ArrowException, AttributeError):
        return pa.nulls(1, field.type)


def _plain_name(kind: pa.DataType) -> str:
    if pa.types.is_string(kind):
        return "text in UTF-8"
    if pa.types.is_boolean(kind):
        return "true or false"
    if pa.types.is_floating(kind):
        return "number"
    return "whole number of 32 bits" if pa.types.is_integer(kind) else "list of the right form"


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type as the file has it: texts are read into dictionaries."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind
