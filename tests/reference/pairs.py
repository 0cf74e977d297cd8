"""The substrate `pair`, slowly: two files, cell by cell, one whole forward for each picture."""

import numpy as np
import torch
from PIL import Image

from tests.reference import gemma


def model_pixels(vlm, file):
    """A picture file as the model gets it, float32 [3, H, W], resized and scaled by the processor itself."""
    encoded = vlm.processor.image_processor(Image.open(file).convert("RGB"), return_tensors="pt")
    return encoded["pixel_values"][0]


def margin_without(vlm, model, file, pair_file, removed_cells, question):
    """Margin of a question about a picture whose removed cells are those of its pair."""
    kept = [cell not in set(removed_cells) for cell in range(vlm.n_cells)]
    original, pair = (model_pixels(vlm, each).numpy() for each in (file, pair_file))
    picture = torch.from_numpy(np.ascontiguousarray(gemma.compose(original, pair, kept, vlm.grid)))
    return gemma.margin(vlm, gemma.all_logits(vlm, model, picture, question)[-1])
