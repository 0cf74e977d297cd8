"""kill −9 of live processes of `evaluate`, which Lightning started, at every step from the first import to TensorBoard.

Three stories of ten kills. Each is one run directory: the same command is started again after each kill, until nothing
is left to kill. `KILLS=10` tells ten stories, whose victims and moments are drawn.
"""

import json
import os
import random
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from cxr_faith.records import done_samples
from tests.held import Step, launched
from tests.runs import assert_same, parts, ranks, run_here, write_config

pytestmark = pytest.mark.cluster

SAMPLES = 24
STORIES = max(3, int(os.environ.get("KILLS", "3")))
OPTIONS = (*ranks(2), "--data.num_workers", "1")

LONGEST_END = 60.0
"""Seconds after a kill until no process is left: far below the two minutes after which a silent rank is named."""

Plan = tuple[Step, str]
"""Where a process is held, and who is killed then."""

PHASES: dict[str, list[Plan]] = {
    "import": [
        (Step("import", r"^torch$"), "rank 0"),
        (Step("import", r"^cxr_faith\.run\.evaluate$", rank=1), "rank 0"),
        (Step("import", r"^cxr_faith\.run\.evaluate$", rank=1), "rank 1"),
    ],
    "lock": [
        (Step("open", r"/\.lock$"), "rank 0"),
        (Step("os.rename", r"/provenance\.json$"), "all"),
        (Step("open", r"/records/\.start\.\d+$"), "rank 1"),
    ],
    "prediction": [
        (Step("open", r"\.png$", nth=2, rank=1), "rank 1"),
        (Step("open", r"/live/.*events", nth=2), "rank 0"),
        (Step("open", r"\.png$", nth=3), "all"),
    ],
    "between write and rename": [
        (Step("os.rename", r"/part-", nth=2), "rank 0"),
        (Step("os.rename", r"/part-", rank=1), "rank 1"),
        (Step("os.rename", r"/part-", nth=2, rank=1), "all"),
    ],
    "data worker": [
        (Step("open", r"\.png$", nth=2, rank=1), "worker 1"),
        (Step("open", r"\.png$"), "worker 0"),
        (Step("open", r"\.png$", nth=3), "worker 0"),
    ],
    "merge": [
        (Step("os.remove", r"/part-"), "rank 0"),
        (Step("os.remove", r"/part-", nth=2, rank=1), "rank 1"),
        (Step("os.remove", r"/part-", rank=1), "rank 0"),
    ],
    "metrics": [
        (Step("os.rename", r"/metrics\.json$"), "rank 0"),
        (Step("os.rename", r"\.hparams$"), "rank 1"),
        (Step("os.rename", r"\.hparams$", nth=2), "all"),
    ],
    "summary": [
        (Step("os.rename", r"/summary\.json$"), "all"),
        (Step("os.rename", r"/summary\.md$"), "rank 0"),
        (Step("os.rename", r"/summary\.json$"), "rank 1"),
    ],
    "page": [
        (Step("os.rename", r"/index\.html$"), "rank 1"),
        (Step("open", r"/report/\.index\.html"), "rank 0"),
        (Step("os.rename", r"/index\.html$"), "all"),
    ],
    "TensorBoard": [
        (Step("os.rename", r"/tensorboard/chefer/events[^/]+[0-9a-f]$"), "rank 0"),
        (Step("os.rename", r"/tensorboard/events"), "all"),
        # The start that "metrics" ended has left one such file; whether later ones left more is a matter of moments.
        (Step("os.remove", r"/tensorboard/.*events"), "rank 0"),
    ],
}


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config whose samples outlast all the kills."""
    return write_config(tmp_path_factory.mktemp("longer"), SAMPLES)


@pytest.fixture(scope="module")
def undisturbed(longer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a run that nobody disturbs."""
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    assert run_here(longer, run_dir) == 0
    return run_dir


@pytest.mark.parametrize("seed", range(STORIES))
def test_ten_kills_from_import_to_tensorboard(seed: int, longer: Path, undisturbed: Path, tmp_path: Path) -> None:
    run_dir, done = tmp_path / "run", set[str]()
    for phase, plans in PHASES.items():
        chance = random.Random(f"{phase} {seed}")
        step, victim = plans[seed] if seed < len(plans) else chance.choice(plans)
        with launched(longer, run_dir, step, tmp_path / "output", *OPTIONS) as run:
            run.wait_until_held()
            if phase == "prediction":  # any moment from there on
                run.mark.let_go()
                time.sleep(chance.uniform(0, 0.2))
            where = f"{victim} at {phase}: {step}"
            hit, killed_at = run.kill(victim), time.monotonic()
            run.mark.let_go()
            status = run.wait_for_end()
            ended_after = time.monotonic() - killed_at
            assert hit, f"{where}: nobody was there\n{run.output}"
            assert status in (1, -9), f"{where}: status {status}\n{run.output}"
            assert ended_after < LONGEST_END, f"{where}: the others ended after {ended_after:.0f} s\n{run.output}"
        assert_whole(run_dir)
        kept = done_samples(run_dir)
        assert done <= kept, f"{where}: lost {sorted(done - kept)}"
        done = kept
    assert len(done) == SAMPLES
    with launched(longer, run_dir, None, tmp_path / "output", *OPTIONS) as run:
        assert run.wait_for_end() == 0, run.output
    assert_same(run_dir, undisturbed)
    assert leftovers(run_dir) == []
    assert event_files(run_dir) == event_files(undisturbed)


def assert_whole(run_dir: Path) -> None:
    """Each file that readers look at is whole, whether or not a process was killed while it wrote."""
    for path in parts(run_dir):
        assert pq.ParquetFile(path, page_checksum_verification=True).read().num_rows, path
    for path in run_dir.glob("*.json"):
        json.loads(path.read_text())
    for path in run_dir.glob("config.yaml"):
        assert yaml.safe_load(path.read_text())["model"], path
    for path in run_dir.glob("report/*.html"):
        assert path.read_text().rstrip().endswith("</html>"), path


def leftovers(run_dir: Path) -> list[Path]:
    """Temporary files and signs of life; the files that number the starts and hold the lock stay."""
    hidden = [path.relative_to(run_dir) for path in run_dir.rglob(".*") if path.is_file()]
    return [path for path in hidden if not path.name.startswith((".lock", ".start."))]


def event_files(run_dir: Path) -> Counter[tuple[str, bool]]:
    """Number of TensorBoard's event files by folder, those of hyperparameters apart."""
    folder = run_dir / "tensorboard"
    files = folder.rglob("events.out.tfevents.*")
    return Counter((str(path.parent.relative_to(folder)), path.suffix == ".hparams") for path in files)
