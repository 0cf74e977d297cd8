"""`cxr-faith explain`: explain one answer about one picture, print it, and write an overlay and its numbers."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from transformers.utils import logging as transformers_logging

from cxr_faith.attribution import METHODS, build_methods
from cxr_faith.attribution.base import nearest
from cxr_faith.data.images import load_image
from cxr_faith.data.phantoms_only import PHANTOMS_ONLY
from cxr_faith.data.sample import LETTERS
from cxr_faith.explainer import Explainer, Explanation, Scores
from cxr_faith.explainer.naming import result_stem
from cxr_faith.metrics.functional import LARGE_RESIDUAL
from cxr_faith.printable import json_text, printable
from cxr_faith.storage.atomic import replacing, write_atomic
from cxr_faith.vlm import bundled_model
from cxr_faith.vlm.answers import KEYWORD, STRATEGIES, parse_target
from cxr_faith.vlm.bundled_weights import has_bundled_weights
from cxr_faith.vlm.reasoning import Reasoning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANDOM_ORDERS = 20
TOKENS = "tokens"
LOW_MASS = 0.5
"""Below this probability of yes or no together, the margin says little about the answer."""


@dataclass(frozen=True)
class ExplainOptions:
    """What to ask and how to explain it.

    Attributes:
        question: the question, in plain words.
        method: a registered attribution method.
        method_options: its options, such as {"path": "sae/medgemma-20"} for sae.
        model: folder or hub id of a Gemma-3 with a vision tower; `bundled` is the small one, trained on phantoms.
        revision: branch, tag or commit of a hub id; default: main.
        dtype: default: bfloat16 on a GPU, float32 on a CPU.
        device: such as cuda:1; default: a GPU if there is one.
        prompt_template: how the question is put to the model; contains {question}. Default: asks for yes or no, or
            a few words; the bundled model gets the question alone.
        system: text of the system role.
        answer_prefix: text with which every answer begins, such as an empty thought.
        reasoning: let the model think first: the marks around its thought, such as {"open": "<think>", "close":
            "</think>"}.
        out: folder for the overlay and the JSON file.
        target: `answer`, `first`, the 0-based index of an answer token, a strategy that picks one (`first_content`,
            `decision`, `llr`), or `tokens`: a map for each, drawn word by word.
        keyword: explain the tokens of this word, where it first stands in the answer, in place of the target.
        evaluate: also score the explanation: deletion and insertion, gaps to random orders and to the center.
        substrate: what stands for removed cells when scoring.
        steps: points of a curve when scoring.
        clinical: also a clinical summary, as JSON, HTML and PDF; scores the explanation for it.
        calibration: run directory of the same model, for the summary's calibration.
        paraphrases: other wordings of the question, for the summary: do they get the same answer?
        options: answers to choose from, such as ["left", "right"]; they are put below the question with letters, and
            the answer is a letter.
        masks: folder of organ masks, <label>/<name of the picture>.png, of the picture's size, for the summary.
    """

    question: str
    method: str = "chefer"
    method_options: dict[str, Any] = field(default_factory=dict)
    model: str = "bundled"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    device: str | None = None
    prompt_template: str | None = None
    system: str = ""
    answer_prefix: str = ""
    reasoning: dict[str, str] = field(default_factory=dict)
    out: str = "explanations"
    target: str = "answer"
    keyword: str | None = None
    evaluate: bool = False
    substrate: str = "blur:0.1"
    steps: int = 50
    clinical: bool = False
    calibration: str | None = None
    paraphrases: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    masks: str | None = None


def explain(image: str, options: ExplainOptions) -> dict[str, Any]:
    """Explain, print, and write `<picture>-<method>-<hash>.png` and `.json`; `result_stem` makes the name.

    Returns:
        what the JSON file holds.

    Raises:
        ValueError: the picture, the model or an option cannot be used.
    """
    if not options.question.strip():
        raise ValueError("--question is empty")
    load_image(image)  # so that a picture that cannot be read stops the command before a large model is loaded
    target = _target(options)
    transformers_logging.disable_progress_bar()
    source = str(bundled_model()) if options.model == "bundled" else options.model
    style = (options.system, options.answer_prefix, _reasoning(options.reasoning))
    explainer = Explainer.from_pretrained(
        source, options.device, options.dtype, options.prompt_template, options.revision, *style
    )
    # Loads matplotlib, which takes a second: only now that the picture and the model have been read.
    from cxr_faith.explainer.clinical import Known, write_clinical

    if has_bundled_weights(source):
        print(f"note        {PHANTOMS_ONLY} For others: --model google/medgemma-4b-it")
    method = {**options.method_options, "class": options.method}
    if target == TOKENS:
        return _explain_tokens(explainer, image, method, options)
    explanation = explainer.explain(image, options.question, method, target, options=options.options)
    content = _content(explanation, image, options)
    _print_answer(explanation)
    _print_margin(explanation)
    _print_caution(explanation)
    scores = _evaluate(explainer, explanation, options) if options.evaluate or options.clinical else None
    if scores is not None:
        content["evaluation"] = scores.to_dict()
    stem = _write(explanation.plot(), content, image, options)
    if options.clinical:
        known = Known(options.calibration, options.paraphrases, options.masks)
        page = write_clinical(explainer, explanation, scores, stem, known)
        print(f"clinical    {printable(str(page))} and .pdf (research output, not for diagnosis)")
    return content


def _reasoning(marks: dict[str, str]) -> Reasoning:
    """The marks of a thought.

    Raises:
        ValueError: other keys than open and close.
    """
    if unknown := sorted(marks.keys() - {"open", "close"}):
        raise ValueError(f"--reasoning: no key {unknown[0]!r}: it takes open and close")
    return Reasoning(**marks)


def _explain_tokens(
    explainer: Explainer, image: str, method: dict[str, Any], options: ExplainOptions
) -> dict[str, Any]:
    """A map for each token of the answer, in one figure and one JSON file."""
    from cxr_faith.report.grids import token_strip

    each = explainer.explain_tokens(image, options.question, method)
    _print_answer(each[0])
    _print_caution(each[0])
    scored = [index for one in each for index in one.target.scored]
    top, left, height, width = each[0].geometry.crop
    texts, maps = [each[0].tokens[index] for index in scored], [one.map for one in each]
    content = _content(each[0], image, options) | {"target": TOKENS, "scored": scored}
    content["map"] = [values.tolist() for values in maps]
    content["strongest_cell"] = [_strongest(values) for values in maps]
    content["text_relevancy"] = [one.text_relevancy for one in each]
    for name in sorted(each[0].extras.keys() - {"tokens"}):  # `tokens` are those of the answer
        content[name] = [one.extras[name] for one in each]
    _write(token_strip(each[0].picture, texts, maps, (top, left, height, width)), content, image, options)
    return content


def _print_answer(explanation: Explanation) -> None:
    thought = explanation.metadata["thought"]
    if thought is not None:
        print(f"thought     {printable(' '.join(thought.split()))}")
    print(f"answer      {printable(explanation.answer)}   (generated: {explanation.metadata['generated']!r})")


def _print_caution(explanation: Explanation) -> None:
    """Print what the map says against itself, if anything."""
    caution, residual = explanation.extras.get("caution"), explanation.extras.get("completeness_residual", 0.0)
    if caution is not None:
        print(f"caution     {printable(caution)}")
    if residual > LARGE_RESIDUAL:
        print(f"caution     the map does not add up to the effect: completeness residual {residual:.2f}")


def _print_margin(explanation: Explanation) -> None:
    """Print the margin of a yes/no answer or the options' probabilities; warn where the model says none of them."""
    meta = explanation.metadata
    if meta["margin"] is not None:
        print(f"margin      {meta['margin']:+.3f} logits, p(yes) = {meta['p_yes']:.3f}")
        if meta["yes_no_mass"] < LOW_MASS:
            print(f"warning     only {meta['yes_no_mass']:.3f} of the first step's probability is on yes or no")
    if meta["option_probs"]:
        pairs = zip(LETTERS, meta["option_probs"], strict=False)
        print(f"letters     {', '.join(f'{letter} {share:.3f}' for letter, share in pairs)}")
        if meta["option_mass"] < LOW_MASS:
            print(f"warning     only {meta['option_mass']:.3f} of the first step's probability is on these letters")


def _write(figure: "Figure", content: dict[str, Any], image: str, options: ExplainOptions) -> Path:
    """Write overlay and JSON; returns their path without its ending."""
    asked = {name: value for name, value in asdict(options).items() if name != "out"}
    stem = Path(options.out) / result_stem(image, options.method, asked)
    with replacing(Path(f"{stem}.png")) as file:
        figure.savefig(file, format="png")
    write_atomic(Path(f"{stem}.json"), json_text(content) + "\n")
    print(f"overlay     {printable(str(stem))}.png")
    print(f"numbers     {printable(str(stem))}.json")
    return stem


def _target(options: ExplainOptions) -> str | int:
    """What to explain, after a check of the options that need no model.

    Raises:
        ValueError: unknown method, wrong target, or a keyword and a target.
    """
    if options.method not in METHODS:
        raise ValueError(f"--method: no method {options.method!r}{nearest(options.method, METHODS)}")
    if "class" in options.method_options:
        raise ValueError("--method_options: the class is --method")
    if options.method_options:
        build_methods({options.method: {**options.method_options, "class": options.method}})
    if options.keyword is None:
        if options.target == TOKENS and options.options:
            raise ValueError("--target tokens explains each token of an answer: leave out --options")
        if options.target == TOKENS and (options.evaluate or options.clinical):
            raise ValueError("--target tokens gives many maps: --evaluate and --clinical want one target")
        if options.target in (*STRATEGIES, TOKENS):
            return options.target
        try:
            return parse_target(options.target)
        except ValueError as error:
            raise ValueError(f"--target: {error}; {', '.join(STRATEGIES)} pick a token, {TOKENS} takes each") from error
    if options.target != "answer":
        raise ValueError("--keyword and --target exclude each other")
    return parse_target(f"{KEYWORD}{options.keyword}")


def _content(explanation: Explanation, image: str, options: ExplainOptions) -> dict[str, Any]:
    return {
        **explanation.metadata,
        "image": image,
        "model": options.model,
        "answer": explanation.answer,
        "tokens": list(explanation.tokens),  # of the answer, also where a method has an extra of this name
        "target": asdict(explanation.target),
        "map": explanation.map.tolist(),
        "strongest_cell": _strongest(explanation.map),
        "text_relevancy": explanation.text_relevancy,
    }


def _strongest(values: NDArray[np.float32]) -> list[int]:
    """(row, column) of a map's largest value."""
    return [int(index) for index in np.unravel_index(int(values.argmax()), values.shape)]


def _evaluate(explainer: Explainer, explanation: Explanation, options: ExplainOptions) -> Scores:
    """Score the explanation and print the result."""
    scores = explainer.evaluate(explanation, options.substrate, options.steps, RANDOM_ORDERS)
    print(f"status      {scores.status}")
    if scores.status == "ok":
        print(f"deletion    {scores.deletion_auc:.3f} (lower is better), insertion {scores.insertion_auc:.3f}")
        print(f"srg         {scores.srg:+.3f} (random orders have 0), {scores.gap_srg_center:+.3f} to the center")
        least = f"the least that {RANDOM_ORDERS} random orders can give is {1 / (RANDOM_ORDERS + 1):.3f}"
        print(f"p           {scores.random_p:.3f} ({least})")
    return scores
