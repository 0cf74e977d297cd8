"""Makes a model random, part by part from the top down, as in Adebayo et al., NeurIPS 2018."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from cxr_faith.perturb.schedule import stream
from cxr_faith.vlm import VLM

BLOCKS = 4
_DECODER = re.compile(r"language_model\.layers\.(\d+)\.")
_TOWER = re.compile(r"(?:vision_tower|visual)\..*?\b(?:layers?|blocks)\.(\d+)\.")
_PROJECTOR = re.compile(
    r"multi_modal_projector|visual\.(?:merger|deepstack_merger_list)\.|embed_vision\.|per_layer_model_projection\."
)


def random_stages(vlm: VLM) -> list[tuple[str, list[str]]]:
    """(name, parameters) of each stage of the cascade, top down: decoder, projector, tower; embeddings stay."""
    named = [name for name, _ in _model(vlm).named_parameters()]
    stages = [*_blocks("decoder", _DECODER, named)]
    stages.append(("projector", [name for name in named if _PROJECTOR.search(name)]))
    return [*stages, *_blocks("tower", _TOWER, named)]


def randomize(vlm: VLM, names: Sequence[str], seed: int) -> None:
    """Shuffle the entries of each of these parameters: this destroys what was learned and keeps the scale."""
    parameters = dict(_model(vlm).named_parameters())
    with torch.no_grad():
        for name in names:
            weight = parameters[name]
            order = torch.from_numpy(stream(seed, name, "randomize").permutation(weight.numel())).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))


def _blocks(title: str, pattern: re.Pattern[str], names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """At most four blocks of layers, last layers first."""
    by_layer: dict[int, list[str]] = {}
    for name in names:
        if match := pattern.search(name):
            by_layer.setdefault(int(match[1]), []).append(name)
    for part in np.array_split(sorted(by_layer, reverse=True), min(BLOCKS, len(by_layer))):
        layers = part.tolist()
        place = f"{layers[-1]}–{layers[0]}" if len(layers) > 1 else str(layers[0])
        yield f"{title} {place}", [name for layer in layers for name in by_layer[layer]]


def _model(vlm: VLM) -> torch.nn.Module:
    model = getattr(vlm, "model", None)
    if not isinstance(model, torch.nn.Module):
        raise ValueError("randomization needs a model whose weights can be shuffled")
    return model
