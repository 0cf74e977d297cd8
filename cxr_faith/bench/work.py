"""Floating-point operations of the contestants' counts."""

from collections.abc import Mapping

from cxr_faith.bench.flops import decoder_flops, embedding_flops, last_layer_flops, logits_flops, stage_flops
from cxr_faith.bench.scene import Scene


def engine_flops(scene: Scene, counts: Mapping[str, int]) -> float:
    """Operations of the engine's counts: it embeds few pictures, and a prefix stops inside its last layer."""
    vlm, prompt = scene.vlm, scene.cases[0].prompt
    stages = stage_flops(vlm, prompt)
    forward, backward = (decoder_flops(vlm, prompt.length, prompt.length, products) for products in (2, 4))
    embedding, unfinished = embedding_flops(vlm), last_layer_flops(vlm, len(prompt.prefix_ids))
    shared = counts["encode"] * (stages.tower - embedding) + counts["embed"] * embedding
    shared += counts["prefill"] * (stages.prefill - unfinished) + counts["score"] * stages.suffix
    return shared + counts["trace"] * forward + counts["backward"] * backward


def naive_flops(scene: Scene, counts: Mapping[str, int]) -> float:
    """Operations of the usual recipe's counts."""
    vlm, length = scene.vlm, scene.cases[0].prompt.length
    logits = logits_flops(vlm, length)
    forward, backward = (decoder_flops(vlm, length, length, products) + logits for products in (2, 4))
    whole = counts["forward"] * whole_forward_flops(scene, length)
    tower = counts["encode"] * stage_flops(vlm, scene.cases[0].prompt).tower
    return whole + tower + counts["trace"] * forward + counts["backward"] * backward


def whole_forward_flops(scene: Scene, positions: int) -> float:
    """Operations of one picture and question through the whole model, with the logits of a number of positions."""
    vlm, prompt = scene.vlm, scene.cases[0].prompt
    decoder = decoder_flops(vlm, prompt.length, prompt.length)
    return stage_flops(vlm, prompt).tower + decoder + logits_flops(vlm, positions)
