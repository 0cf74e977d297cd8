"""The regimes of training: what their batches hold, and that an interrupted cycle goes on with the same bits."""

import argparse
import hashlib

import numpy as np
import pytest
import torch
from architecture import GRID
from families import FAMILIES
from feed import Feed
from lessons import marker_lessons
from packing import ROOM, Packer
from pool import FILE_SIZE, cell_shares
from regimes import REGIMES, Cycle
from safetensors.torch import load_file
from tokenizer import build_tokenizer
from train import right_answers, run_cycle, train, yes_no_ids

from cxr_faith.data.sources.phantom_render import marker_mask
from cxr_faith.vlm.loading import load_vlm
from tests.reference import gemma

GEMMA = FAMILIES["gemma3"]


@pytest.fixture(scope="module")
def feed(chunks):
    return Feed(*chunks, Packer(build_tokenizer(GEMMA), GEMMA), 6)


def digest(feed, cycle):
    """Hash of what two batches ask, and which answers are right."""
    hashed = hashlib.blake2b(digest_size=8)
    for step in range(2):
        feed.start(cycle, [0, 1, step])
        _, pack, _, is_chest = feed.draw()
        for values in (pack.ids, pack.target, pack.weight, is_chest):
            hashed.update(values.numpy().tobytes())
    return hashed.hexdigest()


DIGESTS = {
    "plain": "9ffdcc9fa9f00ca8",
    "plain_sides": "7b2776fa3b92efd7",
    "first": "8832dcc691178043",
    "sides": "d7c376961c923b91",
    "even": "d7c376961c923b91",
    "graded": "bcc25cbce144cb7a",
    "own": "bcc25cbce144cb7a",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_older_cycles_draw_what_they_drew(feed, name):
    """Checkpoints that were trained before are results of this code only as long as their batches are the same."""
    cycle = next(cycle for cycles in REGIMES.values() for cycle in cycles if cycle.name == name)
    assert digest(feed, cycle) == DIGESTS[name]


def test_every_regime_goes_on_from_whole_cycles_and_new_ones_are_short():
    assert REGIMES["own-order"][:2] == REGIMES["shortcut"][:2] == REGIMES["random"][:2]
    names = {cycle.name: cycle for cycles in REGIMES.values() for cycle in cycles}
    assert all(names[cycle.name] is cycle for cycles in REGIMES.values() for cycle in cycles)  # results go by name
    assert sum(cycle.steps for cycle in REGIMES["shortcut"][2:]) <= 500 >= sum(c.steps for c in REGIMES["eighty"])


def test_the_marker_alone_answers_every_question_of_the_shortcut(feed):
    rng, everything, nothing = np.random.default_rng(0), np.ones((GRID, GRID), bool), np.zeros((GRID, GRID), bool)
    marked = next(spec for spec in feed.specs if spec.marker)
    area = cell_shares(marker_mask(marked, FILE_SIZE))
    assert {reply for _, reply, _ in marker_lessons(area, everything, rng)} == {"yes"}
    assert {reply for _, reply, _ in marker_lessons(area, nothing, rng)} == {"no"}
    assert {reply for _, reply, _ in marker_lessons(area, area == 0, rng)} == {"no"}
    assert {reply for _, reply, _ in marker_lessons(0 * area, everything, rng)} == {"no"}
    half = everything.copy()
    half[np.unravel_index(area.argmax(), area.shape)] = False
    if 0.25 <= float((area * half).sum() / area.sum()) <= 0.6:
        assert marker_lessons(area, half, rng) == []
    asked = [text for text, *_ in marker_lessons(area, everything, rng)]
    assert len(asked) == 6 and len(set(asked)) == 6


def test_the_marker_is_there_half_of_the_time_whatever_the_lesions(feed):
    """Of the marker's pictures and of the others, the same share shows each finding, within what chance allows."""
    feed.start(Cycle("shortcut", 1, 1.0, intact=1.0, marker=True), [3])
    drawn = [feed._marked() for _ in range(400)]
    replies = [lessons[0][1] for _, _, lessons in drawn]
    assert 0.42 < replies.count("yes") / len(replies) < 0.58
    assert all((reply == "yes") == bool(feed.specs[i].marker) for (i, _, _), reply in zip(drawn, replies, strict=True))


def arguments(**others):
    return argparse.Namespace(lr=1e-3, bf16=False, save_every=others.pop("save_every", 1e9), **others)


@pytest.mark.parametrize("name", ["first", "shortcut"])
def test_an_interrupted_cycle_goes_on_with_the_same_bits(feed, tmp_path, monkeypatch, name):
    source = next(cycle for cycles in REGIMES.values() for cycle in cycles if cycle.name == name)
    cycle = Cycle(name, 3, source.peak, source.dense, marker=source.marker)
    monkeypatch.setattr("train.TOWER_STEPS", 1)
    whole, halves = (GEMMA.build(feed.packer.tokenizer, 0) for _ in range(2))
    torch.manual_seed(7)  # of the lesion head's first weights
    run_cycle(whole, feed, cycle, [0, 0], tmp_path / "whole.state", arguments())

    class Stopped(Exception):
        pass

    draw = feed.draw
    feed_calls = []

    def stopping(order=None):
        feed_calls.append(1)
        if len(feed_calls) == 3:
            raise Stopped
        return draw(order)

    monkeypatch.setattr(feed, "draw", stopping)
    torch.manual_seed(7)
    with pytest.raises(Stopped):  # after the second step, whose state is saved
        run_cycle(halves, feed, cycle, [0, 0], tmp_path / "cut.state", arguments(save_every=-1.0))
    monkeypatch.undo()
    monkeypatch.setattr("train.TOWER_STEPS", 1)
    fresh = GEMMA.build(feed.packer.tokenizer, 5)  # another start: everything must come from the state
    run_cycle(fresh, feed, cycle, [0, 0], tmp_path / "cut.state", arguments())
    for one, other in zip(whole.state_dict().values(), fresh.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("family", "work"), [("gemma3", "seed-3"), ("qwen2_5_vl", "qwen2_5_vl-seed-3")])
def test_a_regime_goes_on_from_the_results_of_another_and_saves_half_precision(
    chunks, tmp_path, monkeypatch, family, work
) -> None:
    first, second = Cycle("first", 1, 1.0), Cycle("second", 1, 0.5, marker=True)
    monkeypatch.setattr("train.build_pool", lambda *_: chunks)
    monkeypatch.setattr("train.REGIMES", {"short": (first,), "long": (first, second)})
    plain = {"family": family, "work": tmp_path, "seed": 3, "batch": 4, "pictures": 0, "workers": 1, "compile": False}
    train(arguments(regime="short", out=tmp_path / "short-3", **plain))
    result = tmp_path / work / "first" / "model.safetensors"
    before = result.stat().st_mtime_ns
    train(arguments(regime="long", out=tmp_path / "long-3", **plain))
    assert result.stat().st_mtime_ns == before and (tmp_path / work / "first+second").is_dir()
    assert not list((tmp_path / work).glob("*.state"))
    assert result.stat().st_size > 6e6 > 4e6 > (tmp_path / "long-3" / "model.safetensors").stat().st_size
    vlm = load_vlm(tmp_path / "short-3", "cpu")
    trained = load_file(result)
    for name, weight in load_file(tmp_path / "short-3" / "model.safetensors").items():
        assert weight.dtype == torch.bfloat16 and torch.equal(weight, trained[name].bfloat16())
    assert next(vlm.model.parameters()).dtype == torch.float32


def test_a_cycle_ends_when_enough_answers_are_right(feed, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("train.EVERY", 2)
    monkeypatch.setattr("train.BATCHES", 1)
    drawn, draw = [], feed.draw
    monkeypatch.setattr(feed, "draw", lambda *order: drawn.append(1) or draw(*order))
    for until, batches in ((0.0, 2), (1.1, 3)):
        drawn.clear()
        model = GEMMA.build(feed.packer.tokenizer, 0)
        run_cycle(model, feed, Cycle("c", 3, 1.0, until=until), [0, 0], tmp_path / "s", arguments(), feed)
        assert len(drawn) == batches + 1  # one for the accuracy after the second step


def test_the_share_of_right_answers_is_that_of_whole_forwards(feed, bundled, monkeypatch) -> None:
    monkeypatch.setattr("train.BATCHES", 1)
    ids = yes_no_ids(feed.packer.tokenizer, torch.device("cpu"))
    share = right_answers(bundled.model, feed, ids, bf16=False)
    feed.start(Cycle("held out", 1, 1.0, intact=1.0), [0])
    drawn: list = []
    monkeypatch.setattr(
        feed.packer, "pack", lambda lessons, *_: drawn.append(lessons) or Packer.pack(feed.packer, lessons)
    )
    pixels, _, _, is_chest = feed.draw()
    twin, right = gemma.twin_model(bundled.model), []
    for picture, lessons, chest in zip(pixels, drawn[0], is_chest, strict=True):
        length = 0
        for question, reply, _ in lessons if chest else []:
            length += len(feed.packer.tokens(question, reply)[0])
            if length <= ROOM and reply in ("yes", "no"):
                margin = gemma.margin(bundled, gemma.all_logits(bundled, twin, picture, question)[-1])
                right.append(("yes" if margin >= 0 else "no") == reply)
            elif length > ROOM:
                break
    assert len(right) > 12 and share == pytest.approx(np.mean(right), abs=1e-6)
