"""Scores read from the decoder's last hidden states: margins, letters and log-odds of tokens."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cxr_faith.vlm.decoder import Decoder
from cxr_faith.vlm.head import whole_vectors
from cxr_faith.vlm.question import PictureScores, Target

_log_sigmoid = torch.nn.functional.logsigmoid


class Readout:
    """Reads the score of a target.

    Args:
        decoder: the decoder, with its head.
        yes_ids: token ids that mean yes.
        no_ids: token ids that mean no.
    """

    def __init__(self, decoder: Decoder, yes_ids: Sequence[int], no_ids: Sequence[int]) -> None:
        self._decoder, self._yes_ids, self._no_ids = decoder, tuple(yes_ids), tuple(no_ids)

    def scores(self, hidden: Tensor, positions: Sequence[int], target: Target) -> PictureScores:
        """Scores of pictures.

        Args:
            hidden: before the final norm [batch, sequence, hidden].
            positions: where the scored tokens are read, in `hidden`.
            target: what is scored.
        """
        if target.kind == "margin":
            s = (target.sign * self._margin(hidden[:, positions[0]])).double()
            return _scores(s[:, None], s[:, None])
        if target.kind == "letter":
            margins, odds = (values.double() for values in self._letter_scores(hidden[:, positions[0]], target))
            return replace(_scores(odds[:, None], margins[:, None]), s=margins)
        of_tokens = self._token_scores(_at(hidden, positions), [target] * len(hidden))
        return _scores(*(values.double() for values in of_tokens))

    def token_scores(self, hidden: Tensor, positions: Sequence[int], targets: Sequence[Target]) -> Tensor:
        """Differentiable scores [batch, n], one target for each picture; see `VLM.trace`."""
        read = _at(hidden, positions)
        if targets[0].kind == "margin":
            # One by one: a tensor of the signs would have to be copied to the device.
            margins = self._margin(read[:, 0]).unbind()
            return torch.stack([margin * one.sign for margin, one in zip(margins, targets, strict=True)])[:, None]
        if targets[0].kind == "letter":
            rows = zip(read[:, 0].split(1), targets, strict=True)
            return torch.stack([self._letter_scores(row, one)[0] for row, one in rows])
        return self._token_scores(read, targets)[0]

    def _margin(self, hidden: Tensor) -> Tensor:
        """Margin of yes over no, float32 [batch]."""
        ids = self._decoder.ids((*self._yes_ids, *self._no_ids))[0]
        return self._decoder.head.margin(hidden, ids, len(self._yes_ids))

    def _letter_scores(self, hidden: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """Margin of the chosen letter over the best other one, and its log-odds among the letters, float32 [batch]."""
        ids = self._decoder.ids(tuple(token for letter in target.letters for token in letter))[0]
        logits = self._decoder.head.group_logits(hidden, ids, [len(letter) for letter in target.letters])
        own, others = logits.pop(target.chosen), torch.stack(logits, -1)
        return own - others.amax(-1), own - others.logsumexp(-1)

    def _token_scores(self, hidden: Tensor, targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
        """Log-odds and margins over the best other token, each [batch, n], of the scored tokens."""
        gold = torch.cat([self._decoder.ids(tuple(t.answer_ids[i] for i in t.scored)) for t in targets])
        return self._decoder.head.token_scores(hidden, gold)


def _scores(log_odds: Tensor, standing: Tensor) -> PictureScores:
    """Scores of pictures from the log-odds [batch, n] of their scored tokens, or their margin with n = 1."""
    probability, log_p = whole_vectors(torch.sigmoid, log_odds), whole_vectors(_log_sigmoid, log_odds)
    return PictureScores(log_odds.mean(1), probability.mean(1), standing.amin(1), log_p.mean(1))


def _at(hidden: Tensor, positions: Sequence[int]) -> Tensor:
    """Hidden states [batch, n, hidden] at some positions; a list as an index would have to be copied to the device."""
    return torch.stack([hidden[:, position] for position in positions], dim=1)
