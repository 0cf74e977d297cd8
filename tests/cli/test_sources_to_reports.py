"""Label and question sources from their published layout to a report by the bundled model."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cli.test_prepare import evaluated, run  # noqa: F401
from tests.data.conftest import mimic  # noqa: F401
from tests.data.test_label_sources import chexpert, nih, padchest, rsna, siim, vinbigdata  # noqa: F401
from tests.data.test_question_sources import diff_vqa, rexvqa  # noqa: F401


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "fixture", "localized"),
    [
        ("nih", "nih", True),
        ("vinbigdata", "vinbigdata", True),
        ("rsna", "rsna", True),
        ("siim", "siim", True),
        ("chexpert", "chexpert", False),
        ("padchest-gr", "padchest", True),
        ("medical-diff-vqa", "diff_vqa", False),
        ("rexvqa", "rexvqa", False),
    ],
)
def test_a_source_from_its_layout_to_a_report(
    source: str,
    fixture: str,
    localized: bool,
    run: Callable,  # noqa: F811
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    given = request.getfixturevalue(fixture)
    root = given.root if isinstance(given, SimpleNamespace) else given
    options = ("--vqa", given.vqa) if isinstance(given, SimpleNamespace) else ()
    out = tmp_path / "manifest"
    status, _, err = run("prepare", source, "--root", root, *options, "--out", out)
    assert status == 0, err
    records = evaluated(run, out, tmp_path, limit=2)
    failed = records[records.status == "invalid"]
    assert len(set(records.sample_id)) == 2 and failed.empty, set(failed.reason)
    assert ("oracle" in set(records.method)) == localized, "the finding has a mask"
    assert run("report", tmp_path / "run")[0] == 0
    assert (tmp_path / "run/report/index.html").stat().st_size > 10_000
