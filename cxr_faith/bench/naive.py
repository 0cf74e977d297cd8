"""The usual recipe, written plainly, as the benchmark's yardstick: nothing is shared, nothing is saved.

One method, one curve and one question at a time; masks are made with NumPy and SciPy on the CPU; attributions come from
`output_attentions=True` with products of whole relevancy matrices.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxr_faith.bench.naive_model import Floats, NaiveModel
from cxr_faith.bench.presets import METHODS
from cxr_faith.vlm.base import Prompt


class Naive(NaiveModel):
    """Answers, curves and maps by the usual recipe."""

    def answer(self, prompt: Prompt) -> float:
        """Margin of the first step on the intact picture."""
        return float(self.scores(self.picture[None], prompt, 1)[0])

    def curve(self, prompt: Prompt, sign: int, order: NDArray[np.int64], k: NDArray[np.int64], mode: str) -> Floats:
        """Scores [T + 1] of a deletion or insertion curve, every point of it."""
        removed, points = self.blurred(), []
        for count in k:
            changed = np.zeros(self.vlm.n_cells, bool)
            changed[order[:count]] = True
            keep = changed if mode == "insertion" else ~changed
            mask = np.kron(keep.reshape(self.vlm.grid), np.ones(self.cell_size(), bool))
            points.append(np.where(mask, self.picture, removed))
        scores = [
            self.scores(np.stack(points[start : start + self.preset.naive_batch]), prompt, sign)
            for start in range(0, len(points), self.preset.naive_batch)
        ]
        return np.concatenate(scores)

    def maps(self, prompt: Prompt, sign: int, ig_steps: int) -> dict[str, Floats]:
        """Maps [grid_h, grid_w] of the six methods, each from separate passes."""
        tokens, removed = self.tokens(self.picture), self.tokens(self.blurred())
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

    def _attention(self, tokens: Tensor, prompt: Prompt, sign: int) -> Tensor:
        with torch.no_grad():
            _, attentions = self.run(tokens, prompt, sign)
        return torch.stack(attentions).float().mean((0, 1, 2))[-1, self.image_columns(prompt)]

    def _rollout(self, tokens: Tensor, prompt: Prompt, sign: int) -> Tensor:
        with torch.no_grad():
            _, attentions = self.run(tokens, prompt, sign)
        product = torch.eye(attentions[0].shape[-1], device=tokens.device)
        for attention in attentions:
            mixed = attention[0].float().mean(0) / 2 + torch.eye(len(product), device=tokens.device) / 2
            product = mixed / mixed.sum(-1, keepdim=True) @ product
        return product[-1, self.image_columns(prompt)]

    def _chefer(self, tokens: Tensor, prompt: Prompt, sign: int) -> Tensor:
        with torch.enable_grad():
            score, attentions = self.run(tokens.detach().requires_grad_(), prompt, sign)
            gradients = torch.autograd.grad(score, attentions)
        self.counts.backward += 1
        relevancy = torch.eye(attentions[0].shape[-1], device=tokens.device)
        for attention, gradient in zip(attentions, gradients, strict=True):
            relevancy = relevancy + (gradient.float() * attention.detach().float())[0].clamp_min(0).mean(0) @ relevancy
        return relevancy[-1, self.image_columns(prompt)]

    def _gradient(self, tokens: Tensor, prompt: Prompt, sign: int) -> Tensor:
        with torch.enable_grad():
            leaf = tokens.detach().float().requires_grad_()
            score, _ = self.run(leaf, prompt, sign)
            gradient = torch.autograd.grad(score, leaf)[0]
        self.counts.backward += 1
        return gradient[0]

    def _integrated(self, tokens: Tensor, removed: Tensor, prompt: Prompt, sign: int, steps: int) -> Tensor:
        path = tokens - removed
        total = torch.zeros_like(path[0], dtype=torch.float32)
        for step in range(steps):
            total += self._gradient(removed + (step + 0.5) / steps * path, prompt, sign)
        return (total / steps * path[0]).sum(-1)
