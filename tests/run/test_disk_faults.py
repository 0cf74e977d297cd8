"""Full disks, planted links and FIFOs in a run directory, and records of many killed starts."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cxr_faith.__main__ import main
from cxr_faith.data.folder import noted_root
from cxr_faith.data.manifest import ManifestError, bundled_manifest, open_manifest
from cxr_faith.data.module import Shard
from cxr_faith.records import RecordWriter, claim_start, done_samples, read_records
from cxr_faith.records.writer import PARTS_PER_MERGE
from cxr_faith.report.alerts import Alert, read_alerts
from cxr_faith.report.html import write_report
from cxr_faith.report.run_files import doctor_table, read_thumbs
from cxr_faith.run.lock import run_lock
from cxr_faith.run.monitor import Monitor, Thresholds
from cxr_faith.run.pictures import write_pictures
from cxr_faith.run.stall import LifeSign
from cxr_faith.run.tensorboard import write_tensorboard
from cxr_faith.summary.load import load_run, read_provenance
from cxr_faith.summary.summarize import write_summary
from tests.runs import assert_same, parts, records, run_here
from tests.synthetic import make_rows

PICTURE = sorted((bundled_manifest().parent / "images").iterdir())[0]


def fill(disk: Path, left: int) -> Path:
    """Fill a disk up to some bytes with one file."""
    state = os.statvfs(disk)
    file = disk / "other people's files"
    file.write_bytes(bytes(state.f_bavail * state.f_frsize - left))
    return file


def temporary(folder: Path) -> list[Path]:
    """Temporary files, of any form."""
    return [path for path in folder.rglob("*") if path.name.endswith((".tmp", ".partial", ".old"))]


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_disk_that_fills_up_at_the_end_of_a_run(
    small: Path, reference: Path, small_disk: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk("64m")
    run_dir = disk / "run"
    shutil.copytree(reference, run_dir)
    other = fill(disk, 24_000)  # enough for the start and the small files
    before = files(run_dir / "records")
    assert run_here(small, run_dir) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("cxr-faith: error")]
    assert line.startswith(f"cxr-faith: error: {run_dir}/") and "No space left on device; nothing that was" in line
    assert f"the disk at {disk} has 0." in line and "cache/ and tensorboard/" in line
    assert temporary(run_dir) == [] and before.items() <= files(run_dir / "records").items()
    other.unlink()
    assert run_here(small, run_dir) == 0
    assert_same(run_dir, reference)


@pytest.mark.slow
def test_a_tensorboard_that_cannot_be_written_costs_neither_records_nor_page(
    small: Path, reference: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    board = run_dir / "tensorboard"
    board.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(board)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        assert run_here(small, run_dir) == 1
        assert_same(run_dir, reference)
        assert (run_dir / "report" / "index.html").stat().st_size > 100_000 and temporary(run_dir) == []
    finally:
        subprocess.run(["umount", "--lazy", str(board)], check=False)
    printed = capfd.readouterr()
    (line,) = [line for line in printed.err.splitlines() if line.startswith("cxr-faith: error")]
    assert str(board) in line and "No space left on device" in line
    assert "Traceback" not in printed.err and "chefer" in printed.out  # the leaderboard
    assert run_here(small, run_dir) == 0


def test_report_on_a_full_disk(small_disk: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    disk = small_disk("8m")
    run_dir = disk / "run"
    RecordWriter(run_dir, 0, 0).write(make_rows())
    assert main(["report", str(run_dir)]) == 0
    before = files(run_dir)
    other = fill(disk, 0)
    assert main(["report", str(run_dir)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cxr-faith: error: {run_dir}/summary.json: No space left on device") and str(disk) in line
    assert files(run_dir) == before
    other.unlink()
    assert main(["report", str(run_dir)]) == 0


def test_prepare_on_a_full_disk_keeps_the_old_manifest(
    small_disk: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk, noise = small_disk("256k"), np.random.default_rng(0)
    table, out = tmp_path / "questions.csv", disk / "manifest"

    def prepare(rows: int) -> int:
        questions = [noise.bytes(200).hex() for _ in range(rows)]
        pd.DataFrame({"image_path": PICTURE.name, "question": questions}).to_csv(table, index=False)
        words = ["--file", str(table), "--root", str(PICTURE.parent), "--out", str(out)]
        return main(["prepare", "table", *words])

    assert prepare(3) == 0
    before = files(out)
    capsys.readouterr()
    assert prepare(3000) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"cxr-faith: error: {disk}/.manifest.") and "No space left on device" in line
    assert files(disk) == before and os.listdir(disk) == ["manifest"]
    assert prepare(4) == 0


def test_explain_on_a_full_disk(small_disk: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    out = small_disk("16k")
    words = ["explain", str(PICTURE), "--question", "Is there a nodule?", "--out", str(out)]
    assert main(words) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"cxr-faith: error: {out}/") and ".png: No space left on device" in line
    assert os.listdir(out) == []


FILES = ["config.yaml", "summary.json", "summary.md", "metrics.json", "report/index.html"]
FOLDERS = ["records", "report", "report/pictures", "tensorboard", "tensorboard/chefer", "alerts"]
OLD_TEMPORARY = ["records/.part-000-r00000-000000.parquet.tmp", ".summary.json.host.1.tmp", "records/.doing-000-r00000"]


@pytest.mark.slow
def test_links_planted_in_a_run_directory_are_not_followed(small: Path, tmp_path: Path) -> None:
    victim, run_dir = tmp_path / "victim", tmp_path / "run"
    victim.write_text("mine")
    for name in (*FILES, *OLD_TEMPORARY, "records/.start.000"):
        link = run_dir / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(victim)
    assert run_here(small, run_dir, "--limit", "2") == 0
    assert victim.read_text() == "mine"
    for name in FILES:
        assert (run_dir / name).is_file() and not (run_dir / name).is_symlink(), name
    assert len(done_samples(run_dir)) == 2


@pytest.mark.parametrize("name", FOLDERS)
def test_a_link_in_place_of_a_folder_is_named_and_nothing_behind_it_changes(name: str, tmp_path: Path) -> None:
    elsewhere, run_dir = tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.mkdir()
    for kept in ("a.png", "events.out.tfevents.1", ".part-0.tmp"):
        (elsewhere / kept).write_text("mine")
    (elsewhere / "live").mkdir()
    RecordWriter(run_dir, 0, 0).write([row | {"method": "chefer"} for row in make_rows()][:1])
    summary = write_summary(run_dir)
    link = run_dir / name
    link.parent.mkdir(parents=True, exist_ok=True)
    if name == "records":
        shutil.rmtree(link)
    link.symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    tries: dict[str, Callable[[], object]] = {
        "records": lambda: claim_start(run_dir),
        "report": lambda: write_report(run_dir),
        "report/pictures": lambda: write_pictures(run_dir, SimpleNamespace()),  # type: ignore[arg-type]
        "tensorboard": lambda: write_tensorboard(run_dir, summary, False),
        "tensorboard/chefer": lambda: write_tensorboard(run_dir, summary, False),
    }
    if name == "alerts":  # the log has the alert
        Monitor(run_dir, Thresholds())._publish([Alert("coverage_drop", None, 0.1, 1, "low")], "rank-0")
    else:
        with pytest.raises(OSError, match=r"is a link .*delete it") as refused:
            tries[name]()
        assert refused.value.filename == str(link)
    with run_lock(run_dir, Shard()):  # removes temporary files
        pass
    assert sorted(elsewhere.rglob("*")) == before


def test_a_fifo_in_place_of_a_file_that_is_read_does_not_block(tmp_path: Path) -> None:
    reads: dict[str, Callable[[], object]] = {
        "alerts/rank-0.jsonl": lambda: read_alerts(tmp_path),
        "doctor.json": lambda: doctor_table(tmp_path),
        "report/pictures/pictures.json": lambda: read_thumbs(tmp_path),
        "provenance.json": lambda: read_provenance(tmp_path),
        "config.yaml": lambda: load_run(tmp_path).config,
        "m.parquet": lambda: open_manifest(tmp_path / "m.parquet"),
        "card.json": lambda: noted_root(tmp_path),
    }
    for name, read in reads.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(tmp_path / name)
        with pytest.raises((OSError, ManifestError)):
            read()
    for name in ("records/.doing-000-r00000", "records/part-000-r00000-000000.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(tmp_path / name)
    assert LifeSign(tmp_path / "records", 0, 0).read() is None
    assert done_samples(tmp_path) == set()


def test_the_page_shows_no_picture_through_a_link_or_from_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "report" / "pictures"
    folder.mkdir(parents=True)
    (tmp_path / "private.jpg").write_bytes(b"private")
    (folder / "00.jpg").symlink_to(tmp_path / "private.jpg")
    (folder / "01.jpg").write_bytes(b"own")
    listed = {name: {"file": name, "region": [0, 0, 1, 1]} for name in ("00.jpg", "01.jpg", "../../../private.jpg")}
    (folder / "pictures.json").write_text(pd.Series(listed).to_json())
    assert list(read_thumbs(tmp_path / "run")) == ["01.jpg"]


STARTS, RANKS = 50, 3


def killed_starts(run_dir: Path) -> Iterator[list[dict[str, object]]]:
    """Records of many starts, each of which was killed before it merged its files."""
    rows = make_rows()
    samples = sorted({row["sample_id"] for row in rows})
    for start in range(STARTS):
        for rank in range(RANKS):
            writer = RecordWriter(run_dir, rank, start)
            for part in range(4):
                chosen = samples[(start + part) % len(samples)]
                own = [row | {"sample_id": f"{chosen}-{start}-{rank}-{part}"} for row in rows[:2]]
                writer.write(own)
                yield own


def test_the_parts_of_killed_starts_are_merged(tmp_path: Path) -> None:
    written = sum(map(len, killed_starts(tmp_path)))
    before = read_records(tmp_path)
    assert len(parts(tmp_path)) == STARTS * RANKS * 4
    torn = parts(tmp_path)[5]
    own = set(pd.read_parquet(torn)["sample_id"])
    torn.write_bytes(torn.read_bytes()[:-50])
    with run_lock(tmp_path, Shard()):
        assert len(parts(tmp_path)) == STARTS + 1 <= 2 * STARTS and torn in parts(tmp_path)
        kept = parts(tmp_path)
    rest = before[~before["sample_id"].isin(own)].reset_index(drop=True)
    pd.testing.assert_frame_equal(read_records(tmp_path), rest, check_exact=True)
    assert 0 < len(rest) == len(before) - len(own) * (written // before["sample_id"].nunique())
    with run_lock(tmp_path, Shard()):  # nothing is written a second time
        assert parts(tmp_path) == kept


def test_parts_with_columns_of_another_version_are_not_merged(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, 0, 0)
    names = [writer.write([row]) for row in make_rows()[:3]]
    assert names[0] is not None
    frame = pd.read_parquet(names[0])
    frame.assign(of_the_future=1.0).to_parquet(names[0])
    with run_lock(tmp_path, Shard()):
        pass
    assert len(parts(tmp_path)) == 2 and "of_the_future" in pd.read_parquet(names[0])


def test_a_rank_never_has_a_hundred_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The levels are filled as a run of some million batches fills them."""
    levels = 5
    assert PARTS_PER_MERGE**levels > 3_000_000 and levels * (PARTS_PER_MERGE - 1) + 1 < 100
    monkeypatch.setattr("cxr_faith.records.writer.PARTS_PER_MERGE", 3)
    writer, most = RecordWriter(tmp_path, 0, 0), 0
    row = make_rows()[0]
    for number in range(100):
        writer.write([row | {"sample_id": f"s{number}"}])
        most = max(most, len(parts(tmp_path)))
    assert most <= 2 * 5 and records(tmp_path)["sample_id"].nunique() == 100


def test_a_full_disk_while_parts_are_merged_keeps_them(
    small_disk: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    disk = small_disk("2m")
    run_dir = disk / "run"
    writer = RecordWriter(run_dir, 0, 0)
    for number in range(3):
        writer.write([row | {"sample_id": f"{row['sample_id']}{number}"} for row in make_rows()])
    before = files(run_dir / "records")
    fill(disk, 4096)
    with run_lock(run_dir, Shard()):
        assert files(run_dir / "records") == before
    assert "stay as they are" in caplog.text
