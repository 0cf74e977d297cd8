"""One question about one picture: the answer of the model, the score to explain, and the maps that explain it."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxr_faith.attribution import Attribution, AttributionBatch, Method
from cxr_faith.attribution.baselines import blurred_map
from cxr_faith.attribution.shared import SharedWork
from cxr_faith.data.sample import OPEN, OPTION, YES_NO, Turn
from cxr_faith.perturb.grounding import Regions
from cxr_faith.protocol import Protocol
from cxr_faith.records.controls import BLURRED
from cxr_faith.vlm.answers import OFF_FORMAT_MASS, AnswerError, make_target, question_kind
from cxr_faith.vlm.base import VLM, Prompt, Reply, Target
from cxr_faith.vlm.errors import PromptError
from cxr_faith.vlm.micro_batch import MicroBatch, out_of_memory
from cxr_faith.vlm.prompts import check_asked
from cxr_faith.vlm.reasoning import thought_advice

NO_REPLY = Reply((), (), "", float("nan"), float("nan"), False)
"""The answer to a question that could not be asked, or that the model answered with NaN or infinity."""

NO_MEMORY = "out of memory with a single picture"
"""Reason of what is lost when no smaller micro-batch is left."""


@dataclass
class Case:
    """One question about one picture, from the model's answer to the maps.

    Attributes:
        prompt: the tokenized question.
        image_id: seeds every random stream.
        kind: `yes_no`, `choice`, `open` or `option`.
        reply: the model's answer on the intact picture.
        target: the score s; None if there is nothing to explain.
        reason: why there is nothing to explain.
        finding_cells: float [grid_h, grid_w], share of each cell under the finding; None without a mask.
        organ_cells: label -> the same for each anatomy mask.
        maps: name -> float32 [grid_h, grid_w] on the CPU.
        extras: name -> what the method returned beside its map.
        sequences: name -> float32 [sequence], relevance of every position, for methods that rate the text too.
        costs: name -> forwards, backwards, seconds, peak_memory of one map. Passes that several methods share count
            for each of them; their time counts for the first.
        failed: name -> why the method could not make a map.
        sample_id: of its sample; empty: it is of no manifest.
        image_use: columns of the answer's image use, where it was measured.
        pair: the picture without the finding, as the model gets it [3, H, W]; None: none is there or asked for.
        regions: the cells whose removal says whether the answer is grounded; None: that is not asked.
    """

    prompt: Prompt
    image_id: str
    kind: str
    reply: Reply
    target: Target | None
    reason: str | None = None
    finding_cells: Tensor | None = None
    organ_cells: Mapping[str, Tensor] = field(default_factory=dict)
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    extras: dict[str, dict[str, Any]] = field(default_factory=dict)
    sequences: dict[str, np.ndarray] = field(default_factory=dict)
    costs: dict[str, dict[str, float | None]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    sample_id: str = ""
    image_use: dict[str, Any] = field(default_factory=dict)
    regions: Regions | None = None
    pair: Tensor | None = None

    @property
    def pictures(self) -> int:
        """Number of pictures that the question shows."""
        return len(self.prompt.image_starts)

    @property
    def off_format(self) -> bool:
        """Whether the first step puts less than half of its mass on yes and no, or on the letters of the options."""
        mass = {YES_NO: self.reply.yes_no_mass, OPTION: self.reply.option_mass}
        return self.kind in mass and mass[self.kind] < OFF_FORMAT_MASS

    @property
    def off_format_reason(self) -> str:
        """Why it is off format, and what to do where that is known."""
        if self.reply.opens_thought is not None:
            return thought_advice(self.reply.opens_thought)
        if self.kind == OPTION:
            return f"the letters of the options have a probability of {self.reply.option_mass:.3f} at the first step"
        return f"p(yes) + p(no) is {self.reply.yes_no_mass:.3f} at the first step"


def read_answers(
    vlm: VLM,
    pixels: Tensor,
    image_id: str,
    questions: Sequence[str],
    kinds: Sequence[str | None],
    protocol: Protocol,
    finding_cells: Sequence[Tensor | None] | None = None,
    copies: int = 1,
    replies: Sequence[Reply | None] | None = None,
    options: Sequence[int] | None = None,
    turns: Sequence[tuple[Turn, ...]] | None = None,
) -> list[Case]:
    """Answer all questions about one picture, and fix the score that each explanation is about.

    Args:
        vlm: the model.
        pixels: pixel values [3, H, W].
        image_id: the picture's id.
        questions: the questions, as the manifest has them.
        kinds: kind of each question as the manifest states it, or None.
        protocol: for the target and the length of answers.
        finding_cells: `Case.finding_cells` of each question; default: no masks.
        copies: rows of the pass, all of this picture; see `Engine.whole_pass`.
        replies: answers that are known already, which are not asked for again; default: none is.
        options: number of options of each question of the kind `option`, 0 for others; default: 0 for all.
        turns: the earlier turns that each question continues; default: none.
    """
    cases: list[Case] = []
    known = replies or [None] * len(questions)
    with torch.no_grad():
        prefix = vlm.prefill(vlm.encode(pixels.expand(copies, -1, -1, -1))) if None in known else None
        for index, question in enumerate(questions):
            cells = finding_cells[index] if finding_cells is not None else None
            try:
                check_asked(question)
                prompt = vlm.prompt(question, options[index] if options else 0, turns[index] if turns else ())
            except PromptError as error:
                nothing = Prompt(question, (), (), 0)
                cases.append(Case(nothing, image_id, kinds[index] or OPEN, NO_REPLY, None, str(error), cells))
                continue
            reply = known[index]
            if reply is None:
                assert prefix is not None  # made for any question without a reply
                reply = vlm.answer(prefix, prompt, protocol.max_new_tokens)
            prompt = reply.prompt or prompt
            kind, target, reason = question_kind(kinds[index], reply), None, None
            if np.isfinite([reply.margin, reply.yes_no_mass, reply.option_mass]).all():
                try:
                    target = make_target(vlm, prompt, reply, kind, protocol.target)
                except AnswerError as error:
                    reason = str(error)
            else:
                reply, reason = NO_REPLY, "the model's logits are not finite on the intact picture"
            cases.append(Case(prompt, image_id, kind, reply, target, reason, cells))
    return cases


def compute_maps(
    vlm: VLM,
    methods: Mapping[str, Method],
    pixels: Sequence[Tensor],
    cases: Sequence[Case],
    seed: int,
    only_in_format: bool = True,
    blurred: Collection[str] = (),
    share: bool = True,
    forgive: bool = False,
    micro_batch: MicroBatch | None = None,
) -> None:
    """Fill in the maps that cases with a target do not have yet.

    Cases run one at a time: backward passes round differently at different batch sizes, and two cells whose values
    differ in the last bit only would then change places with the number of ranks.

    Args:
        vlm: the model.
        methods: name -> method.
        pixels: the picture [3, H, W] of each case.
        cases: what to explain.
        seed: the run's seed.
        only_in_format: leave out yes/no questions whose answer is mostly neither yes nor no; their maps are not scored.
        blurred: names of the maps that also get a blurred copy.
        share: compute tokens and gradients that several methods need once per case; off, each method computes its own,
            and the maps have the same bits.
        forgive: if a method raises a `ValueError` or an `ArithmeticError`, or runs out of memory with a single picture,
            the case loses this map and `Case.failed` says why; off, the error is raised.
        micro_batch: how many perturbed pictures methods score at once; default: each method's own.
    """
    for picture, case in zip(pixels, cases, strict=True):
        if case.target is None or (only_in_format and case.off_format):
            continue
        shared, shown = SharedWork(vlm.counts) if share else None, vlm.showing(case.pictures)
        for name, method in methods.items():
            if name in case.maps or name in case.failed:
                continue  # known from an earlier start
            # A *where* question also depends on the surrounding anatomy, so the oracle is undefined there.
            if method.needs_mask and (_mask_cells(method, case) is None or case.kind != YES_NO):
                continue
            try:
                _apply(shown, name, method, _batch(method, picture, case, seed, shared, micro_batch), case, case.target)
            except (ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
                short = out_of_memory(error)
                if not forgive or not (short or isinstance(error, ValueError | ArithmeticError)):
                    raise
                why = NO_MEMORY if short else " ".join(str(error).split()) or type(error).__name__
                case.failed |= dict.fromkeys((name, name + BLURRED), f"{name}: {why}")
        there = [name for name in blurred if name in case.maps and name + BLURRED not in case.maps]
        case.maps |= {name + BLURRED: blurred_map(case.maps[name], case.pictures) for name in there}


def compute_token_maps(
    vlm: VLM,
    name: str,
    method: Method,
    picture: Tensor,
    case: Case,
    seed: int,
    micro_batch: MicroBatch | None = None,
) -> list[Case]:
    """One case for each content token of the answer, with its own target and map; methods share forwards if they can.

    Args:
        vlm: the model.
        name: name of the method.
        method: the method.
        picture: pixel values [3, H, W].
        case: an answered question.
        seed: the run's seed.
        micro_batch: as for `compute_maps`.

    Raises:
        AnswerError: the answer is empty.
    """
    vlm, whole = vlm.showing(case.pictures), make_target(vlm, case.prompt, case.reply, OPEN, "answer")
    with _one_thread(vlm.device):
        batch = _batch(method, picture, case, seed, micro_batch=micro_batch)
        results = method.attribute_tokens(vlm, batch, [whole])
    cases = []
    for index, result in zip(whole.scored, results, strict=True):
        target = whole.alone(index)
        cases.append(replace(case, target=target, maps={}, extras={}, sequences={}, costs={}))
        _keep(cases[-1], name, result)
    return cases


def _batch(
    method: Method,
    picture: Tensor,
    case: Case,
    seed: int,
    shared: SharedWork | None = None,
    micro_batch: MicroBatch | None = None,
) -> AttributionBatch:
    cells = _mask_cells(method, case) if method.needs_mask else None
    masks, ids = None if cells is None else cells[None], [case.sample_id] if case.sample_id else []
    pairs = None if case.pair is None or not method.uses_pair else case.pair[None]
    return AttributionBatch(picture[None], [case.prompt], [case.image_id], seed, masks, shared, micro_batch, ids, pairs)


def _mask_cells(method: Method, case: Case) -> Tensor | None:
    """The mask that a method needs; None if the case does not have it."""
    return case.finding_cells if method.mask is None else case.organ_cells.get(method.mask)


def _keep(case: Case, name: str, result: Attribution) -> None:
    case.maps[name] = result.maps[0].float().cpu().numpy()
    case.extras[name] = {key: values[0] for key, values in result.extras.items()}
    if result.sequences is not None:
        case.sequences[name] = result.sequences[0].float().cpu().numpy()


def _apply(vlm: VLM, name: str, method: Method, batch: AttributionBatch, case: Case, target: Target) -> None:
    if on_gpu := vlm.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(vlm.device)
    before, begin = vlm.counts.snapshot(), time.perf_counter()
    if batch.shared is not None:
        batch.shared.begin()
    with _one_thread(vlm.device):
        MicroBatch(1).run(1, lambda *_: _keep(case, name, method.attribute(vlm, batch, [target])))
    spent, took = time.perf_counter() - begin, vlm.counts - before
    if batch.shared is not None:  # another method may have run these passes: the cost must not depend on that
        took += batch.shared.reused
    case.costs[name] = {
        "forwards": took.forwards,
        "backwards": took.backward,
        "seconds": spent,
        "peak_memory": torch.cuda.max_memory_allocated(vlm.device) if on_gpu else None,
    }


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """One thread on a CPU: backward passes round by the number of threads, which changes with the number of ranks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if device.type == "cpu" else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
