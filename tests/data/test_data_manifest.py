"""Writing, opening, caching and checking manifests; samples to rows and back."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxr_faith.data import manifest as manifest_module
from cxr_faith.data.folder import new_folder
from cxr_faith.data.manifest import CACHE_FOLDER, ManifestError, manifest_fingerprint, open_manifest, write_manifest
from cxr_faith.data.sample import LATER_COLUMNS, MANIFEST_SCHEMA, Box, Sample, SampleError, ShownImage

FULL = Sample(
    sample_id="s1",
    patient_id="p1",
    study_id="t1",
    image_id="i1",
    image_path="files/i1.png",
    question="Is there a nodule?",
    question_group="g1",
    variant="2",
    strategy="rephrase",
    kind="yes_no",
    answer=("yes",),
    finding="nodule",
    side="left",
    split="test",
    boxes=(Box("nodule", 1.5, 2.0, 10.25, 20.0), Box("heart", 0.0, 0.0, 5.0, 5.0)),
    finding_mask_path="masks/i1.png",
    anatomy_masks=(("heart", "masks/heart.png"), ("lungs", "masks/lungs.png")),
    height=100,
    width=120,
    source="phantom",
    sex="F",
    age=61,
    view="PA",
    readers=(("R1", (Box("nodule", 1.0, 2.0, 10.0, 20.0),)), ("R2", ())),
    options=("left", "right"),
    orientation="mirrored",
    images=(ShownImage("i0", "files/i0.png", "prior"), ShownImage("i1", "files/i1.png", "current")),
)
BARE = Sample(sample_id="s2", image_id="i2", image_path="i2.png", question="Describe.")


def test_schema_and_sample_have_the_same_columns_in_the_same_order() -> None:
    assert list(FULL.to_row()) == MANIFEST_SCHEMA.names


@pytest.mark.parametrize("sample", [FULL, BARE, Sample("s3", answer=())])
def test_sample_survives_the_file(tmp_path: Path, sample: Sample) -> None:
    """An empty reference ("none") and an unknown one (null) stay apart."""
    write_manifest([sample], tmp_path / "m.parquet")
    assert Sample.from_row(open_manifest(tmp_path / "m.parquet")[0]) == sample


def test_a_manifest_of_an_earlier_version_lacks_the_later_columns(tmp_path: Path) -> None:
    write_manifest([FULL, BARE], tmp_path / "m.parquet")
    table = pq.read_table(tmp_path / "m.parquet").drop_columns(list(LATER_COLUMNS))
    pq.write_table(table, tmp_path / "old.parquet")
    opened = open_manifest(tmp_path / "old.parquet")
    assert opened.column_names == MANIFEST_SCHEMA.names
    assert Sample.from_row(opened[0]) == replace(
        FULL, sex=None, age=None, view=None, readers=(), options=(), images=(), orientation=None
    )


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"kind": "maybe"}, "unknown kind 'maybe'"),
        ({"kind": "report text"}, "unknown kind: expected yes_no, choice, open, option or null"),
        ({"kind": "option", "options": ["left"]}, "an option question needs 2 to 26 options"),
        ({"kind": "option", "options": ["left", None], "answer": ["A"]}, "needs 2 to 26 options, each with a text"),
        ({"kind": "option", "options": ["left", "right"], "answer": ["C"]}, "must be the letter of one of its options"),
        ({"images": [{"image_id": "i1", "path": None, "role": None}]}, "images has an entry without image_id or path"),
        ({"images": [{"image_id": "i0", "path": "files/i0.png"}]}, "images must name the picture of image_id"),
        ({"images": [{"image_id": "i1", "path": "other.png"}]}, "images must name the picture of image_id"),
        ({"images": [None]}, "images has an entry without"),
        ({"question": ""}, "question is missing"),
        ({"image_id": None}, "image_id is missing"),
        ({"boxes": [{"label": "n", "x1": 5.0, "y1": 1.0, "x2": 5.0, "y2": 2.0}]}, "box 'n' is empty"),
        ({"boxes": [{"label": "n", "x1": None, "y1": 1.0, "x2": 5.0, "y2": 2.0}]}, "not finite"),
        ({"boxes": [None]}, "not finite"),
        ({"boxes": [{"label": None, "x1": 0.0, "y1": 1.0, "x2": float("inf"), "y2": 2.0}]}, "not finite"),
    ],
)
def test_validate_names_the_value(change: dict[str, object], fault: str) -> None:
    FULL.validate()
    BARE.validate()
    with pytest.raises(SampleError, match=fault):
        Sample.from_row({**FULL.to_row(), **change}).validate()


def test_mappings_may_leave_columns_out_but_not_invent_them(tmp_path: Path) -> None:
    write_manifest([{"sample_id": "a", "question": "q"}], tmp_path / "m.parquet")
    assert Sample.from_row(open_manifest(tmp_path / "m.parquet")[0]) == Sample("a", question="q")
    with pytest.raises(ManifestError, match="no column knid"):
        write_manifest([{"sample_id": "a", "knid": "open"}], tmp_path / "m.parquet")


def test_a_failed_write_leaves_the_old_manifest(tmp_path: Path) -> None:
    def rows() -> object:
        yield BARE
        raise RuntimeError("source broke")

    path = tmp_path / "m.parquet"
    write_manifest([FULL], path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="source broke"):
        write_manifest(rows(), path)  # type: ignore[arg-type]
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.parquet"]


@pytest.mark.parametrize("umask", [0o077, 0o002])
def test_files_have_the_mode_that_the_process_asks_for(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_manifest([FULL], tmp_path / "m.parquet")
        with new_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "m.parquet").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~umask


def test_writing_is_reproducible(tmp_path: Path) -> None:
    write_manifest([FULL, BARE], tmp_path / "a.parquet")
    write_manifest([FULL, BARE], tmp_path / "b.parquet")
    assert manifest_fingerprint(tmp_path / "a.parquet") == manifest_fingerprint(tmp_path / "b.parquet")


def test_an_edited_manifest_is_noticed_even_with_the_old_time(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_manifest([FULL, BARE], path)
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    before = manifest_fingerprint(path)
    assert open_manifest(path)[1]["question"] == "Describe."
    write_manifest([FULL, Sample("s2", question="Explain.!")], path)
    os.utime(path, ns=times)
    assert manifest_fingerprint(path) != before
    assert open_manifest(path)[1]["question"] == "Explain.!"


def test_the_second_opening_does_not_convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest([FULL], tmp_path / "m.parquet")
    open_manifest(tmp_path / "m.parquet")
    monkeypatch.setattr(manifest_module, "_convert", lambda *_: pytest.fail("converted again"))
    assert len(open_manifest(tmp_path / "m.parquet")) == 1


def test_rows_are_memory_mapped_from_beside_the_manifest(tmp_path: Path) -> None:
    write_manifest([FULL], tmp_path / "m.parquet")
    table = open_manifest(tmp_path / "m.parquet")
    (arrow,) = (tmp_path / CACHE_FOLDER).glob("*.arrow")
    assert [entry["filename"] for entry in table.cache_files] == [str(arrow)]
    assert (tmp_path / CACHE_FOLDER / ".gitignore").read_text() == "*\n"


def test_read_only_folder_falls_back_to_the_given_one(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "m.parquet"
    write_manifest([FULL], path)
    (tmp_path / "data" / CACHE_FOLDER).write_text("in the way")  # no folder can be made here, root or not
    table = open_manifest(path, tmp_path / "run" / "cache")
    assert table.cache_files[0]["filename"].startswith(str(tmp_path / "run" / "cache"))
    with pytest.raises(ManifestError, match="cannot write its cache"):
        open_manifest(path)


def test_concurrent_openings_convert_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest([Sample(f"s{i}") for i in range(5000)], tmp_path / "m.parquet")
    real, conversions, lengths = manifest_module._convert, [], []
    monkeypatch.setattr(manifest_module, "_convert", lambda *args: (conversions.append(args), real(*args)))
    barrier = threading.Barrier(6)

    def work() -> None:
        barrier.wait()
        lengths.append(len(open_manifest(tmp_path / "m.parquet")))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == [5000] * 6
    assert len(conversions) == 1


def test_a_conversion_that_was_killed_is_redone(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_manifest([FULL, BARE], path)
    (tmp_path / CACHE_FOLDER).mkdir()
    name = f"m.parquet-{manifest_fingerprint(path)}.partial"
    (tmp_path / CACHE_FOLDER / name).write_bytes(b"half a file")
    assert len(open_manifest(path)) == 2


def test_nothing_is_written_to_the_home_directory(tmp_path: Path) -> None:
    write_manifest([FULL], tmp_path / "m.parquet")
    home = tmp_path / "home"
    home.mkdir()
    code = (
        f"from cxr_faith.data.manifest import open_manifest; print(open_manifest({str(tmp_path / 'm.parquet')!r})[0])"
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    env = {**kept, "HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "Is there a nodule?" in result.stdout
    assert list(home.rglob("*")) == []


def test_folder_of_shards(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    for name, ids in (("b", ["3"]), ("a", ["1", "2"])):
        write_manifest([Sample(i) for i in ids], shards / f"{name}.parquet")
    table = open_manifest(shards)
    assert table["sample_id"][:] == ["1", "2", "3"]
    before = manifest_fingerprint(shards)
    write_manifest([Sample("4")], shards / "c.parquet")
    assert manifest_fingerprint(shards) != before
    assert len(open_manifest(shards)) == 4


def test_a_table_made_with_pandas_is_taken(tmp_path: Path) -> None:
    """Whole-number ids, columns of nothing but None, other column order, extra columns, sizes as floats."""
    frame = pd.DataFrame([{**BARE.to_row(), "patient_id": 10000032, "height": 5.0, "extra": 1} for _ in range(2)])
    frame["sample_id"] = ["a", "b"]
    frame["boxes"] = [[{"y2": 4, "x2": 3, "y1": 2, "x1": 1, "label": "n"}], []]
    frame[frame.columns[::-1]].to_parquet(tmp_path / "m.parquet")
    sample = Sample.from_row(open_manifest(tmp_path / "m.parquet")[0])
    assert (sample.patient_id, sample.height, sample.boxes) == ("10000032", 5, (Box("n", 1, 2, 3, 4),))
    assert sample.finding is None and sample.answer is None


def table(**columns: object) -> pa.Table:
    """A one-row manifest with some columns replaced (None: left out)."""
    whole = pa.Table.from_pylist([FULL.to_row()], schema=MANIFEST_SCHEMA)
    for name, values in columns.items():
        whole = whole.drop_columns([name])
        if values is not None:
            whole = whole.append_column(name, values if isinstance(values, pa.Array) else pa.array(values))
    return whole


@pytest.mark.parametrize(
    "content, fault",
    [
        (table(image_id=None, kind=None), "lacks the column image_id, kind"),
        (table(boxes=["1,2,3,4"]), "column boxes is string, expected list"),
        (table(patient_id=[10000032.0]), "column patient_id is double, expected string"),
        (table(height=[99.5]), "column height is double, expected int32"),
        (pa.concat_tables([table(), table()]), "sample_id is not unique: 's1'"),
        (table().slice(0, 0), "no rows"),
        (
            pa.concat_tables(
                table(sample_id=[name], image_path=[path]).select(MANIFEST_SCHEMA.names)
                for name, path in (("s1", "a.png"), ("s2", "a.png"), ("s3", "b.png"))
            ),
            "image_id: 'i1' names the picture of sample 's1' and another one of sample 's3'",
        ),
    ],
)
def test_unusable_table_is_one_line_with_file_and_column(tmp_path: Path, content: pa.Table, fault: str) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(content, path)
    for _ in range(2):  # the failure must not leave a cache that the second opening takes
        with pytest.raises(ManifestError, match=fault) as caught:
            open_manifest(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="manifest not found"):
        open_manifest(tmp_path / "gone.parquet")
    with pytest.raises(ManifestError, match="without"):
        open_manifest(tmp_path)
    (tmp_path / "text.parquet").write_text("sample_id,image_id\n")
    with pytest.raises(ManifestError, match="text.parquet: not a readable Parquet file"):
        open_manifest(tmp_path / "text.parquet")
    write_manifest([Sample(f"s{i}") for i in range(3000)], tmp_path / "cut.parquet")
    content = (tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(ManifestError, match="cut.parquet: not a readable Parquet file"):
        open_manifest(tmp_path / "cut.parquet")
