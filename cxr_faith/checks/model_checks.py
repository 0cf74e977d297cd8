"""The checks of `doctor` that look into the model: tokens, attention mask, attributions, perturbed pictures."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cxr_faith.attribution import AttributionBatch, build_methods
from cxr_faith.attribution.attention import at_image, observe
from cxr_faith.attribution.base import score_gradient
from cxr_faith.cases import Case
from cxr_faith.checks.checklist import Check, judged
from cxr_faith.perturb.schedule import keep_masks, schedule
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, PAIR, Substrate, compose
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.vlm import VLM, Target


def model_checks(module: FaithfulnessModule, pixels: Tensor, case: Case) -> Iterator[Check]:
    """Checks of one picture [3, H, W], or a sheet of several, and one question with a target."""
    vlm = module.engine.vlm.showing(case.pictures)
    assert case.target is not None
    batch = AttributionBatch(pixels[None], [case.prompt], [case.image_id], module.protocol.seed)
    yield from _tokens(vlm, case)
    yield _image_attention(vlm, batch, case.target)
    yield _yes_no(vlm)
    yield _completeness(vlm, batch, case.target)
    yield _full_product(vlm, batch, case.target)
    yield _mirror(vlm, pixels, case.image_id, module)
    yield _dtype(vlm)


def weights_check(vlm: VLM) -> Check:
    """NaN or infinity among the weights makes every answer, or those to some pictures, impossible to score."""
    parameters = dict(vlm.model.named_parameters()) if hasattr(vlm, "model") else {}
    finite = [weight.isfinite().all() for weight in parameters.values()]
    flags = torch.stack(finite).tolist() if finite else []  # the host waits once
    bad = [name for name, flag in zip(parameters, flags, strict=True) if not flag]
    advice = f"the checkpoint is damaged, first in {bad[0]}: fetch it again" if bad else ""
    return judged("weights finite", not bad, f"{len(bad)} tensors with NaN or infinity", advice)


def _tokens(vlm: VLM, case: Case) -> Iterator[Check]:
    ids = case.prompt.prefix_ids + case.prompt.suffix_ids
    tokenizer = getattr(vlm, "tokenizer", None)
    if tokenizer is not None and tokenizer.bos_token_id is not None:
        count = ids.count(tokenizer.bos_token_id)
        yield judged("one BOS token", count == 1, str(count), "the chat template and the tokenizer both add one")
    starts, image = case.prompt.image_starts, ids[case.prompt.image_start]
    count = vlm.layout.n_tokens // len(starts)
    whole = all(set(ids[start : start + count]) == {image} for start in starts)
    good = ids.count(image) == vlm.layout.n_tokens and whole
    grid = "x".join(map(str, vlm.picture_grid))
    figure = f"{ids.count(image)} image tokens from {', '.join(map(str, starts))}, grid {grid}"
    name = "image tokens in one block" if len(starts) == 1 else "image tokens in a block for each picture"
    yield judged(name, good, figure, "pan and scan must be off; check the chat template")


def _image_attention(vlm: VLM, batch: AttributionBatch, target: Target) -> Check:
    """Image tokens see each other in both directions where the family says so, and only there."""

    def ahead(probabilities: Tensor) -> Tensor:
        seen = at_image(vlm, batch, at_image(vlm, batch, probabilities), 2)
        return seen.triu(1).sum((-2, -1)).mean() / vlm.layout.n_tokens

    shares = observe(vlm, batch, [target], ahead)
    share = float(torch.stack(shares).mean()) if shares else 0.0
    if not vlm.looks_ahead:
        advice = "the mask does not reach the model, which was trained with causal image attention"
        return judged("image attention is causal", share == 0, f"{share:.3f} of it looks ahead", advice)
    advice = "token_type_ids do not reach the model: its image attention is causal, which changes its answers"
    return judged("image attention goes both ways", share > 0.01, f"{share:.3f} of it looks ahead", advice)


def _yes_no(vlm: VLM) -> Check:
    shared = set(vlm.yes_ids) & set(vlm.no_ids)
    good = bool(vlm.yes_ids) and bool(vlm.no_ids) and not shared
    figure = f"{len(vlm.yes_ids)} yes, {len(vlm.no_ids)} no, {len(shared)} shared"
    return judged("yes and no tokens", good, figure, "the tokenizer has no single token for yes or no")


def _completeness(vlm: VLM, batch: AttributionBatch, target: Target) -> Check:
    method = build_methods({"integrated_gradients": {}})["integrated_gradients"]
    residual = float(method.attribute(vlm, batch, [target]).extras["completeness_residual"][0])
    advice = "the path integral misses the effect: more steps, or float32 instead of bfloat16"
    return judged(
        "integrated gradients add up", residual < 0.05, f"{residual:.3g} of the effect missing", advice, residual < 0.3
    )


def _full_product(vlm: VLM, batch: AttributionBatch, target: Target) -> Check:
    """Chefer's row must be row p − 1 of the full product over the layers."""
    row = build_methods({"chefer": {}})["chefer"].attribute(vlm, batch, [target]).maps[0]
    attentions: list[Tensor] = []
    with torch.enable_grad():
        tokens = vlm.encode(batch.pixels).detach().requires_grad_()
        traced = vlm.trace(tokens, batch.prompts, [target], lambda _, probabilities: attentions.append(probabilities))
        scores = traced.unbind(1)
    of_tokens = torch.zeros(vlm.layout.n_tokens, device=row.device)
    for index, position in enumerate(target.read_positions(batch.prompts[0])):
        gradients = score_gradient(scores[index], attentions, more=index + 1 < len(scores))
        products = [torch.eye(attentions[0].shape[-1], device=row.device)]
        for attention, gradient, reads in zip(attentions, gradients, vlm.key_layers, strict=True):
            relevance = (gradient.float() * attention.detach().float()).clamp_min(0).mean(1)[0]
            products.append(products[-1] + relevance @ products[reads])
        of_tokens += at_image(vlm, batch, products[-1][position])
    expected = vlm.on_cells(of_tokens)
    error = float((row - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    return judged(
        "chefer row is the full product's", error < 1e-3, f"relative error {error:.1e}", "report this as a bug"
    )


def _mirror(vlm: VLM, pixels: Tensor, image_id: str, module: FaithfulnessModule) -> Check:
    """Insertion by an order shows the same pictures as deletion by the reversed order, last to first."""
    k = schedule(vlm.n_cells, module.protocol.finest(vlm.n_cells))
    order = np.random.default_rng(0).permutation(vlm.n_cells)
    spec = next((spec for spec in module.protocol.substrates if spec != PAIR), DEFAULT_SUBSTRATE)
    removed = Substrate.parse(spec).apply(pixels[None], [image_id], module.protocol.seed, vlm.pictures)[0]
    same = 0
    for step in range(len(k)):
        there = torch.from_numpy(keep_masks(order, k[[step]], "insertion")).to(pixels.device)
        back = torch.from_numpy(keep_masks(order[::-1], k[[-1 - step]], "deletion")).to(pixels.device)
        softness = module.protocol.softness
        same += torch.equal(*(compose(pixels, removed, mask, vlm.grid, softness) for mask in (there, back)))
    return judged("mirror identity", same == len(k), f"{same} of {len(k)} pictures equal", "report this as a bug")


def _dtype(vlm: VLM) -> Check:
    model = getattr(vlm, "model", None)
    dtype = getattr(model, "dtype", torch.float32)
    figure = str(dtype).removeprefix("torch.")
    good = dtype in (torch.float32, torch.bfloat16)
    slow = dtype == torch.bfloat16 and vlm.device.type == "cpu"
    return judged("number format", good and not slow, figure, "bfloat16 on a GPU, float32 on a CPU", fair=good)
