"""The floor: seconds of the bare stages of a model, as transformers itself runs them."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from cxr_faith.bench.flops import Stages
from cxr_faith.bench.scene import Scene
from cxr_faith.bench.timing import peak_memory, wall
from cxr_faith.vlm import Gemma3VLM
from cxr_faith.vlm.base import Prompt
from cxr_faith.vlm.prefix_cache import PrefixCache, cache_argument


def bare_seconds(scene: Scene, trials: int = 3) -> tuple[Stages, int | None]:
    """Seconds per picture of each stage with SDPA attention, each at its best batch size.

    Times are means over the trials, not the best trial: the engine's seconds are those of all its passes too. The
    suffix ends with the yes and no logits of the last position, which takes less than its full logits.

    Returns:
        the seconds, and the highest peak memory at these batch sizes in bytes; None where it cannot be measured.
    """
    vlm, prompt = scene.vlm, scene.cases[0].prompt
    best: list[tuple[float, int | None]] = [(float("inf"), None)] * 3
    with torch.no_grad():
        for batch in scene.preset.batches:
            for stage, work in enumerate(_bare_stages(vlm, scene.pixels, prompt, batch)):
                work()
                with peak_memory(vlm.device) as peak:
                    spent = [wall(vlm.device, work) for _ in range(trials)]
                best[stage] = min(best[stage], (fmean(spent) / batch, peak.value), key=lambda measured: measured[0])
    return Stages(*(seconds for seconds, _ in best)), max((p for _, p in best if p is not None), default=None)


def _bare_stages(vlm: Gemma3VLM, pixels: Tensor, prompt: Prompt, batch: int) -> Sequence[Callable[[], Any]]:
    model: Any = vlm.model
    pictures = pixels.expand(batch, -1, -1, -1).contiguous().to(model.dtype)
    prefix = torch.tensor([prompt.prefix_ids] * batch, device=vlm.device)
    is_image = prefix == model.config.image_token_id
    suffix = torch.tensor([prompt.suffix_ids] * batch, device=vlm.device)
    rows = model.lm_head.weight[[*vlm.yes_ids, *vlm.no_ids]]
    embedded = model.get_input_embeddings()(prefix.masked_fill(is_image, 0))

    def tower() -> Tensor:
        tokens: Tensor = model.model.get_image_features(pictures).pooler_output
        return tokens

    sequence = embedded.masked_scatter(is_image[..., None], tower().to(embedded.dtype))

    def prefill() -> DynamicCache:
        cache = DynamicCache()
        model.model(
            inputs_embeds=sequence, token_type_ids=is_image.long(), use_cache=True, **cache_argument(model.model, cache)
        )
        return cache

    cache = PrefixCache(prefill())

    def question() -> Tensor:
        hidden = model.model(input_ids=suffix, use_cache=True, **cache_argument(model.model, cache)).last_hidden_state
        logits: Tensor = hidden[:, -1] @ rows.T
        return logits

    return tower, prefill, question
