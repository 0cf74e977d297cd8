"""The tutorial runs from start to end, and shows what its text says."""

import os
import runpy
from pathlib import Path

import pytest
from PIL import Image

TUTORIAL = Path(__file__).parents[2] / "tutorial" / "tutorial.py"


@pytest.mark.slow
def test_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TUTORIAL_OUT", str(tmp_path))
    values = runpy.run_path(str(TUTORIAL), run_name="__main__")
    assert values["at_token"] == 0 < values["at_read"]
    assert values["results"]["chefer"].srg_logit > values["results"]["random_map"].srg_logit
    assert "patient's" in capsys.readouterr().out
    drawn = sorted(path.stem for path in tmp_path.glob("*.png"))
    expected = """
        1-circle 1-quadrant 1-split 2-chefer 3-p-minus-1
        4-layers 4-methods 4-regions 4-words 5-curves 5-film"""
    assert drawn == sorted(expected.split())
    for name in drawn:
        with Image.open(tmp_path / f"{name}.png") as figure:
            assert len(figure.convert("RGB").resize((64, 64)).getcolors(4096) or []) > 10, name


def test_it_is_a_notebook() -> None:
    jupytext = pytest.importorskip("jupytext", reason="development dependency jupytext")
    cells = jupytext.read(TUTORIAL).cells
    kinds = [cell.cell_type for cell in cells]
    assert kinds.count("markdown") >= 10 and kinds.count("code") >= 10
    assert not any(os.sep + "work" in cell.source for cell in cells)
