"""`sanity`: do the maps depend on what the model has learned, on the picture, on the question and on the answer?

Randomization (Adebayo et al., NeurIPS 2018): the model's layers are made random from the top down, decoder first, then
projector and tower, and the maps are compared with those of the trained model. A method whose maps stay as they are
shows the picture, not the model.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from torch import Tensor

from cxr_faith.attribution import Method
from cxr_faith.attribution.baselines import CONTROLS
from cxr_faith.cases import Case, compute_maps, read_answers
from cxr_faith.checks.randomization import random_stages, randomize
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.metrics.agreement import spearman, ssim, top_overlap
from cxr_faith.perturb.condition import Condition
from cxr_faith.protocol import Protocol
from cxr_faith.records import write_atomic
from cxr_faith.report.formats import number
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.vlm import VLM, Gemma3VLM, Target
from cxr_faith.vlm.answers import predicted_answer

NO_QUESTION = "?"
CHANGED = ("blank picture", "other picture", "no question")
SMALL_CHANGES = {
    "shift 2 px": "shift:2",
    "contrast +5 %": "contrast:1.05",
    "contrast -5 %": "contrast:0.95",
    "noise 2 %": "noise:0.02",
}
"""Changes of the picture that should change neither answer nor map: name → condition."""

_MEASURES: dict[str, Callable[[Any, Any], Any]] = {"spearman": spearman, "ssim": ssim, "top_overlap": top_overlap}

Maps = dict[str, list[np.ndarray]]


@dataclass(frozen=True)
class SanityOptions:
    """How `sanity` checks.

    Attributes:
        samples: so many of the first samples that can be explained.
        most_alike: a method fails if its maps keep a mean Spearman above this with all layers random.
    """

    samples: int = 8
    most_alike: float = 0.5

    def __post_init__(self) -> None:
        """Check the values."""
        if self.samples < 2 or not 0 < self.most_alike <= 1:
            raise ValueError("sanity needs at least 2 samples and a Spearman between 0 and 1")


def run_sanity(module: FaithfulnessModule, data: CXRVQADataModule, run_dir: Path, options: SanityOptions) -> Any:
    """Check all methods of a configuration, and write `sanity.json` into the run directory.

    Returns:
        What `sanity` returns.

    Raises:
        ValueError: fewer than two samples can be explained.
    """
    config = module.model_config
    vlm = Gemma3VLM.from_pretrained(config.source, None, config.dtype, config.prompt_template, config.revision)
    module.check_model()
    data.image_size, data.cache_dir = module.image_size, run_dir / "cache"
    pictures, cases = read_cases(vlm, data, module.protocol, options.samples)
    if len(cases) < 2:
        raise ValueError(f"{data.manifest}: sanity needs two samples that the model answers, found {len(cases)}")
    result = sanity(vlm, module.method_set.methods, pictures, cases, module.protocol, options.most_alike)
    write_atomic(run_dir / "sanity.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
    return result


def read_cases(vlm: VLM, data: CXRVQADataModule, protocol: Protocol, samples: int) -> tuple[list[Tensor], list[Case]]:
    """Pictures and answered questions of the first samples that can be explained, at most half of one picture."""
    pictures: list[Tensor] = []
    cases: list[Case] = []
    for batch in data.loader():
        for item in batch:
            alike = sum(case.image_id == item.sample.image_id for case in cases)
            if item.image is None or len(cases) == samples or 2 * alike >= max(samples, 2):
                continue
            pixels, sample = vlm.normalize(item.image[None].to(vlm.device))[0], item.sample
            cells = [item.finding_cells(vlm.grid)]
            [case] = read_answers(vlm, pixels, sample.image_id, [sample.question], [sample.kind], protocol, cells)
            if case.target is not None and not case.off_format:
                pictures.append(pixels)
                cases.append(case)
        if len(cases) == samples:
            break
    return pictures, cases


def sanity(
    vlm: VLM,
    methods: Mapping[str, Method],
    pictures: Sequence[Tensor],
    cases: Sequence[Case],
    protocol: Protocol,
    most_alike: float = 0.5,
) -> dict[str, Any]:
    """All checks. The model's weights are random afterwards.

    Args:
        vlm: the model.
        methods: name → method.
        pictures: pixel values [3, H, W] of each case.
        cases: answered questions with a target.
        protocol: for seeds and targets.
        most_alike: highest mean Spearman to the trained maps that passes with all layers random.

    Returns:
        `inputs` (share of the answers kept for each changed input), `methods`: name → `random_pairs`
        (maps of different samples), `inputs`, `other_answer` and `cascade` (a list over stages), each with Spearman,
        SSIM and top overlap to the trained model's maps; `control`; `failed`, None for a method whose maps with all
        layers random cannot be compared: they are constant, or not finite.

    Raises:
        ValueError: all cases are about one picture.
    """
    seed = protocol.seed
    trained = _maps(vlm, methods, pictures, cases, [case.target for case in cases], seed)
    result: dict[str, Any] = {"samples": len(cases), "most_alike": most_alike, "inputs": {}, "methods": {}}
    for name, method in methods.items():
        others = [trained[name][other] for other in partners(cases)]
        control = isinstance(method, CONTROLS)  # they do not look at the model, by design, and cannot fail
        result["methods"][name] = {"control": control, "random_pairs": _alike(trained[name], others), "inputs": {}}
    for change, (changed, questions) in _changed_inputs(pictures, cases, seed).items():
        answers = _answers(vlm, changed, cases, questions, protocol)
        kept = [_says(now) == _says(case) for now, case in zip(answers, cases, strict=True)]
        result["inputs"][change] = {"answers_kept": float(np.mean(kept))}
        maps = _maps(vlm, methods, changed, answers, [case.target for case in cases], seed)
        _compare(result, trained, maps, lambda entry, found, change=change: entry["inputs"].update({change: found}))
    turned = {
        index: Target("margin", t.name, sign=-t.sign)
        for index, case in enumerate(cases)
        if (t := case.target) and t.kind == "margin"
    }
    if turned:  # only a yes/no question has another answer
        shown, answered = [pictures[i] for i in turned], [cases[i] for i in turned]
        maps = _maps(vlm, methods, shown, answered, list(turned.values()), seed)
        asked = {name: [found[i] for i in turned] for name, found in trained.items()}
        _compare(result, asked, maps, lambda entry, found: entry.update({"other_answer": found}))
    for stage, names in random_stages(vlm):
        randomize(vlm, names, seed)
        maps = _maps(vlm, methods, pictures, cases, [case.target for case in cases], seed)
        _compare(
            result,
            trained,
            maps,
            lambda entry, found, stage=stage: entry.setdefault("cascade", []).append({"stage": stage} | found),
        )
    for entry in result["methods"].values():
        last = entry["cascade"][-1]["spearman"]
        entry["failed"] = False if entry["control"] else None if last is None else last > most_alike
    return result


def partners(cases: Sequence[Case]) -> list[int]:
    """For each case the next one about another picture, round and round.

    Raises:
        ValueError: there is one picture only.
    """
    count = len(cases)
    ahead = [[(i + step) % count for step in range(1, count)] for i in range(count)]
    found = [next((j for j in js if cases[j].image_id != cases[i].image_id), None) for i, js in enumerate(ahead)]
    if None in found:
        raise ValueError("sanity needs samples of two pictures: give --samples a larger number")
    return [j for j in found if j is not None]


def _changed_inputs(
    pictures: Sequence[Tensor], cases: Sequence[Case], seed: int
) -> dict[str, tuple[list[Tensor], list[str]]]:
    """Name → (pictures, questions), for each of `CHANGED` and `SMALL_CHANGES`."""
    asked = [case.prompt.question for case in cases]
    blank = [picture.mean((-2, -1), keepdim=True).expand_as(picture).contiguous() for picture in pictures]
    small = {
        name: [Condition.parse(spec).apply(p, case.image_id, seed) for p, case in zip(pictures, cases, strict=True)]
        for name, spec in SMALL_CHANGES.items()
    }
    return {
        "blank picture": (blank, asked),
        "other picture": ([pictures[other] for other in partners(cases)], asked),
        "no question": (list(pictures), [NO_QUESTION] * len(cases)),
        **{name: (changed, asked) for name, changed in small.items()},
    }


def _answers(
    vlm: VLM, pictures: Sequence[Tensor], cases: Sequence[Case], questions: Sequence[str], protocol: Protocol
) -> list[Case]:
    return [
        read_answers(vlm, picture, case.image_id, [question], [case.kind], protocol, [case.finding_cells])[0]
        for picture, case, question in zip(pictures, cases, questions, strict=True)
    ]


def _says(case: Case) -> str:
    return predicted_answer(case.reply, case.kind)


def _maps(
    vlm: VLM,
    methods: Mapping[str, Method],
    pictures: Sequence[Tensor],
    cases: Sequence[Case],
    targets: Sequence[Target | None],
    seed: int,
) -> Maps:
    """Maps of every method for the given targets; a method without a map for a sample gives NaN there."""
    asked = [
        Case(case.prompt, case.image_id, case.kind, case.reply, target, finding_cells=case.finding_cells)
        for case, target in zip(cases, targets, strict=True)
    ]
    compute_maps(vlm, methods, pictures, asked, seed, only_in_format=False)
    missing = np.full(vlm.grid, np.nan)
    return {name: [case.maps.get(name, missing) for case in asked] for name in methods}


def _compare(result: dict[str, Any], trained: Maps, maps: Maps, keep: Any) -> None:
    for name, entry in result["methods"].items():
        keep(entry, _alike(trained[name], maps[name]))


def _alike(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> dict[str, float | None]:
    """Mean of each measure over the pairs of maps that are finite."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if np.isfinite(x).all() and np.isfinite(y).all()]
    if not pairs:
        return dict.fromkeys(_MEASURES)
    first, second = (np.stack(side) for side in zip(*pairs, strict=True))
    values = {name: measure(first, second) for name, measure in _MEASURES.items()}
    return {
        name: float(found[np.isfinite(found)].mean()) if np.isfinite(found).any() else None
        for name, found in values.items()
    }


def render_sanity(result: Mapping[str, Any]) -> Table:
    """Spearman to the trained model's maps, one row for each method."""
    table = Table(box=box.SIMPLE_HEAD, title=f"sanity · {result['samples']} samples · Spearman to the trained maps")
    stages = [entry["stage"] for entry in next(iter(result["methods"].values()))["cascade"]]
    shown = sorted({0, len(stages) // 2, len(stages) - 1})  # a terminal has no room for every layer; the file has all
    columns = ["random pairs", *CHANGED, "small shifts, lowest", "other answer", *(stages[i] for i in shown), "verdict"]
    table.add_column("method", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    for name, entry in result["methods"].items():
        inputs = entry["inputs"]
        small = min((inputs[change] for change in SMALL_CHANGES), key=lambda values: values["spearman"] or 0.0)
        changed = [*(inputs[change] for change in CHANGED), small, entry.get("other_answer", {})]
        found = [entry["random_pairs"], *changed, *(entry["cascade"][i] for i in shown)]
        told = {None: "not measured", True: "FAIL", False: "pass"}
        verdict = "control" if entry["control"] else told[entry["failed"]]
        table.add_row(name, *(number(values.get("spearman")) for values in found), verdict)
    kept = ", ".join(f"{name} {values['answers_kept']:.0%}" for name, values in result["inputs"].items())
    table.caption = f"answers kept: {kept}"
    return table
