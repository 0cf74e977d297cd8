"""The manifest: a Parquet table with one row per sample, written atomically and read memory-mapped.

Parquet cannot be memory-mapped, so the first reader converts it to an Arrow file in a cache folder beside the manifest.
The file is named after the hash of the manifest's content, so an edited manifest gets a new one. It ends in a checksum:
a damaged file, or one of another version, is made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import islice
from pathlib import Path
from typing import IO, Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets.table import MemoryMappedTable

from cxr_faith.data.manifest_columns import MARKED_SCHEMA, FaultyRowError, ManifestColumns, ManifestError
from cxr_faith.data.mapped import MappedArrow, is_sealed, seal
from cxr_faith.data.parquet_files import parquet_batches, parquet_head
from cxr_faith.data.sample import LATER_COLUMNS, MANIFEST_SCHEMA, Sample
from cxr_faith.data.tally import PrepareError
from cxr_faith.storage.atomic import replacing, write_atomic
from cxr_faith.storage.folders import moved_away
from cxr_faith.storage.locks import made_once

CACHE_FOLDER = ".manifest_cache"
MAX_BYTES = 8 * 2**30
"""Most bytes that the rows of a manifest may take."""
_PLACE = "row-"
_CHUNK_ROWS = 10_000
_CHUNK_BYTES = 2**26


class MappedManifest(datasets.Dataset):  # type: ignore[misc]  # the library has no types
    """A manifest's rows, memory-mapped, whose memory can be released.

    Args:
        arrow: Arrow file in stream format.
    """

    def __init__(self, arrow: str) -> None:
        mapped = MappedArrow(arrow)
        super().__init__(MemoryMappedTable(mapped.rows, arrow))
        self._mapped, self._arrow = mapped, arrow

    def __reduce__(self) -> tuple[type[MappedManifest], tuple[str]]:
        """Pickle the path only: the process that unpickles this maps the file itself."""
        return MappedManifest, (self._arrow,)

    def release(self) -> None:
        """Release the memory of the pages read so far; they are read again when needed."""
        self._mapped.release()


def bundled_manifest() -> Path:
    """Path of the manifest of the phantom data set that ships with the package."""
    return Path(__file__).parent / "bundled" / "phantom" / "manifest.parquet"


def write_manifest(rows: Iterable[Sample | Mapping[str, Any]], path: str | Path) -> None:
    """Stream rows into a manifest; the file appears only once it is complete.

    Args:
        rows: samples, or mappings from column name to value (columns left out are null).
        path: Parquet file; an existing one is replaced.

    Raises:
        ManifestError: a row has a column that is not in `MANIFEST_SCHEMA`.
    """
    path = Path(path)
    with replacing(path) as file, pq.ParquetWriter(file, MANIFEST_SCHEMA, compression="zstd") as writer:
        for chunk in _chunks(_plain(row, path) for row in rows):
            writer.write_table(pa.Table.from_pylist(chunk, schema=MANIFEST_SCHEMA))


def manifest_fingerprint(path: str | Path) -> str:
    """Hash of a manifest's content (128 bits in hex); the shards of a folder count in the order of their names.

    Raises:
        ManifestError: there is no such manifest.
    """
    digest = hashlib.blake2b(digest_size=16)
    for shard in _shards(Path(path)):
        with shard.open("rb") as file:
            digest.update(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
    return digest.hexdigest()


def open_manifest(path: str | Path, cache_dir: str | Path | None = None) -> MappedManifest:
    """Open a manifest memory-mapped: rows are loaded only when they are read.

    Any number of processes may open it at once: one converts it while the others wait.

    Args:
        path: Parquet file, or folder of Parquet shards (`*.parquet`, in the order of their names).
        cache_dir: folder for the Arrow file if the manifest's folder is not writable.

    Returns:
        the rows, with the columns and types of `MANIFEST_SCHEMA`.

    Raises:
        ManifestError: the file is missing, unreadable or empty; a column is missing or has the wrong type; a sample id
            is repeated; an image id names two pictures; or no folder for the cache is writable.
    """
    path = Path(path)
    fingerprint = manifest_fingerprint(path)
    folders = [path.absolute().parent / CACHE_FOLDER, *([Path(cache_dir)] if cache_dir is not None else [])]
    files = [folder / f"{path.name}-{fingerprint}.arrow" for folder in folders]
    identity = f"{fingerprint} {MANIFEST_SCHEMA}"
    for arrow in files:
        if is_sealed(arrow, identity):
            return MappedManifest(str(arrow))
    faults = []
    for arrow in files:
        try:
            _keep_out_of_version_control(arrow.parent)
            made_once(arrow, lambda: is_sealed(arrow, identity), lambda file: _convert(path, file, identity))  # noqa: B023
            return MappedManifest(str(arrow))
        except OSError as error:
            faults.append(f"{error.filename or arrow.parent}: {error.strerror}")
    raise ManifestError(
        f"{path}: cannot write its cache to {' or to '.join(faults)}; free space there, or copy the manifest to a "
        "folder that you can write into and set data.data_root"
    )


def _convert(path: Path, file: IO[bytes], identity: str) -> None:
    """Stream the Parquet rows into an Arrow file, and check them."""
    try:
        _write(path, file, MANIFEST_SCHEMA)
    except FaultyRowError:  # rows that cannot be read are marked in a column of their own, which few manifests need
        file.seek(0)
        file.truncate()
        _write(path, file, MARKED_SCHEMA, _ids_like_places(path))
    file.flush()
    _check_ids(Path(file.name), path)
    seal(file, identity)


def _write(path: Path, file: IO[bytes], schema: pa.Schema, taken: Set[str] = frozenset()) -> None:
    first = 0
    with pa.ipc.new_stream(file, schema) as writer:
        for shard in _shards(path):
            for batch in _joined(_read_batches(shard, schema)):
                writer.write_batch(_named(batch, first, taken))
                first += batch.num_rows
                if file.tell() > MAX_BYTES:
                    raise ManifestError(f"{path}: holds more than {MAX_BYTES:,} bytes of rows; split it")


def _ids_like_places(path: Path) -> set[str]:
    """The ids of a manifest that look like those of rows without an id."""
    ids: set[str] = set()
    for shard in _shards(path):
        for batch in _read_batches(shard, MARKED_SCHEMA):
            column = batch.column("sample_id")
            ids.update(column.filter(pc.starts_with(column, _PLACE)).drop_null().to_pylist())
    return ids


def _named(batch: pa.RecordBatch, first: int, taken: Set[str]) -> pa.RecordBatch:
    """The batch with an id for each row: without one it is called after its place in the manifest, `row-17`."""
    if not batch.column("sample_id").null_count:
        return batch
    names = batch.column("sample_id").to_pylist()
    for row in (row for row, name in enumerate(names) if name is None):
        names[row] = f"{_PLACE}{first + row}"
        while names[row] in taken:
            names[row] += "-x"
    return batch.set_column(batch.schema.get_field_index("sample_id"), "sample_id", pa.array(names, pa.string()))


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join small batches to large ones, which are quicker to look things up in."""
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        pending.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _CHUNK_ROWS or size >= _CHUNK_BYTES:
            yield pa.concat_batches(pending)
            pending, rows, size = [], 0, 0
    if pending:
        yield pa.concat_batches(pending)


def _read_batches(shard: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Read the rows of one Parquet file with the manifest's columns and types."""
    try:
        names, _ = parquet_head(shard)
        missing = [name for name in MANIFEST_SCHEMA.names if name not in (*names, *LATER_COLUMNS)]
        if missing:
            raise ManifestError(f"{shard}: manifest lacks the column {', '.join(missing)}")
        columns = ManifestColumns(shard)
        for batch in parquet_batches(shard, [name for name in MANIFEST_SCHEMA.names if name in names], _CHUNK_ROWS):
            yield columns.cast(batch, schema)
    except PrepareError as error:
        raise ManifestError(str(error)) from error
    except OSError as error:
        raise ManifestError(f"{shard}: not a readable Parquet file: {_one_line(error)}") from error


def _check_ids(arrow: Path, path: Path) -> None:
    """Check that sample ids are unique: results are stored by sample id and would be lost otherwise."""
    with pa.memory_map(str(arrow)) as source:
        rows = pa.ipc.open_stream(source).read_all()
        ids = rows.column("sample_id")
        if len(ids) == 0:
            raise ManifestError(f"{path}: manifest has no rows")
        if pc.count_distinct(ids).as_py() != len(ids):
            counts = pc.value_counts(ids)
            repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
            raise ManifestError(f"{path}: manifest column sample_id is not unique: {repeated[0].as_py()!r} is repeated")
        _check_images(rows, path)


def _check_images(rows: pa.Table, path: Path) -> None:
    """Check that an image id names one picture: its questions share that picture and its random streams."""
    # Samples whose image id is null or empty are dropped later, one by one.
    pairs = rows.select(["image_id", "image_path"]).filter(pc.field("image_id") != "")
    counts = pairs.group_by("image_id").aggregate([("image_path", "count_distinct")])
    several = counts.filter(pc.field("image_path_count_distinct") > 1).column("image_id")
    if not len(several):
        return
    image = several[0].as_py()
    own = rows.filter(pc.field("image_id") == image)
    paths = own.column("image_path")
    known = paths.drop_null()[0]
    first, other = (own.filter(same(paths, known)).column("sample_id")[0].as_py() for same in (pc.equal, pc.not_equal))
    raise ManifestError(
        f"{path}: manifest column image_id: {image!r} names the picture of sample {first!r} and another one of sample "
        f"{other!r}; give each picture its own image_id"
    )


def _shards(path: Path) -> list[Path]:
    shards = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not shards or not all(shard.is_file() for shard in shards):
        missing = "folder without *.parquet files" if path.is_dir() else f"manifest not found{moved_away(path)}"
        raise ManifestError(f"{path}: {missing}")
    return shards


def _keep_out_of_version_control(folder: Path) -> None:
    """Make the folder of the cache, with a .gitignore in it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".gitignore").exists():
        write_atomic(folder / ".gitignore", "*\n")


def _plain(row: Sample | Mapping[str, Any], path: Path) -> dict[str, Any]:
    plain = row.to_row() if isinstance(row, Sample) else dict(row)
    unknown = sorted(plain.keys() - set(MANIFEST_SCHEMA.names))
    if unknown:
        raise ManifestError(f"{path}: manifests have no column {', '.join(unknown)}")
    return plain


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        yield chunk


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
