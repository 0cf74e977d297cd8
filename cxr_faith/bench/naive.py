"""The usual recipe, written plainly, as the benchmark's yardstick: nothing is shared, nothing is saved.

Eager attention and the logits of all positions; one method, one curve and one question at a time; masks made with NumPy
and SciPy on the CPU; attributions from `output_attentions=True` with products of whole relevancy matrices.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from cxr_faith.bench.scene import METHODS, Scene
from cxr_faith.vlm.base import Prompt

Floats = NDArray[np.float64]


@dataclass
class NaiveCounts:
    """Pictures that passed the whole model, the tower alone, the decoder alone, or the decoder backwards."""

    forward: int = 0
    encode: int = 0
    trace: int = 0
    backward: int = 0


class Naive:
    """The usual recipe on the picture of a scene.

    Attributes:
        counts: work done so far.
    """

    def __init__(self, scene: Scene) -> None:
        """Take the model and the picture; nothing is computed yet."""
        self.vlm, self.preset = scene.vlm, scene.preset
        self.model: Any = scene.vlm.model
        self.picture = scene.pixels.float().cpu().numpy()
        self.sigma = scene.substrate.sigma
        self.counts = NaiveCounts()

    @contextmanager
    def eager(self) -> Iterator[None]:
        """The same weights with eager attention."""
        before = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")
        try:
            yield
        finally:
            self.model.set_attn_implementation(before)

    def curve(self, prompt: Prompt, sign: int, order: NDArray[np.int64], k: NDArray[np.int64], mode: str) -> Floats:
        """Scores [T + 1] of a deletion or insertion curve, every point of it."""
        removed, points = self.blurred(), []
        for count in k:
            changed = np.zeros(self.vlm.n_cells, bool)
            changed[order[:count]] = True
            keep = changed if mode == "insertion" else ~changed
            mask = np.kron(keep.reshape(self.vlm.grid), np.ones(self._cell(), bool))
            points.append(np.where(mask, self.picture, removed))
        scores = [
            self._scores(np.stack(points[start : start + self.preset.naive_batch]), prompt, sign)
            for start in range(0, len(points), self.preset.naive_batch)
        ]
        return np.concatenate(scores)

    def maps(self, prompt: Prompt, sign: int, ig_steps: int) -> dict[str, Floats]:
        """Maps [gH, gW] of the six methods, each from passes of its own."""
        tokens, removed = self._tokens(self.picture), self._tokens(self.blurred())
        flat = {
            "attention": self._attention(tokens, prompt, sign),
            "rollout": self._rollout(tokens, prompt, sign),
            "chefer": self._chefer(tokens, prompt, sign),
            "gradient": self._gradient(tokens, prompt, sign).norm(dim=-1),
            "grad_x_input": (self._gradient(tokens, prompt, sign) * (tokens - removed)).sum(-1),
            "integrated_gradients": self._integrated(tokens, removed, prompt, sign, ig_steps),
        }
        assert tuple(flat) == METHODS
        return {name: values.double().cpu().numpy().reshape(self.vlm.grid) for name, values in flat.items()}

    def answer(self, prompt: Prompt) -> float:
        """Margin of the first step on the intact picture."""
        return float(self._scores(self.picture[None], prompt, 1)[0])

    def _cell(self) -> tuple[int, int]:
        (height, width), (rows, columns) = self.picture.shape[1:], self.vlm.grid
        return height // rows, width // columns

    def blurred(self) -> NDArray[np.float32]:
        """The substrate picture, made anew for every curve."""
        sigmas = [self.sigma * side for side in self.picture.shape[1:]]
        radii = [min(int(np.ceil(3 * s)), side - 1) for s, side in zip(sigmas, self.picture.shape[1:], strict=True)]
        # SciPy calls the reflection that leaves the edge pixel out "mirror".
        blurred: NDArray[np.float32] = gaussian_filter(self.picture, (0, *sigmas), mode="mirror", radius=(0, *radii))
        return blurred

    def _ids(self, prompt: Prompt, batch: int) -> Tensor:
        return torch.tensor([prompt.prefix_ids + prompt.suffix_ids] * batch, device=self.vlm.device)

    def _margin(self, logits: Tensor, sign: int) -> Tensor:
        yes, no = logits[:, list(self.vlm.yes_ids)], logits[:, list(self.vlm.no_ids)]
        return sign * (yes.float().logsumexp(-1) - no.float().logsumexp(-1))

    def _scores(self, pictures: NDArray[np.float32], prompt: Prompt, sign: int) -> Floats:
        ids = self._ids(prompt, len(pictures))
        self.counts.forward += len(pictures)
        with torch.no_grad():
            logits = self.model(
                input_ids=ids,
                pixel_values=torch.from_numpy(pictures).to(self.vlm.device, self.model.dtype),
                token_type_ids=(ids == self.model.config.image_token_id).long(),
                attention_mask=torch.ones_like(ids),
            ).logits
        scores: Floats = self._margin(logits[:, -1], sign).double().cpu().numpy()
        return scores

    def _tokens(self, picture: NDArray[np.float32]) -> Tensor:
        self.counts.encode += 1
        pixels = torch.from_numpy(picture[None]).to(self.vlm.device, self.model.dtype)
        with torch.no_grad():
            tokens: Tensor = self.model.model.get_image_features(pixels).pooler_output
        return tokens

    def _run(self, tokens: Tensor, prompt: Prompt, sign: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(score, attention probabilities of all layers) for image tokens [1, N, hidden]."""
        ids = self._ids(prompt, 1)
        is_image = ids == self.model.config.image_token_id
        embedded = self.model.get_input_embeddings()(ids.masked_fill(is_image, 0))
        self.counts.trace += 1
        output = self.model(
            inputs_embeds=embedded.masked_scatter(is_image[..., None], tokens.to(embedded.dtype)),
            token_type_ids=is_image.long(),
            attention_mask=torch.ones_like(ids),
            output_attentions=True,
            use_cache=False,
        )
        return self._margin(output.logits[:, -1], sign)[0], output.attentions

    def _image(self, prompt: Prompt) -> slice:
        return slice(prompt.image_start, prompt.image_start + self.vlm.n_cells)

    def _attention(self, tokens: Tensor, prompt: Prompt, sign: int) -> Tensor:
        with torch.no_grad():
            _, attentions = self._run(tokens, prompt, sign)
        return torch.stack(attentions).float().mean((0, 1, 2))[-1, self._image(prompt)]

    def _rollout(self, tokens: Tensor, prompt: Prompt, sign: int) -> Tensor:
        with torch.no_grad():
            _, attentions = self._run(tokens, prompt, sign)
        product = torch.eye(attentions[0].shape[-1], device=tokens.device)
        for attention in attentions:
            mixed = attention[0].float().mean(0) / 2 + torch.eye(len(product), device=tokens.device) / 2
            product = mixed / mixed.sum(-1, keepdim=True) @ product
        return product[-1, self._image(prompt)]

    def _chefer(self, tokens: Tensor, prompt: Prompt, sign: int) -> Tensor:
        with torch.enable_grad():
            score, attentions = self._run(tokens.detach().requires_grad_(), prompt, sign)
            gradients = torch.autograd.grad(score, attentions)
        self.counts.backward += 1
        relevancy = torch.eye(attentions[0].shape[-1], device=tokens.device)
        for attention, gradient in zip(attentions, gradients, strict=True):
            relevancy = relevancy + (gradient.float() * attention.detach().float())[0].clamp_min(0).mean(0) @ relevancy
        return relevancy[-1, self._image(prompt)]

    def _gradient(self, tokens: Tensor, prompt: Prompt, sign: int) -> Tensor:
        with torch.enable_grad():
            leaf = tokens.detach().float().requires_grad_()
            score, _ = self._run(leaf, prompt, sign)
            gradient = torch.autograd.grad(score, leaf)[0]
        self.counts.backward += 1
        return gradient[0]

    def _integrated(self, tokens: Tensor, removed: Tensor, prompt: Prompt, sign: int, steps: int) -> Tensor:
        path = tokens - removed
        total = torch.zeros_like(path[0], dtype=torch.float32)
        for step in range(steps):
            total += self._gradient(removed + (step + 0.5) / steps * path, prompt, sign)
        return (total / steps * path[0]).sum(-1)
