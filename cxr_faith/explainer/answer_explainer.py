"""Explain a model's answers: about one picture or many, the whole answer, a word of it, or each of its tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import overload

from cxr_faith.attribution import Method, build_methods
from cxr_faith.cases import Case, compute_maps, compute_token_maps
from cxr_faith.explainer.answers import ask
from cxr_faith.explainer.explanation import Explanation
from cxr_faith.explainer.view import Picture, View, pair_up, refuse_lists
from cxr_faith.perturb.engine import Engine
from cxr_faith.vlm.answers import KEYWORD
from cxr_faith.vlm.base import VLM

MethodSpec = str | Mapping[str, object]
"""Name of a method, or `{"class": name, options…}`."""


class AnswerExplainer:
    """Asks a loaded model about pictures and maps what its answers depend on.

    Args:
        vlm: the model.
        seed: of every random stream, together with the picture's id.
        max_new_tokens: longest answer that is generated.
    """

    def __init__(self, vlm: VLM, seed: int = 0, max_new_tokens: int = 32) -> None:
        self.vlm, self.seed, self.max_new_tokens = vlm, seed, max_new_tokens
        self._engine = Engine(vlm)

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
        image: Picture | list[Picture],
        question: str | list[str],
        method: MethodSpec = "chefer",
        target: str | int = "answer",
        kind: str | None = None,
        image_id: str | None = None,
    ) -> Explanation | list[Explanation]:
        """Ask a question and explain the model's own answer.

        A list of questions is asked about the one picture, a list of pictures gets the one question, and two lists of
        equal length are paired; the result is then a list. A picture is encoded once to answer all of its questions.
        Maps are made one at a time, so none depends on the other questions.

        Args:
            image: path of a JPEG, PNG or DICOM file, a PIL image, or uint8 [H, W] or [H, W, 3]; or a list of them.
            question: as you would ask it; or a list.
            method: a name of `cxr_faith.attribution.METHODS`, or `{"class": name, options…}`.
            target: `answer` (yes/no: the margin; else the mean log-odds of all answer tokens), `first`, the
                0-based index of an answer token, `keyword:WORD`, or `first_content`, `decision` or `llr`, which pick
                one (`cxr_faith.vlm.answers.pick_token`; the substrate of `llr` is blur:0.1).
            kind: `yes_no`, `choice` or `open`; default: decided from the first generated token.
            image_id: seeds everything random; default: the file's name, or `image`.

        Raises:
            ValueError: the picture cannot be read, the method or an option is unknown, the answer is empty or has no
                such token or word, the map has values that are not finite, or the lists do not fit.
        """
        name, chosen = self._method(method)
        if isinstance(image, list) and image_id is not None:
            raise ValueError("image_id names one picture: leave it out with a list of pictures")
        pairs = pair_up(image, question)
        by_image: dict[str | int, list[int]] = {}
        for index, (picture, _) in enumerate(pairs):
            by_image.setdefault(str(picture) if isinstance(picture, str | Path) else id(picture), []).append(index)
        results: dict[int, Explanation] = {}
        for members in by_image.values():
            view = View.open(self.vlm, pairs[members[0]][0], image_id)
            cases = self._ask(view, [pairs[index][1] for index in members], target, kind)
            self._explain(view, {name: chosen}, cases)
            explained = [Explanation.of(self.vlm, case, name, view) for case in cases]
            results |= zip(members, explained, strict=True)
        single = not isinstance(image, list) and not isinstance(question, list)
        return results[0] if single else [results[index] for index in range(len(pairs))]

    def explain_answer(
        self, image: Picture, question: str, method: MethodSpec = "chefer", kind: str | None = None
    ) -> Explanation:
        """Explain the whole answer: the margin of a yes/no question, else all answer tokens."""
        return self.explain(image, question, method, "answer", kind)

    def explain_keyword(
        self, image: Picture, question: str, keyword: str, method: MethodSpec = "chefer", kind: str | None = None
    ) -> Explanation:
        """Explain all tokens of a word at its first place in the answer.

        Raises:
            ValueError: the answer does not contain the word; the message gives the answer.
        """
        return self.explain(image, question, method, f"{KEYWORD}{keyword}", kind)

    def explain_tokens(
        self, image: Picture, question: str, method: MethodSpec = "chefer", kind: str | None = None
    ) -> list[Explanation]:
        """Explain each generated token on its own, except special tokens.

        Where the method allows it, one forward pass serves all tokens, with at most one backward pass for each.

        Raises:
            ValueError: the answer is empty, or as `explain`.
        """
        name, chosen = self._method(method)
        view, case = self._ask_one(image, question, "answer", kind)
        cases = compute_token_maps(self.vlm, name, chosen, view.pixels, case, self.seed, self._engine.batches)
        return [Explanation.of(self.vlm, one, name, view) for one in cases]

    def _method(self, spec: MethodSpec) -> tuple[str, Method]:
        settings = {"class": spec} if isinstance(spec, str) else dict(spec)
        name = str(settings.get("class", ""))
        return name, self._methods({name: settings})[name]

    def _methods(self, config: Mapping[str, Mapping[str, object]]) -> dict[str, Method]:
        """The methods of a config, once each of them fits a single picture and this model."""
        methods = build_methods(config)
        for name, method in methods.items():
            if method.needs_mask:
                raise ValueError(f"{name} needs a finding mask, which a single picture does not have")
            method.check(self.vlm)
        return methods

    def _ask(self, view: View, questions: Sequence[str], target: str | int, kind: str | None) -> list[Case]:
        return ask(self._engine, view, questions, target, kind, self.seed, self.max_new_tokens)

    def _explain(self, view: View, methods: Mapping[str, Method], cases: list[Case]) -> None:
        """Fill in the maps of questions about one picture."""
        pixels, batches = [view.pixels] * len(cases), self._engine.batches
        compute_maps(self.vlm, methods, pixels, cases, self.seed, only_in_format=False, micro_batch=batches)

    def _ask_one(self, image: Picture, question: str, target: str | int, kind: str | None) -> tuple[View, Case]:
        refuse_lists(image, question)
        view = View.open(self.vlm, image)
        return view, self._ask(view, [question], target, kind)[0]
