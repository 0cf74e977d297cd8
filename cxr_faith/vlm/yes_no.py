"""Which tokens of a tokenizer mean yes, and which mean no; found by encoding the words, never listed by hand."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from cxr_faith.vlm.errors import ModelError

YES_WORDS = ("yes", "Yes", "YES")
NO_WORDS = ("no", "No", "NO")


def yes_no_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids that mean yes, and ids that mean no, ascending.

    Raises:
        ModelError: no single token means yes or no, or one means both.
    """
    yes, no = single_tokens(tokenizer, YES_WORDS), single_tokens(tokenizer, NO_WORDS)
    if set(yes) & set(no):
        raise ModelError("the tokenizer maps a yes and a no to the same token id")
    return yes, no


def single_tokens(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> tuple[int, ...]:
    """Ids of the words, bare and with a leading space, that the tokenizer writes as one token.

    Raises:
        ModelError: there is none.
    """
    encoded = [tokenizer.encode(space + word, add_special_tokens=False) for word in words for space in ("", " ")]
    ids = sorted({ids[0] for ids in encoded if len(ids) == 1})
    if not ids:
        raise ModelError(f"the tokenizer has no single token for any of {', '.join(words)}")
    return tuple(ids)
