"""Orders cells by the model's own explanation of an answer, to remove them in the order of a good map.

After training with random removals only, some cells without a lesion still raise the margin, and explanations find
them. Pictures whose cells are removed in the order of the model's own gradients teach that only the lesion's area
counts.
"""

from __future__ import annotations

import numpy as np
import torch
from architecture import GRID
from numpy.typing import NDArray
from packing import Pack, Packer, forward_tokens
from torch import Tensor
from transformers import PreTrainedModel

MAGNITUDE = 0.2


def yes_no_margin(hidden: Tensor, head: Tensor, ids: tuple[Tensor, ...]) -> Tensor:
    """Margins [n] in logits: logsumexp over the yes ids minus the same over the no ids, from hidden states [n, h]."""
    yes, no = ids
    logits = (hidden @ head[torch.cat([yes, no])].T).float()
    return logits[:, : len(yes)].logsumexp(-1) - logits[:, len(yes) :].logsumexp(-1)


def own_orders(
    model: PreTrainedModel,
    packer: Packer,
    pixels: Tensor,
    substrate: Tensor,
    pack: Pack,
    ids: tuple[Tensor, ...],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """How much each cell supports the answer: one point of integrated gradients on the image tokens.

    Args:
        model: the model; its parameters get no gradient.
        packer: the packer that made the pack.
        pixels: intact pictures in model space [n, 3, side, side].
        substrate: the same pictures, removed everywhere.
        pack: one yes/no question per picture.
        ids: yes ids and no ids.
        rng: draws the points of the path, and which pictures are ordered by the gradient's size instead.

    Returns:
        values [n, grid, grid] of unit standard deviation; larger means more support for the answer on the intact
        picture.
    """
    with torch.no_grad():
        intact, _ = packer.family.features(model, pixels)
        gone, _ = packer.family.features(model, substrate)
    along = torch.from_numpy(rng.uniform(0.0, 1.0, (len(pixels), 1, 1))).to(intact)
    tokens = (gone + along * (intact - gone)).requires_grad_()
    hidden = forward_tokens(model, packer, tokens, pack)
    margins = yes_no_margin(hidden[torch.isin(pack.target, torch.cat(ids))], model.lm_head.weight, ids)
    (slope,) = torch.autograd.grad(margins.sum(), tokens)
    slope = slope.float()
    field = (slope * (intact - gone).float()).sum(-1) * margins.detach().sign()[:, None]
    size = torch.from_numpy(rng.random(len(pixels)) < MAGNITUDE).to(field.device)
    field = torch.where(size[:, None], slope.norm(dim=-1), field)
    field = field / field.std(dim=1, keepdim=True).clamp_min(1e-12)
    values: NDArray[np.float64] = field.reshape(-1, GRID, GRID).double().cpu().numpy()
    return values
