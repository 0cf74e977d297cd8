"""From a model's reply to the target that is explained, and to whether the answer is correct."""

import re
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cxr_faith.data.sample import LETTERS, OPEN, OPTION, YES_NO
from cxr_faith.vlm.base import VLM, Prompt, Reply, Target
from cxr_faith.vlm.reasoning import thought_advice

OFF_FORMAT_MASS = 0.5
KEYWORD = "keyword:"
STRATEGIES = ("first_content", "decision", "llr")


class AnswerError(ValueError):
    """The answer does not contain the token or word that is to be explained."""


def question_kind(stated: str | None, reply: Reply) -> str:
    """Kind of a question: as stated, else `yes_no` if the first generated token means yes or no, else `open`."""
    return stated or (YES_NO if reply.opens_yes_no else OPEN)


def parse_target(target: str | int) -> str | int:
    """A target from its spelling: `answer`, `first`, a 0-based answer token, or `keyword:WORD`.

    Raises:
        ValueError: any other spelling.
    """
    if isinstance(target, str) and re.fullmatch("-?[0-9]+", target):
        target = int(target)
    if target in ("answer", "first") or (isinstance(target, int) and not isinstance(target, bool) and target >= 0):
        return target
    if isinstance(target, str) and target.startswith(KEYWORD) and target.removeprefix(KEYWORD).strip():
        return target
    raise ValueError(f"target must be 'answer', 'first', a 0-based token index or 'keyword:WORD', got {target!r}")


def make_target(vlm: VLM, prompt: Prompt, reply: Reply, kind: str, target: str | int = "answer") -> Target:
    """Fix the score s of one question before any perturbation.

    Args:
        vlm: the model, for the text of its tokens.
        prompt: the question.
        reply: the model's own answer on the intact picture.
        kind: `yes_no`, `choice`, `open` or `option`.
        target: `answer` (yes/no: the margin; option: the letter's margin; else the mean log-odds of all content
            tokens), `first` (yes/no and option: the same margin; else the first content token), the 0-based index of
            an answer token, or `keyword:WORD` (all tokens of the word at its first place in the answer).

    Raises:
        AnswerError: the answer is empty, opens a thought, or has no such token or word.
    """
    target = parse_target(target)
    if reply.opens_thought is not None and kind not in (YES_NO, OPTION) and not isinstance(target, int):
        raise AnswerError(thought_advice(reply.opens_thought))
    if kind == YES_NO and target in ("answer", "first"):
        return Target("margin", str(target), sign=1 if reply.margin >= 0 else -1)
    if kind == OPTION and target in ("answer", "first"):
        return Target("letter", str(target), letters=prompt.letters, chosen=reply.chosen)
    if not reply.content:
        raise AnswerError(f"the model's answer to {prompt.question!r} is empty")
    if isinstance(target, int) and target >= len(reply.token_ids):
        spelled = " ".join(repr(piece) for piece in vlm.decode(reply.token_ids))
        raise AnswerError(f"no answer token {target}: the answer has {len(reply.token_ids)} ({spelled})")
    whole = Target("tokens", str(target), answer_ids=reply.token_ids, scored=reply.content)
    if target == "answer":
        return whole
    if isinstance(target, str) and target.startswith(KEYWORD):
        return replace(whole, scored=find_keyword(vlm, reply, target.removeprefix(KEYWORD).strip()))
    return replace(whole, scored=(reply.content[0] if target == "first" else int(target),))


def find_keyword(vlm: VLM, reply: Reply, keyword: str) -> tuple[int, ...]:
    """Indices of the answer's tokens that spell a keyword at its first place.

    Only whole words match, in any case: `red` is not in `scattered`. Tokens that spell a part of the word together with
    something else, such as the space before it, are included.

    Raises:
        AnswerError: the answer does not contain the keyword.
    """
    pieces = vlm.decode([reply.token_ids[index] for index in reply.content])
    match = re.search(rf"(?<!\w){re.escape(keyword)}(?!\w)", "".join(pieces), re.IGNORECASE)
    if match is None:
        raise AnswerError(f"the keyword {keyword!r} is not in the answer {reply.text!r}")
    tokens, end = [], 0
    for index, piece in zip(reply.content, pieces, strict=True):
        begin, end = end, end + len(piece)
        if begin < match.end() and end > match.start():
            tokens.append(index)
    return tuple(tokens)


def pick_token(vlm: VLM, reply: Reply, strategy: str, ratios: Sequence[float] = ()) -> int:
    """The answer token that a strategy picks to be explained.

    Args:
        vlm: the model, for its yes and no tokens and the text of tokens.
        reply: its answer.
        strategy: `first_content` (the first token with a letter or digit), `decision` (the first yes or no token at any
            place, else as `first_content`), or `llr` (the token with the highest of `ratios`).
        ratios: log-likelihood ratio of each content token, original against substrate; see `likelihood_ratios`.

    Returns:
        0-based index into the answer's tokens.

    Raises:
        AnswerError: the answer is empty.
        ValueError: unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
    if not reply.content:
        raise AnswerError("the model's answer is empty: there is no token to pick")
    if strategy == "llr":
        return max(zip(reply.content, ratios, strict=True), key=lambda pair: pair[1])[0]
    if strategy == "decision":
        decisions = [i for i in reply.content if reply.token_ids[i] in (*vlm.yes_ids, *vlm.no_ids)]
        if decisions:
            return decisions[0]
    pieces = vlm.decode([reply.token_ids[index] for index in reply.content])
    words = [index for index, piece in zip(reply.content, pieces, strict=True) if re.search(r"\w", piece)]
    return (words or reply.content)[0]


def likelihood_ratios(vlm: VLM, tokens: Tensor, removed: Tensor, prompt: Prompt, target: Target) -> Tensor:
    """How much likelier each scored token is on the picture than on its substrate.

    Args:
        vlm: the model.
        tokens: image tokens [1, N, hidden] of the picture.
        removed: image tokens of the substrate picture.
        prompt: the question.
        target: of kind `tokens`.

    Returns:
        float32 [n] in nats: log p(token | picture) - log p(token | substrate), teacher forced.
    """
    with torch.no_grad():
        log_odds = [vlm.trace(each, [prompt], [target])[0] for each in (tokens, removed)]
    original, substrate = map(torch.nn.functional.logsigmoid, log_odds)
    return original - substrate


def predicted_answer(reply: Reply, kind: str) -> str:
    """The predicted answer.

    Returns:
        yes/no: `yes` if the margin is not negative, else `no`; option: the most probable letter; else the generated
        text.
    """
    if kind == YES_NO:
        return "yes" if reply.margin >= 0 else "no"
    return LETTERS[reply.chosen] if kind == OPTION else reply.text


def is_mismatch(reply: Reply, kind: str) -> bool:
    """Whether the text generated for a yes/no or option question opens with another word than the predicted answer."""
    if kind not in (YES_NO, OPTION):
        return False
    opening = re.match(r"\W*(\w*)", reply.text.casefold())
    return opening is None or opening[1] != predicted_answer(reply, kind).casefold()
