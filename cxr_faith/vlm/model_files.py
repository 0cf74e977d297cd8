"""The files of a model against the family that reads them, checked before any weights are read."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxr_faith.vlm.checkpoint import expected_weights, read_config
from cxr_faith.vlm.config import PromptOptions
from cxr_faith.vlm.config_checks import check_layers, check_weights, parse_config
from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.families import FAMILIES
from cxr_faith.vlm.family import Family, Size
from cxr_faith.vlm.folder import CONFIG, ModelFolder, read_json
from cxr_faith.vlm.hub import local_folder
from cxr_faith.vlm.image_block import encode_prompt
from cxr_faith.vlm.prompts import Prompter, check_prompts
from cxr_faith.vlm.quantized import check_library, is_quantized
from cxr_faith.vlm.weights import read_tensors
from cxr_faith.vlm.yes_no import yes_no_ids

_CHANGED_LOGITS = ("final_logit_softcapping", "attn_logit_softcapping", "logit_scale", "logits_scaling")
"""Settings of decoders whose logits or attention are no plain products."""
_ATTENTION = {"full_attention", "sliding_attention"}
"""Kinds of decoder layers that have a matrix of attention, and keys and values that a cache can hold."""


def peek_config(family: type[Family], path: str | Path, revision: str | None = None) -> Any:
    """The model's config, before anything else is read.

    Raises:
        ModelError: no such folder, another kind of model, or a quantized one whose library is missing.
    """
    content = read_config(path, revision)
    check_library(content, path)
    return parse(family, content, path)


def open_model(family: type[Family], path: str | Path, revision: str | None = None) -> tuple[ModelFolder, Any]:
    """The model's folder and its config, once they fit each other; a model of the hub is downloaded.

    Raises:
        ModelError: a file is missing or damaged, or they do not fit each other.
    """
    peek_config(family, path, revision)
    folder = ModelFolder.open(local_folder(path, revision))
    config = parse(family, read_json(folder.files[CONFIG]), path)
    tensors = read_tensors(folder)
    check_layers(family.layer_counts(config), tensors, path)
    expected = expected_weights(family.model_class, config, folder)
    if not is_quantized(config.to_dict()):  # their tensors have other names and shapes
        check_weights(expected, tensors, path)
    return folder, config


def checked_processor(
    family: type[Family], folder: ModelFolder, config: Any, source: str, prompts: PromptOptions, image_size: Size | None
) -> Any:
    """Load the processor, and ask a question with it.

    Args:
        family: the model's family.
        folder: the model's files.
        config: the model's config.
        source: what messages call the model.
        prompts: how questions are put to the model.
        image_size: (H, W) at which pictures are read; None: the family's own.

    Raises:
        ModelError: it is damaged or does not fit the model, or no question can be asked.
    """
    processor = family.load_processor(folder, config)
    try:
        prompter = make_prompter(family, processor, config, prompts, image_size)
        yes_no_ids(processor.tokenizer)
        check_prompts(prompter, config.get_text_config().vocab_size)
    except Exception as error:  # a tokenizer fails in many ways where one of its settings has a wrong type
        kind = "" if isinstance(error, ModelError) else f"the tokenizer fails: {type(error).__name__}: "
        raise ModelError(f"{source}: {kind}{' '.join(str(error).split())}") from error
    return processor


def make_prompter(
    family: type[Family], processor: Any, config: Any, prompts: PromptOptions, image_size: Size | None = None
) -> Prompter:
    """What makes the prompts of a model.

    Args:
        family: the model's family.
        processor: what `Family.load_processor` gives.
        config: the model's config.
        prompts: how questions are put to the model.
        image_size: (H, W) at which pictures are read; None: the family's own.

    Raises:
        ModelError: processor and model do not fit together.
    """
    family.check_processor(processor, config)
    check_image_numbers(processor.image_processor)
    n_tokens, text_config = family.layout_of(config, image_size)[0].n_tokens, config.get_text_config()

    def encode(text: str, pictures: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        mark, written = family.image_text(processor, config, n_tokens)
        image_id, bos = config.image_token_id, family.writes_bos
        return encode_prompt(processor.tokenizer, text, mark, written, image_id, n_tokens, bos, pictures)

    return Prompter(processor, encode, n_tokens, prompts, text_config.max_position_embeddings)


def check_image_numbers(images: Any) -> None:
    """Refuse image settings other than scaling by 1/255 and one mean and standard deviation a channel.

    Raises:
        ModelError: what is wrong with which of them.
    """
    for name in ("image_mean", "image_std"):
        values = getattr(images, name, None)
        listed = values if isinstance(values, list | tuple) else ()
        if len(listed) != 3 or not all(type(value) in (int, float) and math.isfinite(value) for value in listed):
            raise ModelError(f"the processor's {name} must be three numbers, got {values}")
    if min(images.image_std) <= 0:
        raise ModelError(f"the processor's image_std must be positive, got {images.image_std}")
    factor = images.rescale_factor if isinstance(images.rescale_factor, float) else 0
    plain = {*images.image_mean} == {0} and {*images.image_std} == {1}  # then there is nothing to normalize
    if not (images.do_rescale and (images.do_normalize or plain) and math.isclose(factor, 1 / 255, rel_tol=1e-6)):
        raise ModelError("the processor must rescale by 1/255 and normalize: see do_rescale, rescale_factor")


def parse(family: type[Family], content: Mapping[str, Any], source: object) -> Any:
    """The config as transformers reads it, once it makes sense.

    Raises:
        ModelError: another kind of model, or a value that no such model has.
    """
    kind, wanted = known_family(content, source), family.model_class.config_class
    if kind != wanted.model_type:
        raise ModelError(f"{source} is a {kind} model, not a {wanted.model_type} with a vision tower")
    config = parse_config(content, wanted, source, family.nullable)
    unknown = [name for name in _CHANGED_LOGITS if name not in family.computes]
    capped = [name for name in unknown if getattr(config.get_text_config(), name, None)]
    if capped:
        raise ModelError(
            f"{source}: config.json: {capped[0]} changes logits in a way that this version does not compute"
        )
    others = {*(getattr(config.get_text_config(), "layer_types", None) or ())} - _ATTENTION
    if others:
        reason = "such layers have no attention matrix for maps and no cache that questions could share"
        raise ModelError(f"{source}: config.json: layer_types names {min(others)}: {reason}")
    family.check_config(config, source)
    return config


def known_family(content: Mapping[str, Any], source: object) -> str:
    """The `model_type` of a config.

    Raises:
        ModelError: no family reads it.
    """
    kind = content.get("model_type")
    if isinstance(kind, str) and kind in FAMILIES:
        return kind
    what = f"is a {kind} model" if isinstance(kind, str) else "has a config.json without model_type"
    if "auto_map" in content:
        what += " with code of its own, which is not run: take the edition for transformers' classes, often named -hf"
    readable = f"this version reads {', '.join(FAMILIES)}; for another see docs/extending.md, Adding a family"
    raise ModelError(f"{source} {what}; {readable}")
