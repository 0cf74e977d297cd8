"""The tutorial runs from start to end and shows what its text says; the notebook is the script with its outputs."""

import json
import re
import runpy
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

FOLDER = Path(__file__).parents[2] / "tutorial"
NOTEBOOK = FOLDER / "tutorial.ipynb"
FIGURES = "2-map 3-film 4-verdict 5-curves 5-methods 6-layers 6-regions 6-words 7-circle 8-p-minus-1".split()
NUMBER = re.compile(r"[+-]?\d*\.?\d+(?:e[+-]?\d+)?")


def cells() -> list[dict[str, Any]]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def outputs(cell: dict[str, Any]) -> list[str]:
    """What a cell printed, and the names of the figures that it showed."""
    texts = [one["text"] if "text" in one else one["data"]["text/plain"] for one in cell.get("outputs", ())]
    return ["".join(text) for text in texts]


@pytest.mark.slow
def test_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jupytext", reason="development dependency jupytext")
    monkeypatch.setenv("TUTORIAL_OUT", str(tmp_path))
    values: dict[str, Any] = {"__name__": "__main__"}
    notebook = runpy.run_path(str(FOLDER / "notebook.py"))["run"](values)
    assert values["at_token"] == 0 < values["at_read"]
    assert values["chefer"].verdict.verdict == "believe"
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == FIGURES
    for name in FIGURES:
        with Image.open(tmp_path / f"{name}.png") as figure:
            assert len(figure.convert("RGB").resize((64, 64)).getcolors(4096) or []) > 10, name
    # The outputs in the notebook are those of this run; the last digit may be another processor's.
    compared = 0
    for kept, now in zip(cells(), notebook.cells, strict=True):
        texts = ["\n".join(outputs(cell)) for cell in (kept, now)]
        assert NUMBER.sub("#", texts[0]) == NUMBER.sub("#", texts[1])
        before, after = ([float(number) for number in NUMBER.findall(text)] for text in texts)
        assert before == pytest.approx(after, rel=0.02, abs=0.02)
        compared += len(before)
    assert compared > 40


def test_the_notebook_is_the_script() -> None:
    jupytext = pytest.importorskip("jupytext", reason="development dependency jupytext")
    script = jupytext.read(FOLDER / "tutorial.py").cells
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in cells()] == [
        (cell.cell_type, cell.source) for cell in script
    ]
    titles = [line for cell in script for line in cell.source.splitlines() if line.startswith("## ")]
    order = ("question", "map", "remove", "verdict", "methods compared", "tokens", "which way is up", "p − 1 rule")
    assert all(word in title.lower() for word, title in zip(order, titles, strict=True))


def test_it_opens_in_jupyter_and_in_colab() -> None:
    nbformat = pytest.importorskip("nbformat", reason="development dependency nbformat")
    nbformat.validate(nbformat.read(NOTEBOOK, as_version=4))
    assert NOTEBOOK.stat().st_size < 1_500_000
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert "pip" in "".join(code[0]["source"]) and code[0]["outputs"] == []  # Colab has no cxr_faith
    shown = []
    for output in (output for cell in code for output in cell["outputs"]):
        assert output["output_type"] in ("stream", "execute_result")
        if "data" in output:
            shown.append("".join(output["data"]["text/plain"]).removeprefix("figure "))
            with Image.open(BytesIO(b64decode("".join(output["data"]["image/png"])))) as figure:
                assert figure.format == "PNG" and figure.width > 300
    assert sorted(shown) == FIGURES
    assert not re.search(r"/(home|root|tmp|work|Users)/", json.dumps([outputs(cell) for cell in code]))
