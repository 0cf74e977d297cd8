"""The preset `families`: the engine runs what the schedule has, and the floor what transformers would run."""

import json
from functools import partial

import pytest
import torch

from cxr_faith.__main__ import main
from cxr_faith.bench import families
from cxr_faith.bench.compare import Disagreement
from cxr_faith.bench.families import GEMMA, MAKERS, load_family, measure_family
from cxr_faith.bench.family_parts import TINY
from cxr_faith.perturb.engine import Engine
from cxr_faith.protocol import Protocol
from cxr_faith.vlm.families import FAMILIES

SHORT = Protocol(steps=3, random_orders=2, max_new_tokens=1)


def test_every_family_is_measured():
    assert {GEMMA, *MAKERS} == {*FAMILIES}


@pytest.mark.parametrize("family", ["qwen3_vl", "paligemma"])
def test_counts_and_bare_stages(family, monkeypatch):
    """By hand: the ends, and two inner points, deleted and inserted, of each question's maps and of what all share.

    All share the center prior and a random order; the second one is its reverse, which needs the same pictures.
    """
    vlm, stages = load_family(family, TINY), []
    bare_stages = families._bare_stages
    monkeypatch.setattr(families, "_bare_stages", lambda *args: stages.append(bare_stages(*args)) or stages[-1])
    row = measure_family(family, vlm, SHORT, repeats=1, batches=(2,))
    assert row.pictures == 2 + 2 * 2 * (2 * 2 + 2)
    assert row.asked == 2 * (2 + 2 * 2 * (2 + 2))
    assert row.ratio.median == pytest.approx(row.engine.median / row.floor.median) and row.floor.min > 0
    (bare,) = stages
    assert [*bare] == (["tower", "question"] if family == "paligemma" else ["tower", "prefill", "question"])
    with torch.no_grad():
        assert torch.isfinite(bare["question"]()).all()


def test_other_counts_than_the_schedules_are_an_error(monkeypatch):
    monkeypatch.setattr(families, "Engine", partial(Engine, share=False))
    with pytest.raises(Disagreement, match="llava: the engine ran .* the schedule has"):
        measure_family("llava", load_family("llava", TINY), SHORT, repeats=1, batches=(1,))


def test_the_command_prints_a_row_for_each_family(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(families, "MAKERS", {name: MAKERS[name] for name in ("qwen2_5_vl",)})
    monkeypatch.setattr(families, "load_family", lambda name: load_family("qwen2_5_vl", TINY))
    monkeypatch.setattr(families, "BATCHES", (1,))
    assert main(["bench", "--preset", "families", "--out", str(tmp_path / "families.json")]) == 0
    printed = capsys.readouterr().out
    rows = json.loads((tmp_path / "families.json").read_text())["rows"]
    assert [row["family"] for row in rows] == ["gemma3", "qwen2_5_vl"]
    assert all(f"{row['pictures']} + {row['asked']}" in printed for row in rows)
    assert "engine ÷ floor at most 1.10" in printed
