"""The model's own answer and thought: greedy decoding, and what its first step says about yes and no."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from cxr_faith.vlm.base import Prompt
from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.prompts import Prompter

NextLogits = Callable[[tuple[int, ...]], Tensor]
"""Feeds token ids to the model and returns the logits [vocabulary] of the token that follows."""


def greedy(
    first: Tensor,
    following: NextLogits,
    stops: Collection[int],
    max_new_tokens: int,
    complete: Callable[[Sequence[int]], bool] = lambda ids: False,
) -> tuple[int, ...]:
    """The most likely token, again and again, until one of `stops` or `max_new_tokens` tokens.

    Args:
        first: logits [vocabulary] of the answer's first token.
        following: gives the logits after one more token; never called for the last one.
        stops: ids that end the answer; they are not part of it.
        max_new_tokens: longest answer.
        complete: whether the tokens so far are all that is wanted; called after each.
    """
    ids, token = list[int](), int(first.argmax())
    while token not in stops and len(ids) < max_new_tokens:
        ids.append(token)
        if complete(ids):
            break
        if len(ids) < max_new_tokens:
            token = int(following((token,)).argmax())
    return tuple(ids)


def think(prompter: Prompter, prompt: Prompt, following: NextLogits, stops: Collection[int]) -> Prompt:
    """The prompt with the model's greedy thought, up to the start of the answer; the same prompt without `reasoning`.

    Args:
        prompter: says how the thought is marked, and how long it may be.
        prompt: the question, up to where the thought opens.
        following: gives the logits after some tokens; the first of them are the prompt's suffix.
        stops: ids that end the thought too.
    """
    options, tokenizer = prompter.options, prompter.processor.tokenizer
    if not options.reasoning.on:
        return prompt
    close = options.reasoning.close
    tail = len(tokenizer(close, add_special_tokens=False)["input_ids"]) + 2  # tokens that can hold the mark

    def closed(thought: Sequence[int]) -> bool:
        return close in tokenizer.decode(thought[-tail:])

    longest = min(options.max_reasoning_tokens, prompter.positions - prompt.length)
    thought = greedy(following(prompt.suffix_ids), following, stops, longest, closed)
    return prompter.after_thought(prompt, thought, closed(thought))


def stop_ids(tokenizer: Any, model: Any, marks: Sequence[str]) -> frozenset[int]:
    """Ids that end an answer: the tokenizer's end of sequence, all of `generation_config`, and the family's marks.

    Args:
        tokenizer: the model's tokenizer.
        model: the transformers model; without a `generation_config.json`, its `generation_config` is its config's.
        marks: tokens that end a turn.

    Raises:
        ModelError: the `generation_config` states something else than ids.
    """
    stated = model.generation_config.eos_token_id
    ends = stated if isinstance(stated, list) else [] if stated is None else [stated]
    if not all(type(token) is int for token in ends):
        raise ModelError(f"generation_config.json: eos_token_id must be a token id or a list of them, got {stated!r}")
    return frozenset((tokenizer.eos_token_id, *(tokenizer.convert_tokens_to_ids(mark) for mark in marks), *ends))


def yes_no_step(logits: Tensor, yes_ids: Sequence[int], no_ids: Sequence[int]) -> tuple[float, float]:
    """(margin of yes over no in logits, probability mass on yes and no) of one step's logits [vocabulary]."""
    yes, no = (torch.tensor(ids, device=logits.device) for ids in (yes_ids, no_ids))
    margin = float(logits[yes].logsumexp(0) - logits[no].logsumexp(0))
    return margin, float(logits.log_softmax(dim=-1)[torch.cat([yes, no])].exp().sum())
