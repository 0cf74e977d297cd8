"""Score explanations of single answers, and maps from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from numpy.typing import ArrayLike

from cxr_faith.attribution.map_file import cell_map
from cxr_faith.explainer.answer_explainer import AnswerExplainer
from cxr_faith.explainer.explanation import Explanation
from cxr_faith.explainer.measured import measure
from cxr_faith.explainer.pictures import Shown
from cxr_faith.explainer.scores import Scores
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE
from cxr_faith.protocol import Protocol


class AnswerScorer(AnswerExplainer):
    """Scores maps of a loaded model's answers by removing their cells.

    Args:
        vlm: the model.
        seed: of every random stream, together with the picture's id.
        max_new_tokens: longest answer that is generated.
        copies: copies of the picture over which the spread of each map is measured; default: it is not.
    """

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
        return self.evaluate_together([explanation], substrate, steps, random_orders)[explanation.method]

    def evaluate_together(
        self,
        explanations: Sequence[Explanation],
        substrate: str = DEFAULT_SUBSTRATE,
        steps: int | str = 50,
        random_orders: int = 20,
    ) -> dict[str, Scores]:
        """Score explanations of one answer, as `compare` gives them; the random orders are computed once for all.

        Args:
            explanations: those of one call of `compare`, of this explainer's model.
            substrate: as for `evaluate`.
            steps: as for `evaluate`.
            random_orders: as for `evaluate`.

        Returns:
            method → the scores that `evaluate` gives.

        Raises:
            ValueError: they explain different answers, or as `evaluate`.
        """
        first = explanations[0]
        if any(one._case is not first._case for one in explanations):
            raise ValueError("explanations of different answers: evaluate each of them")
        protocol = Protocol((substrate,), steps, random_orders, seed=self.seed)
        case = replace(first._case, maps={one.method: one.map for one in explanations})
        measured = measure(self._engine, first._view.pixels, case, protocol)
        for one in explanations:
            one._measured.append(measured[one.method])
        return {name: of.scores for name, of in measured.items()}

    def evaluate_map(
        self,
        image: Shown,
        question: str,
        my_map: ArrayLike,
        substrate: str = DEFAULT_SUBSTRATE,
        steps: int | str = 50,
    ) -> Scores:
        """Score a map from elsewhere; see `evaluate_maps`."""
        return self.evaluate_maps(image, question, {"my_map": my_map}, substrate, steps)["my_map"]

    def evaluate_maps(
        self,
        image: Shown,
        question: str,
        maps: Mapping[str, ArrayLike],
        substrate: str = DEFAULT_SUBSTRATE,
        steps: int | str = 50,
        random_orders: int = 20,
        target: str | int = "answer",
        kind: str | None = None,
        image_id: str | None = None,
    ) -> dict[str, Scores]:
        """Score maps from elsewhere, such as those of Captum or Quantus, of one answer.

        Args:
            image: as for `explain`.
            question: as you would ask it.
            maps: name → [grid_h, grid_w], or [H, W] over the whole picture, whose means over each cell are taken;
                larger = more important. Axes of length 1 before these two are dropped. Those of several pictures lie
                one below the other.
            substrate: what replaces removed cells.
            steps: as for `evaluate`.
            random_orders: orders of the random baseline; even.
            target: as for `explain`.
            kind: as for `explain`.
            image_id: as for `explain`.

        Returns:
            name → scores; all are compared with the same random orders.

        Raises:
            ValueError: no map, one of another shape or with values that are not finite, or as `explain` and `evaluate`.
        """
        if not maps:
            raise ValueError("there is no map to evaluate")
        protocol = Protocol((substrate,), steps, random_orders, seed=self.seed)
        count = len(image) if isinstance(image, tuple | dict) else 1
        grid = self.vlm.showing(count).grid if count else self.vlm.grid
        on_cells = {name: cell_map(values, grid, name) for name, values in maps.items()}
        view, case = self._ask_one(image, question, target, kind, image_id)
        measured = measure(self._engine, view.pixels, replace(case, maps=on_cells), protocol)
        return {name: one.scores for name, one in measured.items()}
