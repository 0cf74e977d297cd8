"""Damaged tables of the label and question sources: each costs its rows, or is one line that names the file."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cxr_faith.data.prepare import PrepareOptions, prepare
from cxr_faith.data.tally import PrepareError
from tests.data.test_fuzz_tables import damage
from tests.data.test_label_sources import chexpert, nih, padchest, rsna, vinbigdata  # noqa: F401
from tests.data.test_question_sources import diff_vqa, rexvqa  # noqa: F401

DAMAGES = 6


@pytest.mark.parametrize(
    ("source", "fixture"),
    [
        ("nih", "nih"),
        ("vinbigdata", "vinbigdata"),
        ("rsna", "rsna"),
        ("chexpert", "chexpert"),
        ("padchest-gr", "padchest"),
        ("medical-diff-vqa", "diff_vqa"),
        ("rexvqa", "rexvqa"),
    ],
)
def test_damaged_tables(source: str, fixture: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    given = request.getfixturevalue(fixture)
    root, options = (given.root, {"vqa": str(given.vqa)}) if isinstance(given, SimpleNamespace) else (given, {})
    folders = [root, *map(Path, options.values())]
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    tables = [path for path in files if path.name.endswith((".csv", ".csv.gz", ".json", ".txt"))]
    rng, outcomes = np.random.default_rng(19), []
    for number in range(max(DAMAGES, 2 * len(tables))):
        table = tables[number % len(tables)]
        whole = table.read_bytes()
        damage(table, rng)
        try:
            outcomes.append(prepare(source, PrepareOptions(str(root), str(tmp_path / "m")), **options).questions)
        except PrepareError as error:
            assert "\n" not in str(error) and len(str(error)) < 5000
            outcomes.append(0)
        if table.is_dir():
            table.rmdir()
        else:
            table.unlink(missing_ok=True)
        table.write_bytes(whole)
        shutil.rmtree(tmp_path / "m", ignore_errors=True)
    assert prepare(source, PrepareOptions(str(root), str(tmp_path / "m")), **options).questions >= max(outcomes[:1])
