import logging
import os
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxr_faith.data.sample import MANIFEST_SCHEMA, Box, Sample
from cxr_faith.records import (
    KEY,
    RECORD_SCHEMA,
    RecordWriter,
    claim_start,
    done_samples,
    merge_starts,
    next_start,
    read_records,
    remove_leftovers,
    sample_columns,
    scan_records,
    write_atomic,
)
from cxr_faith.records.reader import sound_parts
from cxr_faith.records.rows import answer_columns
from cxr_faith.records.schema import to_table
from cxr_faith.vlm import Reply
from tests.synthetic import make_rows

# The record columns as the documentation of the format lists them.
DOCUMENTED = """sample_id method substrate target space condition
    patient_id study_id image_id image_path question question_group variant strategy kind reference finding side split
    boxes finding_mask_path anatomy_masks
    predicted thought generated answer_mismatch yes_no_mass correct own_substrate status reason order k deletion_scores
    insertion_scores deletion_probs insertion_probs present margin p_yes s_original s_substrate effect
    deletion_auc insertion_auc srg deletion_auc_clipped insertion_auc_clipped srg_clipped
    deletion_auc_logit insertion_auc_logit srg_logit deletion_auc_prob insertion_auc_prob srg_prob
    drop_10 drop_20 drop_50 retained_50 flip_deletion flip_insertion clipped_share monotonicity_violations tie_share
    gap_deletion_random gap_insertion_random gap_srg_random gap_deletion_center gap_insertion_center gap_srg_center
    random_z random_p deletion_auc_std insertion_auc_std srg_std drop_50_std srg_prob_std flip_deletion_std
    srg_mc_error deletion_auc_mc_error insertion_auc_mc_error
    map grid_h grid_w forwards backwards seconds peak_memory
    flat not_parsed deletion_log_p insertion_log_p log_p_original log_p_substrate srg_log_p pointing_ceiling
    set_size set_removal_flips set_keeps""".split()


def row(sample: str, method: str = "chefer", **values: Any) -> dict[str, Any]:
    key = {"sample_id": sample, "method": method, "substrate": "blur:0.1", "target": "answer"}
    return key | {"space": "pixels", "condition": "none", "status": "ok"} | values


def parts(run_dir: Path) -> list[str]:
    return sorted(os.listdir(run_dir / "records"))


@pytest.mark.parametrize(
    ("text", "reference", "correct", "not_parsed"),
    [
        ("edema", ("edema",), True, False),
        ("nodule", ("edema",), False, False),
        ("I cannot tell.", ("edema",), None, True),
        ("edema", None, None, None),
    ],
)
def test_an_answer_that_cannot_be_read_is_neither_right_nor_wrong(
    text: str, reference: tuple[str, ...] | None, correct: bool | None, not_parsed: bool | None
) -> None:
    columns = answer_columns(Sample("s", answer=reference), "open", Reply((1,), (0,), text, 0.0, 0.0, False))
    assert (columns["correct"], columns["not_parsed"]) == (correct, not_parsed)


def test_schema_has_every_documented_column_and_none_of_the_dropped_ones() -> None:
    assert [name for name in DOCUMENTED if name not in RECORD_SCHEMA.names] == []
    assert not {"height", "width", "source", "answer"} & set(RECORD_SCHEMA.names)
    assert len(set(RECORD_SCHEMA.names)) == len(RECORD_SCHEMA.names)
    assert set(sample_columns(Sample("s"))) < set(RECORD_SCHEMA.names)
    assert len(sample_columns(Sample("s"))) == len(MANIFEST_SCHEMA.names) - 3


def test_values_come_back_exactly_and_not_finite_ones_as_null(tmp_path: Path) -> None:
    sample = Sample("s1", image_id="i", question="q?", answer=("yes",), boxes=(Box("nodule", 1, 2, 3.5, 4),))
    deep = np.random.default_rng(0).random((3, 4), dtype=np.float32)
    values = {"srg": 0.1 + 0.2, "deletion_auc": float("nan"), "insertion_auc": np.float64("inf"), "present": True}
    values |= {"deletion_scores": [1 / 3, float("nan")], "order": np.arange(5)[::-1], "map": deep, "grid_h": 3}
    RecordWriter(tmp_path, 0, 0).write([sample_columns(sample) | row("s1", **values)])
    table = pq.read_table(tmp_path / "records" / parts(tmp_path)[0])
    assert table.schema.equals(RECORD_SCHEMA)
    (got,) = table.to_pylist()
    assert got["srg"] == 0.1 + 0.2
    assert got["deletion_auc"] is None and got["insertion_auc"] is None and got["margin"] is None
    assert got["deletion_scores"] == [1 / 3, None]
    assert got["order"] == [4, 3, 2, 1, 0]
    assert got["map"] == deep.reshape(-1).tolist()
    assert got["reference"] == ["yes"] and got["boxes"][0]["x2"] == 3.5 and got["present"] is True


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row("s1") | {"deletion_uac": 1.0}, "sample 's1': records have no column 'deletion_uac'"),
        (row("s1") | {"target": None}, "sample 's1': a record needs its 'target'"),
    ],
)
def test_a_wrong_row_is_refused_and_leaves_nothing(tmp_path: Path, bad: dict[str, Any], message: str) -> None:
    writer = RecordWriter(tmp_path, 0, 0)
    with pytest.raises(ValueError, match=message):
        writer.write([row("s0"), bad])
    assert parts(tmp_path) == []


def test_merge_of_ranks_and_starts_is_sorted_and_free_of_duplicates(tmp_path: Path) -> None:
    RecordWriter(tmp_path, 1, 0).write([row("b", seconds=1.0), row("b", "attention")])
    RecordWriter(tmp_path, 0, 0).write([row("c"), row("a")])
    RecordWriter(tmp_path, 0, 1).write([row("b", seconds=2.0), row("d")])
    frame = read_records(tmp_path)
    assert list(frame["sample_id"] + frame["method"]) == ["achefer", "battention", "bchefer", "cchefer", "dchefer"]
    assert frame.set_index(["sample_id", "method"]).loc[("b", "chefer"), "seconds"] == 1.0  # the earliest start's
    assert done_samples(tmp_path) == {"a", "b", "c", "d"}


def test_compaction_keeps_every_row_and_only_this_writers_files(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("cxr_faith.records.writer.PARTS_PER_MERGE", 3)
    RecordWriter(tmp_path, 1, 0).write([row("other")])
    writer = RecordWriter(tmp_path, 0, 0)
    for index in range(8):
        writer.write([row(f"s{index}", srg=index / 7, map=np.full((2, 2), index / 3))])
    before = read_records(tmp_path)
    assert len(parts(tmp_path)) == 1 + 2 + 2  # the other rank's, two merged threes, two loose ones
    writer.compact()
    assert len(parts(tmp_path)) == 2
    pd.testing.assert_frame_equal(read_records(tmp_path), before)
    assert len(before) == 9
    assert writer.compact() is not None and len(parts(tmp_path)) == 2  # nothing left to do
    writer.write([row("late")])
    assert "late" in done_samples(tmp_path) and len(parts(tmp_path)) == 3


def test_a_crash_inside_compaction_leaves_harmless_duplicates(tmp_path: Path, monkeypatch: Any) -> None:
    writer = RecordWriter(tmp_path, 0, 0)
    for index in range(4):
        writer.write([row(f"s{index}")])
    before = read_records(tmp_path)

    def killed(path: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            writer.compact()
    assert len(parts(tmp_path)) == 5
    pd.testing.assert_frame_equal(read_records(tmp_path), before)


@pytest.mark.parametrize("damage", ["truncated", "empty"])
def test_a_torn_part_is_named_and_left_out(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    writer = RecordWriter(tmp_path, 0, 0)
    good, torn = writer.write([row("a")]), writer.write([row("b", map=np.random.default_rng(0).random((9, 9)))])
    assert good is not None and torn is not None
    torn.write_bytes(torn.read_bytes()[:-1000] if damage == "truncated" else b"")
    with caplog.at_level(logging.WARNING):
        assert list(read_records(tmp_path)["sample_id"]) == ["a"]
    assert [str(torn) in message for message in caplog.messages] == [True]
    assert done_samples(tmp_path) == {"a"}


def test_no_flipped_byte_changes_a_value_or_stops_the_reader(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).random((9, 9))
    part = RecordWriter(tmp_path, 0, 0).write([row("a", srg=0.25, map=deep, order=np.arange(81))])
    assert part is not None
    whole, data = read_records(tmp_path), part.read_bytes()
    dropped = 0
    for position in range(4, len(data), 499):
        part.write_bytes(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
        frame = read_records(tmp_path)
        dropped += frame.empty
        assert frame.empty or frame.astype(str).equals(whole.astype(str)), position
        assert done_samples(tmp_path) == set(frame["sample_id"])
    assert dropped > 10


def test_kill_before_the_rename_leaves_no_part_and_the_next_start_cleans_up(tmp_path: Path, monkeypatch: Any) -> None:
    writer = RecordWriter(tmp_path, 0, 0)
    writer.write([row("a")])

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            writer.write([row("b")])
    assert len(parts(tmp_path)) == 2  # the part and a temporary file
    assert done_samples(tmp_path) == {"a"}
    remove_leftovers(tmp_path)
    RecordWriter(tmp_path, 0, next_start(tmp_path)).write([row("b")])
    assert parts(tmp_path) == ["part-000-r00000-000000.parquet", "part-001-r00000-000000.parquet"]
    assert done_samples(tmp_path) == {"a", "b"}


def test_starts_and_sequence_numbers_never_collide(tmp_path: Path) -> None:
    assert next_start(tmp_path) == 0
    first = RecordWriter(tmp_path, 0, 0)
    first.write([row("a")])
    again = RecordWriter(tmp_path, 0, 0)  # the same start and rank twice must not overwrite
    again.write([row("b")])
    assert done_samples(tmp_path) == {"a", "b"}
    RecordWriter(tmp_path, 3, 11).write([row("c")])
    assert next_start(tmp_path) == 12


def test_shards_that_start_at_once_get_different_numbers(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: claim_start(tmp_path), range(24)))
    assert sorted(numbers) == list(range(24))
    assert next_start(tmp_path) == 24
    assert read_records(tmp_path).empty and pd.read_parquet(tmp_path / "records").empty


def test_number_of_files_grows_with_the_logarithm_only(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("cxr_faith.records.writer.PARTS_PER_MERGE", 4)
    writer, most = RecordWriter(tmp_path, 0, 0), 0
    for index in range(64):
        writer.write([row(f"s{index:02d}", map=np.full(4, index))])
        most = max(most, len(parts(tmp_path)))
    assert most <= 3 * 4  # four levels hold at most three parts each between writes
    assert [path.split("-r")[0] for path in parts(tmp_path)] == ["part-000"]
    frame = read_records(tmp_path)
    assert list(frame["sample_id"]) == [f"s{index:02d}" for index in range(64)]
    assert [values[0] for values in frame["map"]] == list(range(64))


def test_pieces_are_the_rows_of_the_whole(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for start in range(3):
        for rank in range(2):
            writer = RecordWriter(tmp_path, rank, start)
            for sample in generator.permutation(30)[:12]:
                writer.write([row(f"s{sample}", method, srg=float(start), map=generator.random(3)) for method in "ba"])
            if rank:
                writer.compact()
    whole = read_records(tmp_path, ["srg", "map"])
    pieces = list(scan_records(tmp_path, ["srg", "map"]))
    assert len(pieces) > 10 and len(whole) < 6 * 24
    together = pd.concat(pieces).sort_values(list(KEY)).reset_index(drop=True)
    pd.testing.assert_frame_equal(together, whole)


def large_parts(run_dir: Path, groups: int) -> RecordWriter:
    """A writer with two parts of `groups` row groups each; a group has 500 rows, each of another sample."""
    curve, noise = np.arange(51.0), np.random.default_rng(0)
    one = to_table([row(f"s{index}", map=noise.random(256), deletion_scores=curve) for index in range(500)])
    writer = RecordWriter(run_dir, 0, 0)
    for part in range(2):
        names = [[f"p{part}g{group}-{name}" for name in one["sample_id"].to_pylist()] for group in range(groups)]
        tables = [one.set_column(0, RECORD_SCHEMA.field(0), pa.array(texts)) for texts in names]
        writer._levels[0].append(writer._save(tables))
    writer._levels = [[], writer._levels[0]]
    return writer


def peak_of(action: Callable[[], object]) -> int:
    """Most bytes that Arrow held at a time on behalf of a call."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        action()
    finally:
        pa.set_memory_pool(before)
    return int(pool.max_memory())


def test_merging_and_scanning_take_the_same_memory_for_four_times_the_rows(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("cxr_faith.records.writer.GROUP_BYTES", 2_000_000)
    peaks: dict[str, list[int]] = {"merge": [], "scan": [], "done": []}
    for groups in (8, 32):
        run_dir = tmp_path / str(groups)
        writer, counts = large_parts(run_dir, groups), []
        peaks["scan"].append(
            peak_of(lambda run_dir=run_dir, counts=counts: counts.extend(map(len, scan_records(run_dir, ["map"]))))
        )
        peaks["done"].append(peak_of(lambda run_dir=run_dir, counts=counts: counts.append(len(done_samples(run_dir)))))
        peaks["merge"].append(peak_of(writer.compact))
        assert sum(counts) == 2 * (2 * groups * 500) and len(parts(run_dir)) == 1
        index = pq.read_metadata(run_dir / "records" / parts(run_dir)[0])
        assert index.num_rows == 2 * groups * 500 and 1 < index.num_row_groups <= groups
    for name, (few, many) in peaks.items():
        assert 500 * 256 * 4 < many < 1.2 * few, (name, few, many)


def test_a_row_costs_some_bytes_of_memory(tmp_path: Path) -> None:
    """Finding duplicates takes less than 64 bytes of memory a row, whatever the rows hold."""
    peaks, method = [], pa.array([f"m{index % 10}" for index in range(10_000)])
    columns = dict.fromkeys(RECORD_SCHEMA.names) | {name: pa.array(["x"] * 10_000) for name in KEY}
    for groups in (4, 20):
        run_dir = tmp_path / str(groups)
        for part in range(2):
            tables = []
            for group in range(0 if part == 0 else groups // 2, groups):  # the second part repeats half of the first
                names = [f"p10{group:03d}{index // 10:04d}-s50414267-02aa4804-bde0afdd" for index in range(10_000)]
                own = columns | {"sample_id": pa.array(names), "method": method}
                arrays = [pa.nulls(10_000, f.type) if own[f.name] is None else own[f.name] for f in RECORD_SCHEMA]
                tables.append(pa.Table.from_arrays(arrays, schema=RECORD_SCHEMA))
            RecordWriter(run_dir, 0, part)._save(tables)
        tracemalloc.start()
        assert sum(map(len, scan_records(run_dir, []))) == groups * 10_000
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    rows = (20 + 10 - 4 - 2) * 10_000
    print(f"\n{(peaks[1] - peaks[0]) / rows:.0f} bytes a row are held to find duplicates")
    assert (peaks[1] - peaks[0]) / rows < 64, peaks


def test_parts_that_a_running_writer_merges_meanwhile_are_still_read(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, 0, 0)
    for index in range(5):
        writer.write([row(f"s{index}")])
    reading = sound_parts(tmp_path, RECORD_SCHEMA, lambda group: group["sample_id"].to_pylist())
    pieces = [next(reading)]
    writer.compact()
    pieces += reading
    assert {sample for _, groups in pieces for group in groups for sample in group} == {
        f"s{index}" for index in range(5)
    }


def test_parts_that_are_merged_between_two_pieces_are_scanned_once(tmp_path: Path) -> None:
    for start in range(2):  # the second start repeats some samples of the first
        writer = RecordWriter(tmp_path, 0, start)
        for index in range(3 * start, 5 + 3 * start):
            writer.write([row(f"s{index}", srg=float(start))])
    whole = read_records(tmp_path, ["srg"])
    reading = scan_records(tmp_path, ["srg"])
    pieces = [next(reading), next(reading)]
    merge_starts(tmp_path)
    assert len(parts(tmp_path)) == 2
    together = pd.concat([*pieces, *reading]).sort_values(list(KEY)).reset_index(drop=True)
    pd.testing.assert_frame_equal(together, whole)


def test_empty_runs_and_chosen_columns(tmp_path: Path) -> None:
    assert done_samples(tmp_path) == set()
    assert read_records(tmp_path).empty
    writer = RecordWriter(tmp_path, 0, 0)
    assert writer.write([]) is None and writer.compact() is None
    writer.write([row("a", srg=0.5)])
    assert list(read_records(tmp_path, ["srg"]).columns) == [*KEY, "srg"]
    with pytest.raises(ValueError, match="no column 'sgr'"):
        read_records(tmp_path, ["sgr"])


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: Any) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    writer = RecordWriter(tmp_path, 0, 0)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        writer.write([row("a")])
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "summary.json", "{}")
    assert done_samples(tmp_path) == set() and not (tmp_path / "summary.json").exists()


def test_a_rank_that_wakes_up_after_a_restart_does_not_write_over_merged_parts(tmp_path):
    """It was suspended, and goes on with the numbers of its start, whose parts the new start has merged."""
    rows = [row | {"sample_id": name} for name, row in zip("abcd", make_rows(), strict=False)]
    asleep = RecordWriter(tmp_path, 0, 0)
    for row in rows[:2]:
        asleep.write([row])
    merge_starts(tmp_path)
    asleep.write([rows[2]])
    merge_starts(tmp_path)
    asleep.write([rows[3]])
    assert done_samples(tmp_path) == set("abcd")
