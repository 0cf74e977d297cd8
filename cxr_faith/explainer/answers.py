"""Ask a model about a picture, and fix what is explained of its answer."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from cxr_faith.cases import Case, read_answers
from cxr_faith.data.sample import OPEN
from cxr_faith.explainer.view import View
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.vlm.answers import STRATEGIES, likelihood_ratios, make_target, parse_target, pick_token
from cxr_faith.vlm.base import VLM
from cxr_faith.vlm.reasoning import ThoughtError


def ask(
    engine: Engine,
    view: View,
    questions: Sequence[str],
    target: str | int,
    kind: str | None,
    seed: int,
    max_new_tokens: int,
    options: int = 0,
) -> list[Case]:
    """The model's answers about one picture or several, each with its target.

    Args:
        engine: runs the model, in passes as large as those of a run.
        view: what the questions show; it is encoded once.
        questions: as asked.
        target: what is explained, see `Explainer.explain`.
        kind: `yes_no`, `choice`, `open`, `option`, or None to decide by the answer.
        seed: for what replaces the picture in the strategy `llr`.
        max_new_tokens: longest answer.
        options: number of options that each question lists with letters.

    Raises:
        ValueError: the question cannot be asked, or the answer is empty or has no such token or word.
    """
    stated = "answer" if target in STRATEGIES else parse_target(target)
    protocol = Protocol(target=stated, max_new_tokens=max_new_tokens, seed=seed)
    engine = engine.showing(len(view.pictures))
    vlm, asked = engine.vlm, (questions, [kind] * len(questions), protocol)
    offered = [options] * len(questions)
    cases = engine.whole_pass(
        lambda copies: read_answers(vlm, view.pixels, view.image_id, *asked, copies=copies, options=offered)
    )
    for case in cases:
        case.pair = view.pair
        if case.target is None and case.reply.opens_thought is not None:
            raise ThoughtError(case.reply.opens_thought)
        if case.target is None:
            raise ValueError(case.reason)
    return [_with_picked_token(vlm, view, case, str(target), seed) for case in cases] if target in STRATEGIES else cases


def _with_picked_token(vlm: VLM, view: View, case: Case, strategy: str, seed: int) -> Case:
    """The case with the token that a strategy picks as its target."""
    whole, ratios = make_target(vlm, case.prompt, case.reply, OPEN), list[float]()
    if strategy == "llr":
        pixels = view.pixels[None]
        removed = Substrate.parse(DEFAULT_SUBSTRATE).apply(pixels, [view.image_id], seed, vlm.pictures)
        with torch.no_grad():
            both = vlm.encode(pixels), vlm.encode(removed)
        ratios = likelihood_ratios(vlm, *both, case.prompt, whole).tolist()
    return replace(case, target=whole.alone(pick_token(vlm, case.reply, strategy, ratios)))
