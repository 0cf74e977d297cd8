"""The sections on adding a data source and a VLM: the code is run as it stands there, the names exist."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cxr_faith
from cxr_faith.__main__ import main
from cxr_faith.data.manifest import open_manifest
from cxr_faith.data.sources import SOURCES
from cxr_faith.vlm.base import VLM
from tests.analytic import LinearVLM
from tests.docs.documents import ROOT, blocks, document, section

PAGE = document("docs/extending.md")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Imports the section's one example from a file and registers it; takes it out again."""
    (example,) = blocks(section(PAGE, "Adding a data source"), "python")
    before = dict(SOURCES)
    (tmp_path / "page_source.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    # A file of the package may not import the table that it is entered in.
    assert "import SOURCES" not in example and '`"folders": folders,`' in section(PAGE, "Adding a data source")
    SOURCES["folders"] = importlib.import_module("page_source").folders
    yield "folders"
    del sys.modules["page_source"]
    SOURCES.clear()
    SOURCES.update(before)


def test_the_example_is_a_source_with_an_option(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, folder in enumerate(("yes", "no", "maybe")):
        (tmp_path / "data" / folder).mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 255, (80, 64), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / folder / f"p{number}.png")
    out = tmp_path / "manifest"
    assert main(["prepare", source, "--root", str(tmp_path / "data"), "--out", str(out), "--finding", "mass"]) == 0
    assert "folder is neither yes nor no" in capsys.readouterr().out
    assert main(["prepare", "check", str(out), "--images", "all"]) == 0
    rows = sorted(open_manifest(out, tmp_path / "cache"), key=lambda row: row["sample_id"])
    assert [(row["question"], row["answer"], row["height"]) for row in rows] == [
        ("Is there a mass?", ["yes"], 80),
        ("Is there a mass?", ["no"], 80),
    ]


def test_the_stages_of_a_vlm_are_those_that_it_must_offer() -> None:
    text = section(PAGE, "Adding a family")
    named = {name for name in VLM.__abstractmethods__ if f"`{name}`" in text}
    assert named == VLM.__abstractmethods__ - {"to"}
    assert all((ROOT / path).is_file() for path in re.findall(r"`([\w/]+\.py)`", text))


def test_an_explainer_takes_another_vlm() -> None:
    question = "Is there a nodule?"
    vlm = LinearVLM({question: np.arange(16.0).reshape(4, 4)})
    picture = np.random.default_rng(0).integers(0, 255, vlm.image_size, np.uint8)
    explanation = cxr_faith.Explainer(vlm).explain(picture, question, "gradient", kind="yes_no")
    assert explanation.map.shape == vlm.grid and np.diff(explanation.map.ravel()).min() > 0
