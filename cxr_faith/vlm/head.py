"""Logits, margins and log-odds from the decoder's last hidden states, in float32.

A score must not depend on the batch that it was computed in, so every operation here rounds a row in the same way
whatever the number of rows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_VOCABULARY_CHUNK = 32768
_ROW_BLOCK = 16
_ROWS_AT_ONCE = 64
"""Rows whose logits are in memory together, whole blocks; with 262,208 tokens, 67 MB in float32."""


class Head:
    """The final RMSNorm and `lm_head`; all methods take hidden states before the final norm.

    Args:
        norm: the decoder's final RMSNorm.
        lm_head: its output projection, one row for each token.
        offset: added to the norm's weight: 1 in Gemma up to 3, 0 elsewhere.

    Attributes:
        cap: bound c of the logits z, which become c · tanh(z / c), as in Gemma 4; None: no bound.
    """

    cap: float | None = None

    def __init__(self, norm: Any, lm_head: Any, offset: float = 0.0) -> None:
        self._norm, self._lm_head, self._offset = norm, lm_head, offset
        self._eps: float = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon

    def norm(self, hidden: Tensor) -> Tensor:
        """The final RMSNorm in float32; in bfloat16, a logit between 16 and 32 is exact to 0.125 only."""
        hidden = hidden.float()
        scaled = hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self._eps)
        normed: Tensor = scaled * (self._offset + self._norm.weight.float())
        return normed

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 logits [..., vocabulary], projected in slices so that no float32 copy of the matrix is kept.

        Rows are padded to whole blocks, since a matrix product rounds a row differently in an incomplete block.
        """
        rows, weight = self.norm(hidden).flatten(0, -2), self._lm_head.weight
        padded = torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % _ROW_BLOCK))
        logits = torch.cat([_project(padded, part) for part in weight.split(_VOCABULARY_CHUNK)], dim=-1)
        unpadded: Tensor = logits[: len(rows)].unflatten(0, hidden.shape[:-1])
        return self._capped(unpadded)

    def margin(self, hidden: Tensor, ids: Tensor, n_yes: int) -> Tensor:
        """Logsumexp of the logits of the first `n_yes` ids minus that of the other ids.

        Args:
            hidden: [batch, hidden].
            ids: int64, the tokens that mean yes, then those that mean no.
            n_yes: number of tokens that mean yes.

        Returns:
            float32 [batch].
        """
        yes, no = self.group_logits(hidden, ids, (n_yes, len(ids) - n_yes))
        return yes - no

    def group_logits(self, hidden: Tensor, ids: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Logsumexp of the logits of each group of tokens.

        Args:
            hidden: [batch, hidden].
            ids: int64, the tokens of all groups, one group after another.
            sizes: number of tokens of each group.

        Returns:
            for each group float32 [batch].
        """
        # A sum for each row: a matrix product would round differently at different batch sizes.
        logits = self._capped((self.norm(hidden)[:, None] * self._lm_head.weight[ids].float()).sum(-1))
        return [group.logsumexp(-1) for group in logits.split(list(sizes), -1)]

    def token_scores(self, hidden: Tensor, gold: Tensor) -> tuple[Tensor, Tensor]:
        """Log-odds of each token, and its logit's margin over the best other one.

        Log-odds are the token's logit minus the logsumexp of all others. They do not saturate: log p of a sure token
        is 0 to the last bit, and so is log p - log(1 - p) lost, while the logits still tell.

        Args:
            hidden: at the positions where the tokens are read, [batch, n, hidden].
            gold: the tokens, int64 [batch, n].

        Returns:
            float32 [batch, n] each; the margins carry no gradient.
        """
        rows, tokens = hidden.flatten(0, -2).split(_ROWS_AT_ONCE), gold.flatten().split(_ROWS_AT_ONCE)
        parts = [self._row_scores(*part) for part in zip(rows, tokens, strict=True)]
        log_odds, margins = (torch.cat(values).view_as(gold) for values in zip(*parts, strict=True))
        return log_odds, margins

    def _row_scores(self, hidden: Tensor, gold: Tensor) -> tuple[Tensor, Tensor]:
        """`token_scores` of rows [n, hidden]."""
        logits, gold = self.logits(hidden), gold[:, None]
        chosen, others = logits.gather(-1, gold)[:, 0], logits.scatter(-1, gold, -torch.inf)
        return chosen - others.logsumexp(-1), chosen.detach() - others.detach().amax(-1)

    def token_logits(self, states: Tensor, token_ids: Tensor) -> Tensor:
        """Logits of some tokens at every position; see `VLM.token_logits`."""
        normed, rows = self.norm(states), self._lm_head.weight[token_ids].float()
        # A sum for each row, as in `margin`; one token at a time, so that no [positions, tokens, hidden] is formed.
        return self._capped(torch.stack([(normed * row[:, None]).sum(-1) for row in rows.unbind(1)], dim=-1))

    def _capped(self, logits: Tensor) -> Tensor:
        """The logits within their bound."""
        return logits if self.cap is None else whole_vectors(torch.tanh, logits / self.cap) * self.cap


def _project(rows: Tensor, part: Tensor) -> Tensor:
    """Logits of some of the matrix's rows; their float32 copy is made again for a backward pass, not kept."""
    if part.dtype == torch.float32 or not torch.is_grad_enabled():
        return rows @ part.float().T
    logits: Tensor = checkpoint(lambda x: x @ part.float().T, rows, use_reentrant=False, preserve_rng_state=False)
    return logits


def whole_vectors(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """An elementwise function of values padded to whole vector registers.

    Other code computes the last, incomplete register of a tensor, and may round differently.
    """
    flat = values.flatten()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % _ROW_BLOCK))
    return function(padded)[: len(flat)].view_as(values)
