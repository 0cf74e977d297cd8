"""Explain a model's answers: about one picture or several, the whole answer, a word of it, or each of its tokens."""

from collections.abc import Mapping, Sequence
from typing import overload

from cxr_faith.attribution import Method, build_methods
from cxr_faith.cases import Case, compute_maps, compute_token_maps
from cxr_faith.data.options import with_options
from cxr_faith.data.sample import LETTERS, OPTION
from cxr_faith.explainer.answers import ask
from cxr_faith.explainer.explanation import Explanation
from cxr_faith.explainer.pictures import Picture, Shown
from cxr_faith.explainer.view import View, by_picture, pair_up, refuse_lists
from cxr_faith.perturb.copies import Copies
from cxr_faith.perturb.engine import Engine
from cxr_faith.uncertainty import measure_spread
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
        copies: copies of the picture over which the spread of each map is measured; default: it is not.
    """

    def __init__(self, vlm: VLM, seed: int = 0, max_new_tokens: int = 32, copies: Copies | None = None) -> None:
        self.vlm, self.seed, self.max_new_tokens, self.copies = vlm, seed, max_new_tokens, copies
        self._engine = Engine(vlm)

    @overload
    def explain(
        self,
        image: Shown,
        question: str,
        method: MethodSpec = "chefer",
        target: str | int = "answer",
        kind: str | None = None,
        image_id: str | None = None,
        options: Sequence[str] = (),
        pair: Picture | None = None,
    ) -> Explanation: ...

    @overload
    def explain(
        self,
        image: list[Shown],
        question: str | list[str],
        method: MethodSpec = "chefer",
        target: str | int = "answer",
        kind: str | None = None,
        image_id: None = None,
        options: Sequence[str] = (),
    ) -> list[Explanation]: ...

    @overload
    def explain(
        self,
        image: Shown,
        question: list[str],
        method: MethodSpec = "chefer",
        target: str | int = "answer",
        kind: str | None = None,
        image_id: str | None = None,
        options: Sequence[str] = (),
        pair: Picture | None = None,
    ) -> list[Explanation]: ...

    def explain(
        self,
        image: Shown | list[Shown],
        question: str | list[str],
        method: MethodSpec = "chefer",
        target: str | int = "answer",
        kind: str | None = None,
        image_id: str | None = None,
        options: Sequence[str] = (),
        pair: Picture | None = None,
    ) -> Explanation | list[Explanation]:
        """Ask a question and explain the model's own answer.

        A list of questions is asked about the one picture, a list of pictures gets the one question, and two lists of
        equal length are paired; the result is then a list. A picture is encoded once for all of its questions. Several
        pictures of one question, such as a prior and a current study, are a tuple, or a dict that names them.

        Args:
            image: what a question shows (`cxr_faith.read_picture` lists all that is a picture), or a list.
            question: as you would ask it; or a list.
            method: a name of `cxr_faith.attribution.METHODS`, or `{"class": name, options…}`.
            target: `answer` (yes/no: the margin; else the mean log-odds of all answer tokens), `first`, the 0-based
                index of an answer token, `keyword:WORD`, or `first_content`, `decision` or `llr` (under blur:0.1).
            kind: `yes_no`, `choice` or `open`; default: decided from the first generated token.
            image_id: seeds everything random; default: the file's name, or `image`; of several pictures, joined by `+`.
            options: answers to choose from; they are put below the question with letters. The answer is a letter, and
                the target is its margin over the best other letter.
            pair: the same picture without the finding, for `counterfactual` and the substrate `pair`.

        Raises:
            ValueError: an unreadable picture, an unknown method or option, an answer that is empty or has no such
                token or word, a map with values that are not finite, or lists that do not fit.
        """
        name, chosen = method_for(self.vlm, method)
        if isinstance(image, list):
            _check_alone(image_id, pair)
        kind, results = _kind_with(options, kind), dict[int, Explanation]()
        pairs = [(picture, with_options(asked, options)) for picture, asked in pair_up(image, question)]
        for members in by_picture(pairs):
            view = View.open(self.vlm, pairs[members[0]][0], image_id, pair)
            cases = self._ask(view, [pairs[index][1] for index in members], target, kind, len(options))
            make_maps(self._engine, view, {name: chosen}, cases, self.seed, self.copies)
            made = [Explanation.of(self._engine, case, name, view, self.seed) for case in cases]
            results |= zip(members, made, strict=True)
        single = not isinstance(image, list) and not isinstance(question, list)
        return results[0] if single else [results[index] for index in sorted(results)]

    def explain_answer(
        self, image: Shown, question: str, method: MethodSpec = "chefer", kind: str | None = None
    ) -> Explanation:
        """Explain the whole answer: the margin of a yes/no question, else all answer tokens."""
        return self.explain(image, question, method, "answer", kind)

    def explain_keyword(
        self, image: Shown, question: str, keyword: str, method: MethodSpec = "chefer", kind: str | None = None
    ) -> Explanation:
        """Explain all tokens of a word at its first place in the answer, which must contain it (`ValueError`)."""
        return self.explain(image, question, method, f"{KEYWORD}{keyword}", kind)

    def explain_tokens(
        self,
        image: Shown,
        question: str,
        method: MethodSpec = "chefer",
        kind: str | None = None,
        image_id: str | None = None,
    ) -> list[Explanation]:
        """Explain each generated token on its own, except special tokens.

        Where the method allows it, one forward pass serves all tokens, with at most one backward pass for each.

        Raises:
            ValueError: the answer is empty, or as `explain`.
        """
        name, chosen = method_for(self.vlm, method)
        view, case = self._ask_one(image, question, "answer", kind, image_id)
        each = compute_token_maps(self.vlm, name, chosen, view.pixels, case, self.seed, self._engine.batches)
        return [Explanation.of(self._engine, one, name, view, self.seed) for one in each]

    def _ask(self, view: View, asked: Sequence[str], target: str | int, kind: str | None, options: int) -> list[Case]:
        return ask(self._engine, view, asked, target, kind, self.seed, self.max_new_tokens, options)

    def _ask_one(
        self,
        image: Shown,
        question: str,
        target: str | int,
        kind: str | None,
        image_id: str | None = None,
        options: Sequence[str] = (),
        pair: Picture | None = None,
    ) -> tuple[View, Case]:
        refuse_lists(image, question)
        view, asked = View.open(self.vlm, image, image_id, pair), [with_options(question, options)]
        return view, self._ask(view, asked, target, _kind_with(options, kind), len(options))[0]


def _check_alone(image_id: str | None, pair: Picture | None) -> None:
    """Refuse what belongs to one picture, beside a list of them."""
    if image_id is not None:
        raise ValueError("image_id names one picture: leave it out with a list of pictures")
    if pair is not None:
        raise ValueError("a pair is of one picture: leave it out with a list of pictures")


def make_maps(
    engine: Engine, view: View, methods: Mapping[str, Method], cases: list[Case], seed: int, copies: Copies | None
) -> None:
    """Fill in the maps of answered questions about one view, with their spread over copies where that is wanted."""
    vlm, more = engine.vlm, engine.batches  # micro-batches that may have become smaller
    compute_maps(vlm, methods, [view.pixels] * len(cases), cases, seed, False, micro_batch=more)
    for case in cases:
        measure_spread(vlm, methods, view.pixels, case, view.picture_ids, seed, copies, micro_batch=more)


def method_for(vlm: VLM, spec: MethodSpec) -> tuple[str, Method]:
    """Name of a method and the method itself; raises as `methods_for`."""
    settings = {"class": spec} if isinstance(spec, str) else dict(spec)
    name = str(settings.get("class", ""))
    return name, methods_for(vlm, {name: settings})[name]


def methods_for(vlm: VLM, config: Mapping[str, Mapping[str, object]]) -> dict[str, Method]:
    """The methods of a config.

    Raises:
        ValueError: one of them does not fit a single picture or this model.
    """
    for name, method in (methods := build_methods(config)).items():
        if method.needs_mask:
            raise ValueError(f"{name} needs a finding mask, which a single picture does not have")
        method.check(vlm)
    return methods


def _kind_with(options: Sequence[str], kind: str | None) -> str | None:
    """The kind of a question with these options, the stated one if there are none.

    Raises:
        ValueError: another kind is stated, or there are too few or too many options.
    """
    if not options:
        return kind
    if kind not in (None, OPTION):
        raise ValueError(f"a question with options is of the kind {OPTION}, not {kind}")
    if not 2 <= len(options) <= len(LETTERS) or not all(option.strip() for option in options):
        raise ValueError(f"options must be 2 to {len(LETTERS)} texts")
    return OPTION
