"""CLEANN (Rohekar et al. 2023): a small set of cells that explains the answer, from the last layer's attention.

Attention mixes values as a linear structural model mixes causes, so A·Aᵀ serves as the covariance of the tokens.
Independence tests on it give a graph for each head, and the cells near the answer's position in it are the candidates.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cxr_faith.attribution.attention import at_image
from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, by_token
from cxr_faith.attribution.blackbox import Masker
from cxr_faith.attribution.cleann_graph import depths, independence_graph, shuffled
from cxr_faith.attribution.cleann_search import explaining_set
from cxr_faith.perturb.schedule import BoolArray, stream
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.vlm.base import VLM, PictureScores, Target


class Cleann(Method):
    """CLEANN (Rohekar et al. 2023): the smallest set of cells whose removal changes the answer.

    Candidates are the cells within the radius, ranked by their depth in the graph, for each head and summed over heads.
    The search removes the first 1, 2, 3, 4, 6, 8, … cells of every ranking, and the smallest set that changes the
    answer is reduced until putting back any one of its cells restores the answer. Which sets are tried depends on the
    graph alone. A smaller set may exist.

    Two simplifications of the paper, which learns an oriented graph with conditioning sets of any size: independence is
    tested given no other token and given each single neighbor, and depth is distance in the undirected graph. Without
    the tests a dense attention matrix would connect every cell with the answer.

    The map is 1 in the set and 0 elsewhere, plus up to one half of the soft weight: attention divided by depth, summed
    over heads. Extras: `verified` (1: the removal changed the answer; 0: no set did, and the set is the fewest cells
    that hold half of the attention on the image), `set_size`, and `score_drop`, s(intact) - s(set removed).

    Args:
        radius: greatest depth of a candidate.
        alpha: level of the independence tests.
        samples: number of samples behind the correlations; None: the hidden size, as published.
        substrate: what replaces removed cells.
    """

    can_ablate = True
    substrate: Substrate

    def __init__(
        self, radius: int = 3, alpha: float = 0.01, samples: int | None = None, substrate: str = DEFAULT_SUBSTRATE
    ) -> None:
        if radius < 1 or not 0 < alpha < 1 or (samples is not None and samples < 5):
            raise ValueError(
                f"radius must be at least 1, alpha in (0, 1), samples at least 5; got {radius}, {alpha}, {samples}"
            )
        self.radius, self.alpha, self.samples = radius, alpha, samples
        self.substrate = Substrate.parse(substrate)
        self._masker = Masker(self.substrate)

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """One forward pass for the attention, some hundred to test sets; see `Method.attribute`."""
        return self._explain(vlm, batch, target, [list(target)])[0]

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """One forward pass for the attention of all tokens; sets are tested for each. See `Method.attribute_tokens`."""
        return self._explain(vlm, batch, target, by_token(target))

    def _explain(
        self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target], parts: Sequence[Sequence[Target]]
    ) -> list[Attribution]:
        """Maps for each of several lists of targets [batch], whose scored tokens are among those of `target`."""
        last, kept = len(vlm.layer_types) - 1, list[Tensor]()

        def keep(layer: int, probabilities: Tensor) -> None:
            if layer == last:
                kept.append(probabilities)

        with torch.no_grad():
            tokens = batch.tokens(vlm)
            vlm.trace(tokens, batch.prompts, target, keep)
        return [self._search(vlm, batch, one, kept[0], self.samples or vlm.hidden_size(tokens)) for one in parts]

    def _search(
        self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target], attention: Tensor, samples: int
    ) -> Attribution:
        """Explaining sets from the last layer's attention [batch, heads, sequence, sequence]."""
        read = target[0].read_positions(batch.prompts[0])
        maps, extras = [], list[dict[str, float]]()
        for index, heads in enumerate(attention):
            seen = heads[:, : read[-1] + 1, : read[-1] + 1]
            graph = independence_graph(seen, samples, self.alpha)
            if self.ablated:
                graph = shuffled(graph, stream(batch.seed, batch.image_ids[index], "ablation", "Cleann"))
            reached = at_image(vlm, batch, depths(graph, read, self.radius))
            depth = vlm.layout.least_on_cells(reached, self.radius + 1).cpu().numpy()
            mass = vlm.layout.to_cells(at_image(vlm, batch, heads[:, read]).flatten(0, 1)).double().cpu().numpy()

            def removal(removed: BoolArray, index: int = index) -> PictureScores:
                return self._masker.scores(vlm, batch, [target[index]], index, ~removed)[0]

            values, own = explaining_set(depth, mass, self.radius, removal)
            maps.append(torch.from_numpy(values).float().unflatten(0, vlm.grid))
            extras.append(own)
        return Attribution(torch.stack(maps).to(vlm.device), {key: [own[key] for own in extras] for key in extras[0]})
