"""What `cxr-faith explain` takes: names, types, defaults and help of its options."""

from dataclasses import dataclass, field
from typing import Any, Literal

from cxr_faith.attribution import METHODS, build_methods
from cxr_faith.attribution.base import nearest
from cxr_faith.data.planting.objects import kinds_named
from cxr_faith.perturb.copies import PARAPHRASE, Copies, Source
from cxr_faith.perturb.substrate import PAIR
from cxr_faith.vlm.answers import KEYWORD, STRATEGIES, parse_target
from cxr_faith.vlm.reasoning import Reasoning

TOKENS = "tokens"
ONE_TARGET = ("evaluate", "clinical", "film", "gif", "methods", "dicom", "uncertainty", "pair")
"""Options that are about one target."""


@dataclass(frozen=True)
class ExplainOptions:
    """What to ask and how to explain it.

    Attributes:
        question: the question, in plain words.
        method: a registered attribution method.
        method_options: its options, such as {"path": "sae/medgemma-20"} for sae.
        methods: several methods in place of one, such as chefer,attention: a row of the figure for each.
        model: folder or hub id of a model of any family; `bundled` is the small one, trained on phantoms.
        revision: branch, tag or commit of a hub id; default: main.
        dtype: default: bfloat16 on a GPU, float32 on a CPU.
        device: such as cuda:1; default: a GPU if there is one.
        image_size: height and width at which pictures are read, such as [448,448]; default: the family's own.
        prompt_template: contains {question}. Default: asks for yes or no, or a few words; not of the bundled model.
        system: text of the system role.
        answer_prefix: text with which every answer begins, such as an empty thought.
        reasoning: let the model think first, between marks such as {"open": "<think>", "close": "</think>"}.
        max_new_tokens: longest answer that is generated.
        kind: `yes_no`, `choice` or `open`; default: decided from the first generated token.
        prior: picture of an earlier study, which the model is shown before IMAGE; both get a map.
        pair: the same picture without the finding: `counterfactual` takes its cells; also for --substrate pair.
        slices: folder with the slices of a CT or MRI series, in place of IMAGE; each one that is shown gets a map.
        n_slices: how many slices are shown, spread evenly over the series.
        window: center and width that show a DICOM picture, such as 2048,4096; default: those of its header.
        out: folder for the figure and the JSON file.
        format: of the figure.
        uncertainty: make the map again for so many noisy copies of the picture, such as 8; unsure cells fade.
        uncertainty_source: what differs between copies: noise, blurred cells (mask), seeds, or the paraphrases.
        film: also a strip of the picture while its cells are removed, as a PNG file.
        gif: the same as a moving picture.
        plant: a finding such as nodule: the smallest one that, planted, turns a no into a yes, as a figure.
        target: `answer`, `first`, a token (0 is the first), `first_content`, `decision`, `llr`, or `tokens`: each one.
        keyword: explain the tokens of this word, where it first stands in the answer, in place of the target.
        evaluate: also score the explanation: deletion and insertion, gaps to random orders and to the center.
        substrate: what stands for removed cells when scoring.
        steps: points of a curve when scoring.
        clinical: also a clinical summary, as JSON, HTML and PDF; scores the explanation for it.
        study_date: name the date of the study on the summary, from the header of a DICOM picture.
        dicom: folder for DICOM objects of the film's study: map, first cells, report and figure (extra `dicom-out`).
        calibration: run directory of the same model, for the summary's calibration.
        paraphrases: other wordings of the question, for the summary (do they get the same answer?) and uncertainty.
        options: answers to choose from, such as ["left", "right"], put below the question with the letters to answer.
        masks: folder of organ masks of the picture's size, <label>/<its name>.png, for the summary and --plant.
    """

    question: str
    method: str = "chefer"
    method_options: dict[str, Any] = field(default_factory=dict)
    methods: str | None = None
    model: str = "bundled"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    device: str | None = None
    image_size: tuple[int, int] | None = None
    prompt_template: str | None = None
    system: str = ""
    answer_prefix: str = ""
    reasoning: dict[str, str] = field(default_factory=dict)
    max_new_tokens: int = 32
    kind: Literal["yes_no", "choice", "open"] | None = None
    prior: str | None = None
    pair: str | None = None
    slices: str | None = None
    n_slices: int = 8
    window: str | None = None
    out: str = "explanations"
    format: Literal["png", "pdf", "svg"] = "png"
    uncertainty: int | None = None
    uncertainty_source: Source = "noise"
    film: bool = False
    gif: bool = False
    plant: str | None = None
    target: str = "answer"
    keyword: str | None = None
    evaluate: bool = False
    substrate: str = "blur:0.1"
    steps: int = 50
    clinical: bool = False
    study_date: bool = False
    dicom: str | None = None
    calibration: str | None = None
    paraphrases: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    masks: str | None = None

    @property
    def method_specs(self) -> dict[str, dict[str, Any]]:
        """Name → `{class: …, options…}` of each method, the first one first."""
        names = [self.method] if self.methods is None else self.methods.split(",")
        return {name.strip(): {**self.method_options, "class": name.strip()} for name in names}

    @property
    def window_values(self) -> tuple[float, float] | None:
        """Center and width.

        Raises:
            ValueError: they are not two numbers.
        """
        if self.window is None:
            return None
        try:
            center, width = map(float, self.window.strip("[]").split(","))
        except ValueError:
            raise ValueError(f"--window is a center and a width, such as 2048,4096, got {self.window}") from None
        return center, width

    def thought_marks(self) -> Reasoning:
        """The marks of a thought.

        Raises:
            ValueError: other keys than open and close.
        """
        if unknown := sorted(self.reasoning.keys() - {"open", "close"}):
            raise ValueError(f"--reasoning: no key {unknown[0]!r}: it takes open and close")
        return Reasoning(**self.reasoning)

    def checked_target(self) -> str | int:
        """What to explain, after a check of the options that need no model.

        Raises:
            ValueError: an empty question, an unknown method, options that exclude each other, or a wrong target.
        """
        if not self.question.strip():
            raise ValueError("--question is empty")
        _check_methods(self)
        _check_pictures(self)
        if self.keyword is None:
            if self.target == TOKENS and self.options:
                raise ValueError("--target tokens explains each token of an answer: leave out --options")
            if self.target == TOKENS and any(getattr(self, name) for name in ONE_TARGET):
                names = ", ".join(f"--{name}" for name in ONE_TARGET)
                raise ValueError(f"--target tokens gives many maps: {names} want one target")
            if self.target in (*STRATEGIES, TOKENS):
                return self.target
            try:
                return parse_target(self.target)
            except ValueError as error:
                raise ValueError(f"--target: {error}; {', '.join(STRATEGIES)} pick one, {TOKENS} takes each") from error
        if self.target != "answer":
            raise ValueError("--keyword and --target exclude each other")
        return parse_target(f"{KEYWORD}{self.keyword}")


def copies_of(options: ExplainOptions) -> Copies | None:
    """Copies over which the spread of the map is measured; None: it is not.

    Raises:
        ValueError: fewer than two copies, or paraphrases that are missing or cannot stand in for the question.
    """
    if options.uncertainty is None:
        return None
    if options.uncertainty < 2:
        raise ValueError(f"--uncertainty must be at least 2 copies, got {options.uncertainty}")
    worded = options.uncertainty_source == PARAPHRASE
    if worded and (options.options or not options.paraphrases):
        advice = "leave out --options" if options.options else 'give --paraphrases \'["…", "…"]\''
        raise ValueError(f"--uncertainty_source {PARAPHRASE}: {advice}")
    return Copies(options.uncertainty, options.uncertainty_source, wordings=options.paraphrases if worded else ())


def _check_methods(options: ExplainOptions) -> None:
    """Refuse methods that do not exist and options that exclude each other."""
    option = "--method" if options.methods is None else "--methods"
    for name in options.method_specs:
        if name not in METHODS:
            raise ValueError(f"{option}: no method {name!r}{nearest(name, METHODS)}")
    for other in ("method_options", "clinical") if options.methods is not None else ():
        if getattr(options, other):
            raise ValueError(f"--methods and --{other} exclude each other: {other} is of one method")
    if "class" in options.method_options:
        raise ValueError("--method_options: the class is --method")
    if options.method_options:
        build_methods(options.method_specs)


def _check_pictures(options: ExplainOptions) -> None:
    """Refuse pictures that cannot be explained together."""
    if options.prior and options.slices:
        raise ValueError("--prior and --slices exclude each other")
    if options.n_slices < 1:
        raise ValueError(f"--n_slices must be at least 1, got {options.n_slices}")
    if options.plant is not None:
        kinds_named([options.plant], "--plant")
    if options.substrate == PAIR and options.pair is None:
        raise ValueError("--substrate pair needs --pair, the same picture without the finding")
    for name in ("clinical", "dicom", "plant", "pair"):
        if getattr(options, name) not in (None, False) and (options.prior or options.slices):
            raise ValueError(f"--{name} is of one picture: leave out --{'prior' if options.prior else 'slices'}")
