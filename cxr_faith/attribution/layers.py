"""Which decoder layer a method reads: one rule for all methods and models.

`auto` is the middle of the decoder. Image tokens come before the question, so what later layers compute at them is read
by fewer and fewer layers, and what the last one computes by none. (Where later layers read the keys and values of
earlier ones, as in Gemma 4, none reads what the last layer with keys of its own computes, nor those behind it; `auto`
stays before it.) The answer takes up the image in the middle layers (Zhang et al., CVPR 2025). The rule looks at no
sample and no score.
"""

from cxr_faith.attribution.base import MethodError
from cxr_faith.vlm.base import VLM

UNREAD = "not assessable: nothing reads these states"
"""What a map of the image tokens' last states says about itself: the gradient of every answer by them is 0."""


def check_layer(layer: int | str, words: tuple[str, ...]) -> None:
    """Refuse what is neither a number nor one of the words.

    Raises:
        ValueError: another value.
    """
    if layer not in words and (isinstance(layer, bool) or not isinstance(layer, int)):
        raise ValueError(f"layer must be {', '.join(words)} or the number of a decoder layer, got {layer!r}")


def decoder_layer(vlm: VLM, layer: int | str, method: str, unread: int) -> int:
    """Index of a decoder layer, from 0.

    Args:
        vlm: the model.
        layer: `auto`, `last`, or an index, from the end where it is negative.
        method: the method's class, for the message.
        unread: 1 if the method needs states that a layer reads, else 0.

    Raises:
        MethodError: the model has no such layer, or the method cannot use it.
    """
    count = len(vlm.layer_types)
    read = max(vlm.key_layers)  # the number of layers whose states a later one reads
    usable = read if unread else count
    if layer == "auto":
        return min(count // 2, max(read - 1, 0))
    index = count - 1 if layer == "last" else int(layer) + (count if int(layer) < 0 else 0)
    if not 0 <= index < usable:
        last, nearest = usable - 1, usable - 1 - count
        raise MethodError(f"{method}: layer must be 0 to {last}, or -{count} to {nearest}, got {layer}")
    return index
