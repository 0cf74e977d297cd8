"""CLEANN: a small set of cells that explains the answer, found from the last layer's attention (Rohekar et al. 2023).

Attention mixes values as a linear structural model mixes causes, so A·Aᵀ is taken as the covariance of the tokens. Its
independence tests give a graph for each head, and the cells near the answer's position in the graph are candidates.
"""

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cxr_faith.attribution.attention import image_columns
from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, by_token
from cxr_faith.attribution.blackbox import Masker
from cxr_faith.perturb.schedule import BoolArray, IntArray
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.vlm.base import VLM, PictureScores, Target

FloatArray = npt.NDArray[np.float64]
Removal = Callable[[BoolArray], PictureScores]
"""Scores [M] of pictures without the cells of bool [M, N]."""


class Cleann(Method):
    """The smallest set of candidate cells whose removal changes the answer, tested by removing it.

    Candidates are ranked by their depth in the graph, for each head and summed over heads; cells deeper than the radius
    are none. Tested are every candidate alone, then the first 2, 3, 4, 6, 8, … cells of every ranking, and of the
    candidates ordered by their effect alone. The smallest set that changes the answer is reduced until putting any one
    of its cells back restores it. Where the score is additive in the cells, no smaller set of candidates changes the
    answer; where it is monotone, no part of the set does; otherwise a smaller one may exist.

    Two simplifications of the paper, which learns an oriented graph with sets of any size: independence is tested given
    no other token and given each single neighbor, and depth is distance in the undirected graph. Without the tests a
    dense attention matrix would connect every cell with the answer.

    The map is 1 in the set, 0 elsewhere, plus up to one half of the soft weight: attention over depth, summed over
    heads. Extras: `verified` (1: the removal changed the answer; 0: the set is the fewest cells that hold half of the
    attention on the image, and nothing was found), `set_size`, and `score_drop`, s(intact) - s(set removed).
    """

    substrate: Substrate

    def __init__(
        self, radius: int = 3, alpha: float = 0.01, samples: int | None = None, substrate: str = DEFAULT_SUBSTRATE
    ) -> None:
        """Choose the tests.

        Args:
            radius: greatest depth of a candidate.
            alpha: level of the independence tests.
            samples: number of samples behind the correlations; None: the hidden size, as published.
            substrate: what stands for removed cells.
        """
        if radius < 1 or not 0 < alpha < 1 or (samples is not None and samples < 5):
            raise ValueError(
                f"radius must be at least 1, alpha in (0, 1), samples at least 5; got {radius}, {alpha}, {samples}"
            )
        self.radius, self.alpha, self.samples = radius, alpha, samples
        self.substrate = Substrate.parse(substrate)
        self._masker = Masker(self.substrate)

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """One forward for the attention, some hundred for the tests of sets; see `Method.attribute`."""
        return self._explain(vlm, batch, target, [list(target)])[0]

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """One forward for the attention of all tokens; sets are tested for each. See `Method.attribute_tokens`."""
        return self._explain(vlm, batch, target, by_token(target))

    def _explain(
        self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target], wanted: Sequence[Sequence[Target]]
    ) -> list[Attribution]:
        """Maps of some targets [batch] each, whose scored tokens are among those of `target`."""
        last, kept = len(vlm.layer_types) - 1, list[Tensor]()

        def keep(layer: int, probabilities: Tensor) -> None:
            if layer == last:
                kept.append(probabilities)

        with torch.no_grad():
            tokens = batch.tokens(vlm)
            vlm.trace(tokens, batch.prompts, target, keep)
        return [self._search(vlm, batch, one, kept[0], self.samples or tokens.shape[-1]) for one in wanted]

    def _search(
        self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target], attention: Tensor, samples: int
    ) -> Attribution:
        """Explaining sets from the last layer's attention [batch, heads, sequence, sequence]."""
        read, columns = target[0].read_positions(batch.prompts[0]), image_columns(vlm, batch)
        maps, found = [], list[dict[str, float]]()
        for index, heads in enumerate(attention):
            graph = independence_graph(heads[:, : read[-1] + 1, : read[-1] + 1], samples, self.alpha)
            depth = depths(graph, read, self.radius)[:, columns].cpu().numpy()
            mass = heads[:, read, columns].flatten(0, 1).double().cpu().numpy()

            def removal(removed: BoolArray, index: int = index) -> PictureScores:
                return self._masker.scores(vlm, batch, [target[index]], index, ~removed)[0]

            values, extras = explaining_set(depth, mass, self.radius, removal)
            maps.append(torch.from_numpy(values).float().unflatten(0, vlm.grid))
            found.append(extras)
        return Attribution(torch.stack(maps).to(vlm.device), {key: [e[key] for e in found] for key in found[0]})


def independence_graph(attention: Tensor, samples: int, alpha: float) -> Tensor:
    """Undirected graph of the tokens of each head: an edge where no test finds two tokens independent.

    Tests: correlation, then partial correlation given each single token that is a neighbor of either one after the
    first tests (of all pairs at once, so the result does not depend on an order); Fisher's z, two-sided.

    Args:
        attention: [heads, S, S].
        samples: number of samples behind the correlations.
        alpha: level of the tests.

    Returns:
        bool [heads, S, S], symmetric, without loops.
    """
    rows = attention.double()
    covariance = rows @ rows.mT
    deviation = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    correlation = covariance / deviation[:, :, None] / deviation[:, None]
    correlation = (correlation + correlation.mT) / 2
    first = dependent(correlation, samples, 0, alpha)
    first &= ~torch.eye(first.shape[-1], dtype=torch.bool, device=first.device)
    edges = first.clone()
    # 1 - r² of equal rows is 0 but for rounding, and then the numerator is too: such a token explains its twin away.
    unexplained = (1 - correlation.square()).clamp_min(1e-12).sqrt()
    for token in range(first.shape[-1]):
        given, left = correlation[:, token], unexplained[:, token]
        partial = (correlation - given[:, :, None] * given[:, None]) / (left[:, :, None] * left[:, None])
        neighbor = first[:, token]
        tested = neighbor[:, :, None] | neighbor[:, None]
        tested[:, token] = tested[:, :, token] = False
        edges &= dependent(partial, samples, 1, alpha) | ~tested
    return edges


def dependent(correlation: Tensor, samples: int, given: int, alpha: float) -> Tensor:
    """Whether Fisher's z rejects independence: √(n - k - 3)·|atanh r| > Φ⁻¹(1 - α/2), n samples, k tokens given."""
    bound = NormalDist().inv_cdf(1 - alpha / 2) / max(samples - given - 3, 1) ** 0.5
    return correlation.abs() > torch.tensor(bound, dtype=torch.float64).tanh().to(correlation.device)


def depths(graph: Tensor, roots: Sequence[int], radius: int) -> Tensor:
    """Distance from each root in each graph, radius + 1 where it is larger; int64 [heads * roots, S].

    Args:
        graph: bool [heads, S, S].
        roots: tokens.
        radius: greatest distance of interest.
    """
    edges = graph.double()
    seen = torch.zeros(len(graph), len(roots), graph.shape[-1], dtype=torch.bool, device=graph.device)
    seen[:, range(len(roots)), list(roots)] = True
    result = torch.where(seen, 0, radius + 1)
    for distance in range(1, radius + 1):
        reached = (seen.double() @ edges > 0) & ~seen
        result = result.masked_fill(reached, distance)
        seen |= reached
    return result.flatten(0, 1)


def explaining_set(
    depth: IntArray, mass: FloatArray, radius: int, removal: Removal
) -> tuple[FloatArray, dict[str, float]]:
    """Find the set, and the map made of it.

    Args:
        depth: depth of each cell for each head [heads, N].
        mass: attention of the answer's position on each cell, for each head [heads, N].
        radius: greatest depth of a candidate.
        removal: scores pictures without some cells.

    Returns:
        (map [N], extras); see `Cleann`.
    """
    n_cells = depth.shape[1]
    soft = (mass * (depth <= radius) / depth.clip(1)).sum(0)
    cells = np.empty(0, np.int64)
    intact = removal(np.zeros((1, n_cells), bool))
    if np.isfinite(mass).all() and bool(intact.standing[0] >= 0):
        cells = smallest_change(rankings(depth, mass, radius), n_cells, removal)
    verified = len(cells) > 0
    if not verified:
        cells = attention_mass_set(mass.sum(0))
    members = _masks([cells], n_cells)
    drop = float(intact.s[0] - removal(members).s[0])
    share = soft / soft.max() if soft.max() != 0 else soft
    return members[0] + share / 2, {"verified": verified, "set_size": len(cells), "score_drop": drop}


def rankings(depth: IntArray, mass: FloatArray, radius: int) -> list[IntArray]:
    """Candidates of all heads together by summed depth, then those of each head by its own depth.

    Args:
        depth: [heads, N].
        mass: [heads, N]; decides between cells of equal depth.
        radius: greatest depth of a candidate.
    """
    joint = np.lexsort((-mass.sum(0), depth.sum(0)))
    heads = [np.lexsort((-m, d))[: int((d <= radius).sum())] for d, m in zip(depth, mass, strict=True)]
    near = depth.min(axis=0) <= radius
    return [joint[near[joint]], *heads]


def prefixes(ranked: Sequence[IntArray]) -> list[IntArray]:
    """The first 2, 3, 4, 6, 8, 11, … and all cells of every ranking; smaller sets first, then earlier rankings."""
    sets: list[IntArray] = []
    for ranking in ranked:
        steps = range(2, 2 * len(ranking).bit_length() + 1)
        sizes = {min(round(2 ** (half / 2)), len(ranking)) for half in steps}
        sets += [ranking[:size] for size in sorted(sizes) if size > 1]
    return sorted(sets, key=len)


def smallest_change(ranked: Sequence[IntArray], n_cells: int, removal: Removal) -> IntArray:
    """The smallest tested set whose removal changes the answer, reduced; empty if there is none.

    Args:
        ranked: rankings of candidates, the first one of all of them.
        n_cells: number of cells of the grid.
        removal: scores pictures without some cells.
    """
    candidates = ranked[0]
    if len(candidates) == 0:
        return candidates
    alone = removal(_masks(list(candidates[:, None]), n_cells))
    changes = np.flatnonzero(alone.standing.numpy() < 0)
    if len(changes) > 0:
        return candidates[changes[:1]]
    by_effect = candidates[np.argsort(alone.s.numpy(), kind="stable")]
    sets = prefixes([by_effect, *ranked])
    if not sets:
        return candidates[:0]
    changes = np.flatnonzero(removal(_masks(sets, n_cells)).standing.numpy() < 0)
    return reduce_set(sets[changes[0]], n_cells, removal) if len(changes) > 0 else candidates[:0]


def reduce_set(cells: IntArray, n_cells: int, removal: Removal) -> IntArray:
    """Put back what is not needed for the change, until each cell that is left is needed."""
    while len(cells) > 1:
        without = [np.delete(cells, place) for place in range(len(cells))]
        standing = removal(_masks(without, n_cells)).standing.numpy()
        spare = np.argsort(standing, kind="stable")[: int((standing < 0).sum())]
        if len(spare) == 0:
            break
        # Put back as many together as can be, the least needed first.
        nested = [np.delete(cells, spare[:count]) for count in range(1, min(len(spare), len(cells) - 1) + 1)]
        still = np.flatnonzero(removal(_masks(nested, n_cells)).standing.numpy() < 0)
        # The first one is known to change the answer; near 0, in a batch of another size, a GPU may see it otherwise.
        cells = nested[still[-1]] if len(still) > 0 else nested[0]
    return cells


def attention_mass_set(mass: FloatArray, share: float = 0.5) -> IntArray:
    """The fewest cells that hold a share of the attention [N]."""
    order = np.argsort(-mass, kind="stable")
    held = np.cumsum(mass[order])
    return order[: int(np.searchsorted(held, share * held[-1])) + 1]


def _masks(sets: Sequence[IntArray], n_cells: int) -> BoolArray:
    masks = np.zeros((len(sets), n_cells), bool)
    for mask, cells in zip(masks, sets, strict=True):
        mask[cells] = True
    return masks
