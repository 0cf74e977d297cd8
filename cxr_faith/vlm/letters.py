"""Which tokens of a tokenizer mean the letter of an option; found by encoding the letters, never listed by hand."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cxr_faith.data.sample import LETTERS
from cxr_faith.vlm.errors import PromptError

_FORMS = ("{}", " {}", "({}", " ({}", "{}.", "{})", "{}:")
"""How an answer can begin with a letter in one token."""


def letter_ids(tokenizer: PreTrainedTokenizerBase, options: int) -> tuple[tuple[int, ...], ...]:
    """Ids that mean each of the first letters, ascending.

    Args:
        tokenizer: the model's tokenizer.
        options: how many letters, from A.

    Raises:
        PromptError: the tokenizer has no single token for a letter, or one for two of them.
    """
    by_letter = []
    for letter in LETTERS[:options]:
        encoded = [tokenizer.encode(form.format(letter), add_special_tokens=False) for form in _FORMS]
        ids = {ids[0] for ids in encoded if len(ids) == 1} - {tokenizer.unk_token_id}
        if not ids:
            raise PromptError(f"the tokenizer has no single token for the letter {letter} of an option")
        by_letter.append(tuple(sorted(ids)))
    if len(set().union(*by_letter)) < sum(map(len, by_letter)):
        raise PromptError("the tokenizer maps two letters of options to the same token id")
    return tuple(by_letter)


def letter_step(logits: Tensor, letters: Sequence[Sequence[int]]) -> tuple[tuple[float, ...], float]:
    """(softmax over the letters, probability of all of them together) of one step's logits [vocabulary]."""
    log_p = logits.double().log_softmax(-1)
    by_letter = torch.stack([log_p[torch.tensor(ids, device=logits.device)].logsumexp(0) for ids in letters])
    return tuple(by_letter.softmax(0).tolist()), float(by_letter.logsumexp(0).exp())
