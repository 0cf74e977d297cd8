"""The tokens of a filled chat template, with its one block of image tokens."""

from typing import Any

from cxr_faith.vlm.errors import ModelError


def encode_prompt(
    tokenizer: Any, text: str, mark: str, written: str, image_id: int, n_tokens: int, needs_bos: bool = True
) -> tuple[tuple[int, ...], int]:
    """Token ids of a filled chat template, and the position of its first image token.

    Args:
        tokenizer: the model's tokenizer.
        text: the filled template.
        mark: what the template writes in place of the picture.
        written: what takes the mark's place.
        image_id: id of an image token.
        n_tokens: number of image tokens.
        needs_bos: whether there must be one BOS token.

    Raises:
        ModelError: the tokens are not one block of image tokens, or not one BOS token where there must be one.
    """
    if text.count(mark) != 1:
        raise ModelError(f"the chat template gives {text.count(mark)} {mark} tokens, not one")
    whole, bos = text.replace(mark, written), tokenizer.bos_token
    # A template that writes the BOS token itself must not get a second one.
    if needs_bos and not bos:
        raise ModelError("the tokenizer has no BOS token: see tokenizer_config.json")
    ids: list[int] = tokenizer(whole, add_special_tokens=not (bos and whole.startswith(bos)))["input_ids"]
    start = _start(ids, image_id, n_tokens)
    if needs_bos and (count := ids.count(tokenizer.bos_token_id)) != 1:
        raise ModelError(f"the chat template gives {count} BOS tokens, not one")
    return tuple(ids), start


def _start(ids: list[int], image_id: int, n_tokens: int) -> int:
    """Where the block of image tokens starts.

    Raises:
        ModelError: the tokens are not one block of `n_tokens`.
    """
    start, count = (ids.index(image_id) if image_id in ids else 0), ids.count(image_id)
    if count != n_tokens or any(token != image_id for token in ids[start : start + n_tokens]):
        raise ModelError(
            f"the chat template gives {count} image tokens, not one block of {n_tokens}; see image_token_index"
        )
    return start
