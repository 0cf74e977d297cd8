"""From a model's reply to what is explained (the target) and to whether the answer is right."""

import re
from collections.abc import Sequence
from dataclasses import replace

from cxr_faith.vlm.base import VLM, Prompt, Reply, Target

YES_NO, CHOICE, OPEN = "yes_no", "choice", "open"
OFF_FORMAT_MASS = 0.5
_NOTHING = ("", "none", "no finding", "no findings")


class AnswerError(ValueError):
    """The answer does not hold what was asked to be explained."""


def question_kind(stated: str | None, reply: Reply) -> str:
    """Kind of a question: as stated, else yes_no iff the first generated token is a yes or no."""
    return stated or (YES_NO if reply.opens_yes_no else OPEN)


def parse_target(target: str | int) -> str | int:
    """Check the spelling of a target: `answer`, `first`, or a 0-based answer token.

    Raises:
        ValueError: anything else.
    """
    if isinstance(target, str) and target.lstrip("-").isdigit():
        target = int(target)
    if target in ("answer", "first") or (isinstance(target, int) and not isinstance(target, bool) and target >= 0):
        return target
    raise ValueError(f"target must be 'answer', 'first' or a 0-based token index, got {target!r}")


def make_target(vlm: VLM, prompt: Prompt, reply: Reply, kind: str, target: str | int = "answer") -> Target:
    """Fix the score s of one question before any perturbation.

    Args:
        vlm: the model, for the text of error messages.
        prompt: the question.
        reply: the model's own answer on the intact picture.
        kind: `yes_no`, `choice` or `open`.
        target: `answer` (yes/no: the margin; else the mean log-probability of all content tokens), `first` (yes/no:
            the same margin; else the first content token), or the 0-based index of an answer token.

    Raises:
        AnswerError: the answer is empty, or has no such token.
    """
    target = parse_target(target)
    if kind == YES_NO and isinstance(target, str):
        return Target("margin", target, sign=1 if reply.margin >= 0 else -1)
    if not reply.content:
        raise AnswerError(f"the model's answer to {prompt.question!r} is empty")
    if isinstance(target, int) and target >= len(reply.token_ids):
        spelled = " ".join(repr(piece) for piece in vlm.decode(reply.token_ids))
        raise AnswerError(f"no answer token {target}: the answer has {len(reply.token_ids)} ({spelled})")
    whole = Target("tokens", str(target), answer_ids=reply.token_ids, scored=reply.content)
    if target == "answer":
        return whole
    return replace(whole, scored=(reply.content[0] if target == "first" else int(target),))


def predicted_answer(reply: Reply, kind: str) -> str:
    """`yes` iff the margin is not negative, for yes/no questions; else the generated text."""
    if kind == YES_NO:
        return "yes" if reply.margin >= 0 else "no"
    return reply.text


def is_mismatch(reply: Reply, kind: str) -> bool:
    """Whether the generated text of a yes/no question opens with something other than the predicted answer."""
    if kind != YES_NO:
        return False
    opening = re.match(r"\W*(\w*)", reply.text.casefold())
    return opening is None or opening[1] != predicted_answer(reply, kind)


def is_correct(predicted: str, reference: Sequence[str] | None) -> bool | None:
    """Compare with the reference answers; None where there is no reference.

    The rule: case, punctuation and the order of comma-separated items do not count, everything else does. An empty
    list of reference answers means none, and `none` or `no finding` says so.
    """
    if reference is None:
        return None
    return _items([predicted]) == _items(reference)


def _items(answers: Sequence[str]) -> set[str]:
    parts = [part for answer in answers for part in answer.split(",")]
    words = {" ".join(re.findall(r"\w+", part.casefold())) for part in parts}
    return words - set(_NOTHING)
