"""The processor of a Gemma-3: whether it fits the model, and how its chat template becomes tokens."""

import math
from functools import partial
from typing import Any

from cxr_faith.vlm.checkpoint import load_processor
from cxr_faith.vlm.config import PromptOptions
from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.folder import PROCESSOR_FILES, ModelFolder, read_json
from cxr_faith.vlm.prompts import Prompter, check_prompts
from cxr_faith.vlm.yes_no import yes_no_ids


def checked_processor(folder: ModelFolder, config: Any, source: str, prompts: PromptOptions) -> Any:
    """Load the processor, and ask a question with it.

    Args:
        folder: the model's files.
        config: the model's `Gemma3Config`.
        source: what messages call the model.
        prompts: how questions are put to the model.

    Raises:
        ModelError: it is damaged or does not fit the model, or no question can be asked.
    """
    _check_class(folder)
    processor = load_processor(folder)
    try:
        prompter = make_prompter(processor, config, prompts)
        yes_no_ids(processor.tokenizer)
        check_prompts(prompter, config.get_text_config().vocab_size)
    except Exception as error:  # a tokenizer fails in many ways where one of its settings has a wrong type
        kind = "" if isinstance(error, ModelError) else f"the tokenizer fails: {type(error).__name__}: "
        raise ModelError(f"{source}: {kind}{' '.join(str(error).split())}") from error
    return processor


def _check_class(folder: ModelFolder) -> None:
    """Refuse the processor of another family, by the first file that states it, as transformers looks for it.

    Raises:
        ModelError: its class is another one.
    """
    for name in (*PROCESSOR_FILES, "tokenizer_config.json"):
        stated = read_json(folder.files[name]).get("processor_class") if name in folder.files else None
        if stated == "Gemma3Processor":
            return
        if stated is not None:
            what = f"processor_class is {repr(stated)[:100]}: the folder's processor is no Gemma3Processor"
            raise ModelError(f"{folder.path / name}: {what}")


def make_prompter(processor: Any, config: Any, prompts: PromptOptions) -> Prompter:
    """What makes the prompts of a model.

    Raises:
        ModelError: the processor makes other pictures or image tokens than the model takes.
    """
    grid, image_size = grid_and_size(config)
    _check_processor(processor, grid, image_size)
    n_cells, positions = grid[0] * grid[1], config.get_text_config().max_position_embeddings
    encode = partial(encode_prompt, processor, config.image_token_id, n_cells)
    return Prompter(processor, encode, n_cells, prompts, positions)


def grid_and_size(config: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """(grid_h, grid_w) image tokens and (H, W) pixels of the input, both square, from a `Gemma3Config`."""
    side, pixels = int(config.mm_tokens_per_image**0.5), config.vision_config.image_size
    return (side, side), (pixels, pixels)


def _check_processor(processor: Any, grid: tuple[int, int], image_size: tuple[int, int]) -> None:
    """Raise a ModelError if a processor makes other pictures or image tokens than the model takes."""
    images, n_cells = getattr(processor, "image_processor", None), grid[0] * grid[1]
    if images is None or getattr(processor, "image_seq_length", None) is None:
        raise ModelError("the folder's processor is no Gemma3Processor: processor_config.json is missing or damaged")
    made = (getattr(images.size, "height", None), getattr(images.size, "width", None))
    if made != image_size:
        size = f"{made[0]}x{made[1]}"
        raise ModelError(f"the processor makes {size} px pictures, the tower wants {image_size[0]} px squares")
    for name in ("image_mean", "image_std"):
        values = getattr(images, name)
        numbers = isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values)
        if not numbers or len(values) != 3 or not all(map(math.isfinite, values)):
            raise ModelError(f"the processor's {name} must be three numbers, got {values}")
    if min(images.image_std) <= 0:
        raise ModelError(f"the processor's image_std must be positive, got {images.image_std}")
    factor = images.rescale_factor if isinstance(images.rescale_factor, float) else 0
    if not (images.do_rescale and images.do_normalize and math.isclose(factor, 1 / 255, rel_tol=1e-6)):
        raise ModelError("the processor must rescale by 1/255 and normalize: see do_rescale, rescale_factor")
    if getattr(images, "do_pan_and_scan", None):
        raise ModelError("pan-and-scan adds image blocks that a map cannot show: set do_pan_and_scan to false")
    if processor.image_seq_length != n_cells:
        raise ModelError(f"processor writes {processor.image_seq_length} image tokens, the model has {n_cells}")


def encode_prompt(processor: Any, image_id: int, n_cells: int, text: str) -> tuple[tuple[int, ...], int]:
    """Token ids of a filled chat template, and the position of its first image token.

    Raises:
        ModelError: the tokens are not one BOS token and one block of image tokens.
    """
    mark, tokenizer = processor.boi_token, processor.tokenizer
    if text.count(mark) != 1:
        raise ModelError(f"the chat template gives {text.count(mark)} {mark} tokens, not one")
    whole = text.replace(mark, processor.full_image_sequence)
    # A template that writes the BOS token itself must not get a second one.
    if not tokenizer.bos_token:
        raise ModelError("the tokenizer has no BOS token: see tokenizer_config.json")
    ids: list[int] = tokenizer(whole, add_special_tokens=not whole.startswith(tokenizer.bos_token))["input_ids"]
    start = _image_block(ids, image_id, n_cells)
    if ids.count(tokenizer.bos_token_id) != 1:
        raise ModelError(f"the chat template gives {ids.count(tokenizer.bos_token_id)} BOS tokens, not one")
    return tuple(ids), start


def _image_block(ids: list[int], image_id: int, n_cells: int) -> int:
    """Where the block of image tokens starts.

    Raises:
        ModelError: the tokens are not one block of `n_cells`.
    """
    start, count = (ids.index(image_id) if image_id in ids else 0), ids.count(image_id)
    if count != n_cells or any(token != image_id for token in ids[start : start + n_cells]):
        raise ModelError(
            f"the chat template gives {count} image tokens, not one block of {n_cells}; see image_token_index"
        )
    return start
