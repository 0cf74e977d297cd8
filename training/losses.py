"""Losses of the training: the replies, the size of yes/no margins, and where lesions are; and the accuracy."""

from __future__ import annotations

import torch
from feed import CHANNELS
from orders import yes_no_margin
from packing import Pack
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

MARGIN = 7.0


def answer_loss(model: PreTrainedModel, hidden: Tensor, pack: Pack) -> tuple[Tensor, Tensor]:
    """Weighted cross entropy of the replies, and the share of reply tokens that are right."""
    at = pack.target >= 0
    logits = model.lm_head(hidden[at]).float()
    target, weight = pack.target[at], pack.weight[at]
    loss = (F.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum()
    content = weight == weight.max()
    return loss, (logits.argmax(-1) == target)[content].float().mean()


def even_margins(model: PreTrainedModel, hidden: Tensor, pack: Pack, ids: tuple[Tensor, ...]) -> Tensor:
    """How far the yes/no margins are from ±MARGIN logits, squared and relative.

    With cross entropy alone, the size of a margin depends on the rest of the picture. An answer that a lesion decides
    should be as certain with the lesion alone as with the whole picture, or curves keep moving after all evidence is
    removed.
    """
    asked = torch.isin(pack.target, torch.cat(ids))
    margin = yes_no_margin(hidden[asked], model.lm_head.weight, ids)
    word = torch.where(torch.isin(pack.target[asked], ids[0]), 1.0, -1.0)
    wanted = torch.where(pack.margin[asked].isnan(), word, pack.margin[asked])
    return (margin / MARGIN - wanted).square().mean()


def accuracy(model: PreTrainedModel, hidden: Tensor, pack: Pack, ids: tuple[Tensor, ...], pictures: Tensor) -> Tensor:
    """Whether each yes/no question about some pictures, bool [batch], is answered rightly."""
    asked = torch.isin(pack.target, torch.cat(ids)) & pictures[:, None]
    yes = yes_no_margin(hidden[asked], model.lm_head.weight, ids) >= 0
    return yes == torch.isin(pack.target[asked], ids[0])


def dense_loss(head: nn.Linear, cells: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Loss of predicting each cell's lesions from its features; lesions are rare, so their cells weigh more."""
    more = target.new_tensor(3.0)
    loss = F.binary_cross_entropy_with_logits(head(cells).float(), target, reduction="none", pos_weight=more)
    return (loss.mean((1, 2)) * weight).sum() / weight.sum().clamp_min(1) * len(CHANNELS)
