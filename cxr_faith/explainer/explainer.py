"""The Explainer: load a model, explain its answers about single pictures, and score the explanations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cxr_faith.attribution import AttributionBatch
from cxr_faith.attribution.attention import image_share
from cxr_faith.explainer.answer_explainer import MethodSpec, make_maps, methods_for
from cxr_faith.explainer.answer_scorer import AnswerScorer
from cxr_faith.explainer.explanation import Explanation, LayerShare
from cxr_faith.explainer.pictures import Picture, Shown
from cxr_faith.explainer.view import refuse_lists
from cxr_faith.perturb.copies import Copies
from cxr_faith.printable import printable
from cxr_faith.vlm.bundled_weights import has_bundled_weights
from cxr_faith.vlm.config import ModelConfig, bundled_model
from cxr_faith.vlm.loading import load_configured
from cxr_faith.vlm.reasoning import Reasoning


class Explainer(AnswerScorer):
    """Explains a vision-language model's answers and scores the explanations.

    Args:
        vlm: the model.
        seed: of every random stream, together with the picture's id.
        max_new_tokens: longest answer that is generated.
        copies: copies of the picture over which the spread of each map is measured; default: it is not.

    Examples:
        >>> import cxr_faith, numpy as np
        >>> explainer = cxr_faith.Explainer.from_pretrained(cxr_faith.bundled_model(), device="cpu")
        >>> picture = np.full((288, 256, 3), 90, np.uint8)
        >>> explanation = explainer.explain(picture, "Is there a nodule?", method="chefer")
        >>> explanation.map.shape
        (12, 12)
    """

    def __repr__(self) -> str:
        """One line: the model, where it runs, and the grid of its maps."""
        source, (rows, columns) = str(getattr(self.vlm, "source", "")), self.vlm.grid
        model = "bundled" if source and has_bundled_weights(source) else "/".join(Path(source).parts[-2:])
        named = printable(model or type(self.vlm).__name__)
        return (
            f"<{type(self).__name__} {named} on {self.vlm.device}, maps of {rows} × {columns} cells, seed {self.seed}>"
        )

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        prompt_template: str | None = None,
        revision: str | None = None,
        system: str = "",
        answer_prefix: str = "",
        reasoning: Reasoning = Reasoning(),  # noqa: B008 - frozen
        image_size: tuple[int, int] | None = None,
        max_new_tokens: int = 32,
        copies: Copies | None = None,
    ) -> "Explainer":
        """Load a model of any family from a local folder or a hub id.

        Args:
            path_or_id: folder or hub id; `bundled` is the small one that ships.
            device: default: cuda if there is one, else cpu.
            dtype: default: bfloat16 on cuda, float32 on cpu.
            prompt_template: how a question is put to the model; contains `{question}`. Default: asks for yes or no, or
                a few words; the bundled model gets the question alone.
            revision: branch, tag or commit of a hub id; default: main.
            system: text of the system role.
            answer_prefix: text with which every answer begins, such as an empty thought.
            reasoning: marks of the thought that the model has before it answers; default: it answers at once.
            image_size: (height, width) in pixels at which pictures are read, for a family that takes several sizes.
            max_new_tokens: longest answer that is generated.
            copies: copies of the picture over which the spread of each map is measured; default: it is not.

        Raises:
            ModelError: the model cannot be loaded.
            ValueError: the template has no `{question}`, or the dtype is another one.
        """
        named: Any = None if dtype is None else str(dtype).removeprefix("torch.")
        config = ModelConfig(
            str(bundled_model() if path_or_id == "bundled" else path_or_id),
            revision,
            named,
            prompt_template,
            system=system,
            answer_prefix=answer_prefix,
            reasoning=reasoning,
            image_size=image_size,
        )
        return cls(load_configured(config, device), max_new_tokens=max_new_tokens, copies=copies)

    def text_relevancy(
        self, image: Shown, question: str, method: MethodSpec = "chefer", target: str | int = "answer"
    ) -> tuple[tuple[str, float], ...]:
        """(token, relevance) of every text token around the pictures.

        Raises:
            ValueError: the method rates the image alone.
        """
        refuse_lists(image, question)
        explanation = self.explain(image, question, method, target)
        if explanation.text_relevancy is None:
            raise ValueError(f"{explanation.metadata['method']} rates the image alone; chefer and rollout rate text")
        return explanation.text_relevancy

    def layer_attention(
        self, image: Shown, question: str, target: str | int = "answer", kind: str | None = None
    ) -> list[LayerShare]:
        """Share of the attention at the answer's position that falls on the pictures, layer by layer."""
        view, case = self._ask_one(image, question, target, kind)
        assert case.target is not None
        batch = AttributionBatch(view.pixels[None], [case.prompt], [case.image_id], self.seed)
        shares = image_share(self.vlm.showing(case.pictures), batch, [case.target])[:, 0].tolist()
        kinds = ["global" if kind == "full_attention" else "sliding" for kind in self.vlm.layer_types]
        return [LayerShare(index, *pair) for index, pair in enumerate(zip(kinds, shares, strict=True))]

    def compare(
        self,
        image: Shown,
        question: str,
        methods: Sequence[str] | Mapping[str, Mapping[str, object]],
        target: str | int = "answer",
        kind: str | None = None,
        image_id: str | None = None,
        options: Sequence[str] = (),
        pair: Picture | None = None,
    ) -> dict[str, Explanation]:
        """Explain one answer with several methods.

        Args:
            image: as for `explain`.
            question: as you would ask it.
            methods: names, or `{name: {class: …, options…}}` as in a config.
            target: as for `explain`.
            kind: as for `explain`.
            image_id: as for `explain`.
            options: as for `explain`.
            pair: as for `explain`.

        Returns:
            name -> explanation, in the given order; all explain the same answer.
        """
        built = methods_for(self.vlm, methods if isinstance(methods, Mapping) else {name: {} for name in methods})
        view, case = self._ask_one(image, question, target, kind, image_id, options, pair)
        make_maps(self._engine, view, built, [case], self.seed, self.copies)
        return {name: Explanation.of(self._engine, case, name, view, self.seed) for name in built}
