"""What the hardware and the model allow: bare stages, their floating-point operations, the matmul peak, peak memory."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from cxr_faith.bench.scene import Scene
from cxr_faith.vlm import Gemma3VLM
from cxr_faith.vlm.base import Prompt
from cxr_faith.vlm.prefix_cache import PrefixCache


@dataclass(frozen=True)
class Stages:
    """One number for each bare stage of a picture: seconds, or floating-point operations.

    Attributes:
        tower: pixels to image tokens.
        prefill: image tokens to the decoder's cache.
        suffix: a question on that cache, and its margin.
    """

    tower: float
    prefill: float
    suffix: float

    def total(self, pictures: int, scores: int) -> float:
        """The stages of so many distinct pictures and so many questions about them."""
        return pictures * (self.tower + self.prefill) + scores * self.suffix


def wall(device: torch.device, work: Callable[[], Any]) -> float:
    """Seconds that some work takes, on an accelerator until it is really done."""
    _wait(device)
    begin = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bare_seconds(scene: Scene, trials: int = 3) -> tuple[Stages, int | None]:
    """Seconds a picture of each stage as transformers itself runs it (SDPA), each at its best batch size.

    With them the highest peak memory at these sizes in bytes; None where it cannot be measured.

    Means over the trials, not the luckiest one: the engine's seconds are those of all its passes too.

    The suffix ends with the yes and no logits of the last position, which is less than its full logits.
    """
    vlm, prompt = scene.vlm, scene.cases[0].prompt
    best: list[tuple[float, int | None]] = [(float("inf"), None)] * 3
    with torch.no_grad():
        for batch in scene.preset.batches:
            for stage, work in enumerate(_bare_stages(vlm, scene.pixels, prompt, batch)):
                work()
                with peak_memory(vlm.device) as peak:
                    spent = [wall(vlm.device, work) for _ in range(trials)]
                best[stage] = min(best[stage], (fmean(spent) / batch, peak.value), key=lambda found: found[0])
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
        model.model(inputs_embeds=sequence, token_type_ids=is_image.long(), past_key_values=cache, use_cache=True)
        return cache

    cache = PrefixCache(prefill())

    def question() -> Tensor:
        hidden = model.model(input_ids=suffix, past_key_values=cache, use_cache=True).last_hidden_state
        logits: Tensor = hidden[:, -1] @ rows.T
        return logits

    return tower, prefill, question


def stage_flops(vlm: Gemma3VLM, prompt: Prompt) -> Stages:
    """Floating-point operations (two for a multiply-add) of each bare stage, from the model's shape.

    Matrix products only: projections, attention and the patch embedding.
    """
    prefix, suffix = len(prompt.prefix_ids), len(prompt.suffix_ids)
    head = 2 * vlm.model.config.get_text_config().hidden_size * (len(vlm.yes_ids) + len(vlm.no_ids))
    question = decoder_flops(vlm, suffix, prefix + suffix) + head
    return Stages(tower_flops(vlm), decoder_flops(vlm, prefix, prefix), question)


def tower_flops(vlm: Gemma3VLM) -> float:
    """Operations of vision tower and projector for one picture."""
    vision: Any = vlm.model.config.vision_config
    patches, width = (vision.image_size // vision.patch_size) ** 2, vision.hidden_size
    linear = 4 * width**2 + 2 * width * vision.intermediate_size
    layer = 2 * patches * linear + 4 * patches**2 * width
    projector = 2 * vlm.n_cells * width * vlm.model.config.get_text_config().hidden_size
    return float(vision.num_hidden_layers * layer + projector) + embedding_flops(vlm)


def embedding_flops(vlm: Gemma3VLM) -> float:
    """Operations of cutting one picture into patch embeddings."""
    vision: Any = vlm.model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    return float(2 * patches * vision.num_channels * vision.patch_size**2 * vision.hidden_size)


def last_layer_flops(vlm: Gemma3VLM, length: int) -> float:
    """Operations of the last decoder layer behind its keys and values, which a prefix of `length` does without."""
    text: Any = vlm.model.config.get_text_config()
    width, heads = text.hidden_size, text.num_attention_heads * text.head_dim
    linear = width * heads + 3 * width * text.intermediate_size
    return float(2 * length * linear + 4 * length * length * heads)


def decoder_flops(vlm: Gemma3VLM, new: int, seen: int, products: int = 2) -> float:
    """Operations of all decoder layers for `new` positions that attend to `seen` ones, masked or not.

    Args:
        vlm: the model.
        new: positions that pass the layers.
        seen: positions that their attention reaches.
        products: matrix products of an attention: 2 forwards, 4 backwards (frozen weights: the projections' backward
            costs what their forward does).
    """
    text: Any = vlm.model.config.get_text_config()
    width, heads = text.hidden_size, text.num_attention_heads * text.head_dim
    linear = 2 * width * (heads + text.num_key_value_heads * text.head_dim) + 3 * width * text.intermediate_size
    return float(text.num_hidden_layers * (2 * new * linear + 2 * products * new * seen * heads))


def logits_flops(vlm: Gemma3VLM, positions: int) -> float:
    """Operations of the full logits of so many positions."""
    text: Any = vlm.model.config.get_text_config()
    return float(2 * positions * text.hidden_size * text.vocab_size)


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of the best of some large square matrix products."""
    side = 8192 if device.type == "cuda" else 1536
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    left @ right
    return 2 * side**3 / min(wall(device, lambda: left @ right) for _ in range(7))


class PeakMemory:
    """Peak memory of a piece of work in bytes: the accelerator's, or the process's where Linux can reset its peak."""

    value: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Measure the peak inside the block; None where the peak of before cannot be forgotten."""
    result, clear = PeakMemory(), Path("/proc/self/clear_refs")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield result
        result.value = torch.cuda.max_memory_allocated(device)
        return
    try:
        clear.write_text("5")
    except OSError:
        yield result
        return
    yield result
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    result.value = int(peak.split()[1]) * 1024
