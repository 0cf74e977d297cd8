"""The model's own answer: greedy decoding, and what its first step says about yes and no."""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

NextLogits = Callable[[tuple[int, ...]], Tensor]
"""Feeds token ids to the model and returns the logits [vocabulary] of the token that follows."""


def greedy(first: Tensor, following: NextLogits, stops: Collection[int], max_new_tokens: int) -> tuple[int, ...]:
    """The most likely token, again and again, until one of `stops` or `max_new_tokens` tokens.

    Args:
        first: logits [vocabulary] of the answer's first token.
        following: gives the logits after one more token; never called for the last one.
        stops: ids that end the answer; they are not part of it.
        max_new_tokens: longest answer.
    """
    ids, token = list[int](), int(first.argmax())
    while token not in stops and len(ids) < max_new_tokens:
        ids.append(token)
        if len(ids) < max_new_tokens:
            token = int(following((token,)).argmax())
    return tuple(ids)


def yes_no_step(logits: Tensor, yes_ids: Sequence[int], no_ids: Sequence[int]) -> tuple[float, float]:
    """(margin of yes over no in logits, probability mass on yes and no) of one step's logits [vocabulary]."""
    yes, no = (torch.tensor(ids, device=logits.device) for ids in (yes_ids, no_ids))
    margin = float(logits[yes].logsumexp(0) - logits[no].logsumexp(0))
    return margin, float(logits.log_softmax(dim=-1)[torch.cat([yes, no])].exp().sum())
