"""The synthetic records that tests of numbers and of pages share, and a browser with their page."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cxr_faith.records import RecordWriter
from cxr_faith.report.results import write_results
from tests.report.browser import Browser, chromium
from tests.synthetic import rows, run_dir

__all__ = ["rows", "run_dir"]


REMOVED = (200, 40, 10)
"""The color of every removed cell."""


def random_p(method: str) -> float:
    return 1 / 21 if method == "chefer" else 11 / 21


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> Path:
    run_dir = tmp_path_factory.mktemp("run")
    # As from 20 random orders: chefer is better than all of them, the others are better than half.
    ranked = [
        row | ({"random_srgs": [0.0] * 20} if row["method"] == "random" else {"random_p": random_p(row["method"])})
        for row in rows
    ]
    more = [row | {"substrate": "mean", "srg": None if row.get("srg") is None else -row["srg"]} for row in rows]
    RecordWriter(run_dir, rank=0, start=0).write([*ranked, *more])
    pictures = run_dir / "report" / "pictures"
    pictures.mkdir(parents=True)
    buffer = io.BytesIO()
    Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (160, 1))).save(buffer, "JPEG")
    (pictures / "00.jpg").write_bytes(buffer.getvalue())
    Image.new("RGB", (180, 128), REMOVED).save(pictures / "00-removed.jpg", quality=100)
    first = next(row["map"] for row in rows if (row["sample_id"], row["method"]) == ("s00", "chefer"))
    order = np.argsort(-first.ravel(), kind="stable").astype("<u2")
    entry = {
        "file": "00.jpg",
        "methods": None,
        "removed": "00-removed.jpg",
        "substrate": "blur:0.1",
        "region": [0.1, 0.05, 0.8, 0.9],
        "boxes": [["nodule", 0.25, 0.5, 0.375, 0.75]],
        "orders": {"chefer": base64.b64encode(order.tobytes()).decode()},
    }
    listing = {"s00": entry}
    (pictures / "pictures.json").write_text(json.dumps(listing))
    return write_results(run_dir).page


@pytest.fixture
def opened(browser: Browser, page: Path) -> Iterator[Browser]:
    browser.size(1200, 900)
    browser.errors.clear()
    browser.requests.clear()
    browser.open(page)
    browser.run("location.hash = ''")
    yield browser
    outside = [address for address in browser.requests if not address.startswith(("file://", "data:", "blob:"))]
    assert browser.errors == [] and outside == []
