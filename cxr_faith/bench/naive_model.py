"""The passes of the usual recipe: a whole forward for every picture, eager attention, the logits of all positions."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from cxr_faith.bench.scene import Scene
from cxr_faith.vlm.base import Prompt

Floats = NDArray[np.float64]


@dataclass
class NaiveCounts:
    """Pictures that passed the whole model, the tower alone, the decoder alone, or the decoder backwards."""

    forward: int = 0
    encode: int = 0
    trace: int = 0
    backward: int = 0


class NaiveModel:
    """The model and the picture of a scene, run plainly.

    Args:
        scene: the scene; nothing is computed yet.

    Attributes:
        counts: work done so far.
    """

    def __init__(self, scene: Scene) -> None:
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

    def blurred(self) -> NDArray[np.float32]:
        """The substrate picture, made anew for every curve."""
        sigmas = [self.sigma * side for side in self.picture.shape[1:]]
        radii = [min(int(np.ceil(3 * s)), side - 1) for s, side in zip(sigmas, self.picture.shape[1:], strict=True)]
        # SciPy calls the reflection that leaves the edge pixel out "mirror".
        blurred: NDArray[np.float32] = gaussian_filter(self.picture, (0, *sigmas), mode="mirror", radius=(0, *radii))
        return blurred

    def cell_size(self) -> tuple[int, int]:
        """Height and width of a cell in pixels."""
        (height, width), (rows, columns) = self.picture.shape[1:], self.vlm.grid
        return height // rows, width // columns

    def _ids(self, prompt: Prompt, batch: int) -> Tensor:
        return torch.tensor([prompt.prefix_ids + prompt.suffix_ids] * batch, device=self.vlm.device)

    def _margin(self, logits: Tensor, sign: int) -> Tensor:
        yes, no = logits[:, list(self.vlm.yes_ids)], logits[:, list(self.vlm.no_ids)]
        return sign * (yes.float().logsumexp(-1) - no.float().logsumexp(-1))

    def scores(self, pictures: NDArray[np.float32], prompt: Prompt, sign: int) -> Floats:
        """Signed margins [batch] of pictures [batch, 3, H, W]."""
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

    def tokens(self, picture: NDArray[np.float32]) -> Tensor:
        """Image tokens [1, N, hidden] of a picture [3, H, W]."""
        self.counts.encode += 1
        pixels = torch.from_numpy(picture[None]).to(self.vlm.device, self.model.dtype)
        with torch.no_grad():
            tokens: Tensor = self.model.model.get_image_features(pixels).pooler_output
        return tokens

    def run(self, tokens: Tensor, prompt: Prompt, sign: int) -> tuple[Tensor, tuple[Tensor, ...]]:
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

    def image_columns(self, prompt: Prompt) -> slice:
        """Where the image tokens stand in the sequence."""
        return slice(prompt.image_start, prompt.image_start + self.vlm.n_cells)
