"""Training of several families: its packed forward is the engine's, and what it saves answers as any other model."""

import argparse
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from architecture import GRID
from families import FAMILIES
from feed import Feed
from packing import Packer, forward
from regimes import Cycle
from tokenizer import build_tokenizer
from train import run_cycle, save, yes_no_ids

from cxr_faith import Explainer
from cxr_faith.vlm import Target
from cxr_faith.vlm.loading import load_vlm

QUESTIONS = (("Is there a nodule?", "yes"), ("What is on the left side?", "left, no effusion"), ("Any effusion?", "no"))


@pytest.fixture(scope="module", params=["qwen2_5_vl", "llava"])
def started(request, chunks, tmp_path_factory):
    """A newly initialized model of a family, the feed that trains it, and its saved folder."""
    family = FAMILIES[request.param]
    packer = Packer(build_tokenizer(family), family)
    model = family.build(packer.tokenizer, 0)
    family.start_training(model)
    folder = tmp_path_factory.mktemp(request.param) / "model"
    save(model, packer, folder)
    return SimpleNamespace(family=family, model=model, packer=packer, feed=Feed(*chunks, packer, 4), folder=folder)


def test_the_packed_forward_is_the_engines(started):
    """Logits of every reply token, by prompts, windows and positions of the engine; each question is alone there."""
    vlm = load_vlm(started.folder, "cpu", torch.float32)
    assert vlm.grid == (GRID, GRID)
    pixels = torch.from_numpy(started.feed.images[:2]).float()[:, None].expand(-1, 3, -1, -1) / 127.5 - 1
    pack = started.packer.pack([[(*pair, None) for pair in QUESTIONS]] * 2)
    with torch.no_grad():
        hidden, cells = forward(started.model, started.packer, pixels, pack)
        prefix = vlm.prefill(vlm.encode(pixels))
    assert cells.shape[:2] == (2, GRID**2)
    for segment, (question, reply) in enumerate(QUESTIONS):
        ids = started.packer.tokenizer.encode(reply, add_special_tokens=False)
        target = Target("tokens", answer_ids=tuple(ids), scored=tuple(range(len(ids))))
        with torch.no_grad():
            scores = vlm.score(prefix, vlm.prompt(question), target)
        at = (pack.segment == segment) & (pack.target >= 0)
        logits = started.model.lm_head(hidden[at]).double().unflatten(0, (2, -1))[:, :-1]  # but for the end
        gold = logits[:, torch.arange(len(ids)), ids]
        others = logits.scatter(2, torch.tensor(ids).expand(2, -1)[..., None], -torch.inf).logsumexp(2)
        torch.testing.assert_close(scores.s.double(), (gold - others).mean(1), atol=1e-4, rtol=0)
        assert abs(float(scores.s[0] - scores.s[1])) > 1e-3  # the picture matters from the start


def test_with_the_first_weights_replies_depend_on_the_picture_and_layers_add_little(started):
    pixels = torch.from_numpy(started.feed.images[:2]).float()[:, None].expand(-1, 3, -1, -1) / 127.5 - 1
    pack, read = started.packer.pack([[(*pair, None) for pair in QUESTIONS]] * 2), []
    layer = started.model.model.language_model.layers[0]
    hook = layer.register_forward_hook(lambda _, inputs, output: read.append((inputs[0], output)))
    with torch.no_grad():
        hidden, _ = forward(started.model, started.packer, pixels, pack)
    hook.remove()
    ((before, after),) = read
    assert (after - before).norm() < 0.5 * before.norm()
    one, other = hidden[:, pack.target[0] >= 0]
    assert (one - other).norm() > 0.05 * one.norm()


def arguments(**others):
    return argparse.Namespace(lr=1e-3, bf16=False, save_every=others.pop("save_every", 1e9), **others)


def test_an_interrupted_cycle_of_any_family_goes_on_with_the_same_bits(started, tmp_path, monkeypatch):
    cycle = Cycle("c", 3, 1.0, dense=0.5, intact=1.0)
    monkeypatch.setattr("train.TOWER_STEPS", 1)
    family, packer, feed = started.family, started.packer, started.feed
    whole, fresh = (family.build(packer.tokenizer, seed) for seed in (0, 5))
    for model in (whole, fresh):
        family.start_training(model)
    torch.manual_seed(7)
    run_cycle(whole, feed, cycle, [0, 0], tmp_path / "whole.state", arguments())
    cut, draw, drawn = family.build(packer.tokenizer, 0), feed.draw, []
    family.start_training(cut)

    def stopping(order=None):
        drawn.append(1)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return draw(order)

    monkeypatch.setattr(feed, "draw", stopping)
    torch.manual_seed(7)  # of the lesion head's first weights
    with pytest.raises(KeyboardInterrupt):
        run_cycle(cut, feed, cycle, [0, 0], tmp_path / "cut.state", arguments(save_every=-1.0))
    monkeypatch.setattr(feed, "draw", draw)
    run_cycle(fresh, feed, cycle, [0, 0], tmp_path / "cut.state", arguments())
    for one, other in zip(whole.state_dict().values(), fresh.state_dict().values(), strict=True):
        assert torch.equal(one, other) and bool(one.isfinite().all())
    unused = [name for name, weight in whole.named_parameters() if weight.grad is None]
    assert all("layers.4" in name or "post_layernorm" in name for name in unused)  # CLIP's last layer is not read


def test_the_saved_folder_answers_through_the_explainer(started):
    explainer = Explainer.from_pretrained(started.folder, "cpu")
    picture = np.repeat(started.feed.images[0][..., None], 3, axis=2)
    explanation = explainer.explain(picture, "Is there a nodule?", method="gradient")
    assert explanation.map.shape == (GRID, GRID) and explanation.map.std() > 0
    assert set(map(int, yes_no_ids(started.packer.tokenizer, torch.device("cpu"))[0])) == set(explainer.vlm.yes_ids)
