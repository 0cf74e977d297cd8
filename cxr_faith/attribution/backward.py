"""The backward pass that gradient and relevancy methods share: one for each scored token of a picture.

It passes each decoder layer's attention probabilities A with their gradient ∇A, from which relevancies are computed,
and ends at the image tokens, whose gradient the gradient methods use.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cxr_faith.attribution.base import AttributionBatch, score_gradient
from cxr_faith.vlm.base import VLM, Target

Core = Callable[[Tensor], Tensor]
Layers = tuple[int, ...]
"""Indices of decoder layers, ascending."""


@dataclass(frozen=True)
class Backward:
    """Results of one scored token's backward pass.

    Attributes:
        gradient: of the token's score with respect to the image tokens, float32 [batch, N, hidden].
        rows: layers that take part → row p-1 of Chefer's R, float32 [batch, sequence]; empty where the model's
            attention does not depend on the picture.
    """

    gradient: Tensor
    rows: Mapping[Layers, Tensor]


def all_layers(vlm: VLM) -> Layers:
    """All decoder layers."""
    return tuple(range(len(vlm.layer_types)))


def global_layers(vlm: VLM) -> Layers:
    """The layers that the model's config calls `full_attention`."""
    return tuple(layer for layer, kind in enumerate(vlm.layer_types) if kind == "full_attention")


def backwards(
    vlm: VLM,
    batch: AttributionBatch,
    target: Sequence[Target],
    normalize_rows: bool = False,
    full_matrices: bool = False,
    core: Core | None = None,
) -> list[Backward]:
    """One forward pass, and one backward pass for each scored token, in order; shared by the methods that need it.

    R starts as the identity and each layer, first to last, adds Ā·R with Ā = mean over heads of (∇A ⊙ A)⁺. Only row p-1
    of R is needed. It is carried as a vector from the last layer down, r ← r + r·Ā, which is equal and costs L² a layer
    instead of L³. A layer that reads the keys and values of an earlier one adds Ā·R with the R that came to that one:
    its r·Ā waits until that one is reached. A backward pass visits the layers in the same order, so each ∇A is used
    where it arises and freed: one is in memory at a time.

    Args:
        vlm: the model.
        batch: pictures and prompts.
        target: one for each picture.
        normalize_rows: scale each row of Ā to sum 1 (rows of zeros stay zero).
        full_matrices: carry all rows of R, L³ a layer, and read row p-1 at the end.
        core: replaces ∇A; the result is then not shared.
    """

    def run() -> list[Backward]:
        return _run(vlm, batch, target, normalize_rows, full_matrices, core)

    if core is not None:
        return run()
    return batch.share(("backwards", normalize_rows, full_matrices, *target), run)


def _run(
    vlm: VLM,
    batch: AttributionBatch,
    target: Sequence[Target],
    normalize_rows: bool,
    full_matrices: bool,
    core: Core | None,
) -> list[Backward]:
    rows, layers_passed = dict[Layers, Tensor](), list[int]()
    waiting: dict[tuple[Layers, int], Tensor] = {}

    def observer(layer: int, probabilities: Tensor) -> None:
        if probabilities.requires_grad:
            attention = probabilities.detach()

            def read(gradient: Tensor) -> None:
                weights = gradient if core is None else core(gradient)
                carry(layer, relevance(attention, weights, normalize_rows))

            probabilities.register_hook(read)

    def carry(layer: int, matrix: Tensor) -> None:
        layers_passed.append(layer)
        reads = vlm.key_layers[layer]
        for layers, row in rows.items():
            if layer in layers and reads == layer:
                rows[layers] = row + row @ matrix + waiting.pop((layers, layer), 0)
            elif layer in layers:
                waiting[layers, reads] = row @ matrix + waiting.get((layers, reads), 0)

    with torch.enable_grad():
        tokens = batch.tokens(vlm).detach().float().requires_grad_()
        scores = vlm.trace(tokens, batch.prompts, target, observer).unbind(1)
    length, results = batch.prompts[0].length + len(target[0].forced_ids), list[Backward]()
    unit = torch.eye(length, device=tokens.device).expand(len(tokens), -1, -1)
    for index, position in enumerate(target[0].read_positions(batch.prompts[0])):
        carried = slice(None) if full_matrices else slice(position, position + 1)
        rows |= dict.fromkeys((all_layers(vlm), global_layers(vlm)), unit[:, carried])
        (gradient,) = score_gradient(scores[index], [tokens], more=index + 1 < len(scores))
        vlm.counts.backward += len(tokens)
        image_rows = {layers: row[:, position if full_matrices else 0] for layers, row in rows.items()}
        results.append(Backward(gradient, image_rows if layers_passed else {}))
    return results


def relevance(attention: Tensor, gradient: Tensor, normalize_rows: bool = False) -> Tensor:
    """Ā of a layer, float32 [batch, sequence, sequence], from its A and ∇A [batch, heads, sequence, sequence]."""
    matrix = (gradient.float() * attention).clamp_min(0).mean(1)
    if normalize_rows:
        matrix = matrix / matrix.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return matrix
