"""One explained answer as data: the map, what it explains, and what was measured of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from cxr_faith.cases import Case
from cxr_faith.data.sample import OPTION, YES_NO
from cxr_faith.explainer.answer_verdict import AnswerVerdict, answer_verdict
from cxr_faith.explainer.map_of_pictures import MapOfPictures
from cxr_faith.explainer.view import View
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.orders import map_order
from cxr_faith.uncertainty import SPREAD, STABLE
from cxr_faith.vlm.answers import predicted_answer
from cxr_faith.vlm.base import VLM, Target

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Explained(MapOfPictures):
    """Which parts of the pictures the model's answer depends on, according to one attribution method."""

    answer: str
    """`yes` or `no` for yes/no questions, a letter for those with options, else the generated text."""
    tokens: tuple[str, ...]
    """The generated answer, token by token."""
    target: Target
    """The score that is explained; `target.scored` are the indices of its tokens."""
    text_relevancy: tuple[tuple[str, float], ...] | None
    """(token, relevance) of each token around the pictures, in order; None for methods that rate the image alone."""
    metadata: Mapping[str, Any]
    """Question, method, kind, thought (None: it did not think), generated text, margin, p_yes, yes_no_mass,
    option_probs (by letter), option_mass, image_id, grid (of one picture), and the method's extras."""
    _case: Case
    _engine: Engine
    _seed: int

    @classmethod
    def of(cls, engine: Engine, case: Case, method: str, view: View, seed: int) -> Self:
        """The explanation of a case, from the method's map.

        Args:
            engine: runs the model.
            case: the answer, with its map.
            method: name of the map.
            view: what the question shows.
            seed: of every random stream.

        Raises:
            ValueError: the map has values that are not finite.
        """
        assert case.target is not None
        if not np.isfinite(case.maps[method]).all():
            raise ValueError(f"the map of {method} for {view.image_id} has values that are not finite")
        engine = engine.showing(case.pictures)
        vlm, reply, yes_no = engine.vlm, case.reply, case.kind == YES_NO
        metadata = {
            "question": case.prompt.question,
            "method": method,
            "kind": case.kind,
            "thought": case.prompt.thought,
            "generated": reply.text,
            "margin": reply.margin if yes_no else None,
            "p_yes": float(torch.tensor(reply.margin).double().sigmoid()) if yes_no else None,
            "yes_no_mass": reply.yes_no_mass,
            "option_probs": list(reply.option_probs),
            "option_mass": reply.option_mass if case.kind == OPTION else None,
            "image_id": case.image_id,
            "grid": vlm.picture_grid,
        }
        return cls(
            map=case.maps[method],
            answer=predicted_answer(reply, case.kind),
            tokens=tuple(vlm.decode(reply.token_ids)),
            target=case.target,
            text_relevancy=_text_relevancy(vlm, case, method),
            metadata=metadata | case.extras[method],
            _case=case,
            _view=view,
            _engine=engine,
            _seed=seed,
        )

    @property
    def extras(self) -> Mapping[str, Any]:
        """What the method reports besides its map; `metadata` holds it too."""
        return self._case.extras[str(self.metadata["method"])]

    @property
    def method(self) -> str:
        """Name of the attribution method."""
        return str(self.metadata["method"])

    @property
    def spread(self) -> NDArray[np.float32] | None:
        """Standard deviation of each cell over copies of the picture, [grid_h, grid_w]; None if it was not measured."""
        values: NDArray[np.float32] | None = self.extras.get(SPREAD)
        return values

    @property
    def stable_share(self) -> float | None:
        """Share of the cells whose rank is stable over the copies; None if it was not measured."""
        return self.extras.get(STABLE)

    @property
    def verdict(self) -> AnswerVerdict | None:
        """Whether to believe the map; None before `Explainer.evaluate`, or with fewer than 20 random orders."""
        return answer_verdict(self._measured[-1]) if self._measured else None

    def to_dict(self) -> dict[str, Any]:
        """What was asked, answered and mapped, as JSON takes it; with the scores if it was evaluated.

        `strongest_cell` is a row and a column; where the question shows several pictures, the number of a picture from
        0, a row and a column. `pictures` then has the name, the map, the share and the effect of each.
        """
        content: dict[str, Any] = {
            **{name: value.tolist() if name == SPREAD else value for name, value in self.metadata.items()},
            "answer": self.answer,
            "tokens": list(self.tokens),  # of the answer, also where a method has an extra of this name
            "target": asdict(self.target),
            "map": self.map.tolist(),
            "strongest_cell": self.strongest_cell(),
            "text_relevancy": self.text_relevancy,
        }
        if len(self.pictures) > 1:
            content["pictures"] = self.each_picture()
        if self.scores is not None:
            verdict = self.verdict
            content["evaluation"] = self.scores.to_dict() | {"verdict": None if verdict is None else verdict.verdict}
        return content

    def to_frame(self) -> "pd.DataFrame":
        """A row for each cell: its row and column in the grid, its value, and its rank, 0 for the most important.

        Where the question shows several pictures, the column `picture` has the name of the cell's.
        """
        import pandas as pd

        order = map_order(self.map, self._seed, self._case.image_id, self.method)
        assert order is not None  # the map is finite
        rank = np.empty(order.size, np.int64)
        rank[order] = np.arange(order.size)
        pictures, rows, columns = np.indices(np.shape(self.maps)).reshape(3, -1)
        values = {"row": rows, "column": columns, "value": self.map.ravel(), "rank": rank}
        named = {"picture": np.array(self.picture_names)[pictures]} if len(self.pictures) > 1 else {}
        return pd.DataFrame(named | values)

    @property
    def explained_part(self) -> str:
        """The words of the answer that are explained; empty for all of it."""
        if self.target.kind != "tokens" or len(self.target.scored) >= len(self._case.reply.content):
            return ""
        return "".join(self.tokens[index] for index in self.target.scored).strip()


def _text_relevancy(vlm: VLM, case: Case, method: str) -> tuple[tuple[str, float], ...] | None:
    """(token, relevance) of the text tokens around the pictures, where the method gives a value to each position."""
    sequence = case.sequences.get(method)
    if sequence is None or case.target is None:
        return None
    prompt = case.prompt
    ids = prompt.prefix_ids + prompt.suffix_ids + case.target.forced_ids
    count = vlm.layout.n_tokens // len(prompt.image_starts)
    text = [i for i in range(len(ids)) if not any(start <= i < start + count for start in prompt.image_starts)]
    return tuple(zip(vlm.decode([ids[i] for i in text]), sequence[text].tolist(), strict=True))
