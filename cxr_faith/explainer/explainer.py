"""The Explainer: answers about single pictures, explained and evaluated."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import torch

from cxr_faith.attribution import AttributionBatch, Method, build_methods
from cxr_faith.attribution.attention import image_share
from cxr_faith.cases import Case, compute_maps, compute_token_maps, read_answers
from cxr_faith.explainer.explanation import Explanation, LayerShare, Picture, View
from cxr_faith.explainer.scores import Scores
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.scoring import score_image
from cxr_faith.vlm import Gemma3VLM
from cxr_faith.vlm.answers import KEYWORD, OPEN, STRATEGIES, likelihood_ratios, make_target, parse_target, pick_token
from cxr_faith.vlm.base import VLM

MethodSpec = str | Mapping[str, Any]


class Explainer:
    """Explains a vision-language model's answers and scores the explanations.

    Example:
        >>> import cxr_faith, numpy as np
        >>> explainer = cxr_faith.Explainer.from_pretrained(cxr_faith.bundled_model(), device="cpu")
        >>> picture = np.full((288, 256, 3), 90, np.uint8)
        >>> explanation = explainer.explain(picture, "Is there a nodule?", method="chefer")
        >>> explanation.map.shape
        (12, 12)
    """

    def __init__(self, vlm: VLM, seed: int = 0, max_new_tokens: int = 32) -> None:
        """Use a loaded model.

        Args:
            vlm: the model.
            seed: of every random stream, together with the picture's id.
            max_new_tokens: longest answer that is generated.
        """
        self.vlm, self.seed, self.max_new_tokens = vlm, seed, max_new_tokens
        self._engine = Engine(vlm)

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> "Explainer":
        """Load a Gemma-3 or MedGemma from a local folder or a hub id.

        Args:
            path_or_id: folder or hub id; `cxr_faith.bundled_model()` is the small one that ships.
            device: default: cuda if there is one, else cpu.
            dtype: default: bfloat16 on cuda, float32 on cpu.
        """
        return cls(Gemma3VLM.from_pretrained(path_or_id, device, dtype))

    @overload
    def explain(
        self,
        image: Picture,
        question: str,
        method: MethodSpec = "chefer",
        target: str | int = "answer",
        kind: str | None = None,
        image_id: str | None = None,
    ) -> Explanation: ...

    @overload
    def explain(
        self,
        image: list[Picture],
        question: str | list[str],
        method: MethodSpec = "chefer",
        target: str | int = "answer",
        kind: str | None = None,
    ) -> list[Explanation]: ...

    @overload
    def explain(
        self,
        image: Picture,
        question: list[str],
        method: MethodSpec = "chefer",
        target: str | int = "answer",
        kind: str | None = None,
        image_id: str | None = None,
    ) -> list[Explanation]: ...

    def explain(
        self,
        image: Any,
        question: Any,
        method: MethodSpec = "chefer",
        target: str | int = "answer",
        kind: str | None = None,
        image_id: str | None = None,
    ) -> Any:
        """Ask a question and explain the model's own answer.

        A list of questions is asked about the one picture, a list of pictures gets the one question, two lists of
        equal length go in pairs; the answer is then a list. A picture is encoded once to answer all of its questions;
        maps are made one at a time, so that none depends on its company.

        Args:
            image: path of a JPEG, PNG or DICOM file, a PIL image, or uint8 [H, W] or [H, W, 3]; or a list of them.
            question: as it would be asked; or a list.
            method: a name of `cxr_faith.attribution.METHODS`, or `{"class": name, options…}`.
            target: `answer` (yes/no: the margin; else the mean log-probability of all answer tokens), `first`, the
                0-based index of an answer token, `keyword:WORD`, or `first_content`, `decision` or `llr`, which pick
                one (`cxr_faith.vlm.answers.pick_token`; the substrate of `llr` is blur:0.1).
            kind: `yes_no`, `choice` or `open`; default: decided from the first generated token.
            image_id: seeds everything random; default: the file's name, or `image`.

        Raises:
            ValueError: the picture cannot be read, no such method or option, the answer is empty or has no such token
                or word, the map has values that are not finite, or the lists do not fit.
        """
        name, chosen = self._method(method)
        if not isinstance(image, list) and not isinstance(question, list):
            view = View.open(self.vlm, image, image_id)
            return self._explain(view, self._cases(view, [question], target, kind), name, chosen)[0]
        images, questions = _pairs(image, question)
        if isinstance(image, list) and image_id is not None:
            raise ValueError("image_id names one picture: leave it out with a list of pictures")
        by_image: dict[Any, list[int]] = {}
        for index, one in enumerate(images):
            by_image.setdefault(str(one) if isinstance(one, str | Path) else id(one), []).append(index)
        results: list[Explanation | None] = [None] * len(images)
        for members in by_image.values():
            view = View.open(self.vlm, images[members[0]], image_id)
            cases = self._cases(view, [questions[index] for index in members], target, kind)
            for index, explanation in zip(members, self._explain(view, cases, name, chosen), strict=True):
                results[index] = explanation
        return results

    def explain_answer(
        self, image: Picture, question: str, method: MethodSpec = "chefer", kind: str | None = None
    ) -> Explanation:
        """Explain the whole answer: the margin of a yes/no question, else all answer tokens."""
        return self.explain(image, question, method, "answer", kind)

    def explain_keyword(
        self, image: Picture, question: str, keyword: str, method: MethodSpec = "chefer", kind: str | None = None
    ) -> Explanation:
        """Explain all tokens of a word, where it first stands in the answer.

        Raises:
            ValueError: the answer, which the message names, does not hold the word.
        """
        return self.explain(image, question, method, f"{KEYWORD}{keyword}", kind)

    def explain_tokens(
        self, image: Picture, question: str, method: MethodSpec = "chefer", kind: str | None = None
    ) -> list[Explanation]:
        """Explain each generated token on its own, special tokens left out.

        One forward serves all tokens where the method allows it, with at most one backward for each.

        Raises:
            ValueError: the answer is empty, or as `explain`.
        """
        name, chosen = self._method(method)
        view, case = self._one(image, question, "answer", kind)
        cases = compute_token_maps(self.vlm, name, chosen, view.pixels, case, self.seed)
        return [Explanation.of(self.vlm, one, name, view) for one in cases]

    def text_relevancy(
        self, image: Picture, question: str, method: MethodSpec = "chefer", target: str | int = "answer"
    ) -> tuple[tuple[str, float], ...]:
        """(token, relevance) of every text token around the image.

        Raises:
            ValueError: the method rates the image alone.
        """
        _refuse_lists(image, question)
        explanation = self.explain(image, question, method, target)
        if explanation.text_relevancy is None:
            raise ValueError(f"{explanation.metadata['method']} rates the image alone; chefer and rollout rate text")
        return explanation.text_relevancy

    def layer_attention(
        self, image: Picture, question: str, target: str | int = "answer", kind: str | None = None
    ) -> list[LayerShare]:
        """Share of the attention at the answer's position that falls on the picture, layer by layer."""
        view, case = self._one(image, question, target, kind)
        assert case.target is not None
        batch = AttributionBatch(view.pixels[None], [case.prompt], [case.image_id], self.seed)
        shares = image_share(self.vlm, batch, [case.target])[:, 0].tolist()
        kinds = ["global" if kind == "full_attention" else "sliding" for kind in self.vlm.layer_types]
        return [LayerShare(index, *pair) for index, pair in enumerate(zip(kinds, shares, strict=True))]

    def compare(
        self,
        image: Picture,
        question: str,
        methods: Sequence[str] | Mapping[str, Mapping[str, Any]],
        target: str | int = "answer",
        kind: str | None = None,
    ) -> dict[str, Explanation]:
        """Explain one answer with several methods.

        Args:
            image: as for `explain`.
            question: as it would be asked.
            methods: names, or `{name: {class: …, options…}}` as in a config.
            target: as for `explain`.
            kind: as for `explain`.

        Returns:
            name -> explanation, in the given order; all explain the same answer.
        """
        config = methods if isinstance(methods, Mapping) else {name: {} for name in methods}
        built = build_methods(config)
        for name, method in built.items():
            self._check(name, method)
        view, case = self._one(image, question, target, kind)
        compute_maps(self.vlm, built, [view.pixels], [case], self.seed, only_in_format=False)
        return {name: Explanation.of(self.vlm, case, name, view) for name in built}

    def evaluate(
        self,
        explanation: Explanation,
        substrate: str = DEFAULT_SUBSTRATE,
        steps: int | str = 50,
        random_orders: int = 20,
    ) -> Scores:
        """Score an explanation: deletion and insertion curves, and gaps to random orders and to the center.

        Args:
            explanation: of this explainer's model.
            substrate: what replaces removed cells, such as `blur:0.1`, `mean`, `zero`, `noise`.
            steps: points of a curve after the first, or `adaptive`, see `Protocol`.
            random_orders: orders of the random baseline; even.

        Raises:
            ValueError: unknown substrate, or a schedule that does not fit the grid.
        """
        protocol = Protocol((substrate,), steps, random_orders, seed=self.seed)
        protocol.check_grid(self.vlm.grid)
        case, method = explanation._case, str(explanation.metadata["method"])
        chosen = Substrate.parse(substrate)
        key = (case.image_id, case.prompt.question, method, chosen.spec, explanation.target.name)
        if case.off_format:
            reason = f"p(yes) + p(no) is {case.reply.yes_no_mass:.3f} at the first step"
            return Scores(*key, status="off_format", reason=reason)
        rows = score_image(self._engine, explanation._pixels, case.image_id, [case], chosen, protocol)[0]
        return Scores(*key, **rows[method])

    def _method(self, spec: MethodSpec) -> tuple[str, Method]:
        settings = {"class": spec} if isinstance(spec, str) else dict(spec)
        name = str(settings.get("class", ""))
        method = build_methods({name: settings})[name]
        self._check(name, method)
        return name, method

    def _check(self, name: str, method: Method) -> None:
        if method.needs_mask:
            raise ValueError(f"{name} needs a finding mask, which a single picture does not have")
        method.check(self.vlm)

    def _one(self, image: Picture, question: str, target: str | int, kind: str | None) -> tuple[View, Case]:
        """One picture, and the answer to one question about it."""
        _refuse_lists(image, question)
        view = View.open(self.vlm, image)
        return view, self._cases(view, [question], target, kind)[0]

    def _cases(self, view: View, questions: list[str], target: str | int, kind: str | None) -> list[Case]:
        """The answers about one picture, each with what is to be explained."""
        stated = "answer" if target in STRATEGIES else parse_target(target)
        protocol = Protocol(target=stated, max_new_tokens=self.max_new_tokens, seed=self.seed)
        cases = read_answers(self.vlm, view.pixels, view.image_id, questions, [kind] * len(questions), protocol)
        for case in cases:
            if case.target is None:
                raise ValueError(case.reason)
        return [self._picked(view, case, str(target)) for case in cases] if target in STRATEGIES else cases

    def _picked(self, view: View, case: Case, strategy: str) -> Case:
        """The case with the token that a strategy picks as its target."""
        whole, ratios = make_target(self.vlm, case.prompt, case.reply, OPEN), list[float]()
        if strategy == "llr":
            pixels = view.pixels[None]
            removed = Substrate.parse(DEFAULT_SUBSTRATE).apply(pixels, [view.image_id], self.seed)
            with torch.no_grad():
                both = self.vlm.encode(pixels), self.vlm.encode(removed)
            ratios = likelihood_ratios(self.vlm, *both, case.prompt, whole).tolist()
        index = pick_token(self.vlm, case.reply, strategy, ratios)
        return replace(case, target=whole.alone(index))

    def _explain(self, view: View, cases: list[Case], name: str, method: Method) -> list[Explanation]:
        pixels = [view.pixels] * len(cases)
        compute_maps(self.vlm, {name: method}, pixels, cases, self.seed, only_in_format=False)
        return [Explanation.of(self.vlm, case, name, view) for case in cases]


def _refuse_lists(image: Any, question: Any) -> None:
    if isinstance(image, list) or isinstance(question, list):
        raise ValueError("one picture and one question at a time: explain takes lists of them")


def _pairs(image: Any, question: Any) -> tuple[list[Any], list[str]]:
    """Pictures and questions one to one.

    Raises:
        ValueError: two lists of different length.
    """
    if not isinstance(image, list):
        return [image] * len(question), question
    if not isinstance(question, list):
        return image, [question] * len(image)
    if len(image) != len(question):
        raise ValueError(f"{len(image)} pictures and {len(question)} questions: give lists of equal length, or one")
    return image, question
