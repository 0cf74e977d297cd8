"""`cxr-faith explain`: explain one answer about one picture or several, print it, write a figure and its numbers."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging as transformers_logging

from cxr_faith.data.phantoms_only import PHANTOMS_ONLY
from cxr_faith.data.planting.objects import kinds_named
from cxr_faith.data.sample import LETTERS
from cxr_faith.explainer import Explainer, Explanation
from cxr_faith.explainer.asked import Asked
from cxr_faith.explainer.naming import result_stem
from cxr_faith.explainer.options import TOKENS, ExplainOptions, copies_of
from cxr_faith.explainer.pictures import Shown
from cxr_faith.metrics.functional import LARGE_RESIDUAL
from cxr_faith.printable import json_text, printable
from cxr_faith.storage.atomic import write_atomic
from cxr_faith.vlm import bundled_model
from cxr_faith.vlm.bundled_weights import has_bundled_weights
from cxr_faith.vlm.reasoning import thought_flags
from cxr_faith.vlm.transformers_vlm import TransformersVLM

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANDOM_ORDERS = 20
LOW_MASS = 0.5
"""Below this probability of yes or no together, the margin says little about the answer."""


def explain(image: str | None, options: ExplainOptions) -> dict[str, Any]:
    """Explain, print, and write `<picture>-<method>-<hash>.png` and `.json`; `result_stem` makes the name.

    Args:
        image: path of the picture; None: the options name a series.
        options: what to ask and how to explain it.

    Returns:
        what the JSON file holds.

    Raises:
        ValueError: the picture, the model or an option cannot be used.
    """
    target = options.checked_target()
    # Read first, so that a picture that cannot be read stops the command before a large model is loaded.
    asked = Asked.of(image, options)
    shown, pair = asked.read(), asked.read_pair()
    if options.dicom is not None:
        from cxr_faith.explainer.dicom import check_dicom

        check_dicom(asked.image)
    transformers_logging.disable_progress_bar()
    source = str(bundled_model()) if options.model == "bundled" else options.model
    style = (options.system, options.answer_prefix, options.thought_marks())
    template, size, longest = options.prompt_template, options.image_size, options.max_new_tokens
    explainer = Explainer.from_pretrained(
        source, options.device, options.dtype, template, options.revision, *style, size, longest, copies_of(options)
    )
    if has_bundled_weights(source):
        print(f"note        {PHANTOMS_ONLY} For others: --model google/medgemma-4b-it")
    if target == TOKENS:
        return _explain_tokens(explainer, shown, asked)
    explained = explainer.compare(
        shown, options.question, options.method_specs, target, options.kind, asked.image_id, options.options, pair
    )
    return _finish(explainer, list(explained.values()), asked)


def _finish(explainer: Explainer, explained: Sequence[Explanation], asked: Asked) -> dict[str, Any]:
    """Print the answer and what is said of each map, evaluate the maps if that is asked for, and write all files."""
    # Loads matplotlib, which takes a second: only now that the picture and the model have been read.
    from cxr_faith.explainer.clinical import Known, picture_file, write_clinical
    from cxr_faith.explainer.drawing import answer_panel, shares_of_pictures

    first, options = explained[0], asked.options
    _print_answer(first)
    _print_margin(first)
    cautions = asked.cautions()
    for caution in cautions:
        print(f"caution     {printable(caution)}")
    if options.evaluate or options.clinical or options.dicom is not None:
        explainer.evaluate_together(explained, options.substrate, options.steps, RANDOM_ORDERS)
    for one in explained:
        if len(explained) > 1:
            print(f"method      {one.method}")
        _print_caution(one)
        _print_scores(one)
    panel = answer_panel(explained)  # which measures what each picture is worth
    for one in explained if len(asked.files) > 1 else ():
        print(f"pictures    {printable(shares_of_pictures(one))}")
    content = _content(explainer, first, asked)
    if len(explained) > 1:
        content["methods"] = {one.method: _content(explainer, one, asked) for one in explained}
    stem = _write(panel, content, asked)
    edited = [one for one in explained if "edit" in one.extras and len(asked.files) == 1]
    if edited:
        _write_edit(edited[0], stem, options)
    if options.plant is not None:
        _write_needed(first, stem, asked)
    if options.film or options.gif:
        for one in explained:
            own = stem if len(explained) == 1 else stem.with_name(f"{stem.name}-{one.method}")
            _write_films(one, own, options)
    if options.dicom is not None:
        _write_dicom(explainer, explained, stem, asked.image, Path(options.dicom))
    if options.clinical:
        file = picture_file(asked.image, options.study_date)
        known = Known(options.calibration, options.paraphrases, options.masks, file, cautions)
        page = write_clinical(explainer, first, first.scores, stem, known)
        print(f"clinical    {printable(str(page))} and .pdf (research output, not for diagnosis)")
    return content


def _write_edit(explanation: Explanation, stem: Path, options: ExplainOptions) -> None:
    """Write a counterfactual as pictures: the film, the edit and what changed."""
    from cxr_faith.explainer.drawing import save_figure
    from cxr_faith.explainer.edits import edit_frames, edit_said
    from cxr_faith.report.film import film_strip

    file = stem.with_name(f"{stem.name}-edit.png")
    title, sides = f"{options.question} ({explanation.method})", explanation.sides[0]
    save_figure(film_strip(edit_frames(explanation), title, sides=sides), file)
    print(f"edit        {edit_said(explanation)}")
    print(f"edit        {printable(str(file))}")


def _write_needed(explanation: Explanation, stem: Path, asked: Asked) -> None:
    """Write the smallest planted object that turns a no into a yes, as pictures and as numbers."""
    from cxr_faith.data.planting.films import spacing_of
    from cxr_faith.explainer.absence import needed_frames, smallest_needed
    from cxr_faith.explainer.clinical import mask_pixels
    from cxr_faith.explainer.drawing import save_figure
    from cxr_faith.report.film import film_strip

    options, file = asked.options, stem.with_name(f"{stem.name}-plant")
    (finding,) = kinds_named([options.plant or ""], "--plant")
    masks = {} if options.masks is None else mask_pixels(options.masks, explanation)
    try:
        needed = smallest_needed(explanation, finding, masks=masks, mm=spacing_of(asked.image))
    except ValueError as error:  # what the model would answer was not known before
        print(f"planted     {error}")
        return
    save_figure(
        film_strip(needed_frames(explanation, needed), options.question, sides=explanation.sides[0]),
        Path(f"{file}.png"),
    )
    write_atomic(Path(f"{file}.json"), json_text(needed.to_dict()) + "\n")
    print(f"planted     {needed.sentence}")
    print(f"planted     {needed.placed}")
    print(f"planted     {printable(str(file))}.png and .json")


def _write_films(explanation: Explanation, stem: Path, options: ExplainOptions) -> None:
    """Write the removal of the map's cells as a strip and as a moving picture, where they are asked for."""
    from cxr_faith.explainer.drawing import drawn_picture, film_frames, save_figure
    from cxr_faith.report.film import MOVING_SHARES, STRIP_SHARES, film_strip, moving_picture

    title = f"{options.question} {explanation.answer} ({explanation.method})"
    (_, _, parts), sides = drawn_picture(explanation), explanation.sides[0]
    if options.film:
        file = stem.with_name(f"{stem.name}-film.png")
        save_figure(film_strip(film_frames(explanation, STRIP_SHARES), title, sides=sides, parts=parts), file)
        print(f"film        {printable(str(file))}")
    if options.gif:
        file = stem.with_name(f"{stem.name}.gif")
        write_atomic(file, moving_picture(film_frames(explanation, MOVING_SHARES), title, sides, parts))
        print(f"gif         {printable(str(file))}")


def _write_dicom(explainer: Explainer, explained: Sequence[Explanation], stem: Path, image: str, folder: Path) -> None:
    """Write the DICOM objects of each explanation."""
    from cxr_faith.explainer.dicom import save_dicom

    assert isinstance(explainer.vlm, TransformersVLM)
    for one in explained:
        files = save_dicom(one, explainer.vlm, image, folder, stem.name)
        names = ", ".join(file.name for file in files)
        print(f"dicom       {printable(f'{folder}: {names}')} (as private as the film; not for diagnosis)")


def _explain_tokens(explainer: Explainer, shown: Shown, asked: Asked) -> dict[str, Any]:
    """A map for each token of the answer, in one figure and one JSON file."""
    from cxr_faith.explainer.drawing import drawn_picture
    from cxr_faith.report.grids import OWN_SCALE, token_strip

    options = asked.options
    (method,) = options.method_specs.values()
    each = explainer.explain_tokens(shown, options.question, method, options.kind, asked.image_id)
    first = each[0]
    _print_answer(first)
    _print_caution(first)
    scored = [index for one in each for index in one.target.scored]
    texts, maps = [first.tokens[index] for index in scored], [one.map for one in each]
    content = _content(explainer, first, asked) | {"target": TOKENS, "scored": scored}
    for name in ("map", "strongest_cell", "text_relevancy", *(("pictures",) if len(asked.files) > 1 else ())):
        content[name] = [one.to_dict()[name] for one in each]
    for name in sorted(first.extras.keys() - {"tokens"}):  # `tokens` are those of the answer
        content[name] = [one.extras[name] for one in each]
    title, (picture, region, parts) = f"{options.question} ({options.method})", drawn_picture(first)
    sides = first.sides[0]
    figure = token_strip(picture, texts, maps, region, title=title, footnote=OWN_SCALE, parts=parts, sides=sides)
    _write(figure, content, asked)
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
    if explanation.stable_share is not None:
        print(f"sure        {explanation.stable_share:.0%} of the cells keep their rank from copy to copy")


def _print_margin(explanation: Explanation) -> None:
    """Print the margin of a yes/no answer or the options' probabilities; warn where the model says none of them."""
    meta = explanation.metadata
    if meta["margin"] is not None:
        print(f"margin      {meta['margin']:+.3f} logits, p(yes) = {meta['p_yes']:.3f}")
        if meta["yes_no_mass"] < LOW_MASS:
            print(f"warning     only {meta['yes_no_mass']:.3f} of the first step's probability is on yes or no")
    if (marks := explanation._case.reply.opens_thought) is not None:
        print(f"warning     {thought_flags(marks)}")
    if meta["option_probs"]:
        pairs = zip(LETTERS, meta["option_probs"], strict=False)
        print(f"letters     {', '.join(f'{letter} {share:.3f}' for letter, share in pairs)}")
        if meta["option_mass"] < LOW_MASS:
            print(f"warning     only {meta['option_mass']:.3f} of the first step's probability is on these letters")


def _write(figure: "Figure", content: dict[str, Any], asked: Asked) -> Path:
    """Write figure and JSON; returns their path without its ending."""
    from cxr_faith.explainer.drawing import save_figure

    options = asked.options
    settings = {name: value for name, value in asdict(options).items() if name != "out"}
    files = [*asked.files.values(), *([] if options.pair is None else [Path(options.pair)])]
    name = result_stem(asked.image, "-".join(options.method_specs), settings, files)
    stem = Path(options.out) / name
    file = Path(f"{stem}.{options.format}")
    save_figure(figure, file)
    write_atomic(Path(f"{stem}.json"), json_text(content) + "\n")
    print(f"figure      {printable(str(file))}")
    print(f"numbers     {printable(str(stem))}.json")
    return stem


def _content(explainer: Explainer, explanation: Explanation, asked: Asked) -> dict[str, Any]:
    assert isinstance(explainer.vlm, TransformersVLM)
    content = explanation.to_dict() | {"image": asked.image, "model": asked.options.model} | explainer.vlm.settings()
    content["image_size"] = list(explainer.vlm.image_size)
    for picture, file in zip(content.get("pictures", ()), asked.files.values(), strict=False):
        picture["image"] = str(file)
    return content


def _print_scores(explanation: Explanation) -> None:
    """Print the scores of an explanation that was evaluated."""
    scores = explanation.scores
    if scores is None:
        return
    print(f"status      {scores.status}")
    if scores.status == "ok":
        print(f"deletion    {scores.deletion_auc:.3f} (lower is better), insertion {scores.insertion_auc:.3f}")
        print(f"srg         {scores.srg:+.3f} (random orders have 0), {scores.gap_srg_center:+.3f} to the center")
        least = f"the least that {RANDOM_ORDERS} random orders can give is {1 / (RANDOM_ORDERS + 1):.3f}"
        print(f"p           {scores.random_p:.3f} ({least})")
    if explanation.verdict is not None:
        print(f"verdict     {explanation.verdict.sentence}")
