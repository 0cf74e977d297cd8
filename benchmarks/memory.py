"""Memory that gradient methods need beyond the weights of a 4B model in bfloat16: `python benchmarks/memory.py`.

Autograd saves the same amount for every layer, so one layer of the true shape is measured and multiplied. Weights are
left out.
"""

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import Gemma3TextConfig, SiglipVisionConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3DecoderLayer, Gemma3RotaryEmbedding
from transformers.models.siglip.modeling_siglip import SiglipEncoderLayer

from cxr_faith.attribution.gradients import PATH_BATCH
from cxr_faith.attribution.smooth_grad import COPIES_AT_ONCE
from cxr_faith.bench.presets import SHAPES

TOKENS = 300
"""Tokens of a question about a picture, image tokens included."""
SHAPE = SHAPES["medgemma-4b"]


def kept_megabytes(layer: nn.Module, inputs: torch.Tensor, **arguments: object) -> float:
    """Memory that autograd saves during a layer's forward pass, in MB of 10⁶ bytes."""
    weights = {weight.untyped_storage().data_ptr() for weight in layer.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # a reference, so that no other storage can reuse its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(inputs.requires_grad_(), **arguments)
    return sum(storage.nbytes() for address, storage in kept.items() if address not in weights) / 1e6


def decoder_layer(attention: str) -> float:
    """MB of a decoder layer with `sdpa`, or with `eager`, which returns its attention."""
    config = Gemma3TextConfig(**SHAPE["text"], attn_implementation=attention)
    layer = Gemma3DecoderLayer(config, layer_idx=0).to(torch.bfloat16).eval().requires_grad_(False)
    hidden = torch.randn(1, TOKENS, config.hidden_size, dtype=torch.bfloat16)
    mask = torch.zeros(1, 1, TOKENS, TOKENS, dtype=torch.bfloat16)
    positions = torch.arange(TOKENS)[None]
    angles = Gemma3RotaryEmbedding(config)(hidden, positions, config.layer_types[0])
    return kept_megabytes(layer, hidden, position_embeddings=angles, attention_mask=mask, position_ids=positions)


def tower_layer() -> float:
    """MB of a layer of the vision tower."""
    config = SiglipVisionConfig(**SHAPE["vision"], vision_use_head=False, attn_implementation="sdpa")
    layer = SiglipEncoderLayer(config).to(torch.bfloat16).eval().requires_grad_(False)
    patches = (config.image_size // config.patch_size) ** 2
    return kept_megabytes(layer, torch.randn(1, patches, config.hidden_size, dtype=torch.bfloat16), attention_mask=None)


def measure() -> dict[str, float]:
    """MB of one layer of each kind, and GB of each method."""
    shown, plain, tower = decoder_layer("eager"), decoder_layer("sdpa"), tower_layer()
    decoder, towers = (SHAPE[part]["num_hidden_layers"] for part in ("text", "vision"))
    picture = (decoder * plain + towers * tower) / 1e3
    return {
        "decoder layer with its attention, MB": shown,
        "decoder layer, MB": plain,
        "tower layer, MB": tower,
        "chefer, GB": decoder * shown / 1e3,
        f"integrated_gradients, {PATH_BATCH} points, GB": PATH_BATCH * decoder * plain / 1e3,
        f"smooth_grad and igos_pp, {COPIES_AT_ONCE} pictures, GB": COPIES_AT_ONCE * picture,
    }


if __name__ == "__main__":
    table = Table(title="4B, bfloat16, 300 tokens")
    table.add_column("kept")
    table.add_column("", justify="right")
    for name, value in measure().items():
        table.add_row(name, f"{value:.3g}")
    Console().print(table)
