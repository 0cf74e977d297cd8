"""`sanity`: do the maps depend on what the model has learned, on the picture, on the question and on the answer?

Randomization (Adebayo et al., NeurIPS 2018): the model's layers are made random from the top down, decoder first, then
projector and tower, and the maps are compared with those of the trained model. A method whose maps stay as they are
shows the picture, not the model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import t as student
from torch import Tensor

from cxr_faith.attribution import METHODS, Method
from cxr_faith.attribution.baselines import CONTROLS
from cxr_faith.cases import Case, compute_maps, read_answers
from cxr_faith.checks.randomization import random_stages, randomize
from cxr_faith.checks.samples import read_cases
from cxr_faith.checks.sanity_result import SMALL_CHANGES, Likeness, MethodSanity, SanityResult
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.metrics.agreement import spearman, ssim, top_overlap
from cxr_faith.metrics.statistics import LEVEL
from cxr_faith.perturb.condition import Condition
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.storage.atomic import write_atomic
from cxr_faith.vlm import Target
from cxr_faith.vlm.answers import predicted_answer
from cxr_faith.vlm.loading import load_configured

NO_QUESTION = "?"
CHANCE_QUANTILE = 0.95
"""Quantile of the likeness of maps of different pictures that a method must not stay above under a random model."""

Maps = dict[str, list[np.ndarray]]
"""Method → one map [grid_h, grid_w] for each sample."""


@dataclass(frozen=True)
class SanityOptions:
    """How `sanity` checks.

    Attributes:
        samples: number of samples, the first ones that can be explained.
    """

    samples: int = 16

    def __post_init__(self) -> None:
        """Check the values."""
        if self.samples < 2:
            raise ValueError(f"sanity needs --samples of at least 2, got {self.samples}")

    def within(self, limit: int | None) -> "SanityOptions":
        """The same with at most `limit` samples, which need not be the first ones: they are about several pictures.

        Raises:
            ValueError: the limit leaves one sample.
        """
        if limit is not None and limit < 2:
            raise ValueError(f"--limit {limit}: sanity compares two pictures and needs a limit of at least 2")
        return self if limit is None else replace(self, samples=min(self.samples, limit))


def run_sanity(
    module: FaithfulnessModule, data: CXRVQADataModule, run_dir: Path, options: SanityOptions
) -> SanityResult:
    """Check all methods of a configuration, and write `sanity.json` into the run directory.

    Raises:
        ValueError: fewer than two samples can be explained.
    """
    vlm = load_configured(module.model_config)
    module.check_model()
    data.image_size, data.cache_dir = module.image_size, run_dir / "cache"
    data.cache = None  # it would hold the pictures of the whole manifest, and a few are read once
    pictures, cases = read_cases(Engine(vlm, micro_batch=module.micro_batch), data, module.protocol, options.samples)
    if len(cases) < 2:
        answered = f"sanity needs two samples that the model answers, there are {len(cases)}"
        raise ValueError(f"{data.manifest}: {answered}; cxr-faith doctor says why")
    engine = Engine(vlm.showing(cases[0].pictures), micro_batch=module.micro_batch)
    made = {name: one for name, one in module.method_set.methods.items() if not isinstance(one, METHODS["file"])}
    result = sanity(engine, made, pictures, cases, module.protocol)
    write_atomic(run_dir / "sanity.json", json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n")
    return result


def sanity(
    engine: Engine,
    methods: Mapping[str, Method],
    pictures: Sequence[Tensor],
    cases: Sequence[Case],
    protocol: Protocol,
) -> SanityResult:
    """Run all checks. The model's weights are random afterwards.

    Args:
        engine: runs the model, which is shown as many pictures as each case.
        methods: name → method.
        pictures: pixel values [3, H, W] of each case, of several pictures a sheet.
        cases: answered questions with a target.
        protocol: for seeds and targets.

    Raises:
        ValueError: all cases are about one picture.
    """
    vlm, seed, targets = engine.vlm, protocol.seed, [case.target for case in cases]
    trained = _maps(engine, methods, pictures, cases, targets, seed)
    pairs = {name: _alike(maps, [maps[other] for other in partners(cases)]) for name, maps in trained.items()}
    kept: dict[str, float] = {}
    inputs: dict[str, dict[str, Likeness]] = {}
    for change, (changed, questions) in _changed_inputs(pictures, cases, seed).items():
        answers = _answers(engine, changed, cases, questions, protocol)
        now, before = ([predicted_answer(case.reply, case.kind) for case in some] for some in (answers, cases))
        kept[change] = float(np.mean([one == other for one, other in zip(now, before, strict=True)]))
        inputs[change] = _compare(trained, _maps(engine, methods, changed, answers, targets, seed))
    other_answer = _other_answer(engine, methods, pictures, cases, trained, seed)
    cascade: dict[str, dict[str, Likeness]] = {}
    for stage, names in random_stages(vlm):
        randomize(vlm, names, seed)
        stage_maps = _maps(engine, methods, pictures, cases, targets, seed)
        cascade[stage] = _compare(trained, stage_maps)
    results = {}
    for name, method in methods.items():
        by_stage = {stage: likeness[name] for stage, likeness in cascade.items()}
        control = isinstance(method, CONTROLS)
        by_change = {change: likeness[name] for change, likeness in inputs.items()}
        chance = chance_likeness(trained[name], cases)
        interval = picture_interval(_spearman(trained[name], stage_maps[name]), cases)
        results[name] = MethodSanity(
            control=control,
            random_pairs=pairs[name],
            chance=chance,
            inputs=by_change,
            other_answer=other_answer.get(name),
            cascade=by_stage,
            interval=interval,
            failed=False if control else _above(interval, chance),
        )
    return SanityResult(len(cases), kept, results)


def _above(interval: tuple[float, float] | None, chance: float | None) -> bool | None:
    """Whether the whole interval lies above the chance; None where one of them does not exist."""
    return None if interval is None or chance is None else interval[0] > chance


def chance_likeness(maps: Sequence[np.ndarray], cases: Sequence[Case]) -> float | None:
    """The .95 quantile of Spearman over all pairs of maps of different pictures; None without a pair.

    Maps of one method are alike for any two pictures, since all have lungs in the same place. A method that shows the
    picture and not the model is more alike to its own map under a random model than to that of another picture.
    """
    chosen = [(a, b) for a, b in combinations(range(len(cases)), 2) if cases[a].image_id != cases[b].image_id]
    values = _spearman([maps[a] for a, _ in chosen], [maps[b] for _, b in chosen])
    values = values[np.isfinite(values)]
    return float(np.quantile(values, CHANCE_QUANTILE)) if len(values) else None


def picture_interval(values: np.ndarray, cases: Sequence[Case]) -> tuple[float, float] | None:
    """95 % interval of the mean over pictures, Student's t; None for fewer than two pictures.

    Args:
        values: one for each case, NaN = missing.
        cases: say which questions share a picture.
    """
    by_picture: dict[str, list[float]] = {}
    for value, case in zip(values.tolist(), cases, strict=True):
        if np.isfinite(value):
            by_picture.setdefault(case.image_id, []).append(value)
    means = np.array([np.mean(some) for some in by_picture.values()])
    if len(means) < 2:
        return None
    reach = float(student.ppf((1 + LEVEL) / 2, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means)))
    return float(means.mean()) - reach, float(means.mean()) + reach


def _other_answer(
    engine: Engine,
    methods: Mapping[str, Method],
    pictures: Sequence[Tensor],
    cases: Sequence[Case],
    trained: Maps,
    seed: int,
) -> dict[str, Likeness]:
    """Likeness of the maps of the other answer, which only a yes/no question has; empty without such a question."""
    turned = {
        index: Target("margin", target.name, sign=-target.sign)
        for index, case in enumerate(cases)
        if (target := case.target) and target.kind == "margin"
    }
    if not turned:
        return {}
    asked_pictures, asked_cases = [pictures[i] for i in turned], [cases[i] for i in turned]
    maps = _maps(engine, methods, asked_pictures, asked_cases, list(turned.values()), seed)
    return _compare({name: [of_method[i] for i in turned] for name, of_method in trained.items()}, maps)


def partners(cases: Sequence[Case]) -> list[int]:
    """For each case the index of the next one about another picture, wrapping around.

    Raises:
        ValueError: all cases are about one picture.
    """
    count = len(cases)
    chosen = []
    for index, case in enumerate(cases):
        following = ((index + step) % count for step in range(1, count))
        other = next((j for j in following if cases[j].image_id != case.image_id), None)
        if other is None:
            raise ValueError("sanity needs samples of two pictures: all that the model answers are about one")
        chosen.append(other)
    return chosen


def _changed_inputs(
    pictures: Sequence[Tensor], cases: Sequence[Case], seed: int
) -> dict[str, tuple[list[Tensor], list[str]]]:
    """Name → (pictures, questions), for each of `CHANGED` and `SMALL_CHANGES`."""
    asked = [case.prompt.question for case in cases]
    blank = [Substrate("mean").apply(p[None], [""], seed, c.pictures)[0] for p, c in zip(pictures, cases, strict=True)]
    small = {
        name: [
            Condition.parse(spec).apply_each(picture, [case.image_id] * case.pictures, seed)
            for picture, case in zip(pictures, cases, strict=True)
        ]
        for name, spec in SMALL_CHANGES.items()
    }
    return {
        "blank picture": (blank, asked),
        "other picture": ([pictures[other] for other in partners(cases)], asked),
        "no question": (list(pictures), [NO_QUESTION] * len(cases)),
        **{name: (changed, asked) for name, changed in small.items()},
    }


def _answers(
    engine: Engine, pictures: Sequence[Tensor], cases: Sequence[Case], questions: Sequence[str], protocol: Protocol
) -> list[Case]:
    answers = []
    for picture, case, question in zip(pictures, cases, questions, strict=True):
        asked, turns = ([question], [case.kind], protocol, [case.finding_cells]), [case.prompt.turns]
        given = partial(read_answers, engine.vlm, picture, case.image_id, *asked, turns=turns)
        answers += engine.whole_pass(partial(given, options=[len(case.prompt.letters)]))
    return answers


def _maps(
    engine: Engine,
    methods: Mapping[str, Method],
    pictures: Sequence[Tensor],
    cases: Sequence[Case],
    targets: Sequence[Target | None],
    seed: int,
) -> Maps:
    """Maps of every method for the given targets; a map is NaN where a method gives none."""
    asked = [
        Case(case.prompt, case.image_id, case.kind, case.reply, target, finding_cells=case.finding_cells)
        for case, target in zip(cases, targets, strict=True)
    ]
    vlm, batches = engine.vlm, engine.batches
    compute_maps(vlm, methods, pictures, asked, seed, only_in_format=False, forgive=True, micro_batch=batches)
    missing = np.full(vlm.grid, np.nan)
    return {name: [case.maps.get(name, missing) for case in asked] for name in methods}


def _compare(trained: Maps, maps: Maps) -> dict[str, Likeness]:
    """Method → how alike its maps are to those of the trained model."""
    return {name: _alike(trained[name], maps[name]) for name in maps}


def _alike(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> Likeness:
    """Mean of each measure over the pairs of maps that are finite."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if np.isfinite(x).all() and np.isfinite(y).all()]
    if not pairs:
        return Likeness()
    first, second = (np.stack(side) for side in zip(*pairs, strict=True))
    return Likeness(*(_finite_mean(measure(first, second)) for measure in (spearman, ssim, top_overlap)))


def _spearman(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """Spearman of each pair of maps, NaN where one is constant or not finite."""
    finite = [np.isfinite(x).all() and np.isfinite(y).all() for x, y in zip(a, b, strict=True)]
    values = np.full(len(finite), np.nan)
    if any(finite):
        first, second = (np.stack([one for one, ok in zip(side, finite, strict=True) if ok]) for side in (a, b))
        values[finite] = spearman(first, second)
    return values


def _finite_mean(values: np.ndarray) -> float | None:
    finite = np.isfinite(values)
    return float(values[finite].mean()) if finite.any() else None
