"""Token scores from hidden states: log-odds that do not saturate, and their gradient."""

import numpy as np
import pytest
import torch

from cxr_faith.vlm.head import Head


class Unit:
    """A norm whose scale is 1."""

    eps = 0.0
    weight = torch.zeros(4)


@pytest.fixture
def head():
    lm_head = torch.nn.Linear(4, 50, bias=False)
    torch.nn.init.normal_(lm_head.weight, generator=torch.Generator().manual_seed(0))
    return Head(Unit(), lm_head.requires_grad_(False), offset=1)


def test_log_odds_are_a_logit_minus_the_logsumexp_of_the_others(head):
    hidden = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1))
    gold = torch.tensor([[0, 49], [7, 7], [20, 3]])
    scores, standing = head.token_scores(hidden, gold)
    for place in np.ndindex(3, 2):
        logits = head.logits(hidden)[place].double().numpy()
        others = np.delete(logits, gold[place])
        assert scores[place].item() == pytest.approx(logits[gold[place]] - np.log(np.exp(others).sum()), abs=1e-5)
        assert standing[place].item() == pytest.approx(logits[gold[place]] - others.max(), abs=1e-5)


def test_a_sure_token_still_has_log_odds(head):
    """At a logit of 60 above the others log p is 0 in float32, and log p - log(1 - p) is lost."""
    hidden = torch.ones(1, 2, 4)
    head._lm_head.weight.zero_()
    head._lm_head.weight[0] = 15.0  # a logit of 60 for token 0, 0 for all 49 others
    head._lm_head.weight[1] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    gold = torch.tensor([[0, 0]])
    (first, _), _ = head.token_scores(hidden, gold)[0][0], None
    assert first.item() == pytest.approx(60 - np.log(48 + np.e), abs=1e-4)
    assert torch.log_softmax(head.logits(hidden), -1)[0, 0, 0].item() == 0.0


def test_the_gradient_is_that_of_the_log_odds(head):
    """1 at the token, minus the softmax over the others; it does not vanish where the token is sure."""
    hidden = torch.randn(1, 1, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    scores, _ = head.token_scores(hidden, torch.tensor([[5]]))
    (ours,) = torch.autograd.grad(scores.sum(), hidden)
    logits = head.logits(hidden)[0, 0]
    others = torch.softmax(torch.cat([logits[:5], logits[6:]]), 0).detach()
    weights = torch.cat([-others[:5], torch.ones(1), -others[5:]])
    (expected,) = torch.autograd.grad(logits @ weights, hidden)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_many_tokens_are_scored_in_slices(head, monkeypatch):
    """The same bits, and never more logits in memory than those of one slice, however many pictures and tokens."""
    largest = []
    project = head.logits
    monkeypatch.setattr(head, "logits", lambda hidden: largest.append(len(hidden)) or project(hidden))
    random = torch.Generator().manual_seed(3)
    hidden, gold = torch.randn(16, 13, 4, generator=random), torch.randint(0, 50, (16, 13), generator=random)
    scores, standing = head.token_scores(hidden, gold)
    assert largest == [64, 64, 64, 16]
    for picture in range(16):
        one = head.token_scores(hidden[picture, None], gold[picture, None])
        assert torch.equal(one[0][0], scores[picture]) and torch.equal(one[1][0], standing[picture])
