"""The score of an answer to the question alone, without a picture, where the chat template takes such a question."""

import torch
from transformers import DynamicCache

from cxr_faith.vlm.base import VLM, PictureScores, Prompt, Target
from cxr_faith.vlm.errors import PromptError
from cxr_faith.vlm.transformers_vlm import TransformersVLM


def takes_text_only(vlm: VLM) -> bool:
    """Whether questions can be asked without a picture. Found out once, best before the first answer.

    Raises:
        ModelError: the chat template could not be rendered, so it is not known.
    """
    return isinstance(vlm, TransformersVLM) and vlm.shares_prefix and vlm.single.prompter.alone is not None


def score_text_only(vlm: VLM, prompt: Prompt, target: Target, rows: int = 1) -> PictureScores | None:
    """The score [1] of a target when the question is asked without a picture.

    Args:
        vlm: the model.
        prompt: the question, as it is asked with a picture.
        target: fixed on the intact picture.
        rows: rows of the pass, all of this question, so that it is rounded as the other scores are.

    Returns:
        None where the question cannot be asked so: the chat template needs a picture, the model's prompts begin with
        one, or the model thinks before it answers.
    """
    if not isinstance(vlm, TransformersVLM) or not vlm.shares_prefix or prompt.thought is not None:
        return None
    try:
        ids = vlm.single.prompter.text_ids(prompt)
    except PromptError:
        return None
    decoder = vlm.single.decoder
    with torch.no_grad():
        hidden = decoder.extend(DynamicCache(), ids + target.forced_ids, rows, vlm.shortcuts)
        scores = vlm.single.readout.scores(hidden, [len(ids) - 1 + index for index in target.scored], target)
    vlm.counts.score += rows
    vlm.counts.padding += rows - 1
    return PictureScores(*(column[:1].cpu() for column in scores.columns))
