"""The steps of `predict_step`: answer → explain → score → rows.

A `Reading` carries one picture with its questions from step to step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from torch import Tensor

from cxr_faith.cases import NO_MEMORY, NO_REPLY, Case, compute_maps, read_answers
from cxr_faith.data.finding_boxes import left_out, n_finding_boxes
from cxr_faith.data.items import SampleItem
from cxr_faith.data.sample import OPEN, Sample
from cxr_faith.perturb.condition import NONE, Condition
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.substrate import PAIR, Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.records.controls import CENTER, RANDOM
from cxr_faith.records.known import NOTHING, Baselines, KnownSample
from cxr_faith.records.rows import Row, answer_columns, failed_rows, map_columns, question_columns
from cxr_faith.run.known import fill_known, known_reply
from cxr_faith.run.method_set import MethodSet
from cxr_faith.scoring import Columns, localize, localize_readers, score_image
from cxr_faith.vlm import VLM
from cxr_faith.vlm.base import Prompt, Reply
from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.micro_batch import out_of_memory
from cxr_faith.vlm.reasoning import warn_of_thoughts


@dataclass(frozen=True)
class Reading:
    """One picture and the questions about it that are in a batch.

    Attributes:
        pixels: the picture as the model gets it, under the condition [3, H, W].
        items: the samples, in the order of the batch.
        cases: one for each sample; `explain` fills in the maps.
        pairs: path → the picture without the finding, as the model gets it, under the condition [3, H, W].
        known: what the records hold about each sample under the condition.
        placed: whether masks still lie on what they were drawn for. A condition may shift the picture, so localization
            is measured without one.
    """

    pixels: Tensor
    items: Sequence[SampleItem]
    cases: Sequence[Case]
    pairs: Mapping[str, Tensor]
    known: Sequence[KnownSample]
    placed: bool


def answer(
    engine: Engine,
    items: Sequence[SampleItem],
    condition: str,
    protocol: Protocol,
    known: Mapping[str, KnownSample] = MappingProxyType({}),
) -> list[Reading]:
    """Ask the model every question; questions about one picture share its image tokens.

    Args:
        engine: runs the model.
        items: samples that have a picture.
        condition: what is done to every picture first, or `none`.
        protocol: the protocol under that condition.
        known: `sample_id` → what the records hold about it under that condition.
    """
    vlm, by_image = engine.vlm, dict[str, list[SampleItem]]()
    for item in items:
        by_image.setdefault(item.sample.pictures_id, []).append(item)
    readings = []
    for members in by_image.values():
        image = members[0].image
        assert image is not None
        pixels = _pixels(vlm, image, members[0].sample, condition, protocol)
        pictures = {item.sample.pair_path: item.pair for item in members if item.pair is not None}
        pairs = {
            str(path): _pixels(vlm, pair, members[0].sample, condition, protocol) for path, pair in pictures.items()
        }
        own = [known.get(item.sample.sample_id, NOTHING) for item in members]
        cases = _ask(engine, members, pixels, protocol, [known_reply(vlm, one) for one in own])
        for item, case, one in zip(members, cases, own, strict=True):
            case.organ_cells, case.sample_id = item.organ_cells(vlm.grid), item.sample.sample_id
            case.pair = pairs.get(str(item.sample.pair_path)) if item.pair is not None else None
            fill_known(case, one)
        readings.append(Reading(pixels, members, cases, pairs, own, placed=condition == NONE))
    return readings


def _ask(
    engine: Engine,
    items: Sequence[SampleItem],
    pixels: Tensor,
    protocol: Protocol,
    replies: Sequence[Reply | None],
) -> list[Case]:
    """The answers about one picture, where they are not known; without memory for it, cases that say so."""
    image_id, questions = items[0].sample.pictures_id, [item.sample.question for item in items]
    options, turns = [item.sample.n_options for item in items], [item.sample.turns for item in items]
    kinds, cells = [item.sample.kind for item in items], [item.finding_cells(engine.vlm.grid) for item in items]

    def read(copies: int) -> list[Case]:
        return read_answers(
            engine.vlm.showing(items[0].pictures),
            pixels,
            image_id,
            questions,
            kinds,
            protocol,
            cells,
            copies,
            replies,
            options,
            turns,
        )

    try:
        cases = engine.whole_pass(read)
        for case in cases:
            warn_of_thoughts(case.reply.opens_thought)
        return cases
    except ModelError as error:  # this model is not shown so many pictures
        reason = str(error)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        reason = NO_MEMORY
    unasked = [Prompt(question, (), (), 0) for question in questions]
    return [
        Case(prompt, image_id, kind or OPEN, NO_REPLY, None, reason, own)
        for prompt, kind, own in zip(unasked, kinds, cells, strict=True)
    ]


def _pixels(vlm: VLM, image: Tensor, sample: Sample, condition: str, protocol: Protocol) -> Tensor:
    """The picture of a sample, or its sheet of pictures, as the model gets it under a condition [3, H, W]."""
    pixels = vlm.normalize(image[None].to(vlm.device))[0]
    if condition != NONE:
        pixels = Condition.parse(condition).apply_each(pixels, sample.picture_ids, protocol.seed)
    return pixels


def explain(engine: Engine, method_set: MethodSet, readings: Sequence[Reading], seed: int) -> None:
    """Compute the maps of every method; a method that fails on a sample loses its own map only."""
    pixels = [reading.pixels for reading in readings for _ in reading.cases]
    cases = [case for reading in readings for case in reading.cases]
    compute_maps(
        engine.vlm,
        method_set.methods,
        pixels,
        cases,
        seed,
        blurred=method_set.blurred,
        forgive=True,
        micro_batch=engine.batches,
    )


def score(engine: Engine, method_set: MethodSet, reading: Reading, protocol: Protocol) -> list[Row]:
    """Rows of all questions about one picture: scored ones, and those that say why there is nothing to score."""
    rows: list[Row] = []
    scorable = []
    for item, case, known in zip(reading.items, reading.cases, reading.known, strict=True):
        if case.target is None:
            rows += failed(method_set, item.sample, protocol, case.reason or "nothing to explain", case)
        elif case.off_format:
            rows += failed(method_set, item.sample, protocol, case.off_format_reason, case, "off_format")
        else:
            scorable.append((item, case, known))
    if not scorable:
        return rows
    shared = [_shared_columns(item, case, reading.placed, protocol) for item, case, _ in scorable]
    for spec, names in method_set.scored.items():
        missing = [[name for name in names if (spec, name) not in known.keys] for *_, known in scorable]
        scores = _under(engine, reading, scorable, missing, spec, protocol)
        for (_, case, _), by_score, own_names, (common, by_map) in zip(scorable, scores, missing, shared, strict=True):
            by_score |= {n: {"status": "invalid", "reason": why} for n, why in case.failed.items() if n in own_names}
            for name in (name for name in (*method_set.names, RANDOM) if name in by_score):
                own = {"method": name, "substrate": spec, "own_substrate": method_set.uses_substrate(name, spec)}
                rows.append(common | own | by_map.get(name, {}) | by_score[name])
    return rows


def _under(
    engine: Engine,
    reading: Reading,
    scorable: Sequence[tuple[SampleItem, Case, KnownSample]],
    missing: Sequence[Sequence[str]],
    spec: str,
    protocol: Protocol,
) -> list[dict[str, Columns]]:
    """Scores of the missing maps of each question under one substrate; known baselines are not measured again."""
    scores: list[dict[str, Columns]] = [{} for _ in scorable]
    groups: dict[bool, list[int]] = {False: [], True: []}
    cases, baselines = list[Case](), [known.baselines(spec) for *_, known in scorable]
    for place, ((_, case, known), names) in enumerate(zip(scorable, missing, strict=True)):
        cases.append(replace(case, maps={name: case.maps[name] for name in names if name in case.maps}))
        if cases[-1].maps or (spec, RANDOM) not in known.keys:
            groups[baselines[place] is not None].append(place)
    for places in filter(None, groups.values()):
        own = [one for place in places if (one := baselines[place]) is not None] or None
        items, members = [scorable[place][0] for place in places], [cases[place] for place in places]
        results = _by_substrate(engine, reading, items, members, Substrate.parse(spec), protocol, own)
        for place, result in zip(places, results, strict=True):
            scores[place] = result
    return scores


def _by_substrate(
    engine: Engine,
    reading: Reading,
    items: Sequence[SampleItem],
    cases: Sequence[Case],
    substrate: Substrate,
    protocol: Protocol,
    baselines: Sequence[Baselines] | None,
) -> list[dict[str, Columns]]:
    """What `score_image` gives for each case; under `pair`, questions with the same pair are scored together."""
    if substrate.name != PAIR:
        return _scored(engine, reading.pixels, cases, substrate, protocol, baselines=baselines)
    scores = [_unscored(case, item.no_pair) for item, case in zip(items, cases, strict=True)]
    for path, pair in reading.pairs.items():
        places = [place for place, item in enumerate(items) if item.pair is not None and item.sample.pair_path == path]
        own = [cases[place] for place in places]
        known = None if baselines is None else [baselines[place] for place in places]
        if own:
            results = _scored(engine, reading.pixels, own, substrate, protocol, pair, known)
            for place, result in zip(places, results, strict=True):
                scores[place] = result
    return scores


def _scored(
    engine: Engine,
    pixels: Tensor,
    cases: Sequence[Case],
    substrate: Substrate,
    protocol: Protocol,
    pair: Tensor | None = None,
    baselines: Sequence[Baselines] | None = None,
) -> list[dict[str, Columns]]:
    """What `score_image` gives; without memory for a single picture, columns that say so."""
    try:
        return score_image(engine, pixels, cases[0].image_id, cases, substrate, protocol, pair, baselines)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    return [_unscored(case, NO_MEMORY) for case in cases]


def _unscored(case: Case, reason: str | None) -> dict[str, Columns]:
    return {name: {"status": "invalid", "reason": reason} for name in (*case.maps, CENTER, RANDOM)}


def failed(
    method_set: MethodSet,
    sample: Sample,
    protocol: Protocol,
    reason: str,
    case: Case | None = None,
    status: str = "invalid",
) -> list[Row]:
    """Rows of a sample that cannot be scored: one for each map and substrate, all with the reason.

    Args:
        method_set: names the maps and substrates.
        sample: the sample.
        protocol: for the key columns.
        reason: one line for people.
        case: the model's answer, where there is one.
        status: `invalid` or `off_format`.
    """
    names = {spec: method_set.without_mask(spec) for spec in method_set.scored}
    return failed_rows(_common_columns(sample, case, protocol), names, status, reason)


def _common_columns(sample: Sample, case: Case | None, protocol: Protocol) -> Row:
    """Columns that all rows of a sample share."""
    columns = question_columns(sample, protocol.space, protocol.target)
    if case is None or case.reply is NO_REPLY:
        return columns
    answered = answer_columns(sample, case.kind, case.reply) | {"thought": case.prompt.thought}
    return columns | answered | case.image_use


def _shared_columns(item: SampleItem, case: Case, placed: bool, protocol: Protocol) -> tuple[Row, dict[str, Row]]:
    """Columns that do not depend on the substrate: those of the sample, and those of each map by its name."""
    places = localize(case, item.finding_mask if placed else None, protocol.seed, n_finding_boxes(item.sample))
    organs = case.organ_cells if placed else {}
    by_name = {RANDOM: localize_readers(case, left_out(item) if placed else [], protocol.seed)}
    for name, saliency in case.maps.items():
        parts = case.extras.get(name, {}), case.costs.get(name, {}), case.pictures
        columns = map_columns(saliency, organs, *parts)
        by_name[name] = columns | places.get(name, {})
    return _common_columns(item.sample, case, protocol) | {"picture_hash": item.picture_hash}, by_name
