"""From the decoder's last hidden states to numbers: the final norm and the rows of `lm_head`, in float32.

A score must not depend on the batch that it was computed in, so nothing here is rounded by the number of rows.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_VOCABULARY_CHUNK = 32768
_ROW_BLOCK = 16


class Head:
    """Reads logits, margins and log-probabilities in hidden states before the final norm."""

    def __init__(self, norm: Any, lm_head: Any) -> None:
        """Take the decoder's final RMSNorm and its matrix of token rows; both stay where they are."""
        self._norm, self._lm_head = norm, lm_head

    def norm(self, hidden: Tensor) -> Tensor:
        """The final RMSNorm in float32: a bfloat16 logit of 16 to 32 is exact to 0.125 only."""
        hidden = hidden.float()
        scaled = hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self._norm.eps)
        normed: Tensor = scaled * (1 + self._norm.weight.float())
        return normed

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 logits [..., vocabulary], projected in slices so that no float32 copy of the matrix is kept.

        Rows are padded to whole blocks: a matrix product rounds a row alike only where its block is full.
        """
        rows, weight = self.norm(hidden).flatten(0, -2), self._lm_head.weight
        padded = torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % _ROW_BLOCK))
        logits = torch.cat([_project(padded, part) for part in weight.split(_VOCABULARY_CHUNK)], dim=-1)
        unpadded: Tensor = logits[: len(rows)].unflatten(0, hidden.shape[:-1])
        return unpadded

    def margin(self, hidden: Tensor, ids: Tensor, n_yes: int) -> Tensor:
        """Logsumexp of the first `n_yes` of the ids' logits minus that of the others, from their rows only.

        Args:
            hidden: [batch, hidden].
            ids: int64 [yes and no tokens].
            n_yes: how many of them, the first, mean yes.

        Returns:
            float32 [batch].
        """
        # A sum for each row, not a matrix product: that would be rounded by the size of the batch.
        logits = (self.norm(hidden)[:, None] * self._lm_head.weight[ids].float()).sum(-1)
        margin: Tensor = logits[:, :n_yes].logsumexp(-1) - logits[:, n_yes:].logsumexp(-1)
        return margin

    def token_scores(self, hidden: Tensor, gold: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of each token, and its logit's margin over the best other one.

        Args:
            hidden: where each token is read, [batch, n, hidden].
            gold: the tokens, int64 [batch, n].

        Returns:
            float32 [batch, n] each; the margins without a graph.
        """
        logits, gold = self.logits(hidden), gold[..., None]
        chosen = logits.gather(-1, gold)
        others = logits.detach().scatter(-1, gold, -torch.inf).amax(-1)
        return (chosen - logits.logsumexp(-1, keepdim=True))[..., 0], chosen[..., 0].detach() - others

    def token_logits(self, states: Tensor, token_ids: Tensor) -> Tensor:
        """Logits of some tokens at every position; see `VLM.token_logits`."""
        normed, rows = self.norm(states), self._lm_head.weight[token_ids].float()
        # A sum for each row, as in `margin`; one token at a time, so that no [positions, tokens, hidden] is formed.
        return torch.stack([(normed * row[:, None]).sum(-1) for row in rows.unbind(1)], dim=-1)


def _project(rows: Tensor, part: Tensor) -> Tensor:
    """Logits of some of the matrix's rows; for a backward pass their float32 copy is made again, not kept."""
    if part.dtype == torch.float32 or not torch.is_grad_enabled():
        return rows @ part.float().T
    logits: Tensor = checkpoint(lambda x: x @ part.float().T, rows, use_reentrant=False, preserve_rng_state=False)
    return logits


def whole_vectors(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """An elementwise function, on values padded to whole vector registers.

    The last, incomplete register of a tensor is computed by other code, which may round otherwise.
    """
    flat = values.flatten()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % _ROW_BLOCK))
    return function(padded)[: len(flat)].view_as(values)
