"""The tokens of a filled chat template, with a block of image tokens for each picture."""

from typing import Any

from cxr_faith.vlm.errors import ModelError


def encode_prompt(
    tokenizer: Any,
    text: str,
    mark: str,
    written: str,
    image_id: int,
    n_tokens: int,
    needs_bos: bool = True,
    pictures: int = 1,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of a filled chat template, and the position of the first image token of each picture.

    Args:
        tokenizer: the model's tokenizer.
        text: the filled template.
        mark: what the template writes in place of the picture.
        written: what takes the mark's place.
        image_id: id of an image token.
        n_tokens: number of image tokens of a picture.
        needs_bos: whether there must be one BOS token.
        pictures: number of pictures.

    Raises:
        ModelError: the tokens are not one block of image tokens for each picture, or not one BOS token where there
            must be one.
    """
    if text.count(mark) != pictures:
        wanted = "one" if pictures == 1 else pictures
        raise ModelError(f"the chat template gives {text.count(mark)} {mark} tokens, not {wanted}")
    whole, bos = text.replace(mark, written), tokenizer.bos_token
    # A template that writes the BOS token itself must not get a second one.
    if needs_bos and not bos:
        raise ModelError("the tokenizer has no BOS token: see tokenizer_config.json")
    ids: list[int] = tokenizer(whole, add_special_tokens=not (bos and whole.startswith(bos)))["input_ids"]
    starts = _starts(ids, image_id, n_tokens, pictures)
    if needs_bos and (count := ids.count(tokenizer.bos_token_id)) != 1:
        raise ModelError(f"the chat template gives {count} BOS tokens, not one")
    return tuple(ids), starts


def _starts(ids: list[int], image_id: int, n_tokens: int, pictures: int) -> tuple[int, ...]:
    """Where the blocks of image tokens start.

    Raises:
        ModelError: the tokens are not one block of `n_tokens` for each picture.
    """
    places = [place for place, token in enumerate(ids) if token == image_id]
    starts = places[::n_tokens]
    whole = [place for start in starts for place in range(start, start + n_tokens)]
    if len(starts) != pictures or places != whole:
        blocks = "one block" if pictures == 1 else f"{pictures} blocks"
        raise ModelError(
            f"the chat template gives {len(places)} image tokens, not {blocks} of {n_tokens}; see image_token_index"
        )
    return tuple(starts)
