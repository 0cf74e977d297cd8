"""The token graph of CLEANN: independence tests on attention, and distances in the graph."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor


def independence_graph(attention: Tensor, samples: int, alpha: float) -> Tensor:
    """Undirected graph of the tokens for each head: an edge where every test finds two tokens dependent.

    Tests: correlation, then partial correlation given each single token that is a neighbor of either one after the
    first tests; Fisher's z, two-sided. All pairs are tested at once, so the result does not depend on an order.

    Args:
        attention: [heads, S, S].
        samples: number of samples behind the correlations.
        alpha: level of the tests.

    Returns:
        bool [heads, S, S], symmetric, diagonal False.
    """
    rows = attention.double()
    covariance = rows @ rows.mT
    deviation = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    correlation = covariance / deviation[:, :, None] / deviation[:, None]
    correlation = (correlation + correlation.mT) / 2
    first = dependent(correlation, samples, 0, alpha)
    first &= ~torch.eye(first.shape[-1], dtype=torch.bool, device=first.device)
    edges = first.clone()
    # For equal rows 1 - r² is 0 up to rounding, and so is the numerator: such a token explains its twin away.
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
    # A number, not a tensor: the copy to a device would wait there at every token.
    return correlation.abs() > torch.tensor(bound, dtype=torch.float64).tanh().item()


def shuffled(graph: Tensor, random: np.random.Generator) -> Tensor:
    """The same graphs with their nodes in another order: what is left of them is their density.

    Args:
        graph: bool [heads, S, S].
        random: draws an order for each head.
    """
    orders = torch.from_numpy(np.stack([random.permutation(graph.shape[-1]) for _ in graph])).to(graph.device)
    return torch.stack([one[order][:, order] for one, order in zip(graph, orders, strict=True)])


def depths(graph: Tensor, roots: Sequence[int], radius: int) -> Tensor:
    """Distance from each root in each graph, or radius + 1 where it is larger; int64 [heads * roots, S].

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
